"""teleop_node with a gamepad, a leader arm and a twist, over real DDS."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
from geometry_msgs.msg import Twist, TwistStamped, Vector3
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool

from lam_ros.config import load_robot, urdf_path
from lam_ros.control.kinematics import Kinematics
from lam_ros.control.teleop import APPROACH
from lam_ros.errors import ConfigError
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.qos import LATCHED
from lam_ros.nodes.teleop import LEAD_S, TeleopNode
from lam_ros.nodes.teleop_check import TeleopCheck

JOY = {"deadman": 1, "axes": {"waist": {"axis": 0, "scale": 1.0}}}
STAMP = 1_700_000_000_000_000_000


@pytest.fixture
def teleop(graph, arm, desk_arm_with):
    """Starts the node with a robot that is driven by this."""

    def start(source, **described):
        return graph.add(TeleopNode, robot=desk_arm_with(teleop=described), source=source)

    return start


def measured(graph, arm, node, position=None):
    """Tell the node where the arm is, and wait until it knows."""
    arm.publish_state(STAMP, position)
    graph.until(lambda: node._measured is not None)


@pytest.fixture
def sent_on(graph):
    """A gate in between, whose commands are where those of teleop go."""
    told = graph.probe.create_publisher(JointState, "lam/command", 10)

    def send_on(message):
        message.header.frame_id = "teleop"
        told.publish(message)

    return graph.probe.create_subscription(JointState, "teleop/command", send_on, 10)


@pytest.fixture
def heard(graph):
    return graph.listen(JointState, "teleop/command"), graph.listen(Bool, "lam/takeover", LATCHED)


def test_a_gamepad_drives_while_the_dead_mans_button_is_held(graph, arm, heard, sent_on, teleop):
    commands, takeovers = heard
    node = teleop("joy", joy=JOY)
    joy = graph.talk(Joy, "joy")
    measured(graph, arm, node)

    def hold(pressed):
        joy.publish(Joy(axes=[1.0, 0.0], buttons=[0, pressed]))
        return len(commands) > 20

    graph.until(lambda: hold(1))
    waist = [message.position[0] for message in commands][-4:]  # the gate has answered by then
    steps = [after - before for before, after in itertools.pairwise(waist)]
    assert steps == pytest.approx([2.5 * 0.02] * 3)
    assert takeovers[-1].data
    graph.until(lambda: hold(0) and not takeovers[-1].data)
    graph.until(lambda: hold(1) and takeovers[-1].data)
    graph.until(graph.said("teleop", "the gamepad says nothing; the arm stays with whoever held it"))  # unplugged
    count = len(commands)
    for _ in range(20):
        graph.executor.spin_once(timeout_sec=0.02)
    assert len(commands) == count, "nothing drives"
    assert takeovers[-1].data, "nor is the arm the policy's"
    graph.until(lambda: hold(0) and not takeovers[-1].data)


def test_what_the_gate_refuses_is_not_made_up_for_later(graph, arm, robot, heard, teleop):
    """Without a gate that goes along, as at a pressed e-stop, a pushed stick asks for no more than a step."""
    commands, _ = heard
    node = teleop("joy", joy=JOY)
    joy = graph.talk(Joy, "joy")
    measured(graph, arm, node)
    graph.until(lambda: joy.publish(Joy(axes=[1.0, 0.0], buttons=[0, 1])) or len(commands) > 20)
    assert max(message.position[0] for message in commands) == pytest.approx(2.5 * 0.02)


def test_a_jog_leads_a_gate_that_stands_by_no_more_than_its_ramp(graph, arm, robot, heard, teleop, paced):
    """As at a workspace's edge: a stick that is turned round must move the arm soon."""
    commands, _ = heard
    node = teleop("joy", joy=JOY)
    joy, gate = graph.talk(Joy, "joy"), graph.talk(JointState, "lam/command")
    measured(graph, arm, node)

    @paced
    def push():
        stands = joint_message(robot.joint_names, np.zeros(7), STAMP, "teleop")
        gate.publish(stands)
        joy.publish(Joy(axes=[1.0, 0.0], buttons=[0, 1]))

    graph.until(lambda: push() or len(commands) > 50)
    assert max(message.position[0] for message in commands) == pytest.approx(LEAD_S * 2.5)


def test_a_leader_leads_only_while_it_is_held(graph, arm, robot, heard, teleop):
    commands, takeovers = heard
    joints = {name: {"joint": name, "scale": 0.5} for name in robot.joint_names}
    teleop("leader", leader={"joints": joints, "topic": "leader"}, joy=JOY)
    leader, joy = graph.talk(JointState, "leader"), graph.talk(Joy, "joy")

    def lead(pressed):
        joy.publish(Joy(axes=[0.0, 0.0], buttons=[0, pressed]))
        leader.publish(joint_message(robot.joint_names, robot.position_limits[1], STAMP))
        return bool(commands)

    for _ in range(10):
        lead(0)
        graph.executor.spin_once(timeout_sec=0.02)
    assert commands == []
    arm.publish_state(STAMP)
    graph.until(lambda: lead(1))
    graph.until(lambda: lead(0) and not takeovers[-1].data)


def test_an_arm_far_from_its_leader_goes_there_slowly_and_then_along_with_it(graph, arm, robot, heard, sent_on, teleop):
    commands, _ = heard
    joints = {name: {"joint": name, "scale": 0.5} for name in robot.joint_names}
    node = teleop("leader", leader={"joints": joints, "topic": "leader"})
    leader = graph.talk(JointState, "leader")
    measured(graph, arm, node)
    began_s, heard_s = time.monotonic(), []

    def lead(share):
        leader.publish(joint_message(robot.joint_names, share * robot.position_limits[1], STAMP))
        heard_s.extend([time.monotonic() - began_s] * (len(commands) - len(heard_s)))

    far = 0.5 * robot.position_limits[1]
    graph.until(lambda: lead(1.0) or (commands and np.allclose(commands[-1].position, far)))
    way = np.array([message.position for message in commands])
    assert np.all(np.diff(way, axis=0) >= 0.0)
    assert far[0] > 2.0 * APPROACH * robot.velocity_limits[0], "a way of two seconds"
    half = int(np.argmax(way[:, 0] > far[0] / 2))
    assert way[half, 0] <= APPROACH * robot.velocity_limits[0] * heard_s[half]
    before = len(commands)
    graph.until(lambda: lead(0.9) or np.allclose(commands[-1].position, 0.9 * far))
    between = {round(message.position[0] / far[0], 6) for message in commands[before:]}
    assert between <= {1.0, 0.9}, "it has caught up, and goes along at once"


START = np.array([0.2, 0.5, 0.9, 0.1, 0.6, 0.0, 0.02])  # where the tool can go in every direction


def twist(frame="", **linear):
    message = TwistStamped(twist=Twist(linear=Vector3(**linear)))
    message.header.frame_id = frame
    return message


def test_a_twist_moves_the_tool_until_it_says_nothing_more(graph, arm, robot, heard, sent_on, teleop, paced):
    commands, takeovers = heard
    node = teleop("twist", twist={})
    talk = graph.talk(TwistStamped, "teleop/twist")
    say = paced(talk.publish)
    measured(graph, arm, node, START)
    graph.until(lambda: say(twist(y=0.1)) or len(commands) > 20)
    kinematics = Kinematics(urdf_path(robot, "desk_arm"), robot.joint_names)
    places = np.array([kinematics.tool_pose(np.array(message.position))[0] for message in commands[-10:]])
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps[:, 1], 0.1 * 0.02, rtol=0.1)
    np.testing.assert_allclose(steps[:, [0, 2]], 0.0, atol=2e-4)
    assert takeovers[-1].data

    graph.until(lambda: say(twist()) or not takeovers[-1].data)  # as apps send that nobody touches
    talk.publish(twist(frame="moon", y=0.1))
    graph.until(graph.said("teleop", "teleop/twist is in the frame 'moon'"))


def test_beside_a_gamepad_a_twist_waits_for_its_button_and_the_gripper_is_an_axis(
    graph, arm, heard, sent_on, teleop, paced
):
    commands, takeovers = heard
    joy_axes = {"gripper": {"axis": 0, "scale": 1.0}}
    node = teleop("twist", twist={}, joy={"deadman": 1, "axes": joy_axes})
    talk, joy = graph.talk(TwistStamped, "teleop/twist"), graph.talk(Joy, "joy")
    measured(graph, arm, node, START)

    @paced
    def hold(pressed):
        joy.publish(Joy(axes=[1.0], buttons=[0, pressed]))
        talk.publish(twist(y=0.1))

    for _ in range(20):
        hold(0)
        graph.executor.spin_once(timeout_sec=0.02)
    assert commands == []
    graph.until(lambda: hold(1) or len(commands) > 10)
    first, last = np.array(commands[0].position), np.array(commands[-1].position)
    assert last[-1] > first[-1]
    assert last[0] != first[0]
    graph.until(lambda: hold(0) or not takeovers[-1].data)


def test_a_check_says_what_it_would_do_and_offers_nothing(graph, arm, robot, desk_arm_with):
    node = graph.add(TeleopCheck, robot=desk_arm_with(teleop={"joy": JOY}), source="joy")
    joy = graph.talk(Joy, "joy")
    assert not node.is_measured
    assert "the gamepad says nothing; nobody drives" in graph.until(node.complaints)

    def hold():
        joy.publish(Joy(axes=[1.0, -0.5], buttons=[0, 1, 1]))
        return node.target is not None

    graph.until(hold)
    assert node.raw == {"joy": "axis 0 +1.00  axis 1 -0.50  buttons pressed: 1, 2"}
    assert node.target[0] > node.measured[0]
    arm.publish_state(STAMP)
    graph.until(lambda: node.is_measured)
    assert node.count_publishers("teleop/command") == node.count_publishers("lam/takeover") == 0


@pytest.mark.parametrize(
    ("teleop", "sentence"),
    [({}, "the robot YAML has no teleop.joy"), ({"joy": JOY}, "nothing came; is the driver of joy running")],
)
def test_the_check_command_says_why_there_is_nothing_to_see(domain, desk_arm_with, teleop, sentence):
    lam = [sys.executable, "-m", "lam_ros.cli.main", "teleop", "check"]
    given = ["joy", "--robot", desk_arm_with(teleop=teleop), "--seconds", "0.5"]
    ended = subprocess.run([*lam, *given], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert sentence in " ".join(ended.stdout.split())


@pytest.mark.parametrize(
    ("source", "described", "sentence"),
    [
        ("joy", {}, "source is joy, and the robot YAML has no teleop.joy"),
        ("leader", {}, "source is leader, and the robot YAML has no teleop.leader"),
        ("twist", {}, "source is twist, and the robot YAML has no teleop.twist"),
        ("voice", {}, "source is 'voice'; valid are expert, keyboard, joy, leader and twist"),
        (
            "joy",
            {"joy": {"deadman": 0, "axes": {"waste": {"axis": 0}}}},
            "teleop.joy.axes names 'waste'; the joints are",
        ),
        ("leader", {"leader": {"joints": {"waist": {"joint": "a"}}}}, "teleop.leader.joints lacks shoulder, elbow"),
        ("twist", {"twist": {"tool_frame": "hand"}}, "tool_frame is 'hand', which is no link of"),
    ],
)
def test_what_cannot_drive_is_refused(teleop, source, described, sentence):
    with pytest.raises(ConfigError, match=sentence):
        teleop(source, **described)


def test_without_teleop_a_robot_is_as_it_was():
    assert load_robot("desk_arm").teleop.joy is None
