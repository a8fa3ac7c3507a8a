"""Serialized ROS 2 messages without ROS: header stamps from the bytes, and decoding with rosbags."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from lam_ros.contract import NANOSECONDS
from lam_ros.errors import EpisodeError


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The standard messages' definitions; they are the same on every distribution from Humble on."""
    return get_typestore(Stores.ROS2_JAZZY)


@lru_cache(maxsize=1024)
def begins_with_header(definition_text: str) -> bool:
    """Whether the first field of a message definition is a std_msgs/Header."""
    for line in definition_text.splitlines():
        words = line.partition("#")[0].split()
        if words and "=" not in line:  # not a constant
            return words[0] in ("std_msgs/Header", "std_msgs/msg/Header", "Header")
    return False


def header_stamp_ns(data: bytes) -> int:
    """The stamp of a serialized message that begins with a header; 0 where the bytes are too few, or it says so.

    A CDR message begins with 4 bytes of encapsulation, whose second byte tells the byte order, then sec and nanosec.
    A stamp of zero means "now" to trajectory controllers; one before 1970 means nothing, and MCAP cannot hold it.
    """
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return max(0, int(seconds) * NANOSECONDS + int(nanoseconds))


def header_frame_id(data: bytes) -> str:
    """The header's frame_id of a serialized message that begins with a header; empty where the bytes are too few."""
    if len(data) < 16:
        return ""
    order = "<I" if data[1] & 1 else ">I"
    (length,) = struct.unpack_from(order, data, 12)
    return data[16 : 16 + max(0, length - 1)].decode("utf-8", "replace")


def definition(msgtype: str) -> tuple[str, str]:
    """The message definition's text and its RIHS01 hash; both empty for a type that is not standard."""
    store = typestore()
    if msgtype not in store.fielddefs:
        return "", ""
    text, _ = store.generate_msgdef(msgtype, ros_version=2)
    return text, store.hash_rihs01(msgtype)


def decode(msgtype: str, data: bytes) -> Any:
    """The message's fields as an object.

    Raises:
        EpisodeError: the bytes are not a message of that type.
    """
    try:
        return typestore().deserialize_cdr(data, msgtype)
    except Exception as error:  # rosbags raises whatever its generated code meets in damaged bytes
        raise EpisodeError(f"a message of {msgtype} ({len(data)} bytes) cannot be decoded: {error!r}") from None


def stamp_ns_of(message: Any) -> int:
    """The header's stamp of a decoded message."""
    return int(message.header.stamp.sec) * NANOSECONDS + int(message.header.stamp.nanosec)
