"""Evaluation and its interval."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.learning.evaluation import EpisodeResult, Evaluation, evaluate_in_core, wilson_interval
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.policy import Policy, PolicyNetwork
from lam_ros.simulation.simulation import Simulation


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        (81, 263, 0.2553, 0.3662),  # the four examples of Newcombe 1998, Statistics in Medicine 17, 857
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0000),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilsons_interval_has_its_published_values(successes: int, trials: int, lower: float, upper: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((lower, upper), abs=6e-5)


def test_without_trials_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_interval_solves_the_score_equation() -> None:
    for bound in wilson_interval(37, 50):
        assert abs(37 / 50 - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / 50))


def evaluation(*seconds: float) -> Evaluation:
    """Successes after these times, and one failure."""
    results = [EpisodeResult(seed, True, time) for seed, time in enumerate(seconds)]
    return Evaluation((*results, EpisodeResult(99, False, 60.0)))


def test_an_evaluation_counts() -> None:
    counted = evaluation(3.0, 1.0, 2.0)
    assert (counted.episodes, counted.successes) == (4, 3)
    assert counted.wilson == wilson_interval(3, 4)


@pytest.mark.parametrize(("seconds", "median"), [((3.0, 1.0, 2.0), 2.0), ((4.0, 1.0, 2.0, 8.0), 3.0), ((), None)])
def test_the_time_to_success_is_the_median(seconds: tuple[float, ...], median: float | None) -> None:
    assert evaluation(*seconds).seconds_to_success == median


@pytest.fixture
def simulation(robot: RobotConfig) -> Iterator[Simulation]:
    world = Simulation(robot, "reach")
    yield world
    world.close()


def test_an_evaluation_repeats_and_an_untrained_policy_fails(robot: RobotConfig, simulation: Simulation) -> None:
    torch.manual_seed(0)
    network = PolicyNetwork(PolicyConfig(image_size=(24, 24), hidden_size=8, chunk=2), Contract.of(robot))
    network.normaliser.offset_scale.fill_(0.01)
    policy = Policy(network, robot.position_limits)
    told: list[EpisodeResult] = []
    first = evaluate_in_core(policy, simulation, episodes=2, seed=70, report=told.append)
    assert [result.seed for result in first.results] == [70, 71]
    assert told == list(first.results)
    assert first.successes == 0
    assert first.results[0].seconds == pytest.approx(simulation.task.time_limit_s)
    assert evaluate_in_core(policy, simulation, episodes=2, seed=70, report=lambda _: None) == first
