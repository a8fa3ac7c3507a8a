"""Films of what policies did."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from lam_ros.cli.report import film
from lam_ros.cli.trial import FAILURE_FPS, FAILURE_HEIGHT, film_failure
from lam_ros.config import RobotConfig
from lam_ros.demonstrations.episode import EpisodeWriter, Topic, open_episode
from lam_ros.demonstrations.messages import IMAGE, image


def test_small_pictures_are_made_larger_and_large_ones_are_not(tmp_path: Path) -> None:
    for height, width, times in ((96, 96, 3), (480, 640, 1)):
        file = tmp_path / f"{height}.webp"
        assert film([(0, "front", np.zeros((height, width, 3), np.uint8))] * 2, file)
        with Image.open(file) as written:
            assert written.size == (times * (width + 4), times * height)
    assert not film([], tmp_path / "none.webp")


def test_a_failure_on_a_real_robots_cameras_is_filmed_in_small_pictures_and_few(
    tmp_path: Path, robot: RobotConfig
) -> None:
    cameras = {n: dataclasses.replace(c, width=640, height=480) for n, c in robot.cameras.items()}
    large = dataclasses.replace(robot, cameras=cameras)
    writer = EpisodeWriter.of(large, tmp_path / "episodes", "wave")
    for camera in cameras.values():
        writer.add_topic(Topic(camera.topic, IMAGE))
    seconds = 1.0
    for tick in range(round(30 * seconds)):
        stamp_ns = 10**9 + tick * 33_333_333
        for camera in cameras.values():
            shown = np.full((480, 640, 3), 8 * tick, np.uint8)
            writer.write(camera.topic, image(stamp_ns, shown, camera.frame_id), stamp_ns)
    file = tmp_path / "failure.webp"
    film_failure(open_episode(writer.seal("failure")), large, file)
    with Image.open(file) as written:
        assert written.size == (2 * (320 + 4), FAILURE_HEIGHT)
        assert written.n_frames == round(FAILURE_FPS * seconds)
