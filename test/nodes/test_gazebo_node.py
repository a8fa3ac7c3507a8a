"""The arm in Gazebo as a robot, with a stand-in for Gazebo: joints as fast as they are told, bodies that stay."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from lam_ros.errors import SimulationError
from lam_ros.nodes.base import ns_to_stamp
from lam_ros.nodes.gazebo import GazeboNode, gazebo_service
from lam_ros.nodes.joints import joint_message, robot_command
from lam_ros.nodes.qos import LATCHED
from lam_ros.simulation.gazebo import pose_topic, velocity_topic
from lam_ros.simulation.ros2_control import TRAJECTORY_TOPIC
from lam_ros.simulation.simulation import Simulation
from lam_ros.simulation.world import ARM_DAMPING, ARM_GAIN

PERIOD_S = 0.01


class StandIn:
    """What Gazebo and its bridge do, one period at a time."""

    def __init__(self, graph, robot, bodies):
        self._graph, self._robot = graph, robot
        self.joints = dict.fromkeys((*robot.joint_names, "right_finger"), 0.0)
        self.velocities: dict[str, float] = {}
        self.placed: dict[str, np.ndarray] = {}
        self.trouble = ""
        self.late = 0  # periods that a velocity takes to get here
        self._told: list[dict[str, float]] = []
        self._now_s = 100.0
        for joint in self.joints:
            take = partial(self._take, joint)
            graph.probe.create_subscription(Float64, velocity_topic(joint), take, 10)
        self._states = graph.probe.create_publisher(JointState, "joint_states", 10)
        self._poses = {body: graph.probe.create_publisher(PoseStamped, pose_topic(body), 10) for body in bodies}

    def _take(self, joint, message):
        self.velocities[joint] = message.data

    def place(self, body, position, quaternion):
        if self.trouble:
            raise SimulationError(self.trouble)
        self.placed[body] = position

    def step(self, period_s=PERIOD_S):
        self._now_s += period_s
        self._told.append(dict(self.velocities))
        for joint, velocity in self._told[max(0, len(self._told) - 1 - self.late)].items():
            self.joints[joint] += velocity * PERIOD_S
        stamp_ns = round(self._now_s * 1e9)
        for body, position in self.placed.items():
            pose = PoseStamped()
            pose.header.stamp = ns_to_stamp(stamp_ns)
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = (float(v) for v in position)
            self._poses[body].publish(pose)
        self._states.publish(joint_message(tuple(self.joints), np.array(list(self.joints.values())), stamp_ns))

    def until(self, condition, period_s=PERIOD_S):
        def stepped():
            self.step(period_s)
            for timeout_s in (0.01, *[0.0] * len(self.joints)):
                self._graph.executor.spin_once(timeout_sec=timeout_s)
            return condition()

        self._graph.until(stepped)


@pytest.fixture
def stand_in(graph, robot):
    return StandIn(graph, robot, ("cube", "goal"))


@pytest.fixture
def node(graph, stand_in):
    return graph.add(partial(GazeboNode, stand_in.place), robot="desk_arm", task="push", seed=4)


@pytest.fixture
def status(graph, node):
    return graph.listen(DiagnosticStatus, "simulation/status", LATCHED)


def test_under_ros2_control_the_trajectory_controller_moves_the_arm(graph, robot, stand_in):
    trajectories = graph.listen(JointTrajectory, TRAJECTORY_TOPIC)
    node = graph.add(partial(GazeboNode, stand_in.place), robot="desk_arm", task="push", seed=4, ros2_control=True)
    graph.until(lambda: node.count_subscribers(TRAJECTORY_TOPIC))
    stand_in.until(lambda: trajectories)  # on its way home
    (point,) = trajectories[-1].points
    assert tuple(trajectories[-1].joint_names) == robot.joint_names
    simulation = Simulation(robot, "push", "desk_arm")
    simulation.reset(4)
    np.testing.assert_allclose(point.positions, simulation.state, atol=1e-6)
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)
    assert stand_in.velocities == {}


def outcome(status):
    return status[-1].message if status else ""


def test_the_table_is_laid_and_the_arm_sent_home_before_an_episode_runs(graph, stand_in, node, status, robot):
    objects = graph.listen(MarkerArray, "simulation/objects")
    stand_in.until(lambda: outcome(status) == "running")
    expected = Simulation.of("desk_arm", "push")
    expected.reset(4)
    measured = [stand_in.joints[name] for name in robot.joint_names]
    np.testing.assert_allclose(measured, expected.state, atol=0.03)
    assert stand_in.joints["right_finger"] == pytest.approx(stand_in.joints["gripper"], abs=5e-3)
    for body, (position, _) in expected.placed.items():
        np.testing.assert_allclose(stand_in.placed[body], position)
    stand_in.until(lambda: objects)
    assert {marker.ns: marker.id for marker in objects[-1].markers} == {"cube": 4, "goal": 4}


def test_the_tasks_own_rule_judges_what_gazebo_shows(graph, stand_in, node, status):
    stand_in.until(lambda: outcome(status) == "running")
    stand_in.placed["cube"] = stand_in.placed["goal"] + np.array([0.01, 0.0, 0.024])
    stand_in.until(lambda: outcome(status) == "success")
    (elapsed,) = [float(value.value) for value in status[-1].values if value.key == "elapsed_s"]
    assert elapsed >= 0.5  # it must stay there


def test_objects_are_shown_again_after_gazebos_time_went_back(graph, stand_in, node, status):
    objects = graph.listen(MarkerArray, "simulation/objects")
    stand_in.until(lambda: outcome(status) == "running" and objects)
    objects.clear()
    stand_in._now_s = 0.0
    stand_in.until(lambda: len(objects) > 3)


def test_the_time_that_laying_a_table_takes_is_not_the_episodes(graph, stand_in, node, status):
    shown = stand_in.place

    def place(*given):
        stand_in._now_s += 0.8
        shown(*given)

    node._place = place
    stand_in.until(lambda: outcome(status) == "running")
    for _ in range(20):
        stand_in.step()
        for _ in range(8):
            graph.executor.spin_once(timeout_sec=0.01)
    assert 0.0 < node._simulation.elapsed_s < 1.0


def test_an_episode_without_success_fails_when_its_time_is_up(stand_in, node, status):
    stand_in.until(lambda: outcome(status) == "running")
    stand_in.until(lambda: outcome(status) == "failure", period_s=0.5)


def test_the_first_reset_lays_the_first_table_and_each_further_one_counts_up(graph, stand_in, node, status):
    stand_in.until(lambda: outcome(status) == "running")
    assert graph.ask(Trigger, "simulation/reset").message == "4"
    stand_in.until(lambda: outcome(status) == "running")
    first = {name: place.copy() for name, place in stand_in.placed.items()}
    assert graph.ask(Trigger, "simulation/reset").message == "5"
    assert outcome(status) == "idle" or graph.until(lambda: outcome(status) == "idle")
    stand_in.until(lambda: outcome(status) == "running")
    assert not np.allclose(first["cube"], stand_in.placed["cube"])


def test_a_first_table_that_was_performed_unasked_is_not_counted_twice(graph, stand_in, node, status):
    stand_in.until(lambda: outcome(status) == "running")
    stand_in.until(lambda: outcome(status) == "failure", period_s=0.5)
    assert graph.ask(Trigger, "simulation/reset").message == "5"


def test_commands_reach_the_joints_but_not_while_the_table_is_laid(graph, stand_in, node, status, robot):
    commands = graph.talk(JointTrajectory, "robot/command", 10)
    wanted = np.linspace(0.005, 0.03, len(robot.joints)).astype(np.float32)
    stand_in.step()
    graph.until(lambda: node._home is not None)
    commands.publish(robot_command(robot, wanted, 0.1))
    stand_in.until(lambda: outcome(status) == "running")
    assert stand_in.joints["wrist_angle"] == pytest.approx(1.07, abs=0.6)
    commands.publish(robot_command(robot, wanted, 0.1))
    followed = pytest.approx([*wanted.tolist(), float(wanted[-1])], abs=1e-4)
    stand_in.until(lambda: list(stand_in.joints.values()) == followed)


def test_joints_close_on_their_targets_as_the_embedded_arms_do_and_no_faster_than_they_may(
    graph, stand_in, node, status, robot
):
    stand_in.until(lambda: outcome(status) == "running")
    stand_in.until(lambda: max(map(abs, stand_in.velocities.values())) < 1e-3)
    stand_in.late = 3
    commands = graph.talk(JointTrajectory, "robot/command", 10)
    here = stand_in.joints["waist"]
    wanted = np.array([stand_in.joints[name] for name in robot.joint_names], dtype=np.float32)
    wanted[0] += 0.1
    commands.publish(robot_command(robot, wanted, 0.1))
    graph.until(lambda: np.allclose(node._target, wanted))
    way: list[float] = []

    def has_arrived():
        way.append((stand_in.joints["waist"] - here) / 0.1)
        return way[-1] > 0.98

    stand_in.until(has_arrived)
    most_s = PERIOD_S * sum(share < 1 - np.exp(-1) for share in way)
    assert most_s == pytest.approx(ARM_DAMPING / ARM_GAIN, abs=0.03)
    wanted[0] += 1.0
    commands.publish(robot_command(robot, wanted, 0.1))
    stand_in.until(lambda: stand_in.velocities["waist"] == pytest.approx(3.0))


def test_an_arm_that_hears_late_does_not_swing(graph, stand_in, node, status, robot):
    stand_in.until(lambda: outcome(status) == "running")
    stand_in.late = 5
    commands = graph.talk(JointTrajectory, "robot/command", 10)
    wanted = np.array([stand_in.joints[name] for name in robot.joint_names], dtype=np.float32)
    wanted[0] += 1.0
    commands.publish(robot_command(robot, wanted, 0.1))
    furthest = -np.inf

    def has_settled():
        nonlocal furthest
        furthest = max(furthest, stand_in.joints["waist"])
        return len(stand_in._told) > 500

    stand_in._told.clear()
    stand_in.until(has_settled)
    assert furthest < wanted[0] + 0.1
    assert stand_in.joints["waist"] == pytest.approx(float(wanted[0]), abs=0.01)


def test_joints_stand_still_while_nobody_looks(graph, stand_in, node, status):
    stand_in.until(lambda: any(stand_in.velocities.values()))
    stand_in.joints["elbow"] = float("nan")
    stand_in.step()
    graph.until(lambda: not any(stand_in.velocities.values()))


def test_a_gazebo_that_does_not_answer_is_said(graph, stand_in, node, status):
    stand_in.trouble = "Gazebo did not answer when cube was to be moved; is world lam_push there?"
    answer = graph.ask(Trigger, "simulation/reset")
    assert not answer.success
    assert answer.message == stand_in.trouble
    graph.until(graph.said("simulation", stand_in.trouble))
    assert outcome(status) == "idle"


def test_a_table_that_could_not_be_laid_once_the_arm_is_home_is_laid_when_gazebo_answers(graph, stand_in, node, status):
    stand_in.step()
    graph.until(lambda: node._home is not None)
    stand_in.trouble = "Gazebo did not move cube: Service call timed out."
    stand_in.until(lambda: graph.said("simulation", stand_in.trouble)())
    assert outcome(status) == "idle"
    stand_in.trouble = ""
    stand_in.until(lambda: outcome(status) == "running")


def test_joint_states_that_cannot_be_trusted_are_not_judged(graph, stand_in, node, status):
    stand_in.until(lambda: outcome(status) == "running")
    stand_in.joints["elbow"] = float("nan")
    stand_in.step()
    graph.until(graph.said("simulation", "elbow"))
    assert outcome(status) == "running"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command-line tool in the place of Gazebo's: writes down how it was called, and answers."""

    def install(name: str, answer: str) -> Path:
        called = tmp_path / "called"
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}\n{answer}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return called

    return install


@pytest.mark.parametrize(
    ("version", "name", "messages"), [("harmonic", "gz", "gz.msgs"), ("fortress", "ign", "ignition.msgs")]
)
def test_gazebos_own_service_moves_a_model(tool, version, name, messages):
    called = tool(name, 'echo "data: true"')
    gazebo_service("lam_push", version)("cube", np.array([0.1, -0.2, 0.025]), np.array([1.0, 0, 0, 0]))
    words = called.read_text().splitlines()
    assert words[:3] == ["service", "-s", "/world/lam_push/set_pose"]
    assert f"{messages}.Pose" in words
    request = words[words.index("--req") + 1]
    assert request.startswith('name: "cube", position: {x: 0.100000, y: -0.200000, z: 0.025000}')


def test_an_answer_that_got_lost_is_asked_for_again(tool, tmp_path):
    tool("gz", f'[ -e {tmp_path}/asked ] && echo "data: true"; touch {tmp_path}/asked')
    gazebo_service("lam_push", "harmonic")("cube", np.zeros(3), np.array([1.0, 0, 0, 0]))


def test_a_service_that_refuses_is_one_sentence(tool):
    tool("gz", 'echo "Service call timed out"; echo "a library is missing" >&2')
    move = gazebo_service("lam_push", "harmonic")
    with pytest.raises(SimulationError, match=r"move cube: Service call timed out\. Is world lam_push there\?"):
        move("cube", np.zeros(3), np.array([1.0, 0, 0, 0]))
