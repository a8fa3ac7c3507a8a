"""From image messages to RGB arrays, with NumPy views. Messages are read by their fields alone, so the same code serves
the live nodes (rclpy messages) and recorded episodes (rosbags messages)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

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


class UnknownEncodingError(ImageError):
    """An encoding that NumPy views do not cover; cv_bridge may."""


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
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ImageError(
            f"a compressed image of format {message.format!r} and {data.size} bytes cannot be decoded; "
            "check the driver, or use its raw topic."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def scale_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) at the policy's ``size`` (width, height); the image itself where it has that size already."""
    if (image.shape[1], image.shape[0]) == tuple(size):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
