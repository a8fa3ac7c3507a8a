"""How a policy, and the scripted expert, do in a real Gazebo beside the embedded simulator: the same tables, all nodes.

    python benchmarks/gazebo/gap.py [--task push] [--checkpoint policy.safetensors] [--episodes 20] [--out gazebo_gap]

Needs Gazebo and ros_gz (docs/gazebo.md). Prints a table and JSON: successes with Wilson intervals, and the paired
difference between the simulators. Each episode is kept in the folder when it is over, beside the nodes' logs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from lam_ros.bringup import Options, Simulator, gazebo_processes
from lam_ros.cli import steps
from lam_ros.errors import LamError
from lam_ros.learning.evaluation import EpisodeResult, Evaluation, paired_difference
from lam_ros.learning.seeds import UNSEEN_SEED


def performed(
    who: str, task: str, checkpoint: Path | None, episodes: int, folder: Path, figures: dict[str, Any]
) -> dict[str, Evaluation]:
    """Evaluations by simulator, on the same seeds; one that ends early has fewer episodes. Each episode is saved."""
    found = {}
    with Progress() as progress:

        def count(simulator: str, results: list[EpisodeResult], bar: TaskID, result: EpisodeResult) -> None:
            results.append(result)
            progress.advance(bar)
            figures[f"{who}, {simulator}"] = steps.evaluation_json(Evaluation(tuple(results)))
            steps.save_json(folder / "gap.json", figures)

        for simulator in get_args(Simulator):
            bar = progress.add_task(f"{who}, {simulator}", total=episodes)
            results: list[EpisodeResult] = []
            log_file = folder / f"{who}_{simulator}.log"
            report = partial(count, simulator, results, bar)
            try:
                steps.perform(
                    "desk_arm",
                    task,
                    checkpoint,
                    episodes,
                    UNSEEN_SEED,
                    log_file,
                    report,
                    simulator=cast("Simulator", simulator),
                )
            except LamError as error:
                progress.console.print(f"{who}, {simulator}: ended after {len(results)} episodes: {error}")
            found[simulator] = Evaluation(tuple(results))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="push", choices=["reach", "push", "pick_place"])
    parser.add_argument("--checkpoint", type=Path, help="a policy that `lam train` wrote; the expert alone without one")
    parser.add_argument("--no-expert", action="store_true", help="the policy alone")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("gazebo_gap"), help="folder for the JSON and the nodes' logs")
    arguments = parser.parse_args()
    try:
        gazebo_processes(Options("desk_arm", task=arguments.task))  # say at once what is missing
    except LamError as error:
        sys.exit(str(error))
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"task": arguments.task, "episodes": arguments.episodes}
    table = Table("who", "simulator", "succeeded", "95 %", "median seconds to success")
    performers: dict[str, Path | None] = {} if arguments.no_expert else {"expert": None}
    if arguments.checkpoint:
        performers["policy"] = arguments.checkpoint
    for name, checkpoint in performers.items():
        found = performed(name, arguments.task, checkpoint, arguments.episodes, arguments.out, figures)
        for simulator, evaluation in found.items():
            if evaluation.episodes:
                low, high = evaluation.wilson
                seconds = f"{evaluation.seconds_to_success:.1f}" if evaluation.successes else ""
                succeeded = f"{evaluation.successes} of {evaluation.episodes}"
                table.add_row(name, simulator, succeeded, f"{low:.2f} to {high:.2f}", seconds)
        if all(evaluation.episodes for evaluation in found.values()):
            difference = paired_difference(found["gazebo"], found["embedded"])
            figures[f"{name}, gazebo less embedded"] = dataclasses.asdict(difference)
            steps.save_json(arguments.out / "gap.json", figures)
    Console().print(table)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
