"""The tool follows a twist."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.config import RobotConfig, TwistConfig, from_mapping, urdf_path
from lam_ros.control.cartesian import CartesianJog
from lam_ros.control.kinematics import Kinematics
from lam_ros.control.limits import MotionLimits
from lam_ros.errors import ConfigError, ContractError

START = np.array([0.2, 0.5, 0.9, 0.1, 0.6, 0.0, 0.02])
DT_S = 0.02


@pytest.fixture
def arm(robot: RobotConfig) -> Kinematics:
    return Kinematics(urdf_path(robot, "desk_arm"), robot.joint_names)


def make(robot: RobotConfig, **described: object) -> CartesianJog:
    return CartesianJog(
        from_mapping(TwistConfig, described),
        urdf_path(robot, "desk_arm"),
        robot.joint_names,
        MotionLimits.of(robot),
    )


def driven(jog: CartesianJog, linear: object, angular: object, ticks: int = 50, frame: str = "") -> list[np.ndarray]:
    jog.begin()
    path = [START]
    for _ in range(ticks):
        path.append(jog.move(frame, linear, angular, path[-1], DT_S))
    return path


@pytest.mark.parametrize("axis", range(3))
def test_the_tool_goes_straight_at_the_speed_asked_and_keeps_its_rotation(
    arm: Kinematics, robot: RobotConfig, axis: int
) -> None:
    velocity = 0.05 * np.eye(3)[axis]
    path = driven(make(robot), velocity, np.zeros(3))
    (begun, upright), (ended, turned) = arm.tool_pose(path[0]), arm.tool_pose(path[-1])
    np.testing.assert_allclose(ended - begun, velocity * 50 * DT_S, atol=2e-3)
    np.testing.assert_allclose(turned, upright, atol=0.02)


def test_a_twist_in_the_tools_frame_goes_where_the_tool_points(arm: Kinematics, robot: RobotConfig) -> None:
    path = driven(make(robot), [0.05, 0.0, 0.0], np.zeros(3), frame="tool_link")
    (begun, rotation), (ended, _) = arm.tool_pose(path[0]), arm.tool_pose(path[-1])
    np.testing.assert_allclose(ended - begun, 0.05 * rotation[:, 0], atol=2e-3)


def test_turning_turns_about_the_base_axis_and_leaves_the_tool_in_its_place(
    arm: Kinematics, robot: RobotConfig
) -> None:
    path = driven(make(robot), np.zeros(3), [0.0, 0.0, 0.3], ticks=25)
    (begun, before), (ended, after) = arm.tool_pose(path[0]), arm.tool_pose(path[-1])
    turn = after @ before.T
    assert np.arctan2(turn[1, 0], turn[0, 0]) == pytest.approx(0.15, abs=0.02)
    np.testing.assert_allclose(ended, begun, atol=3e-3)


def test_no_joint_is_faster_than_its_limit_and_the_gripper_stays(robot: RobotConfig) -> None:
    path = np.array(driven(make(robot, linear=5.0), [0.0, 0.0, -5.0], np.zeros(3), ticks=100))
    speeds = np.abs(np.diff(path, axis=0)) / DT_S
    assert (speeds <= robot.velocity_limits * (1 + 1e-9)).all()
    assert speeds.max() > 0.9 * robot.velocity_limits.min()
    assert (path[:, 6] == START[6]).all()
    lower, upper = robot.position_limits
    assert (path >= lower).all()
    assert (path <= upper).all()


def test_what_is_sent_is_scaled_and_never_faster_than_allowed(arm: Kinematics, robot: RobotConfig) -> None:
    jog = make(robot, scale=0.1, linear=0.02)
    for sent, speed in ((0.1, 0.01), (1.0, 0.02)):
        path = driven(jog, [0.0, sent, 0.0], np.zeros(3))
        went = arm.tool_pose(path[-1])[0] - arm.tool_pose(path[0])[0]
        np.testing.assert_allclose(went, [0.0, speed, 0.0], atol=1e-3)


def test_an_arm_that_cannot_hold_the_rotation_still_goes_on(arm: Kinematics, robot: RobotConfig) -> None:
    """Far out the arm is stretched, and the tool must turn for it to come back."""
    jog = make(robot)
    out = driven(jog, [0.2, 0.0, 0.0], np.zeros(3), ticks=200)[-1]
    back = out
    for _ in range(100):
        back = jog.move("", [-0.1, 0.0, 0.0], [0.0, 0.0, 0.0], back, DT_S)
    assert arm.tool_pose(out)[0][0] - arm.tool_pose(back)[0][0] > 0.15


@pytest.mark.parametrize(
    ("frame", "linear", "sentence"),
    [
        ("moon", [0.0, 0.0, 0.0], "teleop/twist is in the frame 'moon'; send it in base_link or tool_link"),
        ("", [0.0, float("nan"), 0.0], "has a number that is not finite"),
    ],
)
def test_a_twist_that_cannot_be_followed_moves_nothing(
    robot: RobotConfig, frame: str, linear: list[float], sentence: str
) -> None:
    with pytest.raises(ContractError, match=sentence):
        make(robot).move(frame, linear, [0.0, 0.0, 0.0], START, DT_S)


def test_a_tool_that_the_urdf_lacks_is_named(robot: RobotConfig) -> None:
    with pytest.raises(ConfigError, match=r"tool_frame is 'hand', which is no link of .*; it has .*tool_link"):
        make(robot, tool_frame="hand")


def test_speeds_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match=r"linear is 0\.0; it must be above 0"):
        from_mapping(TwistConfig, {"linear": 0.0})
