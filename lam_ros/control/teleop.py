"""From keys to joint targets: a jog that works in any terminal, over SSH too."""

from __future__ import annotations

import numpy as np

from lam_ros.control.limits import MotionLimits

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
