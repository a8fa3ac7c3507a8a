"""Aligned demonstrations in memory: what training sees."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lam_ros.contract import Contract
from lam_ros.errors import TrainingError


@dataclass(frozen=True)
class Demonstration:
    """One episode at the policy's ticks, T of them.

    Attributes:
        images: uint8 (T, C, H, W, 3) RGB, at the policy's image size, cameras in the robot's order.
        state: float32 (T, J), measured joint positions in rad or m.
        action: float32 (T, J), the joint targets that were in force.
        stamps_ns: int64 (T,), stamp of the oldest image of each tick.
        human: bool (T,), whether a human drove; everywhere, if not given. Where a policy drove, there is nothing to
            imitate.
    """

    images: np.ndarray
    state: np.ndarray
    action: np.ndarray
    stamps_ns: np.ndarray
    human: np.ndarray = field(default_factory=lambda: np.ones(0, dtype=bool))

    def __post_init__(self) -> None:
        if len(self.human) != len(self.state):
            object.__setattr__(self, "human", np.ones(len(self.state), dtype=bool))

    def __len__(self) -> int:
        return len(self.state)

    @property
    def digest(self) -> str:
        """16 hex digits that tell episodes apart: of what is small in them, and the first tick's images."""
        hasher = hashlib.sha256()
        for array in (self.stamps_ns, self.state, self.action, self.human, self.images[:1]):
            hasher.update(array.tobytes())
        return hasher.hexdigest()[:16]

    @property
    def takeovers(self) -> np.ndarray:
        """Ticks at which a human begins to drive: in use a policy's memory begins anew there, so it does everywhere."""
        begins: np.ndarray = np.flatnonzero(np.diff(self.human.astype(int), prepend=0) > 0)
        return begins


@dataclass(frozen=True)
class Dataset:
    """Demonstrations of one task on one robot.

    Attributes:
        contract: the robot's joints, cameras and rate.
        task: what was demonstrated.
        demonstrations: aligned episodes, in the order of their names.
        digest: 16 hex digits that change when any episode does.
        weights: how often training shows each demonstration, relative to the others.
        folders: which of the datasets that were mixed each demonstration is of; all of one, if not given.
    """

    contract: Contract
    task: str
    robot: str
    demonstrations: Sequence[Demonstration]
    digest: str
    weights: Sequence[float] = ()
    folders: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", [1.0] * len(self.demonstrations))
        if not self.folders:
            object.__setattr__(self, "folders", [0] * len(self.demonstrations))

    def colours(self) -> dict[str, tuple[float, float, float]]:
        """Mean red, green and blue (0 to 255) of each camera, over every tenth tick."""
        if not self.demonstrations:
            return {}
        shown = [one.images[::10].mean(axis=(0, 2, 3)) for one in self.demonstrations]
        return {
            name: tuple(means.tolist()) for name, means in zip(self.contract.cameras, np.mean(shown, 0), strict=True)
        }

    def pick(self, index: Sequence[int]) -> Dataset:
        """Some of the demonstrations."""
        return dataclasses.replace(
            self,
            demonstrations=[self.demonstrations[i] for i in index],
            weights=[self.weights[i] for i in index],
            folders=[self.folders[i] for i in index],
        )

    def split(self, validation_share: float, seed: int) -> tuple[Dataset, Dataset]:
        """Training and validation demonstrations, split by episode. A human drove in some of both, if there are two.

        Each folder is split by itself: what is held out of one stays so when others are added.

        Raises:
            TrainingError: too few episodes for a split.
        """
        count = len(self.demonstrations)
        if count < 2:
            raise TrainingError(f"there are {count} usable episodes; training needs at least 2. Record more.")
        folders = [[i for i in range(count) if self.folders[i] == folder] for folder in dict.fromkeys(self.folders)]
        held_out = {i for folder in folders for i in self._held_out(folder, validation_share, seed)}
        if not any(self.demonstrations[i].human.any() for i in held_out):  # as where each folder has one episode
            held_out = set(self._held_out(range(count), validation_share, seed))
        return self.pick([i for i in range(count) if i not in held_out]), self.pick(sorted(held_out))

    def _held_out(self, index: Sequence[int], share: float, seed: int) -> list[int]:
        """Of some demonstrations those to hold out: one at least, but not all."""
        count = min(max(1, round(len(index) * share)), len(index) - 1)
        order = [index[i] for i in np.random.default_rng(seed).permutation(len(index))]
        # What a policy drove teaches nothing, and judges nothing. The first is held out, the last is not.
        shown = [i for i in order if self.demonstrations[i].human.any()]
        first, last = shown[:-1][:1], shown[-1:]
        return [*first, *(i for i in order if i not in (*first, *last)), *last][:count]


def mixed(parts: Sequence[Dataset], weights: Sequence[float] = ()) -> Dataset:
    """Several datasets of one robot as one.

    Args:
        weights: how often the ticks of each are shown, relative to the others'; none means alike.

    Raises:
        ContractError: they are not of one robot.
        TrainingError: an episode is in several of them; it would be learned from and judged by.
    """
    first = parts[0]
    for part in parts[1:]:
        part.contract.check_same(first.contract)
    shown = list(weights) or [1.0] * len(parts)
    if len(parts) == 1:
        return first
    given = Counter(digest for part in parts for digest in {one.digest for one in part.demonstrations})
    twice = sum(times > 1 for times in given.values())
    if twice:
        raise TrainingError(
            f"{twice} of the {len(given)} episodes are in more than one of these folders; give each once, and a weight "
            "to what is to be shown more often."
        )
    return dataclasses.replace(
        first,
        task=" and ".join(dict.fromkeys(part.task for part in parts)),
        demonstrations=[demonstration for part in parts for demonstration in part.demonstrations],
        digest=digest_of([f"{part.digest} {weight}" for part, weight in zip(parts, shown, strict=True)]),
        weights=[weight for part, weight in zip(parts, shown, strict=True) for _ in part.demonstrations],
        folders=[number for number, part in enumerate(parts) for _ in part.demonstrations],
    )


def digest_of(parts: Sequence[str]) -> str:
    """16 hex digits of the SHA-256 of some texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


MIN_WAY = 1e-3  # rad or m


def ways(state: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How far joints go until each target of a chunk, (K, J) in rad or m: standard deviations of targets (N, K, J) less
    measured positions (N, J); of a joint that stands still ``MIN_WAY``."""
    return np.maximum((targets - state[:, None]).std(0), MIN_WAY)


def chunk_targets(action: np.ndarray, chunk: int, human: np.ndarray | None = None) -> np.ndarray:
    """The next ``chunk`` actions at each tick, (T, K, J); the last action is repeated past the end.

    Row t, column k is action[min(t + k, T - 1)].

    Args:
        human: (T,), who drove: then what one has begun does not end with what the other did; its last action is
            repeated instead.
    """
    ticks = np.arange(len(action))
    last = np.full(len(action), len(action) - 1)
    if human is not None:
        ends = np.append(np.flatnonzero(np.diff(human.astype(np.int8))), len(action) - 1)
        last = ends[np.searchsorted(ends, ticks)]
    chunks: np.ndarray = action[np.minimum(ticks[:, None] + np.arange(chunk), last[:, None])]
    return chunks
