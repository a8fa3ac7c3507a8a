"""What `lam robot init` hears on a running graph."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lam_ros.nodes.discovery import DiscoveryNode
from lam_ros.nodes.images import compressed_message, image_message
from lam_ros.nodes.joints import joint_message

PERIOD_NS = 33_333_333
PICTURE = np.full((48, 64, 3), 90, np.uint8)


@pytest.fixture
def discovery(graph):
    node = DiscoveryNode(context=graph.context)
    graph.executor.add_node(node)
    yield node
    node.destroy_node()


def heard(discovery, topic):
    entry = discovery.heard.get(f"/{topic}")
    return len(entry[1].stamps) if entry else 0


def send(graph, discovery, kind, topic, message, times=6):
    """Publish stamped messages until the node has heard enough of them."""
    publisher = graph.probe.create_publisher(kind, topic, 50)
    graph.until(publisher.get_subscription_count)
    for i in range(1, times + 1):
        publisher.publish(message(10**9 + i * PERIOD_NS))
        graph.until(lambda i=i: heard(discovery, topic) >= i)


def test_cameras_joint_states_and_a_controller_are_found(graph, discovery):
    graph.probe.create_subscription(Float64MultiArray, "forward_position_controller/commands", lambda _: None, 1)
    send(graph, discovery, Image, "front/image_raw", lambda ns: image_message(PICTURE, ns, "front_optical"))
    send(graph, discovery, CompressedImage, "wrist/compressed", lambda ns: compressed_message(PICTURE, ns, "w"))
    send(graph, discovery, JointState, "joint_states", lambda ns: joint_message(("a", "b"), np.zeros(2), ns))
    graph.until(lambda: discovery.count_subscribers("forward_position_controller/commands"))
    found = discovery.found(["a", "b"])
    front, wrist = found.cameras
    assert (front.topic, front.width, front.height, front.rate_hz) == ("/front/image_raw", 64, 48, 30.0)
    assert (front.transport, front.frame_id) == ("raw", "front_optical")
    assert (wrist.topic, wrist.transport, wrist.width) == ("/wrist", "compressed", 64)
    assert found.joint_states == ("/joint_states", 30.0)
    assert found.command == ("/forward_position_controller/commands", "multi_array")
    assert not found.remarks


def test_of_several_controllers_the_arms_own_that_takes_trajectories_comes_first(graph, discovery):
    for topic in ("joint_states", "left/joint_states", "right/joint_states"):
        names = ("a", "b") if "/" in topic else ("wheel",)
        send(
            graph, discovery, JointState, topic, lambda ns, names=names: joint_message(names, np.zeros(len(names)), ns)
        )
    listening = {
        "right/arm_controller/joint_trajectory": JointTrajectory,
        "left/arm_controller/joint_trajectory": JointTrajectory,
        "left/a_gripper_controller/joint_trajectory": JointTrajectory,
        "left/forward_position_controller/commands": Float64MultiArray,
        "left/forward_velocity_controller/commands": Float64MultiArray,
        "left/a_effort_controller/commands": Float64MultiArray,
    }
    for topic, kind in listening.items():
        graph.probe.create_subscription(kind, topic, lambda _: None, 1)
    graph.until(lambda: all(map(discovery.count_subscribers, listening)))
    found = discovery.found(["a", "b"])
    assert found.joint_states == ("/left/joint_states", 30.0)
    assert found.other_states == ("/right/joint_states",)
    assert found.command == ("/left/arm_controller/joint_trajectory", "joint_trajectory")
    assert found.other_commands == (
        "/left/forward_position_controller/commands",
        "/left/a_gripper_controller/joint_trajectory",
        "/right/arm_controller/joint_trajectory",
    )


def test_depth_is_no_camera_of_the_policy(graph, discovery):
    def depth(ns):
        message = image_message(PICTURE, ns, "")
        message.encoding, message.step = "16UC1", 2 * message.width
        message.data = message.data[: message.step * message.height]
        return message

    send(graph, discovery, Image, "cam/color/image_raw", lambda ns: image_message(PICTURE, ns, ""))
    send(graph, discovery, Image, "cam/depth/image_raw", depth)
    found = discovery.found([])
    assert [camera.topic for camera in found.cameras] == ["/cam/color/image_raw"]
    assert "/cam/depth/image_raw is depth" in found.remarks[0]


def test_one_camera_with_two_transports_is_one_camera(graph, discovery):
    send(graph, discovery, Image, "cam/image_raw", lambda ns: image_message(PICTURE, ns, ""))
    compressed = "cam/image_raw/compressed"
    send(graph, discovery, CompressedImage, compressed, lambda ns: compressed_message(PICTURE, ns, ""))
    (camera,) = discovery.found([]).cameras
    assert camera.transport == "raw"


def test_what_cannot_be_used_is_said(graph, discovery):
    publisher = graph.probe.create_publisher(Image, "dead/image_raw", 1)
    graph.until(publisher.get_subscription_count)
    broken = CompressedImage(format="jpeg", data=b"no picture")
    broken.header.stamp.sec = 1
    send(graph, discovery, CompressedImage, "broken/compressed", lambda ns: broken, times=1)
    send(graph, discovery, JointState, "joint_states", lambda ns: joint_message(("a",), np.zeros(1), ns))
    found = discovery.found(["a", "b"])
    assert not found.cameras
    assert found.joint_states == ("/joint_states", 30.0)
    said = " ".join(found.remarks)
    assert "/dead/image_raw is announced, but nothing came" in said
    assert "/broken/compressed sends pictures that cannot be read" in said
    assert "/joint_states has 1 of the 2 joints" in said


def test_topics_of_lam_ros_itself_are_not_offered(graph, discovery):
    graph.probe.create_publisher(Image, "lam/explain/front", 1)
    graph.probe.create_publisher(JointState, "teleop/command", 1)
    publisher = graph.probe.create_publisher(JointState, "joint_states", 1)
    graph.until(publisher.get_subscription_count)
    assert set(discovery.heard) == {"/joint_states"}
