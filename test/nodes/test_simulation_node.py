"""The simulator as a robot, and the scripted expert that drives it through the gate."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lam_ros.control.gate import Driver
from lam_ros.errors import SimulationError
from lam_ros.images import rgb_from_compressed, rgb_from_image
from lam_ros.nodes.action import GAP_TICKS
from lam_ros.nodes.base import stamp_to_ns
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.qos import COMMAND, LATCHED
from lam_ros.nodes.simulation import SimulationNode
from lam_ros.nodes.teleop import TeleopNode
from lam_ros.simulation.simulation import Simulation


def values(status):
    return {entry.key: entry.value for entry in status.values}


def time_ns(message):
    return stamp_to_ns(message.clock)


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
    times = [time_ns(message) for message in clock]
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


def test_an_episode_begins_where_its_arm_is_and_not_where_the_last_one_was_sent(graph, robot, paced):
    """Else it would depend on how long the machine took between the two: the gate brakes the old arm meanwhile."""
    simulation = Simulation(robot, "reach")
    simulation.reset(1)
    near = simulation.state - 0.02
    node = graph.add(SimulationNode, robot="desk_arm", mode="realtime")
    gate = graph.add(GateNode, robot="desk_arm", use_sim_time=True)
    requests = graph.talk(JointState, "lam/policy_command", COMMAND)
    graph.until(lambda: node._has_begun)

    @paced
    def drive():
        requests.publish(joint_message(robot.joint_names, near, node._simulation.now_ns))

    def is_there():
        drive()
        return np.abs(node._simulation.state - near).max() < 0.02

    graph.until(is_there)
    graph.until(lambda: gate._gate.driver is Driver.HOLD and gate._gate.rests)
    sent = gate._gate._standing.start()
    assert not np.array_equal(sent, gate._gate._measured), "here it goes on where it was sent"
    graph.ask(Trigger, "simulation/reset")
    graph.until(lambda: np.abs(gate._gate._measured - simulation.state).max() < 1e-2)
    np.testing.assert_array_equal(gate._gate._standing.start(), gate._gate._measured)


@pytest.mark.parametrize(
    "changes",
    [{}, {"policy": {"rate_hz": 5.0}, "gate": {"staleness_s": 0.3}}, {"gate": {"staleness_s": 0.4}}],
    ids=["shipped", "slow", "patient"],
)
def test_between_episodes_time_leaps_far_enough_for_every_node(graph, desk_arm_with, monkeypatch, changes):
    """The action node's LSTM and the gate begin anew after pauses that depend on the robot."""
    node = graph.add(SimulationNode, robot=desk_arm_with(**changes), mode="lockstep")
    told_ns = []
    monkeypatch.setattr(
        node, "_clock_publisher", SimpleNamespace(publish=lambda message: told_ns.append(time_ns(message)))
    )
    monkeypatch.setattr(
        node, "_joints", SimpleNamespace(publish=lambda message: told_ns.append(stamp_to_ns(message.header.stamp)))
    )
    before_ns = node._simulation.now_ns
    node._begin()
    leap_s = (told_ns[0] - before_ns) / 1e9
    assert leap_s > GAP_TICKS / node.robot.policy.rate_hz
    assert leap_s > 2 * node.robot.gate.staleness_s
    assert leap_s >= 0.5
    states_ns = told_ns[1:]
    assert states_ns == sorted(states_ns), "the clock leaps before them: nobody sees time pass while the arm rests"
    assert states_ns[-1] == told_ns[0] == node._simulation.now_ns
    assert np.all(np.diff([before_ns, *states_ns]) == 10_000_000), "and none of them is left out"


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
