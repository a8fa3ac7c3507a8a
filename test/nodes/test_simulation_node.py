"""The simulator as a robot, and the scripted expert that drives it through the gate."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lam_ros.errors import SimulationError
from lam_ros.images import rgb_from_compressed, rgb_from_image
from lam_ros.nodes.base import stamp_to_ns
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.qos import LATCHED
from lam_ros.nodes.simulation import SimulationNode
from lam_ros.nodes.teleop import TeleopNode


def values(status):
    return {entry.key: entry.value for entry in status.values}


@pytest.fixture
def lockstep(graph):
    return graph.add(SimulationNode, robot="desk_arm", mode="lockstep", seed=5, answer_timeout_s=30.0)


def test_the_expert_does_the_task_and_no_message_is_lost(graph, lockstep, robot):
    graph.add(GateNode, robot="desk_arm", use_sim_time=True)
    graph.add(TeleopNode, robot="desk_arm", task="reach", use_sim_time=True)
    states = graph.listen(JointState, "joint_states", 1000)
    frames = graph.listen(Image, robot.cameras["front"].topic, 1000)
    clock = graph.listen(Clock, "/clock", 1000)
    status = graph.listen(DiagnosticStatus, "simulation/status", LATCHED)
    graph.until(lambda: states and lockstep._frames["front"][0].get_subscription_count())
    assert graph.ask(Trigger, "simulation/reset").message == "5"
    graph.until(lambda: status and status[-1].message == "success")
    told = values(status[-1])
    assert told["seed"] == "5"
    assert told["unanswered"] == "0"
    ticks = len(told["latencies_ms"].split())
    assert float(told["elapsed_s"]) == pytest.approx(ticks / robot.policy.rate_hz)
    graph.until(lambda: len(frames) == ticks)
    frame_stamps = np.array([stamp_to_ns(message.header.stamp) for message in frames])
    assert np.all(np.diff(frame_stamps) == 50_000_000), "20 Hz, in simulated time exactly"
    stamps = np.array([stamp_to_ns(message.header.stamp) for message in states])
    assert np.all(np.diff(stamps) == 10_000_000), "100 Hz, none lost and none twice"
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    assert times == sorted(times)


def test_a_tick_without_an_answer_is_counted_and_time_goes_on(graph, robot):
    node = graph.add(SimulationNode, robot="desk_arm", mode="lockstep", answer_timeout_s=0.05)
    graph.ask(Trigger, "simulation/reset")
    before = node._simulation.state
    graph.until(lambda: node._unanswered >= 3)
    np.testing.assert_allclose(node._simulation.state, before, atol=2e-3)


def test_cameras_raw_and_compressed_show_the_same(graph, lockstep, robot):
    camera = robot.cameras["wrist"]
    raw = graph.listen(Image, camera.topic)
    compressed = graph.listen(CompressedImage, f"{camera.topic}/compressed")
    graph.until(lambda: all(publisher.get_subscription_count() for publisher in lockstep._frames["wrist"]))
    graph.ask(Trigger, "simulation/reset")
    graph.until(lambda: raw and compressed)
    assert raw[0].header.frame_id == camera.frame_id
    first, second = rgb_from_image(raw[0]).astype(int), rgb_from_compressed(compressed[0]).astype(int)
    assert first.shape == (camera.height, camera.width, 3)
    assert np.abs(first - second).mean() < 8.0


def test_an_unplugged_camera_is_black(graph, robot):
    node = graph.add(SimulationNode, robot="desk_arm", mode="lockstep", black_camera="wrist")
    frames = {name: graph.listen(Image, camera.topic) for name, camera in robot.cameras.items()}
    graph.until(lambda: all(pair[0].get_subscription_count() for pair in node._frames.values()))
    graph.ask(Trigger, "simulation/reset")
    graph.until(lambda: all(frames.values()))
    assert not rgb_from_image(frames["wrist"][0]).any()
    assert rgb_from_image(frames["front"][0]).any()


def test_in_real_time_the_robot_follows_its_commands(graph, robot):
    node = graph.add(SimulationNode, robot="desk_arm", mode="realtime")
    publisher = graph.talk(JointTrajectory, "robot/command")
    graph.until(lambda: node._has_begun)
    target = node._simulation.state.astype(float) + np.array([0.2, 0, 0, 0, 0, 0, 0])
    from lam_ros.nodes.joints import robot_command

    publisher.publish(robot_command(robot, target, 0.05))
    graph.until(lambda: abs(node._simulation.state[0] - target[0]) < 0.02)


def test_commands_for_other_joints_are_refused(graph, lockstep):
    publisher = graph.talk(JointTrajectory, "robot/command")
    publisher.publish(JointTrajectory(joint_names=["a"]))
    graph.until(graph.said("simulation", "without points"))


def test_an_unknown_task_lists_those_there_are(graph):
    with pytest.raises(SimulationError, match="reach, push, pick_place"):
        graph.add(SimulationNode, robot="desk_arm", task="juggle")


def test_a_simulation_beside_a_robot_ends_before_it_has_published_anything(graph, robot):
    """What drives the simulated arm would drive the other one."""
    graph.probe.create_publisher(JointState, robot.joint_states.topic, 10)
    states = graph.listen(JointState, robot.joint_states.topic)
    node = graph.add(SimulationNode, robot="desk_arm", mode="realtime")
    graph.until(lambda: node.gave_up)
    assert "somebody else publishes /joint_states: a robot, or another simulator" in node.gave_up
    for _ in range(50):
        graph.executor.spin_once(timeout_sec=0.02)
    assert not node._has_begun
    assert states == []
