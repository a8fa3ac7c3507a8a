"""Our episodes, played as `ros2 bag play` plays them: their bytes, under the publishers' recorded QoS, with a clock."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.episode import EpisodeWriter, Topic, open_episode
from lam_ros.images import pixels
from lam_ros.nodes.base import ns_to_stamp, stamp_to_ns
from lam_ros.nodes.images import image_message
from lam_ros.nodes.perception import PerceptionNode
from lam_ros.policy.checkpoint import load_policy

START, TICK, TICKS = 1_600_000_000_000_000_000, 50_000_000, 6  # ns: years ago
TYPES = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (Image, CompressedImage, JointState)}


@pytest.fixture
def frames(robot: RobotConfig):
    rng = np.random.default_rng(0)
    return [{name: rng.integers(0, 255, (96, 96, 3), np.uint8) for name in robot.cameras} for _ in range(TICKS)]


@pytest.fixture
def episode(tmp_path, robot: RobotConfig, frames):
    writer = EpisodeWriter.of(robot, tmp_path / "data", "wave")
    cameras = {name: f"/{camera.topic}" for name, camera in robot.cameras.items()}
    for topic in cameras.values():
        writer.add_topic(Topic(topic, "sensor_msgs/msg/Image", 20.0, reliable=False))
    for number, pictures in enumerate(frames):
        for name, picture in pictures.items():
            stamp_ns = START + number * TICK
            writer.write(cameras[name], serialize_message(image_message(picture, stamp_ns, name)), stamp_ns)
    return open_episode(writer.seal("success", tuple(cameras.values())))


def test_perception_sees_an_episode_that_is_played_as_it_saw_the_robot(graph, robot, checkpoint, episode, frames):
    perception = graph.add(PerceptionNode, robot="desk_arm", checkpoint=str(checkpoint), use_sim_time=True)
    features = graph.listen(Image, "lam/features")
    graph.until(lambda: perception._features.get_subscription_count())
    clock = graph.talk(Clock, "/clock")
    with Reader(episode.folder) as bag:
        publishers = {}
        for connection in bag.connections:
            (offered,) = connection.ext.offered_qos_profiles
            qos = QoSProfile(
                depth=offered.depth,
                reliability=ReliabilityPolicy(offered.reliability.value),
                durability=DurabilityPolicy(offered.durability.value),
            )
            publishers[connection.topic] = graph.talk(TYPES[connection.msgtype], connection.topic, qos)
        for played, (connection, received_ns, data) in enumerate(bag.messages(), 1):
            clock.publish(Clock(clock=ns_to_stamp(received_ns)))
            publishers[connection.topic].publish(bytes(data))
            ticks, rest = divmod(played, len(publishers))
            if not rest:
                graph.until(lambda expected=ticks: len(features) == expected)
    assert [stamp_to_ns(message.header.stamp) for message in features] == [START + i * TICK for i in range(TICKS)]
    policy = load_policy(checkpoint, robot)
    for message, seen in zip(features, frames, strict=True):
        np.testing.assert_allclose(pixels(message)[..., 0], policy.perceive(seen, 0).values, atol=1e-5)
