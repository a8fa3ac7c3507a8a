"""Stamps and fields straight from serialized messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lam_ros.demonstrations.wire import HEADER_TYPES, decode, definition, header_frame_id, header_stamp_ns, stamp_ns_of
from lam_ros.errors import EpisodeError

JOINTS = "sensor_msgs/msg/JointState"
STAMP_NS = 1_700_000_000_123_456_789


@pytest.mark.parametrize("little_endian", [True, False])
def test_the_stamp_and_frame_are_read_from_the_bytes(messages: Any, little_endian: bool) -> None:
    data = messages.joint_state(STAMP_NS, [0.0] * 7, frame_id="teleop", little_endian=little_endian)
    assert header_stamp_ns(JOINTS, data) == STAMP_NS
    assert header_frame_id(data) == "teleop"


@pytest.mark.parametrize("frame_id", ["", "policy", "küche"])
def test_any_frame_id_is_read(messages: Any, frame_id: str) -> None:
    assert header_frame_id(messages.joint_state(0, [0.0] * 7, frame_id=frame_id)) == frame_id


def test_types_without_a_header_have_no_stamp(messages: Any) -> None:
    data = messages.joint_state(STAMP_NS, [0.0] * 7)
    assert header_stamp_ns("std_msgs/msg/Bool", data) is None
    assert header_stamp_ns(JOINTS, data[:11]) is None


@pytest.mark.parametrize("msgtype", sorted(HEADER_TYPES))
def test_every_type_said_to_begin_with_a_header_does(msgtype: str) -> None:
    text, digest = definition(msgtype)
    assert text.split()[:2] == ["std_msgs/Header", "header"]
    assert digest.startswith("RIHS01_")


def test_an_unknown_type_has_no_definition() -> None:
    assert definition("my_robot_msgs/msg/Wings") == ("", "")


def test_decoding_gives_the_fields(messages: Any) -> None:
    message = decode(JOINTS, messages.joint_state(STAMP_NS, range(7)))
    assert stamp_ns_of(message) == STAMP_NS
    assert message.name == messages.joints
    np.testing.assert_array_equal(message.position, range(7))


@pytest.mark.parametrize("length", [0, 3, 15, 40, 100])
def test_truncated_bytes_are_refused(messages: Any, length: int) -> None:
    with pytest.raises(EpisodeError, match=rf"a message of {JOINTS} \({length} bytes\) cannot be decoded"):
        decode(JOINTS, messages.joint_state(STAMP_NS, [0.0] * 7)[:length])
