"""Random requests by the million: not one command may leave the limits of position, velocity, acceleration or jerk, nor
lead out of a workspace.

    python benchmarks/gate_fuzz.py [--sequences 1000000] [--jobs 2] [--seed 0] [--out FILE]

Each sequence is one arm (random limits, 1 to 7 joints) and some events: requests by policy and human (in reach, far
off, NaN, infinite, with joints missing), joint states (right, jumping, NaN), ticks, e-stops, takeovers, pauses, a clock
that goes backwards. One arm of three has a workspace, which ends at a plane through the space of its joints. What is
sent is judged from outside, by divided differences of positions over time: of samples of a motion whose n-th derivative
is bounded, n! times the n-th divided difference keeps the bound, however uneven the times.
The gate's cost is measured on the same arm with 7 joints, with and without a workspace.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from lam_ros.config import WorkspaceConfig, load_robot
from lam_ros.control.gate import FIRST_STEP_NS, Driver, Gate, Request, Rules, Sent, Trespass
from lam_ros.control.limits import MotionLimits

STALENESS_S = 0.1
STALENESS_NS = 100_000_000
SLACK = 1e-6  # share of a limit
DEPTH_SLACK = 1e-5  # out of a workspace
SHORTEST_JUDGED_S = 5e-4  # nearer samples say nothing of a third derivative in double precision
BATCH = 2000
WORKSPACE = WorkspaceConfig(z=(0.03, 0.6), self_clearance_m=0.01)
KINDS = ("request", "request", "request", "state", "state", "tick", "tick", "estop", "reset", "takeover")

Depth = Callable[[np.ndarray], float]  # how far joint positions (J,) are out of a workspace


def no_depth(position: np.ndarray) -> float:
    return 0.0


class Judge:
    """Knows the limits, the workspace and what was sent; nothing of how it was found."""

    def __init__(self, limits: MotionLimits, depth: Depth) -> None:
        self._limits, self._depth, self._deepest = limits, depth, 0.0
        self.places: list[np.ndarray] = []
        self.last: np.ndarray | None = None
        self.times: list[float] = []
        self.commands = 0
        self.violations: list[str] = []

    def began(self, position: np.ndarray, at_s: float, measured: np.ndarray | None = None) -> None:
        """The arm stood there, and had stood there: where it was sent last, or found where it is measured."""
        found = position if measured is None or np.array_equal(position, self.last) else measured
        self._deepest = self._depth(found)  # found outside, it may come back, and go no further out
        self.places = [position] * 4
        self.times = [at_s - 0.3, at_s - 0.2, at_s - 0.1, at_s]

    def sent(self, position: np.ndarray, at_s: float) -> None:
        self.commands += 1
        self.last = position
        limits, start = self._limits, self.places[-1]
        out = np.any(position < np.minimum(limits.lower, start) - 1e-7) or np.any(
            position > np.maximum(limits.upper, start) + 1e-7
        )
        if out or not np.isfinite(position).all():
            self.violations.append("position")
        if self._depth(position) > self._deepest + DEPTH_SLACK:
            self.violations.append("workspace")
        if at_s - self.times[-1] < SHORTEST_JUDGED_S:  # too near for differences; it may not jump either
            if np.any(np.abs(position - start) > limits.velocity * SHORTEST_JUDGED_S + 1e-9):
                self.violations.append("velocity")
            return
        self.places, self.times = [*self.places[-3:], position], [*self.times[-3:], at_s]
        table, times, rounding = np.array(self.places), np.array(self.times), 1e-9
        bounds = (("velocity", limits.velocity), ("acceleration", limits.acceleration), ("jerk", limits.jerk))
        for order, (name, bound) in enumerate(bounds, 1):
            spans = times[order:] - times[:-order]
            table = order * np.diff(table, axis=0) / spans[:, None]
            rounding *= 2 * order / spans.min()
            if np.any(np.abs(table[-1]) > bound * (1 + SLACK) + rounding):
                self.violations.append(name)


def random_limits(rng: np.random.Generator) -> MotionLimits:
    joints = int(rng.integers(1, 8))
    middle, half = rng.uniform(-2, 2, joints), rng.uniform(0.01, 3, joints)
    velocity = rng.uniform(0.05, 4, joints)
    acceleration = velocity * rng.uniform(2, 20, joints)
    return MotionLimits(middle - half, middle + half, velocity, acceleration, acceleration * rng.uniform(5, 60, joints))


def random_target(rng: np.random.Generator, limits: MotionLimits) -> np.ndarray:
    joints, kind = len(limits.lower), rng.integers(10)
    target = rng.uniform(limits.lower, limits.upper)
    if kind == 0:
        return target * 10.0 ** rng.uniform(0, 8)
    if kind == 1:
        target[rng.integers(joints)] = rng.choice([np.nan, np.inf, -np.inf])
    if kind == 2:
        return target[: rng.integers(joints)]
    return target


def random_depth(rng: np.random.Generator, limits: MotionLimits) -> Depth:
    """How far joint positions (J,) are beyond a plane that a place within the limits lies in."""
    normal = rng.standard_normal(len(limits.lower))
    normal /= np.linalg.norm(normal)
    edge = normal @ rng.uniform(limits.lower, limits.upper)
    return lambda position: max(0.0, float(normal @ position - edge))


def sequence(seed: int) -> tuple[int, int, int, list[str]]:
    """Events, commands, faults at which the gate stopped itself, and violations of one."""
    rng = np.random.default_rng(seed)
    limits = random_limits(rng)
    rules, depth = Rules(limits, STALENESS_S, ramp_s=float(rng.choice([0.0, 0.3]))), no_depth
    if seed % 2:  # it sags, and goes on from where it was sent
        rules = replace(rules, following=np.random.default_rng([seed, 2]).uniform(0.02, 0.3) * limits.velocity)
    if seed % 3 == 0:
        depth = random_depth(np.random.default_rng([seed, 1]), limits)
        rules = replace(rules, workspace=lambda position, allowed: Trespass({"plane": (depth(position), "")}))
    gate, judge = Gate(rules), Judge(limits, depth)
    now_ns, sent_ns, measured = int(rng.integers(2**40)), -(2**62), rng.uniform(limits.lower, limits.upper)
    latest_ns, asked, faults = now_ns, int(rng.integers(3, 20)), 0
    gate.measured(measured, now_ns)
    for _ in range(asked):
        now_ns += int(rng.choice([0, 1_000, 1_000_000, 10_000_000, 50_000_000, 90_000_000, 400_000_000]) * rng.random())
        if rng.random() < 0.02:
            now_ns -= int(rng.choice([20_000_000, 900_000_000]))
        kind = KINDS[rng.integers(len(KINDS))]
        if kind in ("state", "request", "tick"):  # those tell the gate the time
            if now_ns < latest_ns - STALENESS_NS:
                latest_ns, sent_ns = now_ns, -(2**62)
            latest_ns = max(latest_ns, now_ns)
        sent: Sent | None = None
        driver = Driver.HOLD
        if kind == "state":
            position = random_target(rng, limits) if rng.random() < 0.3 else measured
            if position.shape == measured.shape and np.isfinite(position).all():
                measured = position
            gate.measured(position, now_ns)
        elif kind == "request":
            driver = Driver.POLICY if rng.random() < 0.7 else Driver.TELEOP
            if rng.random() < 0.8:
                gate.measured(measured, now_ns)
            was, rested = gate.driver, gate.rests
            sent = gate.request(Request(driver, random_target(rng, limits), now_ns), now_ns)
            faults += "The gate has stopped" in gate.refusal
        elif kind == "tick":
            sent = gate.tick(now_ns)
        elif kind == "takeover":
            gate.orders.takeover = not gate.orders.takeover
        elif kind == "estop":
            gate.orders.is_stopped = True
        else:
            gate.reset_estop()
        if sent is None:
            continue
        gap_ns = latest_ns - sent_ns
        if gap_ns > STALENESS_NS and driver is not Driver.HOLD:
            if np.any((sent.start != measured) & (sent.start != judge.last)):
                judge.violations.append("begins where it was neither sent nor measured")
            judge.began(sent.start, (latest_ns - FIRST_STEP_NS) / 1e9, measured)
        elif gap_ns > 2 * STALENESS_NS:
            judge.began(judge.places[-1], (latest_ns - gap_ns) / 1e9)
        elif (
            driver not in (Driver.HOLD, was)
            and rested
            and gap_ns > FIRST_STEP_NS
            and np.ptp(judge.places[-2:], axis=0).max() < 1e-9
        ):
            judge.began(judge.places[-1], (latest_ns - FIRST_STEP_NS) / 1e9)
        judge.sent(sent.position, latest_ns / 1e9)
        sent_ns = latest_ns
    return asked, judge.commands, faults, judge.violations


def batch(first: int) -> tuple[int, int, int, dict[str, int]]:
    events = commands = faults = 0
    found: dict[str, int] = {}
    for seed in range(first, first + BATCH):
        asked, sent, stopped, violations = sequence(seed)
        events, commands, faults = events + asked, commands + sent, faults + stopped
        for violation in violations:
            found[f"{violation} (seed {seed})"] = found.get(f"{violation} (seed {seed})", 0) + 1
    return events, commands, faults, found


def cost_ms(workspace: WorkspaceConfig | None, out_of_it: bool = False, requests: int = 4000) -> dict[str, float]:
    """Median and 99th percentile of one tick on the desk arm's 7 joints, in ms of this process' CPU time.

    Args:
        out_of_it: ask for places outside the workspace, in which case the gate looks for the furthest place inside.
    """
    robot = load_robot("desk_arm")
    gate = Gate(Rules.of(replace(robot, gate=replace(robot.gate, workspace=workspace))))
    home, spent = np.array([0.0, 0.0, 0.6, 0.0, 1.0, 0.0, 0.02]), []
    last = home
    for tick in range(requests):
        now_ns, goal = tick * 10_000_000, home + 0.3 * np.sin(0.05 * tick + np.arange(7)) * (home != 0.02)
        if out_of_it:
            goal[1] = 1.6  # the shoulder, so that the tool goes below the table
        began = time.process_time_ns()
        gate.measured(last, now_ns)
        sent = gate.request(Request(Driver.POLICY, goal, now_ns), now_ns)
        gate.tick(now_ns)
        spent.append((time.process_time_ns() - began) / 1e6)
        assert sent is not None, gate.refusal
        last = sent.position
    return {"median": float(np.median(spent)), "p99": float(np.percentile(spent, 99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0, help="of the first sequence")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    from figures import tell
    from rich.progress import track
    from rich.table import Table

    events = commands = faults = 0
    violations: dict[str, int] = {}
    starts = range(arguments.seed, arguments.seed + arguments.sequences, BATCH)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for asked, sent, stopped, found in track(pool.map(batch, starts), "sequences", total=len(starts)):
            events, commands, faults = events + asked, commands + sent, faults + stopped
            violations |= found
    figures = {
        "sequences": len(starts) * BATCH,
        "events": events,
        "commands": commands,
        "faults of the solver": faults,
        "violations": violations,
        "cost_ms": cost_ms(None),
        "cost_with_workspace_ms": cost_ms(WORKSPACE),
        "cost_out_of_workspace_ms": cost_ms(WORKSPACE, out_of_it=True),
    }
    table = Table("", "")
    for name, value in figures.items():
        table.add_row(name, str(len(value)) if name == "violations" else str(value))
    tell(table, figures, arguments.out)


if __name__ == "__main__":
    main()
