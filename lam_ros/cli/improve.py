"""`lam improve`: a policy that is corrected by hand, round after round."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lam_ros.cli.console import DEFAULT_ROBOT, Robot, TrainingBars, console, friendly_errors, progress
from lam_ros.config import RobotConfig, load_robot
from lam_ros.demonstrations.alignment import load_dataset
from lam_ros.demonstrations.dataset import mixed
from lam_ros.demonstrations.episode import Episode, open_episode, sealed_folders
from lam_ros.errors import BringUpError, TrainingError

if TYPE_CHECKING:
    from lam_ros.learning.configuration import TrainConfig
    from lam_ros.learning.corrections import Comparison

LOOK_S = 1.0
NICE = 10  # training must not take cores from the nodes that drive the arm

improve_app = typer.Typer()


@improve_app.command()
def improve(
    checkpoint: Annotated[Path, typer.Option(help="The policy that performs now.")],
    data: Annotated[
        list[str], typer.Option(help="Folder of demonstrations it was trained on; several times for more.")
    ],
    corrections: Annotated[Path, typer.Option(help="Folder that corrected episodes go to.")],
    out: Annotated[Path, typer.Option(help="Folder for the improved checkpoints.")] = Path("improved"),
    robot: Robot = DEFAULT_ROBOT,
    every: Annotated[int, typer.Option(min=2, help="How many new corrected episodes make a round.")] = 5,
    rounds: Annotated[int, typer.Option(min=0, help="End after so many; 0: until Ctrl-C.")] = 0,
    config: Annotated[Path | None, typer.Option(help="Training YAML; see config/train.yaml.")] = None,
    steps_scale: Annotated[float, typer.Option(help="Of its optimiser steps: how long a round fine-tunes.")] = 0.2,
    weight: Annotated[
        float | None, typer.Option("--weight", help="What a tick of a takeover counts; overrides the YAML's.")
    ] = None,
    swap: Annotated[
        bool, typer.Option("--swap/--no-swap", help="Give it to the running nodes, if you take it.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Take each policy that is better, without asking.")] = False,
) -> None:
    """Improve a policy by correcting it: it fine-tunes beside, checks, and offers each new policy.

    In other terminals: `lam up deploy --checkpoint POLICY --out CORRECTIONS` performs and records; take over by hand
    where it goes wrong (`lam node teleop …`), and keep each corrected episode (`recorder/start`, `recorder/stop`). When
    there are enough new ones, the policy is fine-tuned on the demonstrations and the corrections: what the human did
    counts, what the policy did itself does not. Every fifth corrected episode is held out; on these both policies are
    compared. You decide; then the running nodes take it up without a missed tick, and `lam swap --back` undoes it.
    """
    # Before torch is there: threads that wait for one another sleep. On two busy cores training takes 0.6 of the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from lam_ros.cli import steps

    with friendly_errors():
        described = load_robot(robot)
        settings = steps.training_settings(config, steps_scale)
        if weight is not None:
            settings = dataclasses.replace(settings, corrections=weight)
        os.nice(NICE)
        done, used, current = 0, 0, checkpoint
        while not rounds or done < rounds:
            there = _wait_for(corrections, used + every)
            done += 1
            better = _next_file(out, checkpoint.stem)
            found = improved(current, data, there, described, settings, better)
            used = len(there)
            console.print(f"round {done}: {found}.")
            takes = found.is_better if yes else typer.confirm(f"take {better}?", default=found.is_better)
            if takes:
                current = better
                if swap:
                    _swap(better)
        console.print(f"{current} is the policy now.")


def improved(
    current: Path,
    data: Sequence[str],
    corrected: Sequence[Episode],
    robot: RobotConfig,
    settings: TrainConfig,
    out: Path,
) -> Comparison:
    """Fine-tune a policy on demonstrations and corrections, and compare both where it was not trained.

    Args:
        settings: of a round; the model is the checkpoint's.
        out: checkpoint to write.

    Raises:
        CheckpointError, EpisodeError, TrainingError: what is there cannot be used; the current policy goes on.
    """
    from lam_ros.cli import steps
    from lam_ros.learning.corrections import compared, held_out
    from lam_ros.learning.training import train
    from lam_ros.policy.checkpoint import load_policy, read_info

    settings = dataclasses.replace(settings, policy=read_info(current).policy)
    learned, judged = held_out(corrected, lambda episode: episode.number)
    size = settings.policy.image_size
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress() as display:
        bars = TrainingBars(display)
        shown = [load_dataset(steps.episodes_of(folder), robot, size, report=bars.loaded) for folder in data]
        taught = load_dataset(learned, robot, size)
        unseen = load_dataset(judged, robot, size)
        if all(d.human.all() for d in (*taught.demonstrations, *unseen.demonstrations)):
            raise TrainingError(
                "no policy drove in the corrected episodes; they are plain demonstrations, for `lam train`."
            )
        train(mixed([*shown, taught]), settings, out, bars.step, start=current)
    before, after = (load_policy(file, robot).runtime for file in (current, out))
    return compared(before, after, unseen.demonstrations)


def _next_file(folder: Path, stem: str) -> Path:
    """The first free name: what an earlier call wrote may be the policy that runs."""
    return next(file for n in itertools.count(1) if not (file := folder / f"{stem}_{n}.safetensors").exists())


def _corrected(folder: Path) -> list[Episode]:
    """The usable episodes in which a human drove."""
    episodes = map(open_episode, sealed_folders(folder))
    return [episode for episode in episodes if episode.is_usable and episode.manifest.drivers.get("teleop")]


def _wait_for(folder: Path, count: int) -> list[Episode]:
    """The corrected episodes, once there are so many."""
    with console.status("") as status:
        while len(there := _corrected(folder)) < count:
            said = f"{folder}: {len(there)} of {count} corrected episodes; perform, take over, keep them"
            status.update(escape(said))
            time.sleep(LOOK_S)
    return there


def _swap(file: Path) -> None:
    """Give the running nodes a checkpoint, if any run."""
    from lam_ros.cli import steps

    try:
        steps.swap(file)
        console.print(f"perception and action run {file}; `lam swap --back` undoes it.")
    except BringUpError as error:
        console.print(f"[yellow]{escape(str(error))}[/] `lam swap --checkpoint {file}` once they run.", soft_wrap=True)
