"""Batches: shuffled frames, and windows of whole episodes through which an LSTM hands on its state.

Each epoch's order depends on the seed and the epoch alone, so that a resumed run sees what an unbroken one would, and
is the same for every process of a distributed run: each takes its share of the global batch.

    stream 0  |e7 e7 e7 e7|e7 e7 -- --|e2 e2 e2 e2| ...   windows of 4 ticks; --: padding
    stream 1  |e4 e4 e4 --|e9 e9 e9 e9|e9 e9 e9 e9| ...
    fresh       1            0, 1        1, 0             the stream begins an episode: the LSTM starts from nothing
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lam_ros.demonstrations.dataset import Dataset, chunk_targets
from lam_ros.learning.hindsight import look_back


@dataclass(frozen=True)
class Frames:
    """Demonstrations laid end to end, N ticks in all.

    Attributes:
        images: uint8 (N, C, H, W, 3).
        state: float32 (N, J).
        targets: float32 (N, K, J), joint targets of the next K ticks.
        destination, contact: float32 (N, J), time_to_go: float32 (N,), way: float32 (N, 3 * J); see ``Hindsight``.
        taught: float32 (N,), how much each tick counts: 1; in a demonstration in which a policy drove too, 0 where it
            did, and ``corrections`` where the human did.
        lengths: ticks of each stretch through which a memory lasts: a demonstration, or its part from one takeover to
            the next; what a policy did before the first is left out.
        weights: float64, how often each stretch is shown, relative to the others.
    """

    images: Tensor
    state: Tensor
    targets: Tensor
    destination: Tensor
    contact: Tensor
    time_to_go: Tensor
    way: Tensor
    taught: Tensor
    lengths: list[int]
    weights: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, chunk: int, corrections: float = 1.0) -> Frames:
        """Lay a dataset's demonstrations end to end."""
        demonstrations = dataset.demonstrations
        seen = [look_back(d.state, d.action, dataset.contract.hands, d.human) for d in demonstrations]
        begins = [d.takeovers if d.human.any() else np.zeros(1, np.int64) for d in demonstrations]
        stretches = [np.diff([*begun, len(d)]) for d, begun in zip(demonstrations, begins, strict=True)]

        def joined(arrays: Sequence[np.ndarray]) -> Tensor:
            kept = [array[begun[0] :] for array, begun in zip(arrays, begins, strict=True)]
            return torch.from_numpy(np.concatenate(kept))

        return cls(
            images=joined([d.images for d in demonstrations]),
            state=joined([d.state for d in demonstrations]),
            targets=joined([chunk_targets(d.action, chunk, d.human) for d in demonstrations]),
            destination=joined([labels.destination for labels in seen]),
            contact=joined([labels.contact for labels in seen]),
            time_to_go=joined([labels.time_to_go for labels in seen]),
            way=joined([labels.way for labels in seen]),
            taught=joined(
                [
                    np.where(d.human, 1.0 if d.human.all() else corrections, 0.0).astype(np.float32)
                    for d in demonstrations
                ]
            ),
            lengths=np.concatenate(stretches).tolist(),
            weights=np.repeat(np.array(dataset.weights), [len(stretch) for stretch in stretches]),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Frames:
        return self  # gigabytes that nobody changes: averaging weights must not copy them

    @property
    def frame_weights(self) -> np.ndarray:
        """How often each tick is shown."""
        return np.repeat(self.weights, self.lengths) * self.taught.numpy()


class _Draw:
    """An endless shuffle of ``count`` things: each once before any twice, or by weight where weights differ."""

    def __init__(self, weights: np.ndarray, rng: np.random.Generator) -> None:
        self._weights = weights / weights.sum()
        self._is_even = bool(np.ptp(weights) == 0.0)
        self._rng = rng
        self._pool = np.empty(0, dtype=np.int64)

    def take(self, count: int) -> np.ndarray:
        while len(self._pool) < count:
            size = len(self._weights)
            more = self._rng.permutation(size) if self._is_even else self._rng.choice(size, size, p=self._weights)
            self._pool = np.concatenate([self._pool, more])
        taken, self._pool = self._pool[:count].copy(), self._pool[count:]
        return taken


class Shuffled:
    """Epochs of ``batches`` index batches (B,) over things that are shown as often as their weights (count,) say."""

    def __init__(self, weights: np.ndarray, batch: int, batches: int, seed: int) -> None:
        self._weights, self._batch = weights, min(batch, len(weights))
        self._batches, self._seed = batches, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer; the order of an epoch follows from it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Tensor]:
        draw = _Draw(self._weights, np.random.default_rng((self._seed, self._epoch)))
        for _ in range(self._batches):
            yield torch.from_numpy(draw.take(self._batch))


class InOrder:
    """All ticks that count, once each, as index batches."""

    def __init__(self, taught: Tensor, batch: int) -> None:
        self._batches = torch.nonzero(taught)[:, 0].split(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)


@dataclass(frozen=True)
class Window:
    """The next W ticks of each of B streams.

    Attributes:
        index: int64 (B, W), ticks of ``Frames``; 0 where there is none.
        mask: float32 (B, W), 1 where there is a tick.
        fresh: bool (B,), whether the stream begins an episode with this window.
        draw: int64 (B,), a number that belongs to the stream's episode: what is random of a whole episode follows
            from it.
    """

    index: Tensor
    mask: Tensor
    fresh: Tensor
    draw: Tensor

    def share(self, rank: int, world: int) -> Window:
        """A process's rows of a global batch."""
        return Window(**{field.name: getattr(self, field.name)[rank::world] for field in fields(self)})


class Windows:
    """Epochs of ``batches`` windows of ``batch`` streams; ``window`` ticks long, 0 for whole episodes.

    An epoch begins with fresh episodes in every stream.
    """

    def __init__(
        self, lengths: Sequence[int], weights: np.ndarray, batch: int, window: int, batches: int, seed: int
    ) -> None:
        self._lengths, self._weights = np.asarray(lengths), weights
        self._starts = np.cumsum([0, *lengths[:-1]])
        self._batch, self._window, self._batches, self._seed = min(batch, len(lengths)), window, batches, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Window]:
        rng = np.random.default_rng((self._seed, self._epoch))
        episodes = _Draw(self._weights, rng)
        left = np.zeros(self._batch, dtype=np.int64)  # ticks of each stream's episode that are still to come
        at, number = np.zeros_like(left), np.zeros_like(left)
        for _ in range(self._batches):
            fresh = left == 0
            chosen = episodes.take(int(fresh.sum()))
            at[fresh], left[fresh] = self._starts[chosen], self._lengths[chosen]
            number[fresh] = rng.integers(0, 2**31, len(chosen))
            width = min(self._window or int(left.max()), int(left.max()))
            yield _cut(at, np.minimum(left, width), width, fresh, number)
            taken = np.minimum(left, width)
            at, left = at + taken, left - taken


class EpisodesInOrder:
    """All episodes once, whole, as windows of up to ``batch`` streams."""

    def __init__(self, lengths: Sequence[int], batch: int) -> None:
        starts = np.cumsum([0, *lengths[:-1]])
        self._windows = []
        for first in range(0, len(lengths), batch):
            some = np.asarray(lengths[first : first + batch])
            whole = np.ones(len(some), dtype=bool)
            self._windows.append(
                _cut(starts[first : first + batch], some, int(some.max()), whole, np.zeros(len(some), dtype=np.int64))
            )

    def __len__(self) -> int:
        return len(self._windows)

    def __iter__(self) -> Iterator[Window]:
        return iter(self._windows)


def _cut(at: np.ndarray, counts: np.ndarray, width: int, fresh: np.ndarray, number: np.ndarray) -> Window:
    ticks = np.arange(width)
    mask = ticks < counts[:, None]
    index = np.where(mask, at[:, None] + ticks, 0)
    return Window(
        torch.from_numpy(index),
        torch.from_numpy(mask.astype(np.float32)),
        torch.from_numpy(fresh.copy()),
        torch.from_numpy(number.copy()),
    )
