"""Batches for the two stages of training: shuffled frames, and whole episodes on cached features.

Each epoch's order depends on the seed and the epoch alone, so that a resumed run sees what an unbroken one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lam_ros.demonstrations.dataset import Demonstration, chunk_targets


@dataclass(frozen=True)
class Frames:
    """Demonstrations laid end to end, N ticks in all.

    Attributes:
        images: uint8 (N, C, H, W, 3).
        state: float32 (N, J).
        chunk: float32 (N, K, J), targets of the next K ticks.
        destination: float32 (N, J), joint positions at the end of the demonstration the tick belongs to.
        lengths: ticks of each demonstration.
    """

    images: Tensor
    state: Tensor
    chunk: Tensor
    destination: Tensor
    lengths: list[int]

    @classmethod
    def of(cls, demonstrations: Sequence[Demonstration], chunk: int) -> Frames:
        return cls(
            images=torch.from_numpy(np.concatenate([d.images for d in demonstrations])),
            state=torch.from_numpy(np.concatenate([d.state for d in demonstrations])),
            chunk=torch.from_numpy(np.concatenate([chunk_targets(d.action, chunk) for d in demonstrations])),
            destination=torch.from_numpy(
                np.concatenate([np.repeat(d.state[-1:], len(d), axis=0) for d in demonstrations])
            ),
            lengths=[len(d) for d in demonstrations],
        )

    @property
    def offsets(self) -> Tensor:
        """Targets relative to the measured state, (N, K, J)."""
        return self.chunk - self.state[:, None]

    def offsets_at(self, index: Tensor) -> Tensor:
        """Those of some ticks (B,): (B, K, J)."""
        return self.chunk[index] - self.state[index][:, None]


class Shuffled:
    """An endless shuffle of ``count`` things cut into epochs of ``batches`` index batches of size ``batch``."""

    def __init__(self, count: int, batch: int, batches: int, seed: int) -> None:
        self._count, self._batch, self._batches, self._seed = count, min(batch, count), batches, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer; the order of an epoch follows from it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Tensor]:
        rng = np.random.default_rng((self._seed, self._epoch))
        pool = np.empty(0, dtype=np.int64)
        for _ in range(self._batches):
            while len(pool) < self._batch:
                pool = np.concatenate([pool, rng.permutation(self._count)])
            yield torch.from_numpy(pool[: self._batch].copy())
            pool = pool[self._batch :]


class InOrder:
    """All of ``count`` things once, as index batches."""

    def __init__(self, count: int, batch: int) -> None:
        self._batches = torch.arange(count).split(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)


@dataclass(frozen=True)
class Episodes:
    """Whole episodes, padded to the longest, B of them and T ticks.

    Attributes:
        features: float32 (B, T, C * D), cached from the trained perception.
        state: float32 (B, T, J), normalised.
        offsets: float32 (B, T, K, J), normalised.
        mask: float32 (B, T), 1 where there is a tick.
    """

    features: Tensor
    state: Tensor
    offsets: Tensor
    mask: Tensor

    @classmethod
    def of(cls, features: Tensor, state: Tensor, offsets: Tensor, lengths: Sequence[int]) -> Episodes:
        def padded(flat: Tensor) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(list(flat.split(list(lengths))), batch_first=True)

        mask = padded(torch.ones(sum(lengths)))
        return cls(padded(features), padded(state), padded(offsets), mask)

    def pick(self, index: Tensor) -> Episodes:
        """Some of them, cut to the longest among these."""
        mask = self.mask[index]
        longest = int(mask.sum(1).max())

        def cut(part: Tensor) -> Tensor:
            return part[index][:, :longest]

        return Episodes(cut(self.features), cut(self.state), cut(self.offsets), mask[:, :longest])
