"""Serialized ROS 2 messages made without ROS: for what comes from other formats, and for changed pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lam_ros.contract import NANOSECONDS
from lam_ros.demonstrations.wire import typestore

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE = "sensor_msgs/msg/JointState"


def _header(stamp_ns: int, frame_id: str) -> Any:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image(stamp_ns: int, rgb: np.ndarray, frame_id: str = "") -> bytes:
    """A sensor_msgs/Image of uint8 (H, W, 3) RGB."""
    height, width, _ = rgb.shape
    pixels = np.ascontiguousarray(rgb).ravel()
    message = typestore().types[IMAGE](_header(stamp_ns, frame_id), height, width, "rgb8", 0, 3 * width, pixels)
    return bytes(typestore().serialize_cdr(message, IMAGE))


def joint_state(stamp_ns: int, names: Sequence[str], positions: np.ndarray, frame_id: str = "") -> bytes:
    """A sensor_msgs/JointState with positions (J,) in rad or m."""
    nothing = np.zeros(0)
    message = typestore().types[JOINT_STATE](
        _header(stamp_ns, frame_id), list(names), np.asarray(positions, np.float64), nothing, nothing
    )
    return bytes(typestore().serialize_cdr(message, JOINT_STATE))


def compressed_image(stamp_ns: int, data: bytes, kind: str, frame_id: str = "") -> bytes:
    """A sensor_msgs/CompressedImage; ``kind`` is its format, such as ``jpeg``."""
    content = np.frombuffer(data, dtype=np.uint8)
    message = typestore().types[COMPRESSED_IMAGE](_header(stamp_ns, frame_id), kind, content)
    return bytes(typestore().serialize_cdr(message, COMPRESSED_IMAGE))
