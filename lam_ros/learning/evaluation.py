"""Evaluation: episodes, successes, and an honest interval around them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from lam_ros.policy.policy import Policy
from lam_ros.simulation.simulation import Simulation


@dataclass(frozen=True)
class EpisodeResult:
    """One episode: the seed that shuffled the table, whether it succeeded, and how long it took in (simulated) s.

    ``unanswered`` counts the ticks to which the nodes gave no command in time: a loop that works has none.
    """

    seed: int
    success: bool
    seconds: float
    unanswered: int = 0


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
        times = [result.seconds for result in self.results if result.success]
        return statistics.median(times) if times else None


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a success rate, 95 % by default (Wilson 1927, JASA 22, 209)."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z**2 / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def evaluate_in_core(
    policy: Policy, simulation: Simulation, episodes: int, seed: int, report: Callable[[EpisodeResult], None]
) -> Evaluation:
    """Perform episodes without ROS: the policy's targets go straight to the simulated servos.

    Args:
        seed: of the first episode; each further one counts up.
        report: told of each episode.
    """
    results = []
    for episode_seed in range(seed, seed + episodes):
        simulation.reset(episode_seed)
        policy.reset()
        while not simulation.is_over:
            simulation.step(policy.act(simulation.observe()).target)
        results.append(EpisodeResult(episode_seed, simulation.has_succeeded, simulation.elapsed_s))
        report(results[-1])
    return Evaluation(tuple(results))
