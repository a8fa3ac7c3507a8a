"""The keyboard jog."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.config import JoyConfig, LeaderConfig, RobotConfig, from_mapping
from lam_ros.control.limits import MotionLimits
from lam_ros.control.teleop import APPROACH, KEY_PAIRS, Approach, JoyJog, KeyboardJog, LeaderArm
from lam_ros.errors import ConfigError, ContractError


@pytest.fixture
def jog(robot: RobotConfig) -> KeyboardJog:
    return KeyboardJog(robot.joint_names, MotionLimits.of(robot), speed=0.5, press_s=0.1)


def test_a_press_moves_one_joint_by_its_share_of_speed(jog: KeyboardJog) -> None:
    target = np.zeros(7)
    moved = jog.press("q", target)
    assert moved is not None
    np.testing.assert_allclose(moved, [0.5 * 2.5 * 0.1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(target, 0.0)


@pytest.mark.parametrize("index", range(6))
def test_the_second_key_of_a_pair_undoes_the_first(jog: KeyboardJog, index: int) -> None:
    up, down = KEY_PAIRS[index]
    target = np.zeros(7)
    raised = jog.press(up, target)
    assert raised is not None
    assert raised[index] > 0
    back = jog.press(down, raised)
    assert back is not None
    np.testing.assert_allclose(back, target, atol=1e-12)


@pytest.mark.parametrize("key", ["x", "", "ik", "Q", "i", "\x1b"])
def test_other_keys_move_nothing(jog: KeyboardJog, key: str) -> None:
    assert jog.press(key, np.zeros(7)) is None


def test_targets_stay_inside_the_joint_limits(jog: KeyboardJog, robot: RobotConfig) -> None:
    lower, upper = robot.position_limits
    high, low = upper, lower
    for up, down in jog.keys.values():
        high, low = jog.press(up, high), jog.press(down, low)
    np.testing.assert_array_equal(high, upper)
    np.testing.assert_array_equal(low, lower)


def test_help_names_each_joint_with_its_keys(jog: KeyboardJog, robot: RobotConfig) -> None:
    for pair, joint in zip(KEY_PAIRS, robot.joint_names, strict=False):
        assert f"{pair[0]}/{pair[1]} {joint}" in jog.help()


@pytest.fixture
def sticks(robot: RobotConfig) -> JoyJog:
    axes = {"waist": {"axis": 0}, "elbow": {"axis": 3, "scale": -1.0}}
    described = from_mapping(JoyConfig, {"deadman": 4, "axes": axes, "dead_zone": 0.1})
    return JoyJog(described, robot.joint_names, MotionLimits.of(robot))


def test_sticks_move_joints_at_their_share_of_speed(sticks: JoyJog) -> None:
    moved = sticks.move([0.5, 1.0, 1.0, 0.2], np.zeros(7), 0.02)
    np.testing.assert_allclose(moved, [0.5 * 0.5 * 2.5 * 0.02, 0, -0.2 * 2.5 * 0.02, 0, 0, 0, 0])


def test_sticks_that_rest_badly_or_lie_move_nothing_or_no_faster(sticks: JoyJog, robot: RobotConfig) -> None:
    np.testing.assert_array_equal(sticks.move([0.1, 0, 0, -0.09], np.zeros(7), 0.02), 0.0)
    np.testing.assert_allclose(sticks.move([50.0, 0, 0, 0], np.zeros(7), 0.02)[0], 0.5 * 2.5 * 0.02)
    lower, upper = robot.position_limits
    np.testing.assert_array_equal(sticks.move([1.0, 0, 0, 0], upper, 1.0), upper)
    np.testing.assert_array_equal(sticks.move([-1.0, 0, 0, 0], lower, 1.0), lower)


def test_the_dead_mans_button_decides(sticks: JoyJog) -> None:
    assert sticks.is_held([0, 0, 0, 0, 1])
    assert not sticks.is_held([1, 1, 1, 1, 0, 1])
    with pytest.raises(ContractError, match=r"joy has 2 buttons, and teleop\.joy\.deadman is 4"):
        sticks.is_held([1, 1])


@pytest.mark.parametrize("axes", [[0.1, 0.2], [0.0, 0.0, 0.0, float("nan")]])
def test_an_axis_that_is_not_there_moves_nothing(sticks: JoyJog, axes: list[float]) -> None:
    with pytest.raises(ContractError, match="has no axis 3"):
        sticks.move(axes, np.zeros(7), 0.02)


def test_a_leader_leads_joint_by_joint(robot: RobotConfig) -> None:
    joints = {name: {"joint": f"leader_{name}"} for name in robot.joint_names}
    joints["elbow"] |= {"scale": -2.0, "offset": 0.3}
    leader = LeaderArm(from_mapping(LeaderConfig, {"joints": joints}), robot.joint_names)
    names = [f"leader_{name}" for name in reversed(robot.joint_names)]
    positions = np.arange(7.0)
    expected = positions[::-1].copy()
    expected[2] = -2.0 * expected[2] + 0.3
    np.testing.assert_allclose(leader.target(names, positions.tolist()), expected)
    with pytest.raises(ContractError, match="leader/joint_states lacks leader_waist; it has leader_gripper"):
        leader.target(names[:-1], positions[:-1].tolist())
    with pytest.raises(ContractError, match="lacks leader_waist"):
        leader.target(names, [*positions[:-1], float("nan")])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"deadman": -1, "axes": {}}, "deadman is -1; buttons are counted from 0"),
        ({"deadman": 0, "axes": {"waist": {"axis": -1}}}, "axis is -1; axes are counted from 0"),
        ({"deadman": 0, "axes": {"waist": {"axis": 0, "scale": 3}}}, "scale is 3.0; it must be from -1 to 1"),
        ({"deadman": 0, "axes": {}, "dead_zone": 1.0}, "dead_zone is 1.0"),
        ({"axes": {}}, "lacks the key deadman"),
    ],
)
def test_a_gamepad_described_wrongly_is_an_error(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        from_mapping(JoyConfig, given)


def test_a_leader_in_another_unit_is_left_to_the_gate_to_refuse(robot: RobotConfig) -> None:
    approach, arm = Approach(MotionLimits.of(robot)), np.zeros(7)
    degrees = np.full(7, 57.0)
    for now_s in range(3):
        np.testing.assert_array_equal(approach.target(degrees, arm, now_s * 10**9), degrees)
    slightly = robot.position_limits[1] * 1.1
    targets = [approach.target(slightly, arm, (3 + i) * 10**9) for i in range(20)]
    np.testing.assert_array_equal(targets[0], arm)
    np.testing.assert_allclose(
        targets[1] - targets[0], np.minimum(APPROACH * robot.velocity_limits, robot.position_limits[1])
    )
    np.testing.assert_allclose(targets[-1], robot.position_limits[1])
