"""Shadow mode: how well a policy that moves nothing says what the human beside it does."""

from __future__ import annotations

import numpy as np

ENOUGH_TICKS = 100
GO = 0.5  # share of the motion explained, from which the policy may be tried: see benchmarks/README.md


class Agreement:
    """Predictions beside commands, tick by tick.

    What the policy explains is measured against a policy that stays where it is, which explains nothing: with
    predictions p, commands c and measured positions m, joint by joint in shares of the joint's range,

        explained = 1 - mean |p - c| / mean |m - c|

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
        self._motion = np.zeros(len(self._joints))

    def add(self, predicted: np.ndarray, commanded: np.ndarray, measured: np.ndarray) -> None:
        """One tick: joint positions (J,) in rad or m, the first two what should and what did go to the arm."""
        self.ticks += 1
        self._error += np.abs(predicted - commanded)
        self._motion += np.abs(measured - commanded)

    @property
    def errors(self) -> np.ndarray:
        """Mean distance (J,) of prediction and command, in rad or m."""
        return self._error / max(1, self.ticks)

    @property
    def explained(self) -> float:
        """See the class; 0 where nothing was commanded to move."""
        motion = float(np.sum(self._motion / self._range))
        return 1.0 - float(np.sum(self._error / self._range)) / motion if motion > 0 else 0.0

    @property
    def may_go(self) -> bool:
        return self.ticks >= ENOUGH_TICKS and self.explained >= GO

    def sentence(self) -> str:
        """Go or no-go, and why."""
        if not self.ticks:
            return "no-go: no tick yet with a human's command beside a prediction."
        worst = int(np.argmax(self.errors / self._range))
        said = (
            f"{self.ticks} ticks beside the human, {100 * self.explained:.0f} % of the motion explained, largest mean "
            f"error {self.errors[worst]:.3g} at {self._joints[worst]}"
        )
        if self.may_go:
            return f"go: {said}."
        if self.ticks < ENOUGH_TICKS:
            return f"no-go yet: {said}; it takes {ENOUGH_TICKS} ticks."
        return f"no-go: {said}; it takes {100 * GO:.0f} %. Record more of what it does wrong, see docs/learning.md."
