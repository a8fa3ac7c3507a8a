"""`lam demo`: the whole loop, resumable, with a report at its end."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from lam_ros.bringup import Simulator, require_ros
from lam_ros.cli import steps
from lam_ros.cli.console import TrainingBars, console, progress
from lam_ros.cli.report import film, write_report
from lam_ros.config import load_robot
from lam_ros.demonstrations.dataset import digest_of
from lam_ros.demonstrations.episode import list_episodes
from lam_ros.learning.seeds import UNSEEN_SEED
from lam_ros.learning.training import train, untrained_path
from lam_ros.policy.checkpoint import digest
from lam_ros.simulation.tasks import make_task

DEMONSTRATIONS = {"reach": 250, "push": 250, "pick_place": 250}
FAST_SHARE = 0.2  # of demonstrations, steps and episodes
FILMED = 6
COMPARED_EPISODES = 20  # of the untrained and the blinded policy: their success is near 0, which few episodes show


class _Seconds:
    """Wall time of each phase, added up over interrupted runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.values: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    def measure(self, phase: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.values[phase] = self.values.get(phase, 0.0) + time.perf_counter() - start
            steps.save_json(self._path, self.values)


def _perform(
    display: Progress,
    label: str,
    out: Path,
    robot: str,
    task: str,
    checkpoint: Path | None,
    episodes: int,
    seed: int,
    black_camera: str = "",
    filmed: int = 0,
    simulator: Simulator = "embedded",
) -> tuple[dict[str, Any], list[float]]:
    """Perform, or take what an earlier run of the same policy left."""
    slug = label.replace(",", "").replace(" ", "_")
    policy = digest(checkpoint) if checkpoint else "expert"
    identity = digest_of([policy, task, str(episodes), str(seed), black_camera, simulator])
    path = out / "evaluations" / f"{slug}.json"
    bar = display.add_task(label, total=episodes, note="")
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["identity"] == identity:
            display.update(bar, completed=episodes, note=f"{kept['evaluation']['successes']} succeeded")
            return kept["evaluation"], kept["latencies_ms"]
    succeeded = 0

    def report(result: Any) -> None:
        nonlocal succeeded
        succeeded += result.success
        display.update(bar, advance=1, note=f"{succeeded} succeeded")

    performance = steps.perform(
        robot, task, checkpoint, episodes, seed, out / "logs" / f"{slug}.log", report, black_camera, filmed, simulator
    )
    if performance.film:
        film(performance.film, out / "film.webp")
    evaluation = steps.evaluation_json(performance.evaluation)
    kept = {"identity": identity, "evaluation": evaluation, "latencies_ms": performance.latencies_ms}
    steps.save_json(path, kept)
    return evaluation, performance.latencies_ms


def run_demo(
    robot: str,
    task: str,
    episodes: int,
    demonstrations: int | None,
    seed: int,
    fast: bool,
    out: Path,
    simulator: Simulator = "embedded",
) -> dict[str, Any]:
    """Record, train, perform, report; each step takes up what an interrupted run left in ``out``.

    Returns:
        What summary.json holds.
    """
    instruction = make_task(task).instruction
    require_ros()
    share = FAST_SHARE if fast else 1.0
    wanted = demonstrations or round(DEMONSTRATIONS[task] * share)
    compared = max(5, round(min(episodes, COMPARED_EPISODES) * share)) if fast else min(episodes, COMPARED_EPISODES)
    settings = dataclasses.replace(steps.training_settings(None, share), seed=seed)
    dataset, checkpoint = out / "demonstrations" / task, out / "policy.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    seconds = _Seconds(out / "logs" / "seconds.json")
    evaluations: dict[str, dict[str, Any]] = {}
    first = UNSEEN_SEED + seed
    with progress() as display:
        bar = display.add_task("recording", total=wanted, note="")
        display.update(bar, completed=len(list_episodes(dataset)) if dataset.is_dir() else 0)
        seconds.measure(
            "record",
            lambda: steps.record(
                robot,
                task,
                wanted,
                dataset,
                seed,
                out / "logs" / "record.log",
                lambda _: display.advance(bar),
                simulator,
            ),
        )
        bars = TrainingBars(display)

        def learn() -> Any:
            data = steps.load_data([dataset], [], load_robot(robot), settings, bars.loaded)
            return train(data, settings, checkpoint, bars.step)

        trained = seconds.measure("train", learn)

        def perform(label: str, policy: Path | None, count: int, **more: Any) -> list[float]:
            more["simulator"] = simulator
            evaluations[label], latencies = seconds.measure(
                f"perform: {label}", lambda: _perform(display, label, out, robot, task, policy, count, first, **more)
            )
            return latencies

        latencies = perform("trained policy", checkpoint, episodes, filmed=FILMED)
        perform("untrained policy", untrained_path(checkpoint), compared)
        perform("scripted expert", None, episodes)
        for camera in load_robot(robot).cameras if simulator == "embedded" else ():
            perform(f"trained, {camera} camera black", checkpoint, compared, black_camera=camera)
    film_path = out / "film.webp"
    summary = {
        "task": task,
        "instruction": instruction,
        "seed": seed,
        "fast": fast,
        "demonstrations": wanted,
        "episodes": evaluations["trained policy"]["episodes"],
        "successes": evaluations["trained policy"]["successes"],
        "wilson_95": evaluations["trained policy"]["wilson_95"],
        "untrained_successes": evaluations["untrained policy"]["successes"],
        "untrained_episodes": evaluations["untrained policy"]["episodes"],
        "expert_successes": evaluations["scripted expert"]["successes"],
        "expert_episodes": evaluations["scripted expert"]["episodes"],
        "latency_ms": {
            "p50": float(np.percentile(latencies, 50)) if latencies else None,
            "p99": float(np.percentile(latencies, 99)) if latencies else None,
        },
        "checkpoint": str(checkpoint),
        "seconds": seconds.values,
        "bins": settings.policy.bins,
        "training": trained.figures,
        "evaluations": evaluations,
        "files": {
            "report": out / "report.html",
            "summary": out / "summary.json",
            "policy": checkpoint,
            "demonstrations": dataset,
            "learning curves": trained.log_folder,
            "film": film_path,
            "logs of the nodes": out / "logs",
        },
    }
    summary["files"] = {name: str(path) for name, path in summary["files"].items()}
    write_report(
        out / "report.html", summary, latencies, trained.log_folder, film_path if film_path.is_file() else None
    )
    steps.save_json(out / "summary.json", summary)
    low, high = summary["wilson_95"]
    console.print(
        f"[bold]{summary['successes']} of {summary['episodes']}[/] unseen episodes succeeded "
        f"(95 % interval {low:.2f} to {high:.2f}); untrained {summary['untrained_successes']} of "
        f"{summary['untrained_episodes']}, expert {summary['expert_successes']} of {summary['expert_episodes']}."
    )
    console.print(f"report: {out / 'report.html'}")
    return summary
