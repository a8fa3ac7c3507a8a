"""Training throughput beside LeRobot's own loop: one network, one batch size, one machine, turn about in one run.

    python benchmarks/learning/throughput.py --lerobot-python PYTHON [--steps 30] [--rounds 3] [--json FILE]

Both loops train this project's CNN and head (stage one; this project's loop trains the auxiliary questions along with
it and augments its pictures, LeRobot's does neither). LeRobot's runs in float32 with the 4 loader processes that it
ships with, and with none; this project's in float32, and as shipped (`precision: auto`). Ratios are of medians of the
rounds, frames a second after a warm-up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
DEMONSTRATIONS = 12
WARM_UP = 8  # steps that do not count


def ours(folder: Path, steps: int, precision: str) -> list[float]:
    """Train stage one; returns when each of its steps ended, in seconds."""
    sys.path.insert(0, str(HERE))
    from arenas import ARENAS, demonstrations

    from lam_ros.cli.steps import training_settings
    from lam_ros.learning.training import train

    dataset = demonstrations("push", ARENAS["push"](), DEMONSTRATIONS, 0, folder)
    settings = training_settings(None)
    settings = dataclasses.replace(settings, perception_steps=steps, action_steps=1, precision=precision)
    ended: list[float] = []

    def watch(stage: str, step: int, steps: int, loss: float) -> None:
        if stage == "perception":
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as kept:
        train(dataset, settings, Path(kept) / "policy.safetensors", report=watch)
    return ended


def frames_a_second(command: list[str], batch: int, environment: dict[str, str]) -> float:
    """What a child process that prints the times of its steps gets through."""
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {ended.stderr[-2000:]}")
    times = json.loads(ended.stdout.splitlines()[-1])[WARM_UP:]
    return batch * (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", type=Path, default=os.environ.get("LEROBOT_PYTHON"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ours", nargs=2, metavar=("FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    steps = arguments.steps + WARM_UP
    if arguments.ours:
        print(json.dumps(ours(Path(arguments.ours[0]), steps, arguments.ours[1])))
        return
    if arguments.lerobot_python is None:
        parser.error("name LeRobot's Python; lerobot_environment.sh makes an environment.")
    sys.path.insert(0, str(HERE))
    from arenas import ARENAS, demonstrations
    from lerobot_peer import write_arrays
    from remote_arena import other_environment
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from lam_ros.cli.steps import training_settings

    batch = training_settings(None).perception_batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = demonstrations("push", ARENAS["push"](), DEMONSTRATIONS, 0, folder)
        write_arrays(dataset, folder / "demonstrations.npz")
        loop = [str(arguments.lerobot_python), str(HERE / "lerobot_loop.py"), str(folder / "demonstrations.npz")]
        mine = [sys.executable, __file__, "--steps", str(arguments.steps), "--ours", name]
        theirs = {**other_environment(), "PYTHONPATH": str(REPOSITORY)}
        contestants = {
            "LeRobot's loop, 4 loaders": ([*loop, str(steps), str(batch), "4"], theirs),
            "LeRobot's loop, no loaders": ([*loop, str(steps), str(batch), "0"], theirs),
            "lam train, float32": ([*mine, "float32"], dict(os.environ)),
            "lam train, as shipped": ([*mine, "auto"], dict(os.environ)),
        }
        found: dict[str, list[float]] = {contestant: [] for contestant in contestants}
        for _ in track(range(arguments.rounds), "rounds"):
            for contestant, (command, environment) in contestants.items():
                found[contestant].append(frames_a_second(command, batch, environment))
    best_peer = max(statistics.median(found[name]) for name in found if name.startswith("LeRobot"))
    figures = {
        name: {
            "frames_a_second": [round(value, 1) for value in values],
            "ratio_to_best_peer": round(statistics.median(values) / best_peer, 2),
        }
        for name, values in found.items()
    }
    table = Table(f"one network, batches of {batch}", "frames a second, each round", "of LeRobot's better")
    for name, row in figures.items():
        each = ", ".join(f"{value:.0f}" for value in row["frames_a_second"])
        table.add_row(name, each, f"{row['ratio_to_best_peer']}")
    Console().print(table)
    print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
