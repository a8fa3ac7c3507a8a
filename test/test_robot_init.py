"""A robot YAML from a URDF and what was heard."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from lam_ros.config import RobotConfig, load_robot
from lam_ros.errors import ConfigError
from lam_ros.robot_init import Found, FoundCamera, camera_names, robot_yaml, tick_rate
from lam_ros.share import share_path
from lam_ros.urdf import driven_joints, read_urdf

JOINT = '<joint name="{name}" type="{kind}"><parent link="a"/><child link="{name}_link"/>{limit}</joint>'


def urdf(tmp_path: Path, *joints: str) -> Path:
    file = tmp_path / "arm.urdf"
    file.write_text(f'<robot name="arm"><link name="a"/>{"".join(joints)}</robot>')
    return file


def loaded(tmp_path: Path, text: str) -> RobotConfig:
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    return load_robot(file)


def test_the_shipped_arm_is_described_as_its_own_yaml_does(tmp_path: Path) -> None:
    cameras = (
        FoundCamera("/camera/front/image_raw", 96, 96, 20.0, frame_id="front_optical"),
        FoundCamera("/camera/wrist/image_raw", 64, 48, 30.0, "compressed"),
    )
    found = Found(cameras, ("/joint_states", 125.0), ("/forward_position_controller/commands", "multi_array"))
    robot = loaded(tmp_path, robot_yaml(share_path("description/desk_arm.urdf"), found))
    shipped = load_robot("desk_arm")
    assert robot.joint_names == shipped.joint_names  # the second finger mimics the first
    for name, joint in robot.joints.items():
        assert joint.unit == shipped.joints[name].unit
        assert joint.position == shipped.joints[name].position
        assert joint.velocity <= shipped.joints[name].velocity
        # A gripper closes on things: however far it is kept from where it was sent, that is no fault.
        assert joint.following_error == (pytest.approx(0.035) if name == "gripper" else 0.0)
    assert robot.camera_names == ("front", "wrist")
    wrist = robot.cameras["wrist"]
    assert (wrist.width, wrist.height, wrist.rate_hz, wrist.transport) == (64, 48, 30.0, "compressed")
    assert robot.cameras["front"].frame_id == "front_optical"
    assert (robot.joint_states.topic, robot.joint_states.rate_hz) == ("/joint_states", 125.0)
    assert (robot.command.topic, robot.command.type) == ("/forward_position_controller/commands", "multi_array")
    assert robot.policy.rate_hz == 20.0


def test_what_could_be_another_is_marked_and_slow_cameras_get_a_patient_gate(tmp_path: Path) -> None:
    found = Found(
        (FoundCamera("/camera/image_raw", 96, 96, 5.0),),
        ("/left/joint_states", 100.0),
        ("/left/arm/joint_trajectory", "joint_trajectory"),
        ("/right/joint_states",),
        ("/left/forward/commands", "/right/arm/joint_trajectory"),
    )
    text = robot_yaml(share_path("description/desk_arm.urdf"), found)
    assert "rate_hz: 100} # a guess: or /right/joint_states\n" in text
    assert "joint_trajectory} # a guess: or /left/forward/commands, /right/arm/joint_trajectory\n" in text
    robot = loaded(tmp_path, text)
    assert (robot.policy.rate_hz, robot.gate.staleness_s) == (5.0, 0.4)


def test_what_nobody_tells_is_guessed_and_marked(tmp_path: Path) -> None:
    text = robot_yaml(urdf(tmp_path, JOINT.format(name="roll", kind="continuous", limit="")), Found())
    robot = loaded(tmp_path, text)
    assert robot.joints["roll"].position == pytest.approx((-math.pi, math.pi), abs=1e-4)
    marked = [line.partition("#")[0].split(":")[0].strip() for line in text.splitlines() if "guess" in line]
    assert {"roll", "cameras", "joint_states"} <= set(marked)
    assert "nobody listens yet" in text


def test_a_camera_of_which_one_frame_was_heard_has_a_guessed_rate(tmp_path: Path) -> None:
    text = robot_yaml(share_path("description/desk_arm.urdf"), Found((FoundCamera("/camera/image_raw", 96, 96, 0.0),)))
    (camera,) = loaded(tmp_path, text).cameras.values()
    assert camera.rate_hz == 30.0
    assert "one frame was heard: the rate is a guess" in text


def test_joints_may_be_chosen_and_ordered(tmp_path: Path) -> None:
    limit = '<limit lower="-1" upper="2" velocity="4" effort="1"/>'
    file = urdf(tmp_path, *(JOINT.format(name=name, kind="revolute", limit=limit) for name in ("a", "b", "c")))
    robot = loaded(tmp_path, robot_yaml(file, Found(), ["c", "a"]))
    assert robot.joint_names == ("c", "a")
    assert robot.joints["a"].position == (-1.0, 2.0)
    assert robot.joints["a"].velocity == 2.0
    with pytest.raises(ConfigError, match="drives no joint elbow; it drives a, b, c"):
        robot_yaml(file, Found(), ["elbow"])


def test_joints_that_do_not_move_by_themselves_are_left_out(tmp_path: Path) -> None:
    mimic = '<limit lower="0" upper="1" velocity="1"/><mimic joint="finger"/>'
    file = urdf(
        tmp_path,
        JOINT.format(name="mount", kind="fixed", limit=""),
        JOINT.format(name="finger", kind="prismatic", limit='<limit lower="0" upper="0.04" velocity="0.1"/>'),
        JOINT.format(name="other_finger", kind="prismatic", limit=mimic),
    )
    (finger,) = driven_joints(read_urdf(file))
    assert (finger.name, finger.unit, finger.position, finger.velocity) == ("finger", "m", (0.0, 0.04), 0.1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<robot", "is not XML"),
        ("<sdf/>", "is no URDF: its first element is <sdf>"),
        ('<robot xmlns:xacro="http://ros.org/wiki/xacro"><xacro:include filename="x"/></robot>', "expand it first"),
        ('<robot name="r"><link name="a"/></robot>', "has no joint that moves"),
        (f"<robot>{JOINT.format(name='j', kind='revolute', limit='<limit lower=x/>')}</robot>", "is not XML"),
        (
            '<robot><joint name="j" type="revolute"><limit lower="low" upper="1"/></joint></robot>',
            "joint j: lower is 'low' in the URDF",
        ),
    ],
)
def test_a_file_that_is_no_urdf_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "arm.urdf"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        robot_yaml(file, Found())
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        robot_yaml(tmp_path / "none.urdf", Found())


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["/camera/front/image_raw", "/camera/wrist/image_raw"], ["front", "wrist"]),
        (["/camera/color/image_raw"], ["color"]),
        (["/image"], ["image"]),
        (["/left/rgb/image", "/right/rgb/image"], ["left", "right"]),
        (["/cam/image", "/cam/depth/image"], ["image", "depth"]),
    ],
)
def test_cameras_are_called_by_what_tells_them_apart(topics: list[str], names: list[str]) -> None:
    assert camera_names([FoundCamera(topic, 1, 1, 30.0) for topic in topics]) == names


def test_the_policy_ticks_no_faster_than_the_slowest_camera() -> None:
    assert tick_rate([FoundCamera("/a", 1, 1, 60.0), FoundCamera("/b", 1, 1, 25.0)]) == 25.0
    assert tick_rate([FoundCamera("/a", 1, 1, 60.0)]) == 30.0
    assert tick_rate([]) == 30.0


def test_the_text_is_yaml_of_known_keys_alone(tmp_path: Path) -> None:
    text = robot_yaml(share_path("description/desk_arm.urdf"), Found())
    assert set(yaml.safe_load(text)) == {"name", "urdf", "joints", "cameras", "joint_states", "command", "policy"}
