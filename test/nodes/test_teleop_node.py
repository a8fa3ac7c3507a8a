"""teleop_node with a gamepad and a leader arm, over real DDS."""

from __future__ import annotations

import itertools

import pytest
import yaml
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool

from lam_ros.config import load_robot
from lam_ros.errors import ConfigError
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.qos import LATCHED
from lam_ros.nodes.teleop import TeleopNode
from lam_ros.share import share_path

JOY = {"deadman": 1, "axes": {"waist": {"axis": 0, "scale": 1.0}}}
STAMP = 1_700_000_000_000_000_000


@pytest.fixture
def teleop(graph, arm, tmp_path):
    """Starts the node with a robot that is driven by this."""

    def start(source, **described):
        robot = yaml.safe_load(share_path("config/desk_arm.yaml").read_text())
        robot["teleop"] = described
        file = tmp_path / "arm.yaml"
        file.write_text(yaml.safe_dump(robot, sort_keys=False))
        return graph.add(TeleopNode, robot=str(file), source=source)

    return start


@pytest.fixture
def heard(graph):
    return graph.listen(JointState, "teleop/command"), graph.listen(Bool, "lam/takeover", LATCHED)


def test_a_gamepad_drives_while_the_dead_mans_button_is_held(graph, arm, heard, teleop):
    commands, takeovers = heard
    node = teleop("joy", joy=JOY)
    joy = graph.talk(Joy, "joy")
    arm.publish_state(STAMP)
    graph.until(lambda: node._measured is not None)

    def hold(pressed):
        joy.publish(Joy(axes=[1.0, 0.0], buttons=[0, pressed]))
        return len(commands) > 5

    graph.until(lambda: hold(1))
    waist = [message.position[0] for message in commands]
    assert all(after > before for before, after in itertools.pairwise(waist))
    assert waist[1] - waist[0] == pytest.approx(2.5 * 0.02)
    assert takeovers[-1].data
    graph.until(lambda: hold(0) and not takeovers[-1].data)
    graph.until(lambda: hold(1) and takeovers[-1].data)
    graph.until(graph.said("teleop", "the gamepad says nothing; nobody drives"))  # unplugged with the button held
    graph.until(lambda: not takeovers[-1].data)


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
    graph.until(lambda: lead(1))
    assert list(commands[-1].position) == pytest.approx([0.5 * upper for upper in robot.position_limits[1]])
    graph.until(lambda: lead(0) and not takeovers[-1].data)


@pytest.mark.parametrize(
    ("source", "described", "sentence"),
    [
        ("joy", {}, "source is joy, and the robot YAML has no teleop.joy"),
        ("leader", {}, "source is leader, and the robot YAML has no teleop.leader"),
        ("voice", {}, "source is 'voice'; valid are expert, keyboard, joy and leader"),
        (
            "joy",
            {"joy": {"deadman": 0, "axes": {"waste": {"axis": 0}}}},
            "teleop.joy.axes names 'waste'; the joints are",
        ),
        ("leader", {"leader": {"joints": {"waist": {"joint": "a"}}}}, "teleop.leader.joints lacks shoulder, elbow"),
    ],
)
def test_what_cannot_drive_is_refused(teleop, source, described, sentence):
    with pytest.raises(ConfigError, match=sentence):
        teleop(source, **described)


def test_without_teleop_a_robot_is_as_it_was():
    assert load_robot("desk_arm").teleop.joy is None
