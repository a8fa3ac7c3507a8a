"""Corrections: episodes in which a human took over from a policy. What is held out, and which policy is nearer to them.

A policy meets states that no demonstration has shown, by its own mistakes; a human who takes over there shows the way
back (DAgger, Ross et al. 2011, arXiv 1011.0686; with a human who decides when: HG-DAgger, Kelly et al. 2019, arXiv
1810.02890). What the policy did itself is never imitated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.errors import TrainingError
from lam_ros.learning.diagnosis import predictions
from lam_ros.policy.runtime import Runtime

HELD_OUT = 5  # each so many'th episode is never trained on
STILL = 1e-3  # rad or m: a joint moved less than this has nothing to compare
T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """Two policies where a human had to take over.

    Attributes:
        before, after: mean distance of their targets from the human's, as a share of the human's motion.
        ticks: how many were compared.
    """

    before: float
    after: float
    ticks: int

    @property
    def is_better(self) -> bool:
        return self.after < self.before

    def __str__(self) -> str:
        return (
            f"on {self.ticks} ticks of takeovers it has not seen, its targets are off by {self.after:.2f} of the "
            f"human's motion; the policy before was off by {self.before:.2f}"
        )


def held_out(episodes: Sequence[T], number: Callable[[T], int]) -> tuple[list[T], list[T]]:
    """Corrected episodes to train on, and those to judge by: the same ones whenever it is asked again.

    Args:
        number: of an episode, which it keeps whatever becomes of the others.

    Raises:
        TrainingError: there are fewer than two.
    """
    judged = [e for e in episodes if number(e) % HELD_OUT == HELD_OUT - 1] or list(episodes[-1:])
    learned = [e for e in episodes if e not in judged]
    if not learned:
        raise TrainingError(
            f"there are {len(episodes)} corrected episodes, and {len(judged)} are to judge by; one more is needed. "
            "Perform, take over where it goes wrong, and keep the episode."
        )
    return learned, judged


def distance_from_human(runtime: Runtime, demonstrations: Sequence[Demonstration]) -> tuple[float, int]:
    """How far a policy's targets are from a human's, over the ticks at which the human drove, and how many these are.

    A policy is shown each episode from its beginning; its memory begins anew at each takeover, as in use. Joints count
    alike: each distance is a share of how far that joint's targets usually are from where it is.

    Raises:
        TrainingError: no human drove, or moved anything.
    """
    wanted, said, states = [], [], []
    for one in demonstrations:
        if one.human.any():
            wanted.append(one.action[one.human])
            said.append(predictions(runtime, one, np.asarray(one.images))[one.human])
            states.append(one.state[one.human])
    if not wanted:
        raise TrainingError("no human drove in these episodes; there is nothing to compare.")
    target, answer, state = (np.concatenate(parts) for parts in (wanted, said, states))
    motion = np.abs(target - state).mean(0)
    if not (motion > STILL).any():
        raise TrainingError("nothing moved while a human drove; there is nothing to compare.")
    off = np.abs(answer - target).mean(0)[motion > STILL] / motion[motion > STILL]
    return float(off.mean()), len(target)


def compared(before: Runtime, after: Runtime, demonstrations: Sequence[Demonstration]) -> Comparison:
    """Both policies on the same held-out episodes.

    Raises:
        TrainingError: as of ``distance_from_human``.
    """
    old, ticks = distance_from_human(before, demonstrations)
    return Comparison(old, distance_from_human(after, demonstrations)[0], ticks)
