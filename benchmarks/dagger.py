"""Learning from corrections in the embedded simulator, where the scripted expert plays the human.

    python benchmarks/dagger.py [--task push] [--demonstrations 25] [--rounds 3] [--each 10] [--out FILE]

A policy learns from some demonstrations. Then, round after round, it performs; where it has not succeeded after a while
the expert takes over and finishes, as `lam improve` has a human do, and the policy is fine-tuned on the demonstrations
and all corrected episodes so far. Beside it the same policy is fine-tuned, as often and as long, on the same number of
further plain demonstrations instead. Both are compared on the same tables, which neither has seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import by_name, tell
from rich.console import Console
from rich.progress import track

from lam_ros.cli.steps import training_settings
from lam_ros.config import load_robot, urdf_path
from lam_ros.contract import Contract
from lam_ros.control.kinematics import Kinematics
from lam_ros.demonstrations.dataset import Dataset, Demonstration, digest_of
from lam_ros.learning.evaluation import Evaluation, paired_difference, wilson_interval
from lam_ros.learning.rollouts import Trial, evaluate
from lam_ros.learning.seeds import DISTURBANCE
from lam_ros.learning.training import train
from lam_ros.policy.checkpoint import load_policy
from lam_ros.policy.policy import Policy
from lam_ros.simulation.experts import make_expert
from lam_ros.simulation.simulation import Simulation

ROBOT = "desk_arm"
TABLES = {"plain": 0, "corrected": 300_000, "evaluated": 900_000}  # where the seeds of each begin
PATIENCE = 0.35  # of the task's time limit: then the human takes over


class Teacher:
    """One task, shown or corrected by the scripted expert."""

    def __init__(self, task: str) -> None:
        self.robot, self.task = load_robot(ROBOT), task
        self._simulation = Simulation.of(ROBOT, task)
        self._expert = make_expert(task, self.robot, Kinematics(urdf_path(self.robot, ROBOT), self.robot.joint_names))
        self.patience_s = PATIENCE * self._simulation.task.time_limit_s

    def episode(self, seed: int, policy: Policy | None) -> Demonstration | None:
        """One table: the expert alone or, where there is one, the policy until it takes too long.

        Returns:
            None where the table was not done, or a policy needed no help.
        """
        simulation, rows = self._simulation, []
        simulation.reset(seed, DISTURBANCE if policy is None else 0.0)
        self._expert.begin(seed)
        if policy is not None:
            policy.reset()
        while not simulation.is_over:
            seen = simulation.observe()
            human = policy is None or simulation.elapsed_s >= self.patience_s
            if human:
                action = self._expert.act(seen.state, simulation.objects)
            else:
                assert policy is not None
                action = policy.act(seen).target
            images = np.stack([seen.images[camera] for camera in self.robot.camera_names])
            rows.append((images, seen.state, np.asarray(action, np.float32), seen.stamp_ns, human))
            simulation.step(action)
        images, states, actions, stamps, humans = zip(*rows, strict=True)
        if not simulation.has_succeeded or not any(humans):
            return None
        return Demonstration(np.stack(images), np.stack(states), np.stack(actions), np.array(stamps), np.array(humans))

    def episodes(self, first_seed: int, count: int, policy: Policy | None, say: str) -> Iterator[Demonstration]:
        """So many, of as many tables as it takes."""
        seed = first_seed
        for _ in track(range(count), say):
            shown = None
            while shown is None:
                shown = self.episode(seed, policy)
                seed += 1
            yield shown

    def dataset(self, demonstrations: list[Demonstration], name: str) -> Dataset:
        return Dataset(Contract.of(self.robot), self.task, ROBOT, demonstrations, digest_of([name]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="push")
    parser.add_argument("--demonstrations", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=10, help="episodes of a round")
    parser.add_argument("--scale", type=float, default=0.5, help="of config/train.yaml's steps, at first")
    parser.add_argument("--finer", type=float, default=0.2, help="likewise, of each fine-tuning")
    parser.add_argument(
        "--weight", type=float, default=training_settings(None).corrections, help="of a takeover's ticks"
    )
    parser.add_argument("--episodes", type=int, default=100, help="of the comparison")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher, settings = Teacher(arguments.task), training_settings(None)
    plain = list(teacher.episodes(TABLES["plain"], arguments.demonstrations, None, "demonstrations"))
    each, count = arguments.each, arguments.demonstrations
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        base = folder / "base.safetensors"
        train(teacher.dataset(plain, "base"), settings.scaled(arguments.scale), base)
        Console().print("trained the first policy")
        arms: dict[str, tuple[Path, list[Demonstration]]] = {"corrections": (base, []), "plain": (base, [])}
        finer = dataclasses.replace(settings.scaled(arguments.finer), corrections=arguments.weight)
        for number in range(1, arguments.rounds + 1):
            for name, (policy_file, more) in arms.items():
                policy = load_policy(policy_file, teacher.robot) if name == "corrections" else None
                begins = TABLES["corrected"] + 10_000 * number if policy else TABLES["plain"] + 10_000 * number
                more.extend(teacher.episodes(begins, each, policy, f"round {number}, {name}"))
                out = folder / f"{name}_{number}.safetensors"
                train(teacher.dataset(plain + more, f"{name} {number}"), finer, out, start=policy_file)
                arms[name] = (out, more)
        seeds = range(TABLES["evaluated"], TABLES["evaluated"] + arguments.episodes)
        files = {"base": base, **{name: file for name, (file, _) in arms.items()}}
        found: dict[str, Evaluation] = {}
        for name, file in files.items():
            Console().print(f"evaluating {name}")
            found[name] = evaluate(Trial(file, ROBOT, arguments.task), seeds, arguments.workers)
    difference = paired_difference(found["corrections"], found["plain"])
    ticks = {name: int(sum(d.human.sum() for d in more)) for name, (_, more) in arms.items()}
    figures: dict[str, Any] = {
        "task": arguments.task,
        "demonstrations": count,
        "rounds": arguments.rounds,
        "episodes_each_round": each,
        "steps_first_and_each_round": [arguments.scale, arguments.finer],
        "human_ticks": ticks,
        "weight_of_a_takeovers_tick": arguments.weight,
        "succeeded": {name: f"{one.successes} of {one.episodes}" for name, one in found.items()},
        "wilson_95": {name: wilson_interval(one.successes, one.episodes) for name, one in found.items()},
        "corrections_less_plain": {"rate": difference.rate, "interval_95": difference.interval},
    }
    tell(by_name(figures), figures, arguments.out)


if __name__ == "__main__":
    main()
