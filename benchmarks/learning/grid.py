"""Peers side by side: the same demonstrations, seeds and episodes, equal CPU-seconds or equal steps of training.

    python benchmarks/learning/grid.py [--tasks push] [--methods lam bc_rnn_gmm …] [--demonstrations 25 50]
                                       [--seeds 0 1] [--seconds 240 | --steps 1000] [--episodes 100] [--jobs 2]
                                       [--out FOLDER]
    python benchmarks/learning/grid.py --report          # only the tables (those in *.md too), the JSON and the plot

A cell is one training and its episodes, in a process of its own with one thread; its figures go to a JSON file of its
own, so that an interrupted grid goes on where it stopped. With --ray ADDRESS the cells spread over a Ray cluster whose
machines share the folders.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lam_ros.learning.evaluation import EpisodeResult

HERE = Path(__file__).parent
FILMS, OTHER_SEEDS = 100, 500  # recordings without labels for pre-training, and where their seeds begin
ACT_BEFORE = "act:frozen_norms"  # before its normalisations did anything; see lerobot_server.py
METHODS = ("lam", "bc_rnn_gmm", "act", "diffusion", "chunked_mlp", "nearest")


@dataclass(frozen=True)
class Cell:
    """One training: what is learned by whom, from how many demonstrations, with which seed and budget."""

    task: str
    method: str
    demonstrations: int
    seed: int
    seconds: float
    episodes: int
    step_budget: int = 0  # instead of seconds, which are then 0

    @property
    def name(self) -> str:
        budget = f"{self.step_budget}steps" if self.step_budget else f"{self.seconds:g}s"
        return (
            f"{self.task}.{self.method.replace(':', '_')}.{self.demonstrations}.{self.seed}.{budget}.{self.episodes}e"
        )


def make_method(name: str) -> Any:
    """The method of a cell."""
    sys.path.insert(0, str(HERE))
    import methods

    if name in ("act", "diffusion"):
        from lerobot_peer import LeRobotPeer

        return LeRobotPeer(name)
    if name in methods.ABLATIONS:
        return methods.Lam(**methods.ABLATIONS[name])
    made: dict[str, Callable[[], Any]] = {
        "lam": methods.Lam,
        "bc_rnn_gmm": methods.BcRnnGmm,
        "chunked_mlp": methods.ChunkedMlp,
        "nearest": methods.NearestNeighbour,
    }
    return made[name]()


def folder_of_machine(out: Path) -> Path:
    """Where this machine's cells go: CPU-seconds of different kinds of machine do not compare."""
    sys.path.insert(0, str(HERE))
    from precision import machine

    return out / re.sub(r"[^a-z0-9]+", "-", machine().lower())


def run_cell(cell: Cell, out: Path, side_by_side: int, arena_processes: int) -> None:
    """Train, and perform so many episodes at once, in this process; writes the cell's JSON."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    from arenas import ARENAS, demonstrations, perform
    from methods import Budget
    from precision import machine
    from remote_arena import RemoteArena

    RemoteArena.processes = arena_processes
    arenas = [ARENAS[cell.task]() for _ in range(side_by_side)]
    arena = arenas[0]
    dataset = demonstrations(cell.task, arena, cell.demonstrations, cell.seed, out / "demonstrations")
    method = make_method(cell.method)
    if method.wants_films:
        method.films = demonstrations(cell.task, arena, FILMS, cell.seed + OTHER_SEEDS, out / "demonstrations")
    began = time.perf_counter()
    method.train(dataset, arena.limits, Budget(cell.seconds, cell.step_budget), cell.seed)
    trained = time.perf_counter() - began
    began = time.perf_counter()
    folder = folder_of_machine(out)
    folder.mkdir(exist_ok=True)
    partial = folder / f"{cell.name}.partial"
    results: list[EpisodeResult] = []
    # The same tables for every method: the episodes' seeds do not depend on the cell's.
    for first in range(0, cell.episodes, side_by_side):
        wave = range(cell.episodes)[first : first + side_by_side]
        results += perform(arenas[: len(wave)], wave, method)
        figures = {
            **asdict(cell),
            "episodes": len(results),
            "successes": sum(result.success for result in results),
            "machine": machine(),
            "steps": method.steps,
            "train_cpu_seconds": method.cpu_seconds,
            "train_seconds": trained,
            "perform_seconds": time.perf_counter() - began,
            "outcomes": "".join(str(int(result.success)) for result in results),
            "seconds_to_success": [result.seconds for result in results if result.success],
            "jerk": sorted(result.jerk for result in results)[len(results) // 2],
        }
        partial.write_text(json.dumps(figures, indent=1))  # what there is, should this be cut off
    partial.replace(folder / f"{cell.name}.json")


def spawn(cell: Cell, out: str, side_by_side: int, arena_processes: int) -> str:
    """Run a cell in a process of its own; its name, and what went wrong."""
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--out", out]
    command += ["--side-by-side", str(side_by_side), "--arena-processes", str(arena_processes)]
    one_thread = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}  # of torch, and of Mesa's drawing
    environment = {**os.environ, **one_thread}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return cell.name + ("" if ended.returncode == 0 else f" failed: {ended.stderr[-1500:]}")


def run_grid(cells: list[Cell], out: Path, jobs: int, ray_address: str, **in_a_cell: int) -> None:
    """Run the cells that have no figures yet; ``in_a_cell`` are ``run_cell``'s."""
    from rich.progress import track

    # A cluster's machines may be of several kinds, and each writes to the folder of its own.
    is_mixed = ray_address not in ("", "local")
    folders = [folder for folder in out.iterdir() if folder.is_dir()] if is_mixed else [folder_of_machine(out)]
    missing = [cell for cell in cells if not any((folder / f"{cell.name}.json").is_file() for folder in folders)]
    if ray_address:
        import ray

        ray.init(address=None if ray_address == "local" else ray_address, log_to_driver=False)
        remote = ray.remote(num_cpus=1)(spawn)
        waiting = [remote.remote(cell, str(out), **in_a_cell) for cell in missing]
        for _ in track(missing, "cells"):
            done, waiting = ray.wait(waiting)
            print(ray.get(done[0]), flush=True)
        return
    with ThreadPoolExecutor(jobs) as pool:
        all_said = pool.map(lambda cell: spawn(cell, str(out), **in_a_cell), missing)
        for said in track(all_said, "cells", total=len(missing)):
            print(said, flush=True)


def _place(method: str) -> tuple[int, str]:
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def key(cell: dict[str, Any]) -> tuple[Any, ...]:
    """Of cells that belong together."""
    return cell["task"], cell["demonstrations"], cell["seconds"], cell["step_budget"], cell["machine"]


def report(out: Path) -> None:
    """The table of all cells there are, paired differences, a JSON file and a plot."""
    from matplotlib import pyplot as plt
    from rich.console import Console
    from rich.table import Table

    from lam_ros.learning.evaluation import EpisodeResult, Evaluation, paired_difference, wilson_interval

    found = [json.loads(path.read_text()) for path in sorted(out.glob("*/*.json")) if path.name != "summary.json"]
    # Of one training the longest: the tables of a shorter one are among its own.
    longest = {(key(c), c["method"], c["seed"]): c for c in sorted(found, key=lambda c: len(c["outcomes"]))}
    cells = [cell for cell in found if longest[key(cell), cell["method"], cell["seed"]] is cell]

    def pooled(rows: list[dict[str, Any]]) -> Evaluation:
        outcomes = [(1000 * row["seed"] + i, won == "1") for row in rows for i, won in enumerate(row["outcomes"])]
        return Evaluation(tuple(EpisodeResult(seed, won, 0.0) for seed, won in outcomes))

    summary = []
    table = Table(*HEAD, "CPU s", "jerk")

    for task, count, seconds, steps, where in sorted({key(cell) for cell in cells}):
        group = [cell for cell in cells if key(cell) == (task, count, seconds, steps, where)]
        budget = f"{steps} steps" if steps else f"{seconds:g} s"
        ours = [c for c in group if c["method"] == "lam"]
        for method in sorted({c["method"] for c in group}, key=_place):
            rows = sorted((c for c in group if c["method"] == method), key=lambda c: c["seed"])
            evaluation = pooled(rows)
            low, high = wilson_interval(evaluation.successes, evaluation.episodes)
            row: dict[str, Any] = {
                "task": task,
                "demonstrations": count,
                "budget": budget,
                "machine": where,
                "method": method,
                "seeds": [c["seed"] for c in rows],
                "successes": evaluation.successes,
                "successes_each": [c["outcomes"].count("1") for c in rows],
                "episodes": evaluation.episodes,
                "wilson_95": [low, high],
                "steps": [c["steps"] for c in rows],
                "train_cpu_seconds": [round(c["train_cpu_seconds"]) for c in rows],
                "median_jerk": sorted(c["jerk"] for c in rows)[len(rows) // 2],
            }
            if method != "lam" and {c["seed"] for c in ours} & {c["seed"] for c in rows}:
                difference = paired_difference(pooled(ours), evaluation)
                row["lam_less_this"] = {"rate": difference.rate, "interval": difference.interval}
            summary.append(row)
            table.add_row(*in_words(row), f"{max(row['train_cpu_seconds'])}", f"{row['median_jerk']:.0f}")
    Console(width=190).print(table)
    ratio, freedom = between_trainings(cells)
    print(f"trainings of one recipe: {ratio:.1f} times the variance of their episodes, {freedom} degrees of freedom")
    print(json.dumps(summary))
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    write_markdown(summary, out)
    rows_of: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in summary:
        if row["method"] in METHODS:
            rows_of.setdefault((row["task"], row["budget"], row["machine"]), []).append(row)
    panels = sorted(panel for panel, rows in rows_of.items() if len(rows) > 1)
    figure, axes = plt.subplots(1, max(1, len(panels)), figsize=(5 * max(1, len(panels)), 3.6), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=False):
        for method in METHODS:
            rows = [row for row in rows_of[panel] if row["method"] == method]
            if rows:
                rates = [row["successes"] / row["episodes"] for row in rows]
                spread = [
                    [max(0.0, rate - row["wilson_95"][0]) for rate, row in zip(rates, rows, strict=True)],
                    [max(0.0, row["wilson_95"][1] - rate) for rate, row in zip(rates, rows, strict=True)],
                ]
                counts = [row["demonstrations"] for row in rows]
                axis.errorbar(counts, rates, yerr=spread, label=method, marker="o", capsize=3)
        axis.set(title="{}, {}\n{}".format(*panel), xlabel="demonstrations", ylabel="success rate", ylim=(0, 1.03))
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.savefig(out / "peers.png", dpi=110, bbox_inches="tight")


HEAD = ("task", "demonstrations", "machine", "budget", "method", "succeeded", "95 %", "lam less this, 95 %", "steps")


def in_words(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the summary under HEAD."""
    low, high = row["wilson_95"]
    said = ""
    if "lam_less_this" in row:
        difference, (least, most) = row["lam_less_this"]["rate"], row["lam_less_this"]["interval"]
        said = f"{difference:+.2f} ({least:+.2f} to {most:+.2f})"
    each = ", ".join(map(str, row["successes_each"]))
    succeeded = f"{row['successes']} of {row['episodes']}" + (f" ({each})" if len(row["seeds"]) > 1 else "")
    what = (row["task"], str(row["demonstrations"]), row["machine"], row["budget"], row["method"])
    return (*what, succeeded, f"{low:.2f} to {high:.2f}", said, str(max(row["steps"])))


def between_trainings(cells: list[dict[str, Any]]) -> tuple[float, int]:
    """How far trainings of one recipe lie apart: the variance of their rates, in units of what episodes alone would
    give (1), and its degrees of freedom (one less than trainings); what nearly always or never succeeds is left out."""
    of: dict[Any, list[list[int]]] = {}
    for cell in cells:
        of.setdefault((key(cell), cell["method"]), []).append([int(won) for won in cell["outcomes"]])
    apart, freedom = 0.0, 0
    for trainings in of.values():
        rate = sum(map(sum, trainings)) / sum(map(len, trainings))
        if 0.05 <= rate <= 0.95:
            apart += sum(len(t) * (sum(t) / len(t) - rate) ** 2 for t in trainings) / (rate * (1.0 - rate))
            freedom += len(trainings) - 1
    return (apart / freedom if freedom else 0.0), freedom


def at_a_glance(summary: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each task, number of demonstrations, machine and budget that two methods have, a column for each.

    Percent of episodes that succeeded, the highest in bold; with how many trainings that is from, where it is not one;
    marked where ACT is as it was before, for want of a newer one.
    """
    rows: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in summary:  # in the order of METHODS, what is none of them last
        method = "act" if row["method"] == ACT_BEFORE else row["method"]
        if method in METHODS:
            key = row["task"], str(row["demonstrations"]), row["machine"], row["budget"]
            rows.setdefault(key, {}).setdefault(method, row)
    table: list[tuple[str, ...]] = [(*HEAD[:4], *METHODS)]
    for key, found in rows.items():
        if len(found) > 1:
            rates = {method: row["successes"] / row["episodes"] for method, row in found.items()}
            said = {method: f"{100 * rate:.0f}" for method, rate in rates.items()}
            for method, rate in rates.items():
                bold = "**" if rate == max(rates.values()) else ""
                trainings = f" (x{len(found[method]['seeds'])})" if len(found[method]["seeds"]) > 1 else ""
                before = "†" if found[method]["method"] == ACT_BEFORE else ""
                said[method] = f"{bold}{said[method]}{bold}{before}{trainings}"
            table.append((*key, *(said.get(method, "") for method in METHODS)))
    return table


def write_markdown(summary: list[dict[str, Any]], out: Path) -> None:
    """Put the tables between the marks for this folder, where there are any."""
    put_table(f"{out.name} at a glance", at_a_glance(summary))
    put_table(out.name, [HEAD, *map(in_words, summary)])


def put_table(mark: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Put a table, whose first row is its head, between the marks of this name in the pages beside this file."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    table = "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:]))
    for page in HERE.glob("*.md"):
        before, is_there, rest = page.read_text().partition(begin)
        if is_there:
            page.write_text(f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["push"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="also lam:NAME, see methods.ABLATIONS")
    parser.add_argument("--ablations", action="store_true", help="lam and each of its ablations instead of the peers")
    parser.add_argument("--demonstrations", nargs="+", type=int, default=[25, 50])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=float, default=240.0, help="CPU-seconds of each training")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps of each training, instead of seconds")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--side-by-side", type=int, default=10, help="episodes that a policy performs at once")
    parser.add_argument("--arena-processes", type=int, default=1, help="over which a cell's other simulators spread")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ray", default="", help="address of a Ray cluster, or `local`")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    in_a_cell = {"side_by_side": arguments.side_by_side, "arena_processes": arguments.arena_processes}
    if arguments.cell:
        run_cell(Cell(**json.loads(arguments.cell)), arguments.out, **in_a_cell)
        return
    if not arguments.report:
        if arguments.ablations:
            sys.path.insert(0, str(HERE))
            from methods import ABLATIONS

            arguments.methods = ["lam", *ABLATIONS]
        grid = itertools.product(arguments.seeds, arguments.demonstrations, arguments.tasks, arguments.methods)
        seconds = 0.0 if arguments.steps else arguments.seconds
        cells = [Cell(t, m, n, s, seconds, arguments.episodes, arguments.steps) for s, n, t, m in grid]
        run_grid(cells, arguments.out, arguments.jobs, arguments.ray, **in_a_cell)
    report(arguments.out)


if __name__ == "__main__":
    main()
