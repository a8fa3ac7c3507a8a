"""Evaluation: episodes, successes, and an honest interval around them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EpisodeResult:
    """One episode: the seed that shuffled the table, whether it succeeded, and how long it took in (simulated) s.

    ``unanswered`` counts the ticks to which the nodes gave no command in time: a loop that works has none. ``jerk`` is
    the root mean square of the arm's third derivative in rad/s³, nan where it was not measured: lower is smoother.
    """

    seed: int
    success: bool
    seconds: float
    unanswered: int = 0
    jerk: float = math.nan


@dataclass(frozen=True)
class Evaluation:
    """Several episodes of one policy on one task."""

    results: tuple[EpisodeResult, ...]

    @property
    def episodes(self) -> int:
        return len(self.results)

    @property
    def successes(self) -> int:
        return sum(result.success for result in self.results)

    @property
    def unanswered(self) -> int:
        return sum(result.unanswered for result in self.results)

    @property
    def wilson(self) -> tuple[float, float]:
        return wilson_interval(self.successes, self.episodes)

    @property
    def seconds_to_success(self) -> float | None:
        """Median, None without a success."""
        return _median([result.seconds for result in self.results if result.success])

    @property
    def jerk(self) -> float | None:
        """Median in rad/s³, None where none was measured."""
        return _median([result.jerk for result in self.results if not math.isnan(result.jerk)])


def first_ended(results: Sequence[EpisodeResult], seeds: Sequence[int]) -> Evaluation:
    """Those of an evaluation that was cut short before which, in the order of the seeds, none is missing.

    Of all that have ended by then more are short, and so succeeded, than of those still under way.
    """
    ended = {result.seed: result for result in results}
    return Evaluation(tuple(ended[seed] for seed in itertools.takewhile(ended.__contains__, seeds)))


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a success rate, 95 % by default (Wilson 1927, JASA 22, 209)."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z**2 / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True)
class Difference:
    """Success rate of a first policy less that of a second on the same seeds, with its 95 % interval.

    ``only_first`` and ``only_second`` count the seeds on which just one of them succeeded.
    """

    rate: float
    interval: tuple[float, float]
    only_first: int
    only_second: int


def paired_difference(first: Evaluation, second: Evaluation) -> Difference:
    """Compare two policies on the seeds that both performed.

    The interval is Newcombe's tenth method for paired proportions (1998, Statistics in Medicine 17, 2635): Wilson's
    intervals of both rates, joined by the correlation of the outcomes.

    Raises:
        ValueError: they have no seed in common.
    """
    outcome = {result.seed: result.success for result in second.results}
    pairs = [(result.success, outcome[result.seed]) for result in first.results if result.seed in outcome]
    if not pairs:
        raise ValueError("the two evaluations have no seed in common.")
    both, one = pairs.count((True, True)), pairs.count((True, False))
    other, neither = pairs.count((False, True)), pairs.count((False, False))
    trials = len(pairs)
    p1, p2 = (both + one) / trials, (both + other) / trials
    (low1, high1), (low2, high2) = wilson_interval(both + one, trials), wilson_interval(both + other, trials)
    product = (both + one) * (other + neither) * (both + other) * (one + neither)
    excess = float(both * neither - one * other)
    if excess > 0:
        excess = max(0.0, excess - trials / 2)  # the continuity correction
    phi = excess / math.sqrt(product) if product else 0.0
    down, up = _joined(p1 - low1, high2 - p2, phi), _joined(high1 - p1, p2 - low2, phi)
    return Difference(p1 - p2, (p1 - p2 - down, p1 - p2 + up), one, other)


def _joined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2.0 * phi * a * b + b * b))
