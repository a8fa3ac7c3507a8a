"""The robot YAML: strict, and helpful when it is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lam_ros.config import RobotConfig, from_mapping, load_robot, read_yaml, urdf_path
from lam_ros.contract import Contract
from lam_ros.errors import ConfigError
from lam_ros.learning.configuration import TrainConfig, load_train_config
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.share import share_path


def small_robot() -> dict[str, Any]:
    return {
        "name": "small",
        "joints": {"lift": {"unit": "m", "position": [0.0, 0.5], "velocity": 0.2, "acceleration": 1.0}},
        "cameras": {"eye": {"topic": "eye/image_raw", "width": 64, "height": 48, "rate_hz": 30}},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small robot with the entry at a dotted path set, or removed where value is ``...``."""
    robot = small_robot()
    *parents, last = path.split(".")
    node = robot
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return robot


def test_arrays_follow_the_order_of_the_file(robot: RobotConfig) -> None:
    assert robot.joint_names[:2] == ("waist", "shoulder")
    assert robot.camera_names == ("front", "wrist")
    lower, upper = robot.position_limits
    assert lower.dtype == upper.dtype == np.float64
    np.testing.assert_allclose(lower, [-2.6, -1.6, -1.4, -2.8, -1.9, -2.8, 0.0])
    np.testing.assert_allclose(upper, [2.6, 1.7, 1.9, 2.8, 2.1, 2.8, 0.035])
    np.testing.assert_allclose(robot.velocity_limits, [2.5, 2.5, 2.5, 3.0, 3.0, 3.0, 0.2])
    np.testing.assert_allclose(robot.acceleration_limits, [25, 25, 25, 30, 30, 30, 4])


def test_defaults_fill_what_is_left_out() -> None:
    robot = from_mapping(RobotConfig, small_robot())
    assert robot.policy.rate_hz == 20.0
    assert robot.command.type == "joint_trajectory"
    assert robot.cameras["eye"].subscribed_topic == "eye/image_raw"
    assert robot.joints["lift"].position == (0.0, 0.5)


def test_compressed_cameras_are_read_from_their_compressed_topic() -> None:
    robot = from_mapping(RobotConfig, changed("cameras.eye.transport", "compressed"))
    assert robot.cameras["eye"].subscribed_topic == "eye/image_raw/compressed"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("velocty", 1, r"velocty is not a known key.* Valid keys: name, joints, cameras"),
        ("joints.lift.velocty", 1, r"joints\.lift\.velocty is not a known key; did you mean 'velocity'\?"),
        ("joints.lift.velocity", ..., r"joints\.lift lacks the key velocity"),
        ("name", ..., r"the file lacks the key name"),
        ("joints.lift.velocity", 0, r"joints\.lift: velocity is 0.*; it must be above 0"),
        ("joints.lift.acceleration", -1, r"joints\.lift: acceleration is -1"),
        ("joints.lift.velocity", "fast", r"joints\.lift\.velocity is 'fast'; float was expected"),
        ("joints.lift.velocity", True, r"joints\.lift\.velocity is True; float was expected"),
        ("joints.lift.velocity", float("nan"), r"joints\.lift\.velocity is nan; a finite number was expected"),
        (
            "joints.lift.position",
            [0.5, 0.0],
            r"joints\.lift: position is \[0\.5, 0\.0\]; the lower limit must be below",
        ),
        ("joints.lift.position", [0.5], r"joints\.lift\.position has 1 entries; 2 were expected"),
        ("joints.lift.position", 0.5, r"joints\.lift\.position is 0\.5; a list was expected"),
        ("joints.lift.unit", "deg", r"joints\.lift\.unit is 'deg'; valid are 'rad', 'm'"),
        ("joints", {}, r"joints is empty; name at least one"),
        ("joints", ["lift"], r"joints is \['lift'\]; a mapping of names was expected"),
        ("cameras", {}, r"cameras is empty; name at least one"),
        ("cameras.eye.width", 64.5, r"cameras\.eye\.width is 64\.5; int was expected"),
        ("cameras.eye.height", 0, r"cameras\.eye: height is 0; it must be above 0"),
        ("cameras.eye.rate_hz", 10, r"cameras\.eye\.rate_hz is 10, below policy\.rate_hz 20; .*raise the one or lower"),
        ("policy.rate_hz", 0, r"policy: rate_hz is 0"),
        ("gate.staleness_s", -0.1, r"gate: staleness_s is -0\.1"),
        (
            "gate.staleness_s",
            0.05,
            r"policy\.rate_hz 20: the gate would hold the arm between two; make it 0\.08 or more",
        ),
        ("joint_states.rate_hz", 5, r"staleness_s is 0\.15, and joint_states\.rate_hz 5: .* make it 0\.3 or more"),
        ("gate.longest_pause_s", -1, r"gate: longest_pause_s is -1"),
        ("joint_states.max_age_s", 0, r"joint_states: max_age_s is 0"),
        ("command.type", "twist", r"command\.type is 'twist'; valid are 'joint_trajectory'"),
        ("gate", 5, r"gate is 5; a mapping was expected"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(RobotConfig, changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("joints.lift.velocity", 0.3),
        ("cameras.eye.rate_hz", 25),
        ("gate.staleness_s", 0.2),
        ("policy.rate_hz", 10),
        ("urdf", "other.urdf"),
        ("command.topic", "elsewhere"),
    ],
)
def test_the_digest_changes_with_anything(path: str, value: Any) -> None:
    before = from_mapping(RobotConfig, small_robot())
    after = from_mapping(RobotConfig, changed(path, value))
    assert before.digest == from_mapping(RobotConfig, small_robot()).digest
    assert before.digest != after.digest
    assert len(before.digest) == 16


def test_the_digest_changes_with_the_order_of_joints(robot: RobotConfig) -> None:
    turned = dataclasses.replace(robot, joints=dict(reversed(robot.joints.items())))
    assert turned.digest != robot.digest


def test_a_robot_file_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small_robot(), sort_keys=False))
    assert load_robot(file) == from_mapping(RobotConfig, small_robot())


def test_errors_begin_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(changed("joints.lift.unit", "deg")))
    with pytest.raises(ConfigError) as caught:
        load_robot(file)
    assert str(caught.value).startswith(f"{file}: joints.lift.unit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"the key 'a' stands twice \(line 3\); keep one"),
        ("x:\n  lower: 1\n  lower: 2\n", r"the key 'lower' stands twice \(line 3\)"),
        ("a: [1, 2", r"is not valid YAML"),
        ("? [a, b]\n: 1\n", r"no plain word"),
        ("a: !!python/object/apply:os.getcwd []\n", r"is not valid YAML"),
    ],
)
def test_yaml_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="Check the path"):
        read_yaml(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        load_robot(tmp_path / "nowhere.yaml")


def test_an_unknown_robot_name_lists_those_that_ship() -> None:
    with pytest.raises(ConfigError, match=r"desk_amr.*desk_arm"):
        load_robot("desk_amr")


def test_a_folder_of_a_robots_name_does_not_hide_the_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk_arm").mkdir()
    assert load_robot("desk_arm").name == "desk_arm"


def test_the_urdf_is_found_beside_the_robot_file(tmp_path: Path) -> None:
    robot = from_mapping(RobotConfig, changed("urdf", "small.urdf"))
    (tmp_path / "small.urdf").write_text("<robot name='small'/>")
    assert urdf_path(robot, tmp_path / "small.yaml") == tmp_path / "small.urdf"


def test_the_shipped_urdf_is_found_from_anywhere(
    robot: RobotConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert urdf_path(robot) == share_path("description/desk_arm.urdf")


@pytest.mark.parametrize(("urdf", "message"), [("", r"names no urdf; add `urdf: "), ("lost.urdf", r"lost\.urdf")])
def test_a_missing_urdf_is_an_error(urdf: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        urdf_path(from_mapping(RobotConfig, changed("urdf", urdf)))


def test_a_file_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"config/none\.yaml is not installed; install the package again"):
        share_path("config/none.yaml")


def test_what_a_training_file_leaves_out_is_as_in_the_shipped_one(tmp_path: Path) -> None:
    assert load_train_config(share_path("config/train.yaml")) == TrainConfig()
    file = tmp_path / "train.yaml"
    file.write_text("policy: {chunk: 16}")
    assert load_train_config(file) == TrainConfig(policy=PolicyConfig(chunk=16))


def test_scaling_a_training_scales_each_stage_that_has_steps():
    settings = TrainConfig(perception_steps=100, action_steps=3, together_steps=0)
    assert settings.scaled(0.1) == TrainConfig(perception_steps=10, action_steps=1, together_steps=0)
    assert TrainConfig(together_steps=40).scaled(0.5).together_steps == 20


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"action_steps": 0}, "steps, batch sizes and views must be at least 1"),
        ({"validation_share": 1.0}, r"validation_share is 1\.0; it must lie between 0 and 1"),
        ({"learning_rate": 0}, "learning_rate, together_rate, clip_norm and corrections must be above 0"),
        ({"policy": {"image_size": [8, 96]}}, r"policy: image_size is \[8, 96\]; .* sides of 24 to 4096"),
        (
            {"policy": {"encoder": "resnet"}},
            "policy: there is no encoder 'resnet'; there are strided, article",
        ),
    ],
)
def test_wrong_training_settings_are_named(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(entries))
    with pytest.raises(ConfigError, match=message):
        load_train_config(file)


@pytest.mark.parametrize(
    "entries", [{"smoothing": 1.0}, {"smoothing": -0.1}, {"ensemble_decay": -1.0}, {"chunk": 0}, {"bins": 1}]
)
def test_wrong_policy_settings_are_named(entries: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(entries))):
        PolicyConfig(**entries)


@pytest.mark.parametrize(
    ("name", "joints", "furthest", "fastest", "command"),
    [
        # The limits of the arms themselves: of the SO-101's calibration, of ur_description's ur5e/joint_limits.yaml.
        ("so101", 6, 2.8413, 6.0, "joint_trajectory"),
        ("ur5e", 6, 2 * np.pi, np.pi, "joint_trajectory"),
    ],
)
def test_worked_examples_load_and_stay_within_their_arms_limits(
    name: str, joints: int, furthest: float, fastest: float, command: str
) -> None:
    robot = load_robot(name)
    assert len(robot.joints) == joints
    assert robot.command.type == command
    assert np.abs(robot.position_limits).max() <= furthest
    assert robot.velocity_limits.max() <= fastest
    Contract.of(robot)


def test_the_controllers_example_names_the_desk_arms_joints_in_order() -> None:
    example = read_yaml(share_path("config/ros2_controllers.yaml"))
    joints = list(load_robot("desk_arm").joint_names)
    for name in ("joint_trajectory_controller", "forward_position_controller"):
        assert example[name]["ros__parameters"]["joints"] == joints
        assert name in example["controller_manager"]["ros__parameters"]
