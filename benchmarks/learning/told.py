"""How far imitation gets when nobody has to look: this project's policy told where things are, instead of shown.

    python benchmarks/learning/told.py [--task push] [--demonstrations 25 50 100 200 400] [--episodes 200] [--json FILE]

The policy that stage one learns, with the true places of the task's objects for the CNN's features: what it fails at
with so many demonstrations, no camera and no encoder will mend. A row takes about a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lam_ros.cli.steps import DISTURBANCE, training_settings
from lam_ros.config import load_robot, urdf_path
from lam_ros.control.kinematics import Kinematics
from lam_ros.demonstrations.dataset import chunk_targets
from lam_ros.learning.evaluation import wilson_interval
from lam_ros.learning.seeds import UNSEEN_SEED
from lam_ros.policy.action import ActionModule
from lam_ros.policy.decoding import ActionDecoder
from lam_ros.policy.normaliser import Normaliser
from lam_ros.simulation.experts import make_expert
from lam_ros.simulation.simulation import Simulation

ROBOT = "desk_arm"
SCALE = 20.0  # of places in m, so that a table spans about as much as a normalised state
Ticks = tuple[np.ndarray, np.ndarray, np.ndarray]  # places (T, P), states (T, J), actions (T, J)


class Told:
    """A task without its cameras: the expert's demonstrations, and episodes of a policy that is told the places."""

    def __init__(self, task: str) -> None:
        self.robot = load_robot(ROBOT)
        self._simulation = Simulation.of(ROBOT, task)
        kinematics = Kinematics(urdf_path(self.robot, ROBOT), self.robot.joint_names)
        self._expert = make_expert(task, self.robot, kinematics)

    def _places(self) -> np.ndarray:
        """Of each object x, y and the cosine and sine of four times its yaw: a quarter turn of a cube is none."""
        rows = [
            [*SCALE * pose.position[:2], np.cos(4 * pose.yaw), np.sin(4 * pose.yaw)]
            for pose in self._simulation.objects.values()
        ]
        return np.array(rows, dtype=np.float32).ravel()

    def demonstrations(self, count: int, first_seed: int) -> list[Ticks]:
        """The first ``count`` that succeed."""
        found: list[Ticks] = []
        seed, simulation = first_seed, self._simulation
        while len(found) < count:
            simulation.reset(seed, DISTURBANCE)
            self._expert.begin(seed)
            rows = []
            while not simulation.is_over:
                state = simulation.state
                action = self._expert.act(state, simulation.objects)
                rows.append((self._places(), state, action))
                simulation.step(action)
            if simulation.has_succeeded:
                places, states, actions = zip(*rows, strict=True)
                found.append((np.stack(places), np.stack(states), np.stack(actions)))
            seed += 1
        return found

    def perform(self, policy: Policy, seed: int) -> bool:
        simulation = self._simulation
        simulation.reset(seed)
        decoder = ActionDecoder(*self.robot.position_limits, policy.config.ensemble_decay, policy.config.smoothing)
        while not simulation.is_over:
            simulation.step(decoder.decode(policy.chunk(self._places(), simulation.state)))
        return simulation.has_succeeded


class Policy:
    """What stage one trains, the CNN left out."""

    def __init__(self, demonstrations: list[Ticks], steps: int, seed: int) -> None:
        settings = training_settings(None)
        self.config = settings.policy
        torch.manual_seed(seed)
        places, states, targets = (
            torch.from_numpy(np.concatenate(arrays))
            for arrays in zip(*((p, s, chunk_targets(a, self.config.chunk)) for p, s, a in demonstrations), strict=True)
        )
        self._module = ActionModule(self.config, places.shape[1], states.shape[1])
        self._normaliser = Normaliser(states.shape[1], self.config.chunk)
        self._normaliser.fit(states, targets)
        wanted = self._normaliser.chunk(targets, states)
        trained = [*self._module.inlet.parameters(), *self._module.reflex.parameters(), *self._module.head.parameters()]
        optimiser = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, steps)
        for _ in range(steps):
            rows = torch.randint(len(places), (settings.perception_batch,))
            state = self._normaliser.state(states[rows])
            state = state + settings.state_noise * torch.randn(state.shape)
            loss = self._module.head.loss(self._module.memoryless(places[rows], state), wanted[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            schedule.step()

    @torch.inference_mode()
    def chunk(self, places: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Joint targets (K, J)."""
        measured = torch.from_numpy(state)
        context = self._module.memoryless(torch.from_numpy(places), self._normaliser.state(measured))
        return self._normaliser.targets(self._module.head(context), measured).numpy()


@dataclasses.dataclass(frozen=True)
class Row:
    """One training and its episodes."""

    task: str
    demonstrations: int
    seed: int
    ticks: int
    successes: int
    episodes: int
    wilson_95: tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="push")
    parser.add_argument("--demonstrations", nargs="+", type=int, default=[25, 50, 100, 200, 400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told = Told(arguments.task)
    rows: list[Row] = []
    with Progress() as bars:
        bar = bars.add_task("episodes", total=len(arguments.demonstrations) * len(arguments.seeds) * arguments.episodes)
        for count in arguments.demonstrations:
            for seed in arguments.seeds:
                shown = told.demonstrations(count, 10_000 * seed)
                policy = Policy(shown, arguments.steps, seed)
                won = 0
                for episode in range(arguments.episodes):
                    won += told.perform(policy, UNSEEN_SEED + episode)
                    bars.advance(bar)
                interval = wilson_interval(won, arguments.episodes)
                ticks = sum(len(states) for _, states, _ in shown)
                rows.append(Row(arguments.task, count, seed, ticks, won, arguments.episodes, interval))
    table = Table("task", "demonstrations", "seed", "ticks", "succeeded", "95 %")
    for row in rows:
        low, high = row.wilson_95
        cells = (row.task, row.demonstrations, row.seed, row.ticks, f"{row.successes} of {row.episodes}")
        table.add_row(*map(str, cells), f"{low:.2f} to {high:.2f}")
    Console().print(table)
    figures: list[dict[str, Any]] = [dataclasses.asdict(row) for row in rows]
    print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
