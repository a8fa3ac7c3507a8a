"""Stamps and fields straight from serialized messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lam_ros.demonstrations.wire import (
    begins_with_header,
    decode,
    definition,
    header_frame_id,
    header_stamp_ns,
    stamp_ns_of,
)
from lam_ros.errors import EpisodeError

JOINTS = "sensor_msgs/msg/JointState"
STAMP_NS = 1_700_000_000_123_456_789


@pytest.mark.parametrize("little_endian", [True, False])
def test_the_stamp_and_frame_are_read_from_the_bytes(messages: Any, little_endian: bool) -> None:
    data = messages.joint_state(STAMP_NS, [0.0] * 7, frame_id="teleop", little_endian=little_endian)
    assert header_stamp_ns(data) == STAMP_NS
    assert header_frame_id(data) == "teleop"


@pytest.mark.parametrize("frame_id", ["", "policy", "küche"])
def test_any_frame_id_is_read(messages: Any, frame_id: str) -> None:
    assert header_frame_id(messages.joint_state(0, [0.0] * 7, frame_id=frame_id)) == frame_id


@pytest.mark.parametrize("stamp_ns", [0, -1, -(10**9)])
def test_a_stamp_that_says_nothing_is_none(messages: Any, stamp_ns: int) -> None:
    assert header_stamp_ns(messages.joint_state(stamp_ns, [0.0] * 7)) == 0


def test_too_few_bytes_have_no_stamp(messages: Any) -> None:
    assert header_stamp_ns(messages.joint_state(STAMP_NS, [0.0] * 7)[:11]) == 0


@pytest.mark.parametrize(
    ("msgtype", "expected"),
    [
        (JOINTS, True),
        ("sensor_msgs/msg/CompressedImage", True),
        ("diagnostic_msgs/msg/DiagnosticArray", True),
        ("std_msgs/msg/Bool", False),
        ("tf2_msgs/msg/TFMessage", False),
        ("visualization_msgs/msg/MarkerArray", False),
        ("visualization_msgs/msg/Marker", True),  # constants stand before its header
    ],
)
def test_whether_a_type_begins_with_a_header(msgtype: str, expected: bool) -> None:
    text, digest = definition(msgtype)
    assert begins_with_header(text) is expected
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
