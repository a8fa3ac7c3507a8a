"""Rollouts: the same results whatever the number of workers, and what makes them harder."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lam_ros.cli.steps import film_failures
from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import Contract, Observation
from lam_ros.errors import CheckpointError, ConfigError, LamError
from lam_ros.learning import rollouts
from lam_ros.learning.evaluation import EpisodeResult, Evaluation
from lam_ros.learning.rollouts import Perturbation, Perturbed, Trial, arm_jerk, evaluate, perform, rms_jerk
from lam_ros.policy.checkpoint import load_policy
from lam_ros.simulation.simulation import Simulation

Turning = Callable[[float, float], Path]


@pytest.fixture
def simulation(robot: RobotConfig) -> Iterator[Simulation]:
    world = Simulation(robot, "reach")
    yield world
    world.close()


def test_the_number_of_workers_changes_nothing(turning_policy: Turning) -> None:
    trial = Trial(turning_policy(0.05, 1.0), "desk_arm", "reach", Perturbation(drop=0.2, light=0.3, camera_shift=2))
    seeds = range(70, 77)
    told: list[EpisodeResult] = []
    alone = evaluate(trial, seeds, workers=1, report=told.append)
    assert [result.seed for result in alone.results] == list(seeds)
    assert sorted(result.seed for result in told) == list(seeds)
    assert evaluate(trial, seeds, workers=2) == alone
    assert all(result.jerk > 0 for result in alone.results)


def test_who_interrupts_does_not_wait_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    futures: list[Future[Any]] = []

    class Pool(ProcessPoolExecutor):
        def submit(self, *given: Any) -> Any:
            futures.append(super().submit(*given))
            return futures[-1]

    monkeypatch.setattr(rollouts, "ProcessPoolExecutor", Pool)
    with contextlib.closing(rollouts._in_pool(time.sleep, [0.05] * 500, 1)) as ends:
        next(ends)
    assert sum(future.cancelled() for future in futures) > 250
    assert all(future.done() for future in futures)


def test_a_worker_that_is_killed_is_told_in_a_sentence() -> None:
    with pytest.raises(LamError, match="a worker was ended, perhaps for lack of memory; try again with fewer"):
        list(rollouts._in_pool(os._exit, [9, 9], 1))


def test_a_cluster_changes_nothing_either(turning_policy: Turning) -> None:
    pytest.importorskip("ray", reason="the extra `cluster`, hundreds of MB, is not among what `make` installs")
    trial, seeds = Trial(turning_policy(0.05, 1.0), "desk_arm", "reach"), range(70, 75)
    assert evaluate(trial, seeds, cluster="local") == evaluate(trial, seeds, workers=1)


def test_the_first_failures_are_filmed(turning_policy: Turning, tmp_path: Path) -> None:
    trial = Trial(turning_policy(0.05, 0.0), "desk_arm", "reach")
    results = [EpisodeResult(seed, seed != 71, 1.0) for seed in (70, 71, 72)]
    (film,) = film_failures(trial, Evaluation(tuple(results)), tmp_path / "films")
    assert film == tmp_path / "films" / "failure_71.webp"
    with Image.open(film) as shown:
        assert shown.n_frames > 10


def test_a_policy_that_turns_away_fails_at_the_time_limit(turning_policy: Turning, simulation: Simulation) -> None:
    policy = load_policy(turning_policy(0.05, 0.0), load_robot("desk_arm"))
    result = perform(policy, simulation, 70)
    assert not result.success
    assert result.seconds == pytest.approx(simulation.task.time_limit_s)


def test_each_seed_lays_another_table(turning_policy: Turning, simulation: Simulation) -> None:
    policy = load_policy(turning_policy(0.05, 0.0), load_robot("desk_arm"))
    tables: dict[int, list[Observation]] = {5: [], 6: []}
    for seed, seen in tables.items():
        perform(policy, simulation, seed, watch=seen.append)
    assert not np.array_equal(tables[5][0].images["front"], tables[6][0].images["front"])


def test_jerk_is_of_the_whole_episode(
    turning_policy: Turning, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[list[np.ndarray]] = []
    monkeypatch.setattr(rollouts, "arm_jerk", lambda path, contract: paths.append(list(path)) or 0.0)
    watched: list[Observation] = []
    perform(load_policy(turning_policy(0.05, 0.0), load_robot("desk_arm")), simulation, 3, watch=watched.append)
    assert len(paths[0]) == len(watched) + 1
    np.testing.assert_allclose(paths[0][0], watched[0].state, atol=1e-6)


def test_jerk_is_of_the_joints_that_turn(robot: RobotConfig) -> None:
    contract = Contract.of(robot)
    assert contract.units[-1] == "m"
    path = np.zeros((6, 7))
    path[:, -1] = [0.0, 0.01, 0.0, 0.03, 0.0, 0.02]
    assert arm_jerk(path, contract) == 0.0
    path[:, 0] = path[:, -1]
    assert arm_jerk(path, contract) > 0.0


def test_a_missing_checkpoint_is_an_error_of_the_one_who_asked(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        evaluate(Trial(tmp_path / "none.safetensors", "desk_arm", "reach"), range(2))


def test_jerk_is_the_third_derivative() -> None:
    t = np.arange(0, 2, 0.05)
    cubic = np.stack([t**3, 5.0 * t], 1)
    assert rms_jerk(cubic, 20.0) == pytest.approx(6.0 / np.sqrt(2))
    assert np.isnan(rms_jerk(cubic[:3], 20.0))


def observations(count: int = 30) -> list[Observation]:
    rng = np.random.default_rng(0)
    return [
        Observation(
            tick,
            {camera: rng.integers(0, 200, (12, 16, 3), dtype=np.uint8) for camera in ("front", "wrist")},
            np.full(7, tick, dtype=np.float32),
        )
        for tick in range(count)
    ]


def shown(perturbation: Perturbation, seed: int = 0) -> list[Observation]:
    perturbed = Perturbed(perturbation, seed)
    return [perturbed(observation) for observation in observations()]


def test_without_a_perturbation_everything_is_as_it_is() -> None:
    for seen, real in zip(shown(Perturbation()), observations(), strict=True):
        assert seen.stamp_ns == real.stamp_ns
        for camera, image in real.images.items():
            np.testing.assert_array_equal(seen.images[camera], image)


def test_late_observations_are_those_of_some_ticks_ago() -> None:
    assert [seen.stamp_ns for seen in shown(Perturbation(delay_ticks=2))[:6]] == [0, 0, 0, 1, 2, 3]


def test_a_dropped_frame_leaves_the_last_one_and_a_new_state() -> None:
    seen = shown(Perturbation(drop=0.5))
    repeated = [np.array_equal(now.images["front"], before.images["front"]) for before, now in itertools.pairwise(seen)]
    assert 5 < sum(repeated) < 25
    assert [observation.state[0] for observation in seen] == list(range(30))


def test_light_is_one_factor_an_episode() -> None:
    factors = []
    for seed in range(20):
        (first, *_, last) = shown(Perturbation(light=0.4), seed)
        real = observations()
        ratio = [
            seen.images[camera].mean() / truth.images[camera].mean()
            for seen, truth in ((first, real[0]), (last, real[-1]))
            for camera in ("front", "wrist")
        ]
        assert np.ptp(ratio) < 0.02
        factors.append(ratio[0])
    assert min(factors) < 0.85
    assert max(factors) > 1.1


def test_a_camera_is_displaced_by_so_many_pixels() -> None:
    for seed in range(10):
        seen, real = shown(Perturbation(camera_shift=3), seed)[4], observations()[4]
        moves = {
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(
                seen.images["front"][3:-3, 3:-3],
                real.images["front"][3 - down : 9 - down, 3 - right : 13 - right],
            )
        }
        ((down, right),) = moves
        assert 2.0 <= np.hypot(down, right) <= 4.0


@pytest.mark.parametrize(("camera", "black"), [("front", {"front"}), ("all", {"front", "wrist"}), ("", set())])
def test_a_black_camera_sees_nothing(camera: str, black: set[str]) -> None:
    images = shown(Perturbation(black_camera=camera))[0].images
    assert {name for name, image in images.items() if not image.any()} == black


def test_a_perturbation_that_makes_no_sense_is_refused() -> None:
    for bad in ({"drop": 1.0}, {"delay_ticks": -1}, {"light": 1.5}):
        with pytest.raises(ConfigError, match="a perturbation has delay and shift from 0 up"):
            Perturbation(**bad)  # type: ignore[arg-type]
