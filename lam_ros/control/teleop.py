"""From what a human moves to joint targets: keys (in any terminal, over SSH too), a gamepad, a leader arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lam_ros.config import JoyConfig, LeaderConfig
from lam_ros.contract import NANOSECONDS
from lam_ros.control.limits import MotionLimits
from lam_ros.errors import ContractError

APPROACH = 0.25  # share of full speed at which an arm goes to its leader
APPROACHED_S = 0.05  # at full speed: an arm no further from its leader follows it
# Two columns of keys, one pair a joint: up and down.
KEY_PAIRS = ("qa", "ws", "ed", "rf", "tg", "yh", "uj", "ik", "ol")


class KeyboardJog:
    """Each key press moves one joint's target a little further.

    Args:
        joints: names, in order; at most as many as KEY_PAIRS.
        limits: targets stay inside.
        speed: share of each joint's velocity limit, 0 to 1.
        press_s: how long one press counts for; terminals repeat a held key about every 30 ms.
    """

    def __init__(
        self, joints: tuple[str, ...], limits: MotionLimits, speed: float = 0.3, press_s: float = 0.05
    ) -> None:
        self._limits = limits
        self._step = speed * limits.velocity * press_s
        self.keys = dict(zip(joints, KEY_PAIRS, strict=False))
        self._moves = {
            key: (index, sign)
            for index, pair in enumerate(self.keys.values())
            for key, sign in zip(pair, (1.0, -1.0), strict=True)
        }

    def press(self, key: str, target: np.ndarray) -> np.ndarray | None:
        """The target (J,) after a key; None where the key moves nothing."""
        if key not in self._moves:
            return None
        index, sign = self._moves[key]
        moved = target.astype(np.float64)
        moved[index] += sign * self._step[index]
        return np.clip(moved, self._limits.lower, self._limits.upper)

    def help(self) -> str:
        """Which keys move which joint."""
        return "  ".join(f"{pair[0]}/{pair[1]} {joint}" for joint, pair in self.keys.items())


class JoyJog:
    """Sticks move joints at a speed, while the dead-man's button is held.

    Args:
        described: which axis moves which joint.
        joints: names, in order.
        limits: targets stay inside.
    """

    def __init__(self, described: JoyConfig, joints: tuple[str, ...], limits: MotionLimits) -> None:
        self._described, self._limits = described, limits
        self._axes = [(joints.index(joint), given.axis, given.scale) for joint, given in described.axes.items()]

    def is_held(self, buttons: Sequence[int]) -> bool:
        """Whether the dead-man's button is; raises ContractError where the gamepad has no such button."""
        deadman, topic = self._described.deadman, self._described.topic
        if deadman >= len(buttons):
            raise ContractError(
                f"{topic} has {len(buttons)} buttons, and teleop.joy.deadman is {deadman}; "
                f"`ros2 topic echo {topic}` shows which one you press."
            )
        return bool(buttons[deadman])

    def move(self, axes: Sequence[float], target: np.ndarray, dt_s: float) -> np.ndarray:
        """The target (J,) after ``dt_s`` with the sticks so; raises ContractError for an axis that is not there."""
        moved = target.astype(np.float64)
        for joint, axis, scale in self._axes:
            if axis >= len(axes) or not np.isfinite(axes[axis]):
                raise ContractError(
                    f"{self._described.topic} has no axis {axis} (it has {len(axes)}), which teleop.joy.axes names."
                )
            deflection = float(np.clip(axes[axis], -1.0, 1.0))
            if abs(deflection) > self._described.dead_zone:
                moved[joint] += deflection * scale * self._limits.velocity[joint] * dt_s
        return np.clip(moved, self._limits.lower, self._limits.upper)


class LeaderArm:
    """Joint by joint, the robot goes where the leader arm is.

    Args:
        described: which joint leads which.
        joints: the robot's names, in order.
    """

    def __init__(self, described: LeaderConfig, joints: tuple[str, ...]) -> None:
        self._topic = described.topic
        self._leads = [described.joints[joint] for joint in joints]

    def target(self, names: Sequence[str], positions: Sequence[float]) -> np.ndarray:
        """The robot's target (J,); raises ContractError where a joint is missing or not finite."""
        measured = dict(zip(names, positions, strict=False))
        missing = [lead.joint for lead in self._leads if not np.isfinite(measured.get(lead.joint, np.nan))]
        if missing:
            raise ContractError(f"{self._topic} lacks {', '.join(missing)}; it has {', '.join(measured) or 'nothing'}.")
        return np.array([lead.scale * measured[lead.joint] + lead.offset for lead in self._leads])


class Approach:
    """An arm's way to a leader that is elsewhere: at a share of full speed until it has caught up, then along with it.

    Args:
        limits: of the arm.
    """

    def __init__(self, limits: MotionLimits) -> None:
        self._limits = limits
        self.begin()

    def begin(self) -> None:
        """The arm does not go along, or not yet."""
        self._at: np.ndarray | None = None
        self._then_ns = 0
        self._has_caught_up = False

    def target(self, leader: np.ndarray, arm: np.ndarray, now_ns: int) -> np.ndarray:
        """Where (J,) the arm is to go now, from where it stood (J,) at the beginning."""
        if self._limits.far_outside(leader) is not None:
            return leader  # the gate says what is wrong
        leader = np.clip(leader, self._limits.lower, self._limits.upper)
        if self._has_caught_up:
            return leader
        if self._at is None:
            self._at, self._then_ns = np.asarray(arm, dtype=np.float64), now_ns
        step = APPROACH * self._limits.velocity * max(0, now_ns - self._then_ns) / NANOSECONDS
        self._at, self._then_ns = self._at + np.clip(leader - self._at, -step, step), now_ns
        self._has_caught_up = bool(np.all(np.abs(leader - self._at) <= APPROACHED_S * self._limits.velocity))
        return self._at
