"""The keyboard jog."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.control.limits import MotionLimits
from lam_ros.control.teleop import KEY_PAIRS, KeyboardJog


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
