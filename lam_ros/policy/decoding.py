"""Action decoding: from overlapping chunks to one smooth target a tick, inside the joint limits."""

from __future__ import annotations

import math

import numpy as np


class ActionDecoder:
    """Temporal ensembling, smoothing, clipping: the articles' post-processing, with ACT's ensembling.

    The chunk predicted at tick s says what to do at ticks s, s+1, … s+K-1. At tick t the target is the mean of all that
    was said of t, weighted with exp(-decay * (t - s)): the newest counts most.

    Args:
        lower, upper: joint limits (J,).
        decay: of the ensembling weights, a tick.
        smoothing: share of the last target in the next, 0 to below 1.
    """

    def __init__(self, lower: np.ndarray, upper: np.ndarray, decay: float, smoothing: float) -> None:
        self._lower, self._upper = lower, upper
        self._keep = math.exp(-decay)
        self._smoothing = smoothing
        self.reset()

    def reset(self) -> None:
        """Forget all predictions: at an episode's start."""
        self._said: np.ndarray | None = None  # weighted sums (K, J) of what was said of this tick and the next ones
        self._weights: np.ndarray | None = None  # (K, 1), what those sums weigh
        self._last: np.ndarray | None = None

    def decode(self, chunk: np.ndarray, ticks: int = 1) -> np.ndarray:
        """Add the newest chunk (K, J), so many ticks after the one before; return this tick's target float32 (J,)."""
        if self._said is None or self._weights is None:
            self._said, self._weights = np.zeros(chunk.shape), np.zeros((len(chunk), 1))
        # A tick has passed: what was said of the next tick is now said of this one, and weighs less.
        for _ in range(min(ticks, len(chunk))):
            self._said[:-1] = self._keep * self._said[1:]
            self._weights[:-1] = self._keep * self._weights[1:]
            self._said[-1] = self._weights[-1] = 0.0
        self._said += chunk
        self._weights += 1.0
        target = self._said[0] / self._weights[0]
        if self._last is not None:
            target = self._smoothing * self._last + (1.0 - self._smoothing) * target
        self._last = target
        return np.clip(target, self._lower, self._upper).astype(np.float32)
