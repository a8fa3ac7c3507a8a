"""Serialized messages and episodes, made without ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.episode import Episode, EpisodeWriter, Outcome, Topic, open_episode
from lam_ros.demonstrations.wire import typestore

IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
FRONT, WRIST = "/camera/front/image_raw", "/camera/wrist/image_raw"
MS = 1_000_000


class Messages:
    """Serialized messages of one robot."""

    def __init__(self, robot: RobotConfig) -> None:
        self.joints = list(robot.joint_names)

    def header(self, stamp_ns: int, frame_id: str = "") -> Any:
        types = typestore().types
        stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def image(self, stamp_ns: int, rgb: np.ndarray, little_endian: bool = True) -> bytes:
        height, width, _ = rgb.shape
        message = typestore().types[IMAGE](
            self.header(stamp_ns), height, width, "rgb8", 0, 3 * width, np.ascontiguousarray(rgb).ravel()
        )
        return bytes(typestore().serialize_cdr(message, IMAGE, little_endian=little_endian))

    def joint_state(
        self, stamp_ns: int, positions: Sequence[float], frame_id: str = "", little_endian: bool = True
    ) -> bytes:
        empty = np.zeros(0)
        message = typestore().types[JOINTS](
            self.header(stamp_ns, frame_id), self.joints, np.asarray(positions, np.float64), empty, empty
        )
        return bytes(typestore().serialize_cdr(message, JOINTS, little_endian=little_endian))


class Recording:
    """An episode in the making: cameras, joint states and commands by their stamps in ms."""

    def __init__(self, dataset: Path, robot: RobotConfig, messages: Messages) -> None:
        self._messages = messages
        self.writer = EpisodeWriter(dataset, robot.name, robot.digest, "wave")
        for topic, msgtype, rate in (
            (FRONT, IMAGE, 20.0),
            (WRIST, IMAGE, 20.0),
            ("/joint_states", JOINTS, 100.0),
            ("/lam/command", JOINTS, None),
        ):
            self.writer.add_topic(Topic(topic, msgtype, rate))

    def image(self, topic: str, at_ms: float, grey: int) -> None:
        stamp = round(at_ms * MS)
        self.writer.write(topic, self._messages.image(stamp, np.full((96, 96, 3), grey, np.uint8)), stamp + MS)

    def state(self, at_ms: float, value: float) -> None:
        stamp = round(at_ms * MS)
        self.writer.write("/joint_states", self._messages.joint_state(stamp, [value] * 7), stamp + MS)

    def command(self, at_ms: float, value: float, driver: str = "teleop") -> None:
        stamp = round(at_ms * MS)
        self.writer.write("/lam/command", self._messages.joint_state(stamp, [value] * 7, driver), stamp + MS)

    def usual(self, ticks: int = 6, start_ms: int = 1000, taken_over: int = 0) -> Recording:
        """Both cameras at 20 Hz, states at 100 Hz and an answer 5 ms after each tick; before the tick ``taken_over``
        a policy drives."""
        for tick in range(ticks):
            at = start_ms + 50 * tick
            for step in range(5):
                self.state(at + 10 * step, tick + 0.1 * step)
            self.image(FRONT, at, 10 * tick)
            self.image(WRIST, at + 2, 10 * tick + 1)
            self.command(at + 5, 100.0 + tick, "policy" if tick < taken_over else "teleop")
        return self

    def sealed(self, outcome: Outcome = "success") -> Episode:
        return open_episode(self.writer.seal(outcome, (FRONT, WRIST, "/joint_states")))


@pytest.fixture
def messages(robot: RobotConfig) -> Messages:
    return Messages(robot)


@pytest.fixture
def recording(tmp_path: Path, robot: RobotConfig, messages: Messages) -> Recording:
    return Recording(tmp_path / "data", robot, messages)


@pytest.fixture
def record(robot: RobotConfig, messages: Messages) -> Callable[[Path], Recording]:
    """Begins an episode in a folder."""
    return lambda folder: Recording(folder, robot, messages)
