"""Episodes without ROS, spread over processes or machines: the policy's targets go straight to the simulated servos.

Each episode follows from its seed alone, so that the results are the same whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lam_ros.config import load_robot
from lam_ros.contract import Contract, Observation
from lam_ros.errors import ConfigError, LamError
from lam_ros.learning.augmentation import displaced
from lam_ros.learning.evaluation import EpisodeResult, Evaluation
from lam_ros.policy.checkpoint import load_policy
from lam_ros.policy.policy import Policy
from lam_ros.simulation.simulation import Simulation

ALL = "all"
SEEDS_A_JOB = 5  # a worker makes its simulation and policy once a job on a cluster, once at all in a pool


@dataclass(frozen=True)
class Perturbation:
    """What makes an evaluation harder than the demonstrations were.

    Attributes:
        delay_ticks: images and state reach the policy so many ticks late.
        drop: share of ticks at which no new image arrives: the last one stays.
        light: brightness is multiplied with a factor of up to 1 ± this, drawn for each episode.
        camera_shift: pixels by which each camera's picture is displaced, in a direction drawn for each episode.
        black_camera: a camera that sees nothing, or ``all``.
    """

    delay_ticks: int = 0
    drop: float = 0.0
    light: float = 0.0
    camera_shift: int = 0
    black_camera: str = ""

    def __post_init__(self) -> None:
        if min(self.delay_ticks, self.camera_shift) < 0 or not 0.0 <= self.drop < 1.0 or not 0.0 <= self.light < 1.0:
            raise ConfigError("a perturbation has delay and shift from 0 up, and drop and light from 0 to below 1.")


class Perturbed:
    """What a policy is shown of an episode under a perturbation."""

    def __init__(self, perturbation: Perturbation, seed: int) -> None:
        self._how = perturbation
        self._rng = np.random.default_rng((seed, 77))
        self._gain = 1.0 + perturbation.light * self._rng.uniform(-1.0, 1.0)
        self._late: deque[Observation] = deque(maxlen=perturbation.delay_ticks + 1)
        self._shifts: dict[str, tuple[int, int]] = {}
        self._last: dict[str, np.ndarray] | None = None

    def __call__(self, observation: Observation) -> Observation:
        images = {camera: self._image(camera, image) for camera, image in observation.images.items()}
        if self._last is not None and self._rng.random() < self._how.drop:
            images = self._last
        self._last = images
        self._late.append(replace(observation, images=images))
        return self._late[0]

    def _image(self, camera: str, image: np.ndarray) -> np.ndarray:
        if self._how.black_camera in (camera, ALL):
            return np.zeros_like(image)
        if self._how.light:
            image = cv2.convertScaleAbs(image, alpha=self._gain)
        if self._how.camera_shift:
            if camera not in self._shifts:
                angle = self._rng.uniform(0.0, 2.0 * np.pi)
                reach = self._how.camera_shift * np.array([np.sin(angle), np.cos(angle)])
                down, right = np.rint(reach).astype(int)
                self._shifts[camera] = (int(down), int(right))
            image = displaced(image, *self._shifts[camera])
        return image


def perform(
    policy: Policy,
    simulation: Simulation,
    seed: int,
    perturbation: Perturbation = Perturbation(),
    watch: Callable[[Observation], None] = lambda _: None,
) -> EpisodeResult:
    """One episode; ``watch`` is shown what the policy is."""
    simulation.reset(seed)
    policy.reset()
    shown = Perturbed(perturbation, seed)
    path = [simulation.state]
    while not simulation.is_over:
        observation = shown(simulation.observe())
        watch(observation)
        simulation.step(policy.act(observation).target)
        path.append(simulation.state)
    jerk = arm_jerk(path, policy.contract)
    return EpisodeResult(seed, simulation.has_succeeded, simulation.elapsed_s, jerk=jerk)


def arm_jerk(path: Sequence[np.ndarray], contract: Contract) -> float:
    """``rms_jerk`` of measured states (J,), of the joints in rad alone."""
    arm = np.array([unit == "rad" for unit in contract.units])
    return rms_jerk(np.array(path)[:, arm], contract.rate_hz)


def rms_jerk(path: np.ndarray, rate_hz: float) -> float:
    """Root mean square of the third derivative of a path (T, J) of positions; nan for fewer than 4 ticks."""
    if len(path) < 4:
        return float("nan")
    return float(np.sqrt(np.mean((np.diff(path.astype(np.float64), n=3, axis=0) * rate_hz**3) ** 2)))


@dataclass(frozen=True)
class Trial:
    """What is evaluated: a checkpoint, the robot it is for, the simulator's task, and how hard it is made."""

    checkpoint: Path
    robot: str
    task: str
    perturbation: Perturbation = Perturbation()


def compute_alike() -> None:
    """The same arithmetic in each process, and no threads that contend with the other workers'."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class _Stand:
    """A policy and its simulation, made once a process."""

    made: tuple[Trial, Policy, Simulation] | None = None

    @classmethod
    def of(cls, trial: Trial) -> tuple[Policy, Simulation]:
        if cls.made is None or cls.made[0] != trial:
            compute_alike()
            if cls.made is not None:
                cls.made[2].close()
            policy = load_policy(trial.checkpoint, load_robot(trial.robot))
            cls.made = (trial, policy, Simulation.of(trial.robot, trial.task))
        return cls.made[1], cls.made[2]


def perform_seeds(trial: Trial, seeds: Sequence[int]) -> list[EpisodeResult]:
    """Perform some episodes in this process."""
    policy, simulation = _Stand.of(trial)
    return [perform(policy, simulation, seed, trial.perturbation) for seed in seeds]


def evaluate(
    trial: Trial,
    seeds: Sequence[int],
    workers: int = 1,
    cluster: str = "",
    report: Callable[[EpisodeResult], None] = lambda _: None,
) -> Evaluation:
    """Perform episodes in other processes.

    Args:
        seeds: one an episode.
        workers: how many processes of this machine.
        cluster: the address of a Ray cluster (``auto`` for the one this machine belongs to) to spread over instead;
            all its machines must see the checkpoint and the robot's YAML under the same path.
        report: told of each episode as it ends.

    Raises:
        LamError: the checkpoint or the robot cannot be used.
        ConfigError: a cluster is named but Ray is not installed.
    """
    # Other processes may have been started elsewhere.
    robot = str(Path(trial.robot).resolve()) if Path(trial.robot).is_file() else trial.robot
    trial = replace(trial, checkpoint=trial.checkpoint.resolve(), robot=robot)
    jobs = [list(seeds[i : i + SEEDS_A_JOB]) for i in range(0, len(seeds), SEEDS_A_JOB)]
    job = partial(perform_seeds, trial)
    results: list[EpisodeResult] = []
    answers = _on_cluster(job, jobs, cluster) if cluster else _in_pool(job, jobs, workers)
    with contextlib.closing(answers):  # however it ends, the workers do
        for some in answers:
            for result in some:
                results.append(result)
                report(result)
    return Evaluation(tuple(sorted(results, key=lambda result: result.seed)))


def _in_pool(job: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Generator[Any]:
    # Spawned: a forked process would share torch's threads and the display's connection.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context)
    try:
        for future in as_completed([pool.submit(job, some) for some in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise LamError("a worker was ended, perhaps for lack of memory; try again with fewer --workers.") from None
    finally:  # not by `with`, which would wait for what has been cancelled
        pool.shutdown(cancel_futures=True)


def _on_cluster(job: Callable[[Any], Any], jobs: Sequence[Any], address: str) -> Generator[Any]:
    try:
        import ray
    except ImportError:
        raise ConfigError("--cluster needs Ray: pip install 'lam_ros[cluster]'.") from None
    if not ray.is_initialized():
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"there is no Ray cluster at {address} ({error}); `ray start --head` makes one."
            ) from None
    remote = ray.remote(num_cpus=1)(job.func if isinstance(job, partial) else job)
    fixed = job.args if isinstance(job, partial) else ()
    waiting = [remote.remote(*fixed, some) for some in jobs]
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            yield ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, LamError) else error from None
        except ray.exceptions.RayError as error:
            raise LamError(f"a machine of the cluster failed: {' '.join(str(error).split())[:300]}") from None
