"""Image messages for the nodes: the core's views, cv_bridge for every other encoding, and messages made fast."""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from lam_ros.errors import ImageError
from lam_ros.images import (
    CompressedView,
    ImageView,
    UnknownEncodingError,
    rgb_from_compressed,
    rgb_from_image,
    view_compressed,
    view_image,
)
from lam_ros.nodes.base import ns_to_stamp


def view(serialized: bytes, is_compressed: bool) -> ImageView | CompressedView:
    """Read a serialized Image or CompressedImage in place; raises ImageError when it is cut short."""
    return view_compressed(serialized) if is_compressed else view_image(serialized)


def to_rgb(image: ImageView | CompressedView) -> np.ndarray:
    """uint8 (H, W, 3) RGB.

    Raises:
        ImageError: the message is broken, or its encoding needs cv_bridge and there is none; the message says which
            package to install.
    """
    if isinstance(image, CompressedView):
        return rgb_from_compressed(image)
    try:
        return rgb_from_image(image)
    except UnknownEncodingError as unknown:
        return _with_cv_bridge(image, unknown)


def _with_cv_bridge(image: ImageView, unknown: UnknownEncodingError) -> np.ndarray:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise unknown from None
    message = Image(height=image.height, width=image.width, encoding=image.encoding, step=image.step)
    message.is_bigendian = image.is_bigendian
    message.data = array.array("B", image.data)
    try:
        converted: np.ndarray = CvBridge().imgmsg_to_cv2(message, "rgb8")
    except CvBridgeError as error:
        raise ImageError(f"cv_bridge cannot convert {image.encoding!r} to RGB: {error}") from None
    return converted


def _filled(message: Image, values: np.ndarray) -> Image:
    message.height, message.width = values.shape[:2]
    message.step = values.strides[0]
    data = array.array("B")
    data.frombytes(values.data.cast("B"))  # the generated setter would check or copy each byte
    message.data = data
    return message


def image_message(rgb: np.ndarray, stamp_ns: int, frame_id: str) -> Image:
    """sensor_msgs/Image of uint8 (H, W, 3) RGB."""
    message = Image(encoding="rgb8", is_bigendian=0)
    message.header.stamp, message.header.frame_id = ns_to_stamp(stamp_ns), frame_id
    return _filled(message, np.ascontiguousarray(rgb))


def compressed_message(rgb: np.ndarray, stamp_ns: int, frame_id: str, quality: int = 95) -> CompressedImage:
    """sensor_msgs/CompressedImage (JPEG) of uint8 (H, W, 3) RGB."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    message.header.stamp, message.header.frame_id = ns_to_stamp(stamp_ns), frame_id
    data = array.array("B")
    data.frombytes(jpeg.tobytes())
    message.data = data
    return message


def features_message(values: np.ndarray, stamp_ns: int, checkpoint_digest: str) -> Image:
    """Features float32 (C, D) as sensor_msgs/Image 32FC1: height C, width D, frame_id the checkpoint's digest."""
    message = Image(encoding="32FC1", is_bigendian=0)
    message.header.stamp, message.header.frame_id = ns_to_stamp(stamp_ns), checkpoint_digest
    return _filled(message, np.ascontiguousarray(values, dtype="<f4"))
