"""A human beside the policy, in the embedded simulator: shadow mode, and the hand-back in the middle of a task.

    python benchmarks/takeover.py --checkpoint policy.safetensors [--task reach] [--episodes 50] [--out FILE]

The scripted expert plays the human; every command goes through the gate, so what the limits make of a takeover counts.

- shadow: the expert performs, policies predict and move nothing. How much of the motion does each explain? The
  checkpoint, the same network untrained, and the checkpoint with black cameras.
- handback: the policy performs; in the middle a human takes over, drives somewhere else, and lets go. Success with and
  without, on the same tables, with the paired difference; and the largest step of velocity beside its limit.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import by_name, tell
from rich.progress import track

from lam_ros.config import load_robot, urdf_path
from lam_ros.contract import Observation
from lam_ros.control.gate import Driver, Gate, Request, Rules
from lam_ros.control.kinematics import Kinematics
from lam_ros.control.shadow import Agreement
from lam_ros.learning.evaluation import EpisodeResult, Evaluation, paired_difference, wilson_interval
from lam_ros.policy.checkpoint import load_network, load_policy
from lam_ros.policy.policy import Policy
from lam_ros.policy.runtime import PolicyNetwork, TorchRuntime
from lam_ros.simulation.experts import make_expert
from lam_ros.simulation.simulation import Simulation

ROBOT = "desk_arm"
FIRST_SEED = 70_000  # tables that no demonstration and no evaluation begins with
TAKEN_AT_TICK, TAKEN_TICKS = 10, 12  # 0.5 s after the beginning, for 0.6 s
ASIDE_RAD = 0.35  # where the human goes: the waist, so far to a side


class Driven:
    """An episode whose commands go through a gate, tick by tick."""

    def __init__(self, task: str) -> None:
        self.robot = load_robot(ROBOT)
        self.simulation = Simulation.of(ROBOT, task)
        self.rules = Rules.of(self.robot, ROBOT)

    def begin(self, seed: int) -> None:
        self.simulation.reset(seed)
        self.gate = Gate(self.rules)
        self.velocities = [np.zeros(len(self.robot.joints))]
        self._last = self.simulation.state.astype(np.float64)

    def step(self, driver: Driver, target: np.ndarray) -> np.ndarray:
        """Ask the gate, and let the arm go; what was sent (J,)."""
        now_ns = self.simulation.now_ns
        self.gate.measured(self.simulation.state, now_ns)
        sent = self.gate.request(Request(driver, target, now_ns), now_ns) or self.gate.tick(now_ns)
        if sent is None:  # it holds, as in the moment after a human has let go
            self.simulation.step(self._last)
            return self._last
        self.velocities.append((sent.position - self._last) * self.robot.policy.rate_hz)
        self._last = sent.position
        self.simulation.step(sent.position)
        return sent.position

    @property
    def largest_change(self) -> float:
        """Of velocity between two commands, as a share of what the acceleration limits allow in a tick."""
        changes = np.abs(np.diff(self.velocities, axis=0)) * self.robot.policy.rate_hz
        return float(np.max(changes / self.rules.limits.acceleration))


def shadow(driven: Driven, task: str, policies: dict[str, Policy], seeds: range) -> dict[str, float]:
    """Share of the expert's motion that each policy explains."""
    robot = driven.robot
    expert = make_expert(task, robot, Kinematics(urdf_path(robot, ROBOT), robot.joint_names))
    beside = {name: Agreement(robot.joint_names, *robot.position_limits) for name in policies}
    for seed in track(seeds, "shadow"):
        driven.begin(seed)
        expert.begin(seed)
        for policy in policies.values():
            policy.reset()
        while not driven.simulation.is_over:
            seen = driven.simulation.observe()
            predictions = {name: policy.act(look(name, seen)).target for name, policy in policies.items()}
            sent = driven.step(Driver.TELEOP, expert.act(seen.state.astype(np.float64), driven.simulation.objects))
            for name, predicted in predictions.items():
                beside[name].add(predicted, sent, seen.state)
    return {name: agreement.explained for name, agreement in beside.items()}


def look(name: str, seen: Observation) -> Observation:
    if name != "black cameras":
        return seen
    return replace(seen, images={camera: np.zeros_like(image) for camera, image in seen.images.items()})


def handback(driven: Driven, policy: Policy, seed: int, taken: bool) -> tuple[EpisodeResult, float]:
    """One episode of the policy, with a takeover in its middle or without."""
    driven.begin(seed)
    policy.reset()
    tick, aside = 0, np.zeros(0)
    while not driven.simulation.is_over:
        seen = driven.simulation.observe()
        human = taken and TAKEN_AT_TICK <= tick < TAKEN_AT_TICK + TAKEN_TICKS
        if taken and tick == TAKEN_AT_TICK:  # as action_node does
            policy.reset()
            aside = seen.state.astype(np.float64)
            aside[0] += ASIDE_RAD if aside[0] < 0 else -ASIDE_RAD
        if taken and tick == TAKEN_AT_TICK + TAKEN_TICKS:
            policy.replan()
        target = policy.act(seen).target
        driven.step(Driver.TELEOP if human else Driver.POLICY, aside if human else target)
        tick += 1
    result = EpisodeResult(seed, driven.simulation.has_succeeded, driven.simulation.elapsed_s)
    return result, driven.largest_change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--task", default="reach")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    driven, seeds = Driven(arguments.task), range(FIRST_SEED, FIRST_SEED + arguments.episodes)
    robot = driven.robot
    trained, info = load_network(arguments.checkpoint)
    torch.manual_seed(0)
    untrained = PolicyNetwork(info.policy, info.contract)
    untrained.normaliser.load_state_dict(trained.normaliser.state_dict())
    policies = {
        "checkpoint": load_policy(arguments.checkpoint, robot),
        "untrained": Policy(TorchRuntime(untrained), robot.position_limits),
        "black cameras": load_policy(arguments.checkpoint, robot),
    }
    explained = shadow(driven, arguments.task, policies, seeds)
    outcomes: dict[bool, list[tuple[EpisodeResult, float]]] = {True: [], False: []}
    for seed in track(seeds, "handback"):
        for taken, found in outcomes.items():
            found.append(handback(driven, policies["checkpoint"], seed, taken))
    with_one, without = (Evaluation(tuple(result for result, _ in outcomes[taken])) for taken in (True, False))
    difference = paired_difference(with_one, without)
    figures: dict[str, Any] = {
        "task": arguments.task,
        "episodes": arguments.episodes,
        "explained": explained,
        "succeeded_with_takeover": with_one.successes,
        "succeeded_without": without.successes,
        "wilson_95_with_takeover": wilson_interval(with_one.successes, with_one.episodes),
        "difference": {"rate": difference.rate, "interval_95": difference.interval},
        "largest_change_of_velocity": max(change for _, change in outcomes[True]),
    }
    tell(by_name(figures), figures, arguments.out)


if __name__ == "__main__":
    main()
