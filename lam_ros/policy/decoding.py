"""Action decoding: from overlapping chunks to one smooth target a tick, inside the joint limits."""

from __future__ import annotations

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
        self._decay = decay
        self._smoothing = smoothing
        self.reset()

    def reset(self) -> None:
        """Forget all predictions: at an episode's start."""
        self._chunks: list[np.ndarray] = []  # newest first
        self._last: np.ndarray | None = None

    def decode(self, chunk: np.ndarray) -> np.ndarray:
        """Add the newest chunk (K, J) and return this tick's target float32 (J,)."""
        self._chunks.insert(0, chunk)
        del self._chunks[len(chunk) :]
        said = np.stack([predicted[age] for age, predicted in enumerate(self._chunks)])
        weights = np.exp(-self._decay * np.arange(len(said)))
        target = weights @ said / weights.sum()
        if self._last is not None:
            target = self._smoothing * self._last + (1.0 - self._smoothing) * target
        self._last = target
        return np.clip(target, self._lower, self._upper).astype(np.float32)
