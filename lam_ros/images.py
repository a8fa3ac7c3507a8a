"""From image messages to RGB arrays, with NumPy views.

Serialized messages are read in place: rclpy's conversion of two 640x480 frames to Python messages makes 5 ms of 2 (see
benchmarks/README.md). The same code serves the live nodes and recorded episodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lam_ros.contract import NANOSECONDS
from lam_ros.errors import ImageError

# encoding: (dtype, channels, how the channels become RGB)
_LAYOUTS: dict[str, tuple[type[np.generic], int, str]] = {
    "rgb8": (np.uint8, 3, "rgb"),
    "8UC3": (np.uint8, 3, "rgb"),
    "bgr8": (np.uint8, 3, "bgr"),
    "rgba8": (np.uint8, 4, "rgb"),
    "bgra8": (np.uint8, 4, "bgr"),
    "mono8": (np.uint8, 1, "grey"),
    "8UC1": (np.uint8, 1, "grey"),
    "mono16": (np.uint16, 1, "grey"),
    "16UC1": (np.uint16, 1, "grey"),
    "32FC1": (np.float32, 1, "grey"),
}
NATIVE_ENCODINGS = tuple(_LAYOUTS)
DEPTH = ("16UC1", "32FC1")  # mm and m, says REP 118: as greys, almost black


class UnknownEncodingError(ImageError):
    """An encoding that NumPy views do not cover; cv_bridge may."""


@dataclass(frozen=True)
class ImageView:
    """A sensor_msgs/Image, read in place: the fields have the message's names."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedView:
    """A sensor_msgs/CompressedImage, read in place."""

    stamp_ns: int
    frame_id: str
    format: str
    data: memoryview


class _Cdr:
    """Reads one CDR message: 4 bytes of encapsulation, then values aligned to their size.

    OMG DDS-XTypes 1.3, section 7.4; plain CDR, which every ROS 2 middleware writes.
    """

    def __init__(self, serialized: bytes) -> None:
        self._bytes = memoryview(serialized)
        self._order = "<" if len(serialized) > 1 and serialized[1] & 1 else ">"
        self._at = 4

    def read(self, code: str) -> int:
        size = struct.calcsize(code)
        self._at += -(self._at - 4) % size
        (value,) = struct.unpack_from(self._order + code, self._bytes, self._at)
        self._at += size
        return int(value)

    def take(self, length: int) -> memoryview:
        if length > len(self._bytes) - self._at:
            raise ImageError(f"an image message promises {length} bytes more than it has; it was cut short.")
        part = self._bytes[self._at : self._at + length]
        self._at += length
        return part

    def text(self) -> str:
        return bytes(self.take(self.read("I"))).rstrip(b"\0").decode("utf-8", "replace")

    def stamp_ns(self) -> int:
        seconds = self.read("i")
        return seconds * NANOSECONDS + self.read("I")


def view_image(serialized: bytes) -> ImageView:
    """Read a serialized sensor_msgs/Image without copying its pixels.

    Raises:
        ImageError: it is cut short.
    """
    cdr = _Cdr(serialized)
    try:
        stamp_ns, frame_id = cdr.stamp_ns(), cdr.text()
        height, width, encoding = cdr.read("I"), cdr.read("I"), cdr.text()
        is_bigendian, step = cdr.read("B"), cdr.read("I")
        return ImageView(stamp_ns, frame_id, height, width, encoding, is_bigendian, step, cdr.take(cdr.read("I")))
    except struct.error:
        raise ImageError(f"an image message of {len(serialized)} bytes was cut short.") from None


def view_compressed(serialized: bytes) -> CompressedView:
    """Read a serialized sensor_msgs/CompressedImage without copying its data.

    Raises:
        ImageError: it is cut short.
    """
    cdr = _Cdr(serialized)
    try:
        return CompressedView(cdr.stamp_ns(), cdr.text(), cdr.text(), cdr.take(cdr.read("I")))
    except struct.error:
        raise ImageError(f"a compressed image message of {len(serialized)} bytes was cut short.") from None


def pixels(message: Any) -> np.ndarray:
    """The message's pixels (H, W, channels), unconverted: a view on its data where its byte order is this machine's.

    Padding at the end of rows (``step``) and byte order (``is_bigendian``) are honoured.

    Raises:
        UnknownEncodingError: the encoding is not one of NATIVE_ENCODINGS.
        ImageError: fewer bytes than height, step and encoding promise.
    """
    if message.encoding not in _LAYOUTS:
        raise UnknownEncodingError(
            f"the encoding {message.encoding!r} is none of {', '.join(NATIVE_ENCODINGS)}. "
            "Set the camera driver to one of these, or install cv_bridge (ros-<distro>-cv-bridge)."
        )
    kind, channels, _ = _LAYOUTS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * dtype.itemsize
    buffer = np.frombuffer(message.data, dtype=np.uint8)
    if height < 1 or width < 1 or step < row or buffer.size < step * (height - 1) + row:
        raise ImageError(
            f"an image says {width}x{height} {message.encoding} with step {step}, but carries {buffer.size} bytes; "
            "the driver's message is broken."
        )
    strides = (step, channels * dtype.itemsize, dtype.itemsize)
    view = np.ndarray((height, width, channels), dtype=dtype, buffer=buffer.data, strides=strides)
    return view if dtype.isnative else view.astype(dtype.newbyteorder("="))


def rgb_from_image(message: Any) -> np.ndarray:
    """uint8 (H, W, 3) RGB of a sensor_msgs/Image.

    16-bit greys keep their upper 8 bits; 32-bit floats are taken as 0 to 1, other values are clipped, NaN is 0.

    Raises:
        UnknownEncodingError, ImageError: see ``pixels``.
    """
    view = pixels(message)
    order = _LAYOUTS[message.encoding][2]
    if order == "rgb":
        return view[..., :3] if view.shape[2] == 3 else np.ascontiguousarray(view[..., :3])
    if order == "bgr":
        code = cv2.COLOR_BGR2RGB if view.shape[2] == 3 else cv2.COLOR_BGRA2RGB
        return cv2.cvtColor(np.ascontiguousarray(view), code)
    grey = view[..., 0]
    if grey.dtype == np.uint16:
        grey = (grey >> 8).astype(np.uint8)
    elif grey.dtype == np.float32:
        grey = (np.clip(np.nan_to_num(grey, posinf=1.0, neginf=0.0), 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_GRAY2RGB)


def rgb_from_compressed(message: Any) -> np.ndarray:
    """uint8 (H, W, 3) RGB of a sensor_msgs/CompressedImage (JPEG, PNG and whatever else OpenCV reads).

    Raises:
        ImageError: the data is no image.
    """
    data = np.frombuffer(message.data, dtype=np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        image = None
    if image is None:
        raise ImageError(
            f"a compressed image of format {message.format!r} and {data.size} bytes cannot be decoded; "
            "check the driver, or use its raw topic."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_frame(msgtype: str, serialized: bytes) -> tuple[int, np.ndarray]:
    """(header stamp in ns, uint8 (H, W, 3) RGB) of a serialized sensor_msgs Image or CompressedImage.

    Raises:
        UnknownEncodingError, ImageError: see ``rgb_from_image`` and ``rgb_from_compressed``.
    """
    if msgtype.endswith("/Image"):
        raw = view_image(serialized)
        return raw.stamp_ns, rgb_from_image(raw)
    compressed = view_compressed(serialized)
    return compressed.stamp_ns, rgb_from_compressed(compressed)


def scale_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) at the policy's ``size`` (width, height); the image itself where it has that size already.

    Each axis is halved, pixels to their mean, for as long as that fits; what is left, less than a factor of two, is
    bilinear. That takes a fraction of OpenCV's exact area step to any size, and skips no pixel either.
    """
    height, width = image.shape[:2]
    while width >= 2 * size[0] or height >= 2 * size[1]:
        width //= 1 + (width >= 2 * size[0])
        height //= 1 + (height >= 2 * size[1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if (width, height) == tuple(size):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
