"""Image messages become RGB arrays, whatever their encoding, padding and byte order."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lam_ros.errors import ImageError
from lam_ros.images import (
    NATIVE_ENCODINGS,
    UnknownEncodingError,
    pixels,
    rgb_from_compressed,
    rgb_from_image,
    scale_image,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def message(array: np.ndarray, encoding: str, padding: int = 0, is_bigendian: bool = False) -> SimpleNamespace:
    """A sensor_msgs/Image by its fields; each row ends with ``padding`` bytes of rubbish."""
    swapped = array.astype(array.dtype.newbyteorder(">" if is_bigendian else "<"))
    rows = np.frombuffer(swapped.tobytes(), np.uint8).reshape(array.shape[0], -1)
    padded = np.hstack([rows, np.full((len(rows), padding), 77, np.uint8)])
    return SimpleNamespace(
        encoding=encoding,
        height=array.shape[0],
        width=array.shape[1],
        step=padded.shape[1],
        is_bigendian=int(is_bigendian),
        data=padded.ravel(),
    )


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("rgb8", RGB),
        ("8UC3", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, ALPHA], 2)),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], 2)),
    ],
)
def test_colour_becomes_rgb(encoding: str, sent: np.ndarray, padding: int) -> None:
    np.testing.assert_array_equal(rgb_from_image(message(sent, encoding, padding)), RGB)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("mono8", RGB[..., 0], RGB[..., 0]),
        ("8UC1", RGB[..., 0], RGB[..., 0]),
        ("mono16", GREY16, GREY16 // 256),
        ("16UC1", GREY16, GREY16 // 256),
        ("32FC1", (RGB[..., 0] / 255).astype(np.float32), RGB[..., 0]),
    ],
)
def test_grey_fills_all_three_channels(
    encoding: str, sent: np.ndarray, expected: np.ndarray, is_bigendian: bool, padding: int
) -> None:
    rgb = rgb_from_image(message(sent, encoding, padding, is_bigendian))
    assert rgb.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], expected)


def test_floats_are_clipped_and_nan_is_black() -> None:
    sent = np.array([[np.nan, -1.0, 0.0, 0.5, 1.0, 7.0, np.inf, -np.inf]], np.float32)
    rgb = rgb_from_image(message(sent, "32FC1"))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 0, 0, 128, 255, 255, 255, 0])


def test_pixels_are_a_view_on_the_message() -> None:
    sent = message(RGB, "rgb8", padding=2)
    assert np.shares_memory(pixels(sent), sent.data)
    assert np.shares_memory(rgb_from_image(sent), sent.data)


def test_other_byte_orders_are_turned() -> None:
    view = pixels(message(GREY16, "mono16", is_bigendian=True))
    assert view.dtype.isnative
    np.testing.assert_array_equal(view[..., 0], GREY16)


def test_the_last_row_needs_no_padding() -> None:
    sent = message(RGB, "rgb8", padding=4)
    sent.data = sent.data[:-4]
    np.testing.assert_array_equal(rgb_from_image(sent), RGB)


def test_an_unknown_encoding_lists_the_known_ones() -> None:
    sent = message(RGB, "bayer_rggb8")
    with pytest.raises(UnknownEncodingError, match=r"'bayer_rggb8' is none of .*rgb8.* install cv_bridge"):
        rgb_from_image(sent)
    assert issubclass(UnknownEncodingError, ImageError)
    assert "rgb8" in NATIVE_ENCODINGS


@pytest.mark.parametrize(
    "change", [{"step": 20}, {"height": 6}, {"height": 0}, {"width": 0}, {"data": np.zeros(104, np.uint8)}]
)
def test_a_message_that_promises_more_than_it_carries_is_refused(change: dict[str, object]) -> None:
    sent = message(RGB, "rgb8")
    vars(sent).update(change)
    with pytest.raises(ImageError, match=r"rgb8 with step .*the driver's message is broken"):
        rgb_from_image(sent)


def test_a_png_comes_back_as_it_went() -> None:
    ok, data = cv2.imencode(".png", RGB[..., ::-1])
    assert ok
    np.testing.assert_array_equal(rgb_from_compressed(SimpleNamespace(format="png", data=data.ravel())), RGB)


@pytest.mark.parametrize("data", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_compressed_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=rf"of format 'jpeg' and {len(data)} bytes cannot be decoded"):
        rgb_from_compressed(SimpleNamespace(format="jpeg", data=data))


def test_scaling_keeps_the_mean_and_the_right_size() -> None:
    image = RNG.integers(0, 256, (48, 96, 3), dtype=np.uint8)
    small = scale_image(image, (48, 24))
    assert small.shape == (24, 48, 3)
    blocks = image.reshape(24, 2, 48, 2, 3).mean((1, 3))
    np.testing.assert_allclose(small, blocks, atol=0.51)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (97, 300), (96, 96)])
def test_no_pixel_is_skipped_in_scaling(size: tuple[int, int]) -> None:
    width, height = size
    for _ in range(20):
        image = np.zeros((height, width, 3), np.uint8)
        row, column = RNG.integers(height), RNG.integers(width)
        image[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 255
        small = scale_image(image, (96, 48)).astype(int)
        assert small.shape == (48, 96, 3)
        y, x = np.unravel_index(small[..., 0].argmax(), small.shape[:2])
        assert small.max() > 0
        assert abs((y + 0.5) * height / 48 - row - 0.5) <= height / 48 + 1
        assert abs((x + 0.5) * width / 96 - column - 0.5) <= width / 96 + 1


def test_an_image_of_the_right_size_is_not_copied() -> None:
    assert scale_image(RGB, (7, 5)) is RGB


def test_a_header_that_promises_more_pixels_than_opencv_takes_is_refused() -> None:
    _, data = cv2.imencode(".jpg", RGB)
    raw = bytearray(data.tobytes())
    at = raw.index(b"\xff\xc0")  # the frame's header: its height and width follow five bytes on
    raw[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"
    with pytest.raises(ImageError, match="cannot be decoded"):
        rgb_from_compressed(SimpleNamespace(format="jpeg", data=bytes(raw)))
