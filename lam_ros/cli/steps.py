"""The steps of the loop, each usable alone: record in the simulator, train, perform through the nodes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lam_ros.bringup import GazeboOptions, Options, Simulator, Supervisor, node_environment, plan, require_ros
from lam_ros.cli.console import isolated_ros, log_to
from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import Observation
from lam_ros.control.latency import Delay
from lam_ros.demonstrations.alignment import load_dataset, usable
from lam_ros.demonstrations.dataset import Dataset, chunk_targets, mixed, ways
from lam_ros.demonstrations.episode import Episode, list_episodes
from lam_ros.demonstrations.remote import is_remote, local_copy
from lam_ros.errors import BringUpError, CheckpointError, ConfigError
from lam_ros.learning.configuration import TrainConfig, load_train_config
from lam_ros.learning.evaluation import EpisodeResult, Evaluation
from lam_ros.learning.rollouts import Trial
from lam_ros.learning.seeds import DISTURBANCE, UNSEEN_SEED
from lam_ros.share import share_path

ANSWER_TIMEOUT_S = 10.0  # of wall time: only a loop that is broken, never a busy machine, leaves a tick unanswered
EXPORT_EPISODES = 10  # that an exported policy is compared and calibrated on
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
    processes = plan(what, dataclasses.replace(options, gazebo=GazeboOptions(headless=True)))
    with isolated_ros(), log_to(log_file) as log:
        os.environ.update(node_environment())
        with Supervisor(log) as supervisor:
            supervisor.start(processes)
            from lam_ros.nodes.conductor import conducting

            try:
                with conducting(supervisor.check) as conductor:
                    parts = [part for process in processes for part in process.node.parts]
                    # Whichever simulator it is, its node is called simulation.
                    conductor.wait_until_ready(["simulation" if part == "gazebo" else part for part in parts])
                    body(conductor)
            except BringUpError as error:
                raise BringUpError(f"{error} The nodes' log is {log_file}.") from None


def record(
    robot: str,
    task: str,
    episodes: int,
    dataset: Path,
    seed: int,
    log_file: Path,
    report: EpisodeReport,
    simulator: Simulator = "embedded",
    disturbance: float = DISTURBANCE,
) -> int:
    """Let the scripted expert demonstrate until the dataset holds ``episodes`` sealed episodes.

    Each is recorded by the recorder node. Counting on from what is there makes an interrupted run go on.

    Args:
        disturbance: of the embedded arm's servos, in rad; see ``Simulation.reset``.

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
        simulator=simulator,
        simulation={"seed": seed + there, "disturbance": disturbance, "answer_timeout_s": ANSWER_TIMEOUT_S},
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
    simulator: Simulator = "embedded",
) -> Performance:
    """Perform episodes through the nodes: with a checkpoint the policy, without one the scripted expert.

    Args:
        seed: of the first episode; each further one counts up.
        black_camera: a camera to unplug (black frames), or ``all``; of the embedded simulator.
        filmed: how many of the first episodes to film.
        simulator: where they are performed. Gazebo runs in its own time, so nothing tells how late commands come.
    """
    if black_camera and simulator != "embedded":
        raise BringUpError("only the embedded simulator can unplug a camera; leave out --black-camera.")
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
        simulator=simulator,
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


def swap(checkpoint: Path) -> None:
    """Give the running policy another checkpoint, without a missed tick.

    Raises:
        BringUpError: no ROS 2, no nodes that run a policy, or they refuse it.
        CheckpointError: it cannot be read.
    """
    from lam_ros.policy.checkpoint import digest, read_info

    require_ros()
    read_info(checkpoint)
    os.environ.update(node_environment())
    from lam_ros.nodes.conductor import conducting

    with conducting(lambda: None) as conductor:
        conductor.swap_checkpoint(str(checkpoint.resolve()), digest(checkpoint))


def measure_latency(
    robot: str, joint: str, amplitude: float, seconds: float, simulated: bool, report: Callable[[float], None]
) -> dict[str, Delay | str]:
    """Move a joint through the gate and find the delays of cameras and arm; see ``CalibrationNode``."""
    require_ros()
    processes = plan("simulate", Options(robot, simulated=True)) if simulated else plan("gate", Options(robot))
    log_file = log_folder() / "calibrate_latency.log"
    with isolated_ros() if simulated else contextlib.nullcontext(), log_to(log_file) as log:
        os.environ.update(node_environment())
        with Supervisor(log) as supervisor:
            supervisor.start(processes)
            from lam_ros.nodes.base import spinning
            from lam_ros.nodes.calibration import CalibrationNode

            make, moment_s = partial(CalibrationNode, joint, amplitude, seconds), 0.005
            with spinning(make, moment_s, robot=robot, use_sim_time=simulated) as (node, spin):

                def spin_and_check() -> None:
                    spin()
                    supervisor.check()

                node.drive(spin_and_check, report)
                return node.delays()


def log_folder() -> Path:
    """Where ROS 2 keeps its logs."""
    return Path(os.environ.get("ROS_LOG_DIR") or Path(os.environ.get("ROS_HOME") or Path.home() / ".ros") / "log")


def training_settings(config: Path | None, steps_scale: float = 1.0) -> TrainConfig:
    """The training YAML, or the shipped one, with its optimiser steps scaled."""
    return load_train_config(config or share_path("config/train.yaml")).scaled(steps_scale)


def load_data(
    folders: Sequence[str | Path],
    weights: Sequence[float],
    robot: RobotConfig,
    config: TrainConfig,
    loaded: Callable[[int, int], None] = lambda done, total: None,
    limit: int = 0,
) -> Dataset:
    """Align folders of episodes and mix them.

    Args:
        weights: how often each folder's ticks are shown; none means alike.
        limit: use the first so many episodes of each folder; 0 means all.

    Raises:
        ConfigError: there are not as many weights as folders.
    """
    if weights and (len(weights) != len(folders) or min(weights) <= 0):
        raise ConfigError(f"there are {len(weights)} weights for {len(folders)} folders; give each one, above 0.")
    parts = [
        load_dataset(usable(found, robot)[: limit or None], robot, config.policy.image_size, report=loaded)
        for found in map(episodes_of, folders)
    ]
    return mixed(parts, weights)


def load_films(
    folders: Sequence[str | Path],
    robot: RobotConfig,
    config: TrainConfig,
    loaded: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Align all episodes of some folders, whatever came of them and whether or not anybody commanded."""
    return mixed(
        [
            load_dataset(found, robot, config.policy.image_size, report=loaded, films=True)
            for found in map(episodes_of, folders)
        ]
    )


def episodes_of(folder: str | Path) -> list[Episode]:
    """The sealed episodes of a folder, here or at an address such as ``s3://bucket/demos``."""
    return list_episodes(local_copy(str(folder)) if is_remote(str(folder)) else Path(folder))


def plot_curves(log_folder: Path) -> Path:
    """Draw the learning curves of a training into its folder."""
    from lam_ros.cli.report import learning_plot, read_curves

    path = log_folder / "curves.png"
    learning_plot(read_curves(log_folder)).savefig(path, dpi=110, bbox_inches="tight")
    return path


def film_failures(trial: Trial, evaluation: Evaluation, folder: Path, most: int = 5) -> Iterator[Path]:
    """Perform the first failures once more, which go as they went, and write a film of each."""
    from lam_ros.cli.report import film
    from lam_ros.learning.rollouts import compute_alike
    from lam_ros.learning.rollouts import perform as perform_in_core
    from lam_ros.policy.checkpoint import load_policy
    from lam_ros.policy.explain import draw_attention
    from lam_ros.simulation.simulation import Simulation

    failed = [result.seed for result in evaluation.results if not result.success][:most]
    if not failed:
        return
    compute_alike()
    policy = load_policy(trial.checkpoint, load_robot(trial.robot))
    simulation = Simulation.of(trial.robot, trial.task)
    try:
        for seed in failed:
            frames: list[tuple[int, str, np.ndarray]] = []

            def watch(observation: Observation, frames: list[tuple[int, str, np.ndarray]] = frames) -> None:
                for camera, image in observation.images.items():
                    frames.append((0, camera, draw_attention(image, policy.attention(camera, image))))

            perform_in_core(policy, simulation, seed, trial.perturbation, watch)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"failure_{seed}.webp"
            film(frames, path)
            yield path
    finally:
        simulation.close()


def export_policy(
    checkpoint: Path,
    out: Path,
    data: str,
    robot: str,
    int8: bool,
    task: str,
    episodes: int,
    workers: int,
    note: Callable[[str], None],
) -> list[str]:
    """Export, compare on demonstrations and, where a task is named, in the simulator; then write.

    Returns:
        What was found, in sentences.

    Raises:
        CheckpointError: what was exported does not do what the checkpoint does; nothing is written.
    """
    from lam_ros.learning.evaluation import paired_difference
    from lam_ros.learning.rollouts import evaluate
    from lam_ros.policy.checkpoint import load_network, load_runtime, save_exported
    from lam_ros.policy.export import FLOAT_TOLERANCE, INT8_TOLERANCE, export_graphs, parity, quantise

    if out.suffix != ".safetensors" or out.resolve() == checkpoint.resolve():
        raise ConfigError(
            f"--out is {out}; name another .safetensors file than the checkpoint, which it cannot replace."
        )
    network, info = load_network(checkpoint)
    described = load_robot(robot)
    chosen = load_dataset(usable(episodes_of(data), described)[:EXPORT_EPISODES], described, info.policy.image_size)
    info.contract.check_same(chosen.contract)
    note("graphs")
    graphs = export_graphs(network)
    judged = list(chosen.demonstrations)
    if int8:
        note("8 bits")
        cameras = range(len(info.contract.cameras))
        seen = [np.concatenate([d.images[:, camera] for d in judged[::2]]) for camera in cameras]
        judged = judged[1::2] or judged  # best by what its scales were not taken from
        graphs = quantise(graphs, [np.concatenate(seen)] if info.policy.share_encoder else seen)
    candidate = out.with_name(f"{out.stem}.candidate{out.suffix}")
    try:
        save_exported(candidate, graphs, info)
        note("comparing on demonstrations")
        exported, _ = load_runtime(candidate)
        original, _ = load_runtime(checkpoint)
        same = parity(
            exported,
            original,
            [(d.images, d.state) for d in judged],
            ways(
                np.concatenate([d.state for d in judged]),
                np.concatenate([chunk_targets(d.action, info.policy.chunk) for d in judged]),
            ),
        )
        kind, tolerance = ("int8", INT8_TOLERANCE) if int8 else ("float32", FLOAT_TOLERANCE)
        found = [
            f"{kind}: joint targets differ by {same.mean:.2g} on the mean and {same.largest:.2g} at most over "
            f"{same.ticks} ticks, in units of how far joints go; allowed is {tolerance:g}."
        ]
        if not same.largest <= tolerance:
            raise CheckpointError(f"{found[0]} Nothing was written" + ("; export without --int8." if int8 else "."))
        figures = {f"{kind}_parity_mean": same.mean, f"{kind}_parity_largest": same.largest}
        if task:
            note("comparing successes")
            seeds = range(UNSEEN_SEED, UNSEEN_SEED + episodes)
            ours, theirs = (evaluate(Trial(path, robot, task), seeds, workers) for path in (candidate, checkpoint))
            difference = paired_difference(ours, theirs)
            low, high = difference.interval
            found.append(
                f"{task}: {ours.successes} of {episodes} succeeded, the checkpoint's {theirs.successes}; difference "
                f"{difference.rate:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}."
            )
            if not theirs.successes:
                raise CheckpointError(
                    f"{found[-1]} That says nothing of what was exported. Nothing was written; name the task that it "
                    "has learned, or leave --task out."
                )
            if high < 0.0:
                raise CheckpointError(f"{found[-1]} Nothing was written: the exported policy is worse.")
            figures[f"{kind}_success"] = ours.successes / episodes
        else:
            found.append("Successes were not compared; --task does that in the embedded simulator.")
        save_exported(candidate, graphs, dataclasses.replace(info, figures={**info.figures, **figures}))
        candidate.replace(out)
    finally:
        candidate.unlink(missing_ok=True)
    return found


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
        "median_jerk": evaluation.jerk,
        "results": [
            {key: value for key, value in asdict(result).items() if value == value}  # JSON has no NaN
            for result in evaluation.results
        ],
    }
