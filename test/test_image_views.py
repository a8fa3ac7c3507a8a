"""Serialized image messages are read in place, and never beyond their end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from lam_ros.errors import ImageError
from lam_ros.images import rgb_from_image, view_compressed, view_image

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types


def header(stamp_ns: int, frame_id: str):
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def serialized(rows: np.ndarray, encoding: str, step: int, frame_id: str = "camera", little: bool = True) -> bytes:
    message = TYPES["sensor_msgs/msg/Image"](
        header=header(1_700_000_000_123_456_789, frame_id), height=rows.shape[0], width=rows.shape[1],
        encoding=encoding, is_bigendian=0, step=step, data=rows.reshape(-1).view(np.uint8),
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image", little_endian=little))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=9), st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_every_alignment_and_byte_order_reads_the_same(frame_id: str, height: int, width: int, little: bool) -> None:
    frame_id = frame_id.replace("\0", "")
    rows = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    view = view_image(serialized(rows, "rgb8", width * 3, frame_id, little))
    assert (view.stamp_ns, view.frame_id) == (1_700_000_000_123_456_789, frame_id)
    assert (view.height, view.width, view.encoding, view.step) == (height, width, "rgb8", width * 3)
    np.testing.assert_array_equal(rgb_from_image(view), rows)


def test_pixels_are_not_copied() -> None:
    message = serialized(np.zeros((4, 5, 3), np.uint8), "rgb8", 15)
    assert np.shares_memory(np.frombuffer(message, np.uint8), rgb_from_image(view_image(message)))


def test_compressed() -> None:
    data = np.arange(33, dtype=np.uint8)
    message = TYPES["sensor_msgs/msg/CompressedImage"](header=header(5, "eye"), format="jpeg", data=data)
    view = view_compressed(bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/CompressedImage")))
    assert (view.stamp_ns, view.frame_id, view.format) == (5, "eye", "jpeg")
    np.testing.assert_array_equal(np.frombuffer(view.data, np.uint8), data)


@pytest.mark.parametrize("read", [view_image, view_compressed])
def test_what_was_cut_short_is_an_image_error(read) -> None:
    whole = serialized(np.zeros((4, 5, 3), np.uint8), "rgb8", 15)
    for length in range(len(whole)):
        try:
            view = read(whole[:length])
        except ImageError:
            continue
        assert len(view.data) <= length


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_hostile_bytes_are_an_image_error_or_stay_inside(noise: bytes) -> None:
    for read in (view_image, view_compressed):
        try:
            assert len(read(noise).data) <= len(noise)
        except ImageError:
            continue
