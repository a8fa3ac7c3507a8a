"""Shadow mode: how well a policy that moves nothing says what the human beside it does."""

from __future__ import annotations

import numpy as np

ENOUGH_TICKS = 100
MOVING = 0.01  # share of a joint's range that the human must be ahead of the arm, for a tick to count
GO = 0.1  # share of the motion explained, from which a policy may be tried: see benchmarks/README.md


class Agreement:
    """Predictions beside commands, tick by tick.

    What the policy explains is measured against one that stays where it is, which explains nothing: over the ticks in
    which the human moves the arm, with predictions p, commands c and measured positions m in shares of a joint's range,

        explained = 1 - mean (p - c)² / mean (m - c)²

    so 1 is the human's double, 0 no better than standing still, and below 0 worse.

    Args:
        joints: names, in order.
        lower, upper: position limits (J,).
    """

    def __init__(self, joints: tuple[str, ...], lower: np.ndarray, upper: np.ndarray) -> None:
        self._joints, self._range = joints, upper - lower
        self.reset()

    def reset(self) -> None:
        self.ticks = 0
        self._error = np.zeros(len(self._joints))
        self._squares = np.zeros(2)  # of errors, of motion

    def add(self, predicted: np.ndarray, commanded: np.ndarray, measured: np.ndarray) -> None:
        """One tick: joint positions (J,) in rad or m, the first two what should and what did go to the arm."""
        motion, error = (measured - commanded) / self._range, (predicted - commanded) / self._range
        if np.max(np.abs(motion)) < MOVING:
            return
        self.ticks += 1
        self._error += np.abs(predicted - commanded)
        self._squares += np.sum(error**2), np.sum(motion**2)

    @property
    def errors(self) -> np.ndarray:
        """Mean distance (J,) of prediction and command, in rad or m."""
        return self._error / max(1, self.ticks)

    @property
    def explained(self) -> float:
        """See the class; 0 where nothing was commanded to move."""
        errors, motion = self._squares
        return float(1.0 - errors / motion) if motion > 0 else 0.0

    @property
    def may_go(self) -> bool:
        return self.ticks >= ENOUGH_TICKS and self.explained >= GO

    def sentence(self) -> str:
        """Go or no-go, and why."""
        if not self.ticks:
            return "no-go: no tick yet in which a human moved the arm beside a prediction."
        worst = int(np.argmax(self.errors / self._range))
        said = (
            f"{self.ticks} ticks of the human's motion, {100 * self.explained:.0f} % of it explained, largest mean "
            f"error {self.errors[worst]:.3g} at {self._joints[worst]}"
        )
        if self.may_go:
            return f"go: {said}."
        if self.ticks < ENOUGH_TICKS:
            return f"no-go yet: {said}; it takes {ENOUGH_TICKS} ticks."
        return f"no-go: {said}; it takes {100 * GO:.0f} %. Record more of what it does wrong, see docs/learning.md."
