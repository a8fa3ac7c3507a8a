"""`lam train`, `evaluate`, `export`: from demonstrations to a policy, and how good it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.table import Table

from lam_ros.cli.console import (
    DEFAULT_ROBOT,
    Robot,
    SimulatorName,
    TrainingBars,
    console,
    friendly_errors,
    progress,
)
from lam_ros.config import from_mapping, load_robot
from lam_ros.errors import ConfigError, LamError
from lam_ros.learning.seeds import UNSEEN_SEED

learning_app = typer.Typer()
TaskName = Annotated[str, typer.Option(help="Task of the embedded simulator: reach, push or pick_place.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first episode; each further one counts up.")]
Json = Annotated[Path | None, typer.Option("--json", help="Where to write the results.")]


def changed(settings: Any, assignments: list[str]) -> Any:
    """Settings with some values replaced.

    Args:
        settings: a dataclass of settings.
        assignments: ``key=value`` each, the key with dots (``policy.chunk=16``), the value as YAML.

    Raises:
        ConfigError: an unknown key, a value that does not fit, or no ``=``.
    """
    mapping = dataclasses.asdict(settings)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment} has no '='; write --set key=value, as in --set policy.chunk=16.")
        *folders, key = path.split(".")
        part = mapping
        for folder in folders:
            if not isinstance(part.get(folder), dict):
                raise ConfigError(f"--set {assignment}: there are no settings {folder!r}.")
            part = part[folder]
        try:
            part[key] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"--set {assignment} is no YAML: {' '.join(str(error).split())}") from None
    return from_mapping(type(settings), mapping)


@learning_app.command()
def train(
    data: Annotated[
        list[str],
        typer.Option(help="Folder of episodes, here or at s3://… or gs://…; give it several times to mix folders."),
    ],
    out: Annotated[Path, typer.Option(help="Checkpoint to write (.safetensors).")],
    robot: Robot = DEFAULT_ROBOT,
    config: Annotated[Path | None, typer.Option(help="Training YAML; see config/train.yaml.")] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="How often a folder's ticks are shown, relative to the others'.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Use the first so many episodes of each folder; 0: all.")] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Fine-tune this checkpoint, whose model it stays, instead of beginning anew.")
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Begin with this perception, which `lam pretrain` wrote.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the YAML's seed.")] = None,
    head: Annotated[
        Literal["regression", "refined", "gmm", "categorical"] | None, typer.Option(help="Overrides the YAML's head.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Overrides the YAML's encoder: strided, article, resnet18, timm:NAME.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Override any setting: --set policy.chunk=16 --set shift=4.")
    ] = None,
    steps_scale: Annotated[float, typer.Option("--steps-scale", help="Multiplies the optimiser steps.")] = 1.0,
    corrections: Annotated[
        float | None,
        typer.Option(help="What a tick counts at which a human took over from a policy; overrides the YAML's."),
    ] = None,
) -> None:
    """Train a policy; the same command after an interruption goes on where it stopped.

    Under torchrun or SLURM, all processes train one policy together: `torchrun --nproc-per-node 4 -m lam_ros.cli.main
    train …`.
    """
    from lam_ros.cli import steps
    from lam_ros.learning.training import check_files, processes
    from lam_ros.learning.training import train as run_training
    from lam_ros.policy.checkpoint import read_info

    with friendly_errors():
        rank, _ = processes()
        console.quiet = rank > 0  # of several processes, one speaks
        check_files(out, start, pretrained)
        settings = steps.training_settings(config, steps_scale)
        if start is not None:
            settings = dataclasses.replace(settings, policy=read_info(start).policy)
        settings = changed(settings, setting or [])
        if corrections is not None:
            settings = dataclasses.replace(settings, corrections=corrections)
        policy = settings.policy
        if head:
            policy = dataclasses.replace(policy, head=head)
        if encoder:
            policy = dataclasses.replace(policy, encoder=encoder)
        settings = dataclasses.replace(settings, policy=policy, seed=settings.seed if seed is None else seed)
        with progress() as display:
            bars = TrainingBars(display)
            dataset = steps.load_data(data, weight or [], load_robot(robot), settings, bars.loaded, limit)
            result = run_training(dataset, settings, out, bars.step, start, pretrained)
        if rank > 0:
            return
        table = Table("figure", "value", title=f"{result.checkpoint}")
        for name, value in result.figures.items():
            table.add_row(name, f"{value:.4g}")
        console.print(table)
        plot = steps.plot_curves(result.log_folder)
        console.print(f"curves: {plot} (or tensorboard --logdir {result.log_folder})")


@learning_app.command()
def pretrain(
    data: Annotated[list[str], typer.Option(help="Folder of episodes, also failed or unmarked ones.")],
    out: Annotated[Path, typer.Option(help="File to write (.safetensors), for `lam train --pretrained`.")],
    robot: Robot = DEFAULT_ROBOT,
    config: Annotated[Path | None, typer.Option(help="Training YAML; see config/train.yaml.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1000,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Override any setting.")] = None,
) -> None:
    """Teach perception from films alone, before `lam train`: which frames lie close in time, how the joints moved.

    Worth while with many recordings and few good demonstrations: no command is needed, nor a success.
    """
    from lam_ros.cli import steps as all_steps
    from lam_ros.learning.pretraining import pretrain as run_pretraining

    with friendly_errors("the same command begins anew"):
        settings = changed(all_steps.training_settings(config), setting or [])
        with progress() as display:
            bars = TrainingBars(display)
            films = all_steps.load_films(data, load_robot(robot), settings, bars.loaded)
            figures = run_pretraining(films, settings, steps, out, bars.step)
        console.print(f"{out}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))


@learning_app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Policy to evaluate: a checkpoint or an exported policy.")],
    task: TaskName = "reach",
    episodes: Annotated[int, typer.Option(min=1, help="How many to perform.")] = 50,
    seed: Seed = UNSEEN_SEED,
    json_file: Json = None,
    robot: Robot = DEFAULT_ROBOT,
    core: Annotated[
        bool, typer.Option("--core", help="Without ROS: straight from policy to simulator, many times faster.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="With --core: another policy on the same seeds, and the difference.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="With --core: how many processes.")] = 1,
    cluster: Annotated[str, typer.Option(help="With --core: spread over this Ray cluster (`auto`, an address).")] = "",
    delay: Annotated[int, typer.Option(min=0, help="With --core: observations come so many ticks late.")] = 0,
    drop: Annotated[float, typer.Option(help="With --core: share of ticks without a new image.")] = 0.0,
    light: Annotated[float, typer.Option(help="With --core: brightness times up to 1 ± this.")] = 0.0,
    camera_shift: Annotated[int, typer.Option(min=0, help="With --core: pictures displaced by so many pixels.")] = 0,
    black_camera: Annotated[str, typer.Option(help="Unplug this camera, or `all`: does the policy look?")] = "",
    simulator: SimulatorName = "embedded",
    films: Annotated[
        Path | None, typer.Option(help="With --core: folder for films of the first failures (WebP).")
    ] = None,
) -> None:
    """Perform episodes in the embedded simulator and count successes, with their 95 % interval.

    Through the real nodes; with --core straight from the policy to the simulator, on as many processes as you like,
    with the same result whatever their number.
    """
    from lam_ros.cli import steps
    from lam_ros.learning.evaluation import EpisodeResult, Evaluation, first_ended, paired_difference
    from lam_ros.learning.rollouts import ALL, Perturbation, Trial
    from lam_ros.learning.rollouts import evaluate as evaluate_in_core
    from lam_ros.policy.checkpoint import read_info

    with friendly_errors("the same command begins anew"):
        info = read_info(checkpoint)
        if against is not None:  # before an hour of episodes
            info.contract.check_same(read_info(against).contract)
        cameras = load_robot(robot).cameras
        if black_camera not in ("", ALL, *cameras):
            raise ConfigError(f"--black-camera is {black_camera}; the robot's are {', '.join(cameras)}, or `{ALL}`.")
        perturbation = Perturbation(delay, drop, light, camera_shift, black_camera)
        if not core and (against or cluster or films or perturbation != Perturbation(black_camera=black_camera)):
            raise ConfigError("--against, --cluster, --films and perturbations other than --black-camera need --core.")
        if not core and workers > 1:
            raise ConfigError("--workers needs --core: nodes perform one episode at a time.")
        if core and simulator != "embedded":
            raise ConfigError("--core is the embedded simulator without ROS; leave out --core to perform in Gazebo.")
        seeds = range(seed, seed + episodes)
        if json_file is not None:  # where it cannot be, that is said before the episodes
            json_file.parent.mkdir(parents=True, exist_ok=True)

        def performed(policy: Path, label: str) -> Evaluation:
            results: list[EpisodeResult] = []
            try:
                with progress() as display:
                    bar = display.add_task(label, total=episodes, note="")

                    def report(result: EpisodeResult) -> None:
                        results.append(result)
                        display.update(bar, advance=1, note=f"{sum(r.success for r in results)} succeeded")

                    if core:
                        trial = Trial(policy, robot, task, perturbation)
                        return evaluate_in_core(trial, seeds, workers, cluster, report)
                    log_file = policy.with_suffix(".evaluate.log")
                    performance = steps.perform(
                        robot, task, policy, episodes, seed, log_file, report, black_camera, simulator=simulator
                    )
            except (LamError, KeyboardInterrupt):
                first = first_ended(results, seeds)
                if results:
                    console.print(f"[yellow]{policy.name} ended after {len(results)} of {episodes} episodes[/]")
                if first.episodes:
                    _say(first, "" if first.episodes == len(results) else f"the first {first.episodes}: ")
                raise
            if performance.evaluation.unanswered:
                console.print(
                    f"[yellow]{performance.evaluation.unanswered} ticks got no command in time; see {log_file}[/]"
                )
            return performance.evaluation

        evaluation = performed(checkpoint, f"performing {task}")
        found = {
            "checkpoint": str(checkpoint),
            "task": task,
            "through": "core" if core else "nodes",
            "simulator": simulator,
            "perturbation": dataclasses.asdict(perturbation),
            **steps.evaluation_json(evaluation),
        }

        def keep() -> None:
            if json_file is not None:
                steps.save_json(json_file, found)

        _say(evaluation, "")
        keep()
        if against is not None:
            other = performed(against, f"{against.name}")
            _say(other, f"{against.name}: ")
            difference = paired_difference(evaluation, other)
            low, high = difference.interval
            console.print(
                f"difference {difference.rate:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}; only {checkpoint.name} "
                f"succeeded on {difference.only_first} seeds, only {against.name} on {difference.only_second}"
            )
            found["against"] = {"checkpoint": str(against), **steps.evaluation_json(other)}
            found["difference"] = dataclasses.asdict(difference)
            keep()
        if films is not None:
            for film in steps.film_failures(Trial(checkpoint, robot, task, perturbation), evaluation, films):
                console.print(f"failure: {film}")


def _say(evaluation: Any, who: str) -> None:
    low, high = evaluation.wilson
    console.print(
        f"{who}{evaluation.successes} of {evaluation.episodes} succeeded; 95 % interval {low:.2f} to {high:.2f}"
        + (f"; median {evaluation.seconds_to_success:.1f} s to success" if evaluation.successes else "")
        + (f"; jerk {evaluation.jerk:.0f} rad/s³" if evaluation.jerk is not None else "")
    )


@learning_app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint or exported policy.")],
    data: Annotated[str, typer.Option(help="Folder of demonstrations, best such as it was not trained on.")],
    limit: Annotated[int, typer.Option(min=2, help="Use the last so many episodes.")] = 20,
    robot: Robot = DEFAULT_ROBOT,
) -> None:
    """Find out why the loss is low but the robot does nothing: does it move, the same way, does it look, all joints?

    Exit code 1 where something is wrong.
    """
    from lam_ros.cli import steps
    from lam_ros.demonstrations.alignment import load_dataset, usable
    from lam_ros.learning.diagnosis import diagnose
    from lam_ros.policy.checkpoint import load_policy

    with friendly_errors():
        policy = load_policy(checkpoint, load_robot(robot))
        with progress() as display:
            bars = TrainingBars(display)
            episodes = usable(steps.episodes_of(data), load_robot(robot))[-limit:]
            size = policy.runtime.config.image_size
            dataset = load_dataset(episodes, load_robot(robot), size, report=bars.loaded)
            findings = diagnose(policy.runtime, dataset.demonstrations)
        table = Table("", "question", "answer", title=f"{checkpoint.name} over {len(dataset.demonstrations)} episodes")
        for finding in findings:
            table.add_row("[green]ok[/]" if finding.is_fine else "[red]no[/]", finding.question, finding.sentence)
        console.print(table)
        if not all(finding.is_fine for finding in findings):
            raise SystemExit(1)


@learning_app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint that `lam train` wrote.")],
    out: Annotated[Path, typer.Option(help="File to write (.safetensors); nodes take it as they take a checkpoint.")],
    data: Annotated[str, typer.Option(help="Folder of demonstrations: both are run on them and compared.")],
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights, calibrated on the demonstrations.")] = False,
    task: Annotated[
        str, typer.Option(help="Task of the embedded simulator, to compare successes too; empty leaves it out.")
    ] = "",
    episodes: Annotated[int, typer.Option(min=10, help="How many episodes to compare.")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="How many processes perform them.")] = 1,
    robot: Robot = DEFAULT_ROBOT,
) -> None:
    """Export a policy to ONNX Runtime; the file is written only where it does what the checkpoint does."""
    from lam_ros.cli import steps

    with friendly_errors("the same command begins anew"):
        with progress() as display:
            bar = display.add_task("exporting", total=None, note="")
            found = steps.export_policy(
                checkpoint, out, data, robot, int8, task, episodes, workers, lambda note: display.update(bar, note=note)
            )
            display.update(bar, total=1, completed=1)
        for sentence in found:
            console.print(sentence)
        console.print(f"{out}: give it to the nodes as their checkpoint.")
