"""Forward and inverse kinematics of the shipped arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lam_ros.config import RobotConfig, urdf_path
from lam_ros.control.kinematics import Kinematics, approach_rotation
from lam_ros.errors import ConfigError

POSTURE = np.array([0.0, -0.1, 0.6, 0.0, 1.07, 0.0, 0.02])


@pytest.fixture
def arm(robot: RobotConfig) -> Kinematics:
    return Kinematics(urdf_path(robot), robot.joint_names)


def test_at_zero_the_tool_is_where_the_links_add_up(arm: Kinematics) -> None:
    position, rotation = arm.tool_pose(np.zeros(7))
    np.testing.assert_allclose(position, [0.12 + 0.10 + 0.05 + 0.08, 0.0, 0.06 + 0.09 + 0.25], atol=1e-9)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-9)


def test_the_waist_turns_the_tool_about_the_vertical(arm: Kinematics) -> None:
    before, _ = arm.tool_pose(POSTURE)
    turned = POSTURE.copy()
    turned[0] = 0.7
    after, _ = arm.tool_pose(turned)
    c, s = np.cos(0.7), np.sin(0.7)
    np.testing.assert_allclose(after, [c * before[0], s * before[0], before[2]], atol=1e-9)


def test_the_gripper_does_not_move_the_tool(arm: Kinematics) -> None:
    opened = POSTURE.copy()
    opened[-1] = 0.035
    np.testing.assert_allclose(arm.tool_pose(opened)[0], arm.tool_pose(POSTURE)[0], atol=1e-12)


def test_joint_steps_lead_to_the_pose_within_limits(arm: Kinematics, robot: RobotConfig) -> None:
    goal, rotation = np.array([0.30, 0.12, 0.08]), approach_rotation(0.4)
    lower, upper = robot.position_limits
    q = POSTURE.copy()
    for _ in range(60):
        tool, _ = arm.tool_pose(q)
        q = q + arm.joint_step(q, tool + 0.5 * (goal - tool), rotation, POSTURE)
        assert np.all(q >= lower - 1e-6)
        assert np.all(q <= upper + 1e-6)
    tool, reached = arm.tool_pose(q)
    np.testing.assert_allclose(tool, goal, atol=1e-3)
    assert reached[:, 0] @ rotation[:, 0] > 0.98


def test_the_gripper_stays_as_given(arm: Kinematics) -> None:
    q = POSTURE.copy()
    q[-1] = 0.01
    tool, rotation = arm.tool_pose(q)
    step = arm.joint_step(q, tool + np.array([0.01, 0.01, 0.0]), rotation, POSTURE)
    assert np.abs(step[:-1]).max() > 1e-3
    assert abs(step[-1]) < 1e-4


def test_an_unknown_joint_is_named(robot: RobotConfig) -> None:
    with pytest.raises(ConfigError, match=r"has no joint hip; it has .*waist"):
        Kinematics(urdf_path(robot), ["waist", "hip"])


def test_a_file_that_is_no_urdf_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.urdf"
    broken.write_text("<robot name='x'><link name='a'>")
    with pytest.raises(ConfigError, match=r"broken\.urdf is not a URDF that can be used"):
        Kinematics(broken, ["a"])


@pytest.mark.parametrize("yaw", [-2.0, 0.0, 0.6])
@pytest.mark.parametrize("tilt", [-0.2, 0.0, 0.3])
def test_approach_rotation_points_down_and_leans_by_its_tilt(yaw: float, tilt: float) -> None:
    rotation = approach_rotation(yaw, tilt)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    outwards = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    np.testing.assert_allclose(rotation[:, 0], np.sin(tilt) * outwards - [0, 0, np.cos(tilt)], atol=1e-12)
    np.testing.assert_allclose(rotation[:, 1], [-np.sin(yaw), np.cos(yaw), 0.0], atol=1e-12)
