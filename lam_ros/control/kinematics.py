"""Forward and differential inverse kinematics of an arm, from its URDF (MuJoCo and mink do the mathematics)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mink
import numpy as np

from lam_ros.control.arm_model import joint_numbers, link_number, model_of_urdf


class Kinematics:
    """The tool frame of one arm.

    Args:
        urdf: the arm.
        joints: the robot's joints in order; those the URDF does not move the tool with (a gripper) stay as given.
        tool_frame: the link whose pose is controlled; its x axis is the direction of approach.
        damping: of joint steps; more is calmer near singular postures, and lags.

    Raises:
        ConfigError: the URDF cannot be read, or lacks a joint or the tool frame.
    """

    def __init__(self, urdf: Path, joints: Sequence[str], tool_frame: str = "tool_link", damping: float = 1e-3) -> None:
        model = model_of_urdf(urdf).compile()
        link_number(model, tool_frame, urdf)
        self._damping = damping
        numbers = joint_numbers(model, joints, urdf)
        self._address, self._dof = model.jnt_qposadr[numbers], model.jnt_dofadr[numbers]
        self._configuration = mink.Configuration(model)
        self._tool_frame = tool_frame
        self._tool = mink.FrameTask(tool_frame, "body", position_cost=1.0, orientation_cost=0.05, lm_damping=1e-3)
        self._posture = mink.PostureTask(model, cost=1e-3)
        self._limits = [mink.ConfigurationLimit(model)]

    def _place(self, q: np.ndarray) -> None:
        full = self._configuration.q.copy()
        full[self._address] = q
        self._configuration.update(full)

    def tool_pose(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and rotation (3, 3) of the tool in the base frame, at joint positions ``q`` (J,)."""
        self._place(q)
        pose = self._configuration.get_transform_frame_to_world(self._tool_frame, "body")
        return pose.translation(), pose.rotation().as_matrix()

    def joint_step(self, q: np.ndarray, position: np.ndarray, rotation: np.ndarray, posture: np.ndarray) -> np.ndarray:
        """Joint displacement (J,) that brings the tool from where ``q`` puts it towards a pose, within joint limits.

        Args:
            q: joint positions (J,) in rad or m.
            position: wanted tool position (3,) in m, base frame; near the present one.
            rotation: wanted tool rotation (3, 3); it yields to the position.
            posture: joint positions (J,) to prefer where the pose leaves freedom.
        """
        self._place(q)
        self._tool.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position))
        preferred = self._configuration.q.copy()
        preferred[self._address] = posture
        self._posture.set_target(preferred)
        velocity = mink.solve_ik(
            *(self._configuration, [self._tool, self._posture], 1.0, "daqp"), self._damping, limits=self._limits
        )
        return np.asarray(velocity[self._dof])


def approach_rotation(yaw: float, tilt: float = 0.0) -> np.ndarray:
    """Rotation (3, 3) of a tool that points straight down, turned by ``yaw`` about the vertical (rad).

    ``tilt`` (rad) leans it back towards the base. Columns are the tool's x (approach), y (finger) and z axes.
    """
    approach = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    finger = np.array([0.0, 1.0, 0.0])
    upright = np.column_stack([approach, finger, np.cross(approach, finger)])
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ upright
