"""The steps of the loop, each usable alone: record in the simulator, train, perform through the nodes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lam_ros.bringup import Options, Supervisor, node_environment, plan, require_ros
from lam_ros.cli.console import isolated_ros, log_to
from lam_ros.config import RobotConfig, load_robot
from lam_ros.control.latency import Delay
from lam_ros.demonstrations.alignment import load_dataset
from lam_ros.demonstrations.episode import list_episodes
from lam_ros.errors import BringUpError
from lam_ros.learning.configuration import TrainConfig, load_train_config
from lam_ros.learning.evaluation import EpisodeResult, Evaluation
from lam_ros.learning.training import Report, TrainingResult, train
from lam_ros.share import share_path

DISTURBANCE = 0.02  # rad: how much the demonstrators have to correct
ANSWER_TIMEOUT_S = 10.0  # of wall time: only a loop that is broken, never a busy machine, leaves a tick unanswered
EpisodeReport = Callable[[EpisodeResult], None]


@dataclass
class Performance:
    """Episodes performed through the nodes.

    Attributes:
        results: one an episode.
        latencies_ms: wall time from a frame's publication to its command, each tick of every episode.
        film: (episode, camera, RGB frame with the network's attention) of the first episodes.
    """

    results: list[EpisodeResult] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    film: list[tuple[int, str, np.ndarray]] = field(default_factory=list)

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(tuple(self.results))


def _conduct(options: Options, what: Any, log_file: Path, body: Callable[[Any], None]) -> None:
    require_ros()
    processes = plan(what, options)
    with isolated_ros(), log_to(log_file) as log:
        os.environ.update(node_environment())
        with Supervisor(log) as supervisor:
            supervisor.start(processes)
            from lam_ros.nodes.conductor import conducting

            try:
                with conducting(supervisor.check) as conductor:
                    conductor.wait_until_ready([part for process in processes for part in process.node.parts])
                    body(conductor)
            except BringUpError as error:
                raise BringUpError(f"{error} The nodes' log is {log_file}.") from None


def record(
    robot: str, task: str, episodes: int, dataset: Path, seed: int, log_file: Path, report: EpisodeReport
) -> int:
    """Let the scripted expert demonstrate until the dataset holds ``episodes`` sealed episodes.

    Each is recorded by the recorder node. Counting on from what is there makes an interrupted run go on.

    Returns:
        How many were recorded now.
    """
    there = len(list_episodes(dataset)) if dataset.is_dir() else 0
    missing = episodes - there
    if missing <= 0:
        return 0
    options = Options(
        robot,
        task=task,
        dataset=str(dataset),
        simulated=True,
        mode="lockstep",
        teleop="expert",
        simulation={"seed": seed + there, "disturbance": DISTURBANCE, "answer_timeout_s": ANSWER_TIMEOUT_S},
    )

    def body(conductor: Any) -> None:
        for _ in range(missing):
            report(conductor.record_episode().result)

    _conduct(options, "record", log_file, body)
    return missing


def perform(
    robot: str,
    task: str,
    checkpoint: Path | None,
    episodes: int,
    seed: int,
    log_file: Path,
    report: EpisodeReport,
    black_camera: str = "",
    filmed: int = 0,
) -> Performance:
    """Perform episodes through the nodes: with a checkpoint the policy, without one the scripted expert.

    Args:
        seed: of the first episode; each further one counts up.
        black_camera: a camera to unplug (black frames), or ``all``.
        filmed: how many of the first episodes to film.
    """
    simulation = {"seed": seed, "black_camera": black_camera, "answer_timeout_s": ANSWER_TIMEOUT_S}
    options = Options(
        robot,
        checkpoint=str(checkpoint or ""),
        task=task,
        simulated=True,
        mode="lockstep",
        teleop="none" if checkpoint else "expert",
        composed=True,
        simulation=simulation,
    )
    performance = Performance()

    def episode(conductor: Any) -> None:
        outcome = conductor.run_episode()
        performance.results.append(outcome.result)
        performance.latencies_ms.extend(outcome.latencies_ms)
        report(outcome.result)

    def body(conductor: Any) -> None:
        cameras = load_robot(robot).camera_names
        if filmed and checkpoint:
            with conductor.filming(cameras) as frames:
                for number in range(min(filmed, episodes)):
                    frames.clear()
                    episode(conductor)
                    performance.film.extend((number, camera, frame) for camera, frame in frames)
        while len(performance.results) < episodes:
            episode(conductor)

    _conduct(options, "simulate", log_file, body)
    return performance


def measure_latency(
    robot: str, joint: str, amplitude: float, seconds: float, simulated: bool, report: Callable[[float], None]
) -> dict[str, Delay | str]:
    """Move a joint through the gate and find the delays of cameras and arm; see ``CalibrationNode``."""
    require_ros()
    processes = plan("simulate", Options(robot, simulated=True)) if simulated else plan("gate", Options(robot))
    log_file = Path("latency.log")
    with isolated_ros() if simulated else contextlib.nullcontext(), log_to(log_file) as log:
        os.environ.update(node_environment())
        with Supervisor(log) as supervisor:
            supervisor.start(processes)
            from lam_ros.nodes.calibration import CalibrationNode, calibrating

            with calibrating(partial(CalibrationNode, joint, amplitude, seconds), robot, simulated) as (node, spin):

                def spin_and_check() -> None:
                    spin()
                    supervisor.check()

                node.drive(spin_and_check, report)
                return node.delays()


def training_settings(config: Path | None, steps_scale: float = 1.0) -> TrainConfig:
    """The training YAML, or the shipped one, with its optimiser steps scaled."""
    settings = load_train_config(config or share_path("config/train.yaml"))
    return dataclasses.replace(
        settings,
        perception_steps=max(1, round(settings.perception_steps * steps_scale)),
        action_steps=max(1, round(settings.action_steps * steps_scale)),
    )


def train_on(
    dataset: Path,
    robot: RobotConfig,
    config: TrainConfig,
    checkpoint: Path,
    loaded: Callable[[int, int], None],
    report: Report,
) -> TrainingResult:
    """Align a folder of episodes and train on it."""
    data = load_dataset(list_episodes(dataset), robot, config.policy.image_size, report=loaded)
    return train(data, config, checkpoint, report)


def save_json(path: Path, content: Any) -> None:
    """Write JSON beside the file and rename, so that it is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2))
    partial.replace(path)


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as plain data."""
    low, high = evaluation.wilson
    return {
        "episodes": evaluation.episodes,
        "successes": evaluation.successes,
        "wilson_95": [low, high],
        "unanswered_ticks": evaluation.unanswered,
        "median_seconds_to_success": evaluation.seconds_to_success,
        "results": [asdict(result) for result in evaluation.results],
    }
