"""Bags as `ros2 bag record` leaves them become sealed episodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.episode import read_topics
from lam_ros.demonstrations.interop.rosbag2 import import_bag
from lam_ros.demonstrations.wire import typestore
from lam_ros.errors import EpisodeError

SIZE = (24, 24)
TRAJECTORY, ARRAY = "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"
JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
MS = 1_000_000


class Bag:
    """A bag of 8 ticks: both cameras at 20 Hz, joint states at 100 Hz, and commands of some type after each tick."""

    def __init__(self, folder: Path, messages: Any, robot: RobotConfig) -> None:
        self.folder, self._messages, self._robot = folder, messages, robot

    def write(self, storage: StoragePlugin, commands: tuple[str, str], extra: bool = False) -> Path:
        store = typestore()
        with Writer(self.folder, version=9, storage_plugin=storage) as writer:
            kinds = {f"/{camera.topic}": IMAGE for camera in self._robot.cameras.values()}
            kinds |= {"/joint_states": JOINTS, commands[0]: commands[1]}
            to = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds.items()}
            if extra:
                own = typestore.__wrapped__()
                own.register(get_types_from_msg("int32 flaps\nstring mood", "bird_msgs/msg/Wings"))
                to["/wings"] = writer.add_connection("/wings", "bird_msgs/msg/Wings", typestore=own)
                wings = own.types["bird_msgs/msg/Wings"](flaps=3, mood="high")
                writer.write(to["/wings"], 1000 * MS, own.serialize_cdr(wings, "bird_msgs/msg/Wings"))
            for tick in range(8):
                at = 1000 + 50 * tick
                for step in range(5):
                    stamp = (at + 10 * step) * MS
                    writer.write(to["/joint_states"], stamp, self._messages.joint_state(stamp, [0.1 * tick] * 7))
                for topic in list(kinds)[:2]:
                    frame = np.full((96, 96, 3), 10 * tick, np.uint8)
                    writer.write(to[topic], at * MS, self._messages.image(at * MS, frame))
                if commands[0] != "/joint_states":
                    writer.write(to[commands[0]], (at + 5) * MS, self._command(commands[1], (at + 5) * MS, tick))
        return self.folder

    def _command(self, kind: str, stamp: int, tick: int) -> bytes:
        types, values = typestore().types, np.full(7, float(tick))
        if kind == JOINTS:
            return bytes(self._messages.joint_state(stamp, values))
        if kind == ARRAY:
            layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
            return bytes(typestore().serialize_cdr(types[ARRAY](layout=layout, data=values), ARRAY))
        duration = types["builtin_interfaces/msg/Duration"](sec=0, nanosec=0)
        nothing = np.zeros(0)
        point = types["trajectory_msgs/msg/JointTrajectoryPoint"](values, nothing, nothing, nothing, duration)
        header = self._messages.header(0)
        message = types[TRAJECTORY](header=header, joint_names=self._messages.joints, points=[point])
        return bytes(typestore().serialize_cdr(message, TRAJECTORY))


@pytest.fixture
def bag(tmp_path: Path, messages: Any, robot: RobotConfig) -> Bag:
    return Bag(tmp_path / "bag", messages, robot)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("kind", [JOINTS, TRAJECTORY, ARRAY])
def test_a_bag_becomes_an_episode_that_can_be_trained_on(
    bag: Bag, robot: RobotConfig, tmp_path: Path, storage: StoragePlugin, kind: str
) -> None:
    folder = bag.write(storage, ("/arm/command", kind))
    episode = import_bag(folder, tmp_path / "data", robot, "wave", "arm/command", outcome="success")
    episode.verify()
    demonstration = align(episode, robot, SIZE, "lam/command")
    np.testing.assert_allclose(demonstration.action[:, 4], np.arange(8))
    np.testing.assert_allclose(demonstration.state[:, 0], 0.1 * np.arange(8), atol=1e-6)
    manifest = episode.manifest
    assert (manifest.task, manifest.outcome, manifest.drivers) == ("wave", "success", {"teleop": 8})
    assert manifest.origin == "imported from the rosbag2 folder bag"
    assert manifest.topics["/arm/command"].count == 8
    assert manifest.topics["/camera/front/image_raw"].expected_hz == 20.0


def test_an_arm_moved_by_hand_commands_where_it_went(bag: Bag, robot: RobotConfig, tmp_path: Path) -> None:
    folder = bag.write(StoragePlugin.MCAP, ("/joint_states", JOINTS))
    episode = import_bag(folder, tmp_path / "data", robot, "wave", "joint_states", lead_s=0.1)
    demonstration = align(episode, robot, SIZE, "lam/command")
    np.testing.assert_allclose(demonstration.action[:5, 0], 0.1 * np.arange(2, 7), atol=1e-6)  # 0.1 s are two ticks


def test_a_type_that_nobody_knows_is_kept_with_its_definition(bag: Bag, robot: RobotConfig, tmp_path: Path) -> None:
    folder = bag.write(StoragePlugin.MCAP, ("/teleop/command", JOINTS), extra=True)
    episode = import_bag(folder, tmp_path / "data", robot, "wave", "teleop/command")
    topic = read_topics(episode.bag)["/wings"]
    assert topic.msgtype == "bird_msgs/msg/Wings"
    assert "int32 flaps" in topic.definition
    assert topic.type_hash.startswith("RIHS01_")
    assert episode.manifest.topics["/wings"].count == 1


@pytest.mark.parametrize(
    ("commands", "sentence"),
    [
        (
            "lam/nothing",
            r"/lam/nothing is no topic of commands in .*bag; those that may be are /arm/command, /joint_states",
        ),
        ("camera/front/image_raw", "is no topic of commands"),
    ],
)
def test_commands_that_are_not_there(
    bag: Bag, robot: RobotConfig, tmp_path: Path, commands: str, sentence: str
) -> None:
    folder = bag.write(StoragePlugin.MCAP, ("/arm/command", JOINTS))
    with pytest.raises(EpisodeError, match=sentence):
        import_bag(folder, tmp_path / "data", robot, "wave", commands)
    assert not (tmp_path / "data").exists()


def test_what_is_no_bag_is_one_sentence(robot: RobotConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/metadata.yaml").write_text("rosbag2_bagfile_information: {")
    for name in ("nowhere", "empty", "torn"):
        with pytest.raises(EpisodeError, match="cannot be read as a rosbag2 folder"):
            import_bag(tmp_path / name, tmp_path / "data", robot, "wave", "x")


def test_a_bag_without_a_camera_of_the_robot(bag: Bag, robot: RobotConfig, tmp_path: Path) -> None:
    other = {"top": dataclasses.replace(robot.cameras["front"], topic="camera/top/image_raw")}
    folder = bag.write(StoragePlugin.MCAP, ("/arm/command", JOINTS))
    with pytest.raises(EpisodeError, match="lacks /camera/top/image_raw; it has /arm/command, /camera/front/image_raw"):
        import_bag(folder, tmp_path / "data", dataclasses.replace(robot, cameras=other), "wave", "arm/command")
