"""From a tool's velocity to joint targets: differential inverse kinematics for whoever drives by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mink
import numpy as np

from lam_ros.config import TwistConfig
from lam_ros.control.kinematics import Kinematics
from lam_ros.control.limits import MotionLimits
from lam_ros.errors import ContractError

# How far the tool's held rotation may run away from the real one (rad): an arm with fewer than six joints cannot hold
# it, and must not stand still for it.
RUN_AWAY_RAD = 0.05


class CartesianJog:
    """A twist moves the tool along a straight line, or turns it; joints that do not move the tool stay.

    Near a singular posture, where a joint would have to be too fast, the tool slows down on its line.

    Args:
        described: frames, scale and greatest speeds.
        urdf: the arm.
        joints: names, in order.
        limits: targets stay inside.

    Raises:
        ConfigError: the URDF cannot be read, or lacks a joint or the tool frame.
    """

    def __init__(self, described: TwistConfig, urdf: Path, joints: Sequence[str], limits: MotionLimits) -> None:
        self._described, self._limits = described, limits
        self._kinematics = Kinematics(urdf, joints, described.tool_frame, damping=1e-6)
        self._held: np.ndarray | None = None

    def begin(self) -> None:
        """A human takes hold: the tool's rotation of then is kept, until it is turned."""
        self._held = None

    def move(
        self, frame: str, linear: Sequence[float], angular: Sequence[float], target: np.ndarray, dt_s: float
    ) -> np.ndarray:
        """The target (J,) after ``dt_s`` of a twist.

        Args:
            frame: of the twist; empty for the base's.
            linear: (3,), times ``scale`` in m/s.
            angular: (3,), times ``scale`` in rad/s.
            target: joint positions (J,) before.

        Raises:
            ContractError: another frame than base and tool, or a number that is none.
        """
        described = self._described
        if frame not in ("", described.base_frame, described.tool_frame):
            raise ContractError(
                f"{described.topic} is in the frame {frame!r}; send it in {described.base_frame} or "
                f"{described.tool_frame}, or set teleop.twist.base_frame or tool_frame."
            )
        if not np.isfinite([*linear, *angular]).all():
            raise ContractError(f"{described.topic} has a number that is not finite; the tool does not move.")
        position, rotation = self._kinematics.tool_pose(target)
        along = _at_most(described.scale * np.asarray(linear), described.linear)
        about = _at_most(described.scale * np.asarray(angular), described.angular)
        if frame == described.tool_frame:
            along, about = rotation @ along, rotation @ about
        step = self._kinematics.joint_step(
            target, position + along * dt_s, self._turned(rotation, about * dt_s), target
        )
        too_fast = float(np.max(np.abs(step) / (self._limits.velocity * dt_s)))
        return np.clip(target + step / max(1.0, too_fast), self._limits.lower, self._limits.upper)

    def _turned(self, rotation: np.ndarray, about: np.ndarray) -> np.ndarray:
        """The rotation (3, 3) to go to: the one held, turned by a rotation vector (3,) in the base's frame."""
        now = mink.SO3.from_matrix(rotation)
        held = now if self._held is None else mink.SO3.from_matrix(self._held)
        away = _at_most((now.inverse() @ held).log(), RUN_AWAY_RAD)
        self._held = (mink.SO3.exp(about) @ now @ mink.SO3.exp(away)).as_matrix()
        return self._held


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))
