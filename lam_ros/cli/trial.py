"""`lam trial`: policies compared on the robot, blind and shuffled."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from lam_ros.bringup import Options, Process, Supervisor, node_environment, plan, require_ros
from lam_ros.cli.console import DEFAULT_ROBOT, Robot, console, friendly_errors, log_to
from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import Contract, seconds_to_ns
from lam_ros.control.terminal import Keys
from lam_ros.demonstrations.episode import Episode, open_episode
from lam_ros.demonstrations.topics import RecordedTopics
from lam_ros.errors import ConfigError
from lam_ros.images import read_frame, scale_image
from lam_ros.learning.trials import Ending, Ledger, Turn, order

KEYS = "space begin   + success   - failure   q end, and go on another time"
FAILURE_HEIGHT, FAILURE_FPS = 240, 5.0  # of films
NO_TERMINAL = "trials are controlled by keys and need a terminal."
MARKS: dict[str, Ending] = {"+": "success", "-": "failure"}

trial_app = typer.Typer()


@trial_app.command()
def trial(
    checkpoints: Annotated[list[Path], typer.Argument(help="Two or more policies to compare; one alone is measured.")],
    out: Annotated[Path, typer.Option(help="Folder for the recordings, the outcomes and films of the failures.")],
    task: Annotated[str, typer.Option(help="What they are to do, in words.")],
    robot: Robot = DEFAULT_ROBOT,
    trials: Annotated[int, typer.Option(min=1, help="How many each policy has.")] = 20,
    seconds: Annotated[float, typer.Option(min=1.0, help="A trial that takes longer has failed.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order.")] = 0,
    simulated: Annotated[bool, typer.Option("--simulated", help="The embedded simulator is the robot: to try it.")] = (
        False
    ),
) -> None:
    """Compare policies on the robot: in blocks, shuffled, blind, recorded; with intervals at the end.

    Set the scene, press space: the policy whose turn it is performs, and you do not know which. Say what came of it, by
    key or by the recorder's services or buttons (`recorder/mark_success`, `mark_failure`). Where you take over it has
    failed. The nodes are started by this command, all but your drivers and your teleoperation; between trials no policy
    drives. The same command goes on where an interrupted comparison stopped.
    """
    from lam_ros.policy.checkpoint import digest, read_info

    with friendly_errors():
        require_ros()
        described = load_robot(robot)
        for file in checkpoints:
            read_info(file).contract.check_same(Contract.of(described))
        names = [digest(file) for file in checkpoints]
        if len(set(names)) < len(names):
            raise ConfigError("two of these checkpoints are the same file; nothing tells them apart.")
        ledger = Ledger(out / "trials.jsonl", names, seed)
        turns = order(len(names), trials, seed)
        if len(ledger.turns) < len(turns):
            options = Options(robot, str(checkpoints[0]), task, str(out / "episodes"), simulated)
            _perform(options, dict(zip(names, checkpoints, strict=True)), turns, ledger, seconds, described, out)
        _tell(checkpoints, names, ledger)


def _perform(
    options: Options,
    checkpoints: Mapping[str, Path],
    turns: Sequence[int],
    ledger: Ledger,
    seconds: float,
    robot: RobotConfig,
    out: Path,
) -> None:
    # The policy waits to be told: an arm that moves when a command is typed has not been asked to.
    processes = [
        Process(p.node, {**p.parameters, "autostart": False}) if p.node.name == "action" else p
        for p in plan("deploy", replace(options, teleop="none"))
    ]
    os.environ.update(node_environment())
    with Keys(NO_TERMINAL) as keys, log_to(out / "trial.log") as log, Supervisor(log, node_environment()) as supervisor:
        from lam_ros.nodes.conductor import conducting

        supervisor.start(processes)
        console.print(f"{KEYS}\nthe nodes are starting; their log is {out / 'trial.log'}", soft_wrap=True)
        with conducting(supervisor.check) as conductor:
            conductor.change_state("action", "configure")
            while len(ledger.turns) < len(turns):
                number = len(ledger.turns)
                console.print(f"[bold]trial {number + 1} of {len(turns)}[/]: set the scene, then press space")
                if _key(keys, conductor, " q") == "q":
                    return
                if conductor.is_taken_over:
                    console.print("somebody drives by hand; let go, and the trial begins")
                    while conductor.is_taken_over:
                        conductor.spin()
                name, file = list(checkpoints.items())[turns[number]]
                conductor.swap_checkpoint(str(file.resolve()), name)
                turn = _one(conductor, keys, number, name, seconds)
                ledger.add(turn)
                console.print(f"trial {number + 1}: {turn.ending}, {turn.seconds:.1f} s")
                if turn.ending != "success":
                    film_failure(
                        open_episode(out / "episodes" / turn.episode), robot, out / f"failure_{number + 1:03}.webp"
                    )


def _one(conductor: Any, keys: Keys, number: int, policy: str, seconds: float) -> Turn:
    """One trial, from activation to deactivation of the policy."""
    episode = conductor.call("recorder/start")
    heard, conductor.was_taken_over = len(conductor.events), False
    # The space key says so: a human may have driven, or the pause been long. It holds for seconds, and so comes last.
    conductor.call("lam/resume")
    conductor.change_state("action", "activate")
    began = time.monotonic()
    ending: Ending = "time"
    try:
        while time.monotonic() - began < seconds:
            conductor.spin()
            events = [event for event in conductor.events[heard:] if event.startswith("marked ")]
            marks: list[Ending] = ["success" if event.endswith("success") else "failure" for event in events]
            pressed = [MARKS[key] for key in keys.pressed() if key in MARKS]
            if conductor.was_taken_over or conductor.is_taken_over:
                ending = "takeover"
                break
            if marks or pressed:
                ending = (marks or pressed)[0]
                break
    finally:
        conductor.change_state("action", "deactivate")
    took = time.monotonic() - began
    conductor.call("recorder/mark_success" if ending == "success" else "recorder/mark_failure")
    conductor.call("recorder/stop")
    return Turn(number, policy, ending, took, episode)


def _key(keys: Keys, conductor: Any, wanted: str) -> str:
    """The next of some keys."""
    while True:
        conductor.spin()
        for key in keys.pressed():
            if key in wanted:
                return key


def film_failure(episode: Episode, robot: RobotConfig, file: Path) -> None:
    """A film of an episode's cameras: small and few pictures, for a minute of a real robot is gigabytes otherwise."""
    from lam_ros.cli.report import film

    cameras = RecordedTopics.of(episode, robot).cameras
    frames: list[tuple[int, str, np.ndarray]] = []
    due_ns = dict.fromkeys(cameras.values(), 0)
    for topic, msgtype, data, received_ns in episode.messages():
        camera = cameras.get(topic.lstrip("/"))
        if camera is None or received_ns < due_ns[camera]:
            continue
        due_ns[camera] = received_ns + seconds_to_ns(1.0 / FAILURE_FPS)
        image = read_frame(msgtype, data)[1]
        height = min(image.shape[0], FAILURE_HEIGHT)
        frames.append((0, camera, scale_image(image, (round(image.shape[1] * height / image.shape[0]), height))))
    if film(frames, file, FAILURE_FPS):
        console.print(escape(f"film: {file}"), soft_wrap=True)


def _tell(checkpoints: Sequence[Path], names: Sequence[str], ledger: Ledger) -> None:
    columns = ("policy", "succeeded", "95 %", "taken over", "out of time", "s to success")
    table = Table(*columns, f"less {checkpoints[0].name}")
    for file, name in zip(checkpoints, names, strict=True):
        found = ledger.evaluation(name)
        low, high = found.wilson
        difference = ledger.difference(name, names[0]) if name != names[0] else None
        said = ""
        if difference is not None:
            said = f"{difference.rate:+.2f} ({difference.interval[0]:+.2f} to {difference.interval[1]:+.2f})"
        usual = f"{found.seconds_to_success:.1f}" if found.seconds_to_success is not None else ""
        succeeded = f"{found.successes} of {found.episodes}"
        endings = [turn.ending for turn in ledger.of(name)]
        others = str(endings.count("takeover")), str(endings.count("time"))
        table.add_row(file.name, succeeded, f"{low:.2f} to {high:.2f}", *others, usual, said)
    console.print(table)
