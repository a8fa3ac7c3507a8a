"""How a policy, and the scripted expert, do in a real Gazebo beside the embedded simulator: the same tables, all nodes.

    python benchmarks/gazebo/gap.py [--task push] [--checkpoint policy.safetensors] [--episodes 20] [--out FILE]

Needs Gazebo and ros_gz (docs/gazebo.md). Prints a table and JSON: successes with Wilson intervals, and the paired
difference between the simulators.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lam_ros.bringup import Options, Simulator, gazebo_processes
from lam_ros.cli import steps
from lam_ros.errors import LamError
from lam_ros.learning.evaluation import Evaluation, paired_difference, wilson_interval
from lam_ros.learning.seeds import UNSEEN_SEED


def performed(task: str, checkpoint: Path | None, episodes: int, folder: Path) -> dict[str, Evaluation]:
    """Who performs, by simulator; the same seeds in both."""
    found = {}
    who = "policy" if checkpoint else "expert"
    with Progress() as progress:
        for simulator in get_args(Simulator):
            bar = progress.add_task(f"{who}, {simulator}", total=episodes)
            performance = steps.perform(
                "desk_arm",
                task,
                checkpoint,
                episodes,
                UNSEEN_SEED,
                folder / f"{who}_{simulator}.log",
                lambda _, bar=bar: progress.advance(bar),  # type: ignore[misc]
                simulator=cast("Simulator", simulator),
            )
            found[simulator] = performance.evaluation
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="push", choices=["reach", "push", "pick_place"])
    parser.add_argument("--checkpoint", type=Path, help="a policy that `lam train` wrote; the expert alone without one")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, help="file for the JSON")
    arguments = parser.parse_args()
    try:
        gazebo_processes(Options("desk_arm", task=arguments.task))  # say at once what is missing
    except LamError as error:
        sys.exit(str(error))
    figures: dict[str, Any] = {"task": arguments.task, "episodes": arguments.episodes}
    table = Table("who", "simulator", "succeeded", "95 %", "median seconds to success")
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in [None, *([arguments.checkpoint] if arguments.checkpoint else [])]:
            who = "policy" if checkpoint else "expert"
            found = performed(arguments.task, checkpoint, arguments.episodes, Path(folder))
            for simulator, evaluation in found.items():
                low, high = wilson_interval(evaluation.successes, evaluation.episodes)
                times = sorted(result.seconds for result in evaluation.results if result.success)
                middle = times[len(times) // 2] if times else None
                figures[f"{who}, {simulator}"] = {**steps.evaluation_json(evaluation), "median_seconds": middle}
                succeeded = f"{evaluation.successes} of {evaluation.episodes}"
                table.add_row(who, simulator, succeeded, f"{low:.2f} to {high:.2f}", f"{middle:.1f}" if middle else "")
            difference = paired_difference(found["gazebo"], found["embedded"])
            figures[f"{who}, gazebo less embedded"] = dataclasses.asdict(difference)
    Console().print(table)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
