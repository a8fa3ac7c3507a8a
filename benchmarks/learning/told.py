"""How far imitation gets when nobody has to look: this project's policy told where things are, instead of shown.

    python benchmarks/learning/told.py [--task push] [--demonstrations 25 50 100 200 400] [--episodes 200] [--json FILE]

The policy that stage one learns, with the true places of the task's objects for the CNN's features: what it fails at
with so many demonstrations, no camera and no encoder will mend. A row takes about a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arenas import Embedded, demonstrations
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lam_ros.cli.steps import training_settings
from lam_ros.demonstrations.dataset import Demonstration, chunk_targets
from lam_ros.learning.evaluation import wilson_interval
from lam_ros.policy.action import ActionModule
from lam_ros.policy.decoding import ActionDecoder
from lam_ros.policy.normaliser import Normaliser

SCALE = 20.0  # of places in m, so that a table spans about as much as a normalised state


class Told(Embedded):
    """A task of the embedded simulator that gives places (P,) where the others give pictures."""

    def _seen(self) -> np.ndarray:
        """Of each object x, y and the cosine and sine of four times its yaw: a quarter turn of a cube is none."""
        rows = [
            [*SCALE * pose.position[:2], np.cos(4 * pose.yaw), np.sin(4 * pose.yaw)]
            for pose in self._simulation.objects.values()
        ]
        return np.array(rows, dtype=np.float32).ravel()

    def perform(self, policy: Policy, seed: int) -> bool:
        """Whether an episode succeeds."""
        self.begin(seed)
        decoder = ActionDecoder(*self.limits, policy.config.ensemble_decay, policy.config.smoothing)
        while not self.is_over:
            self.step(decoder.decode(policy.chunk(*self.look())))
        return self.result().success


class Policy:
    """What stage one trains, the CNN left out."""

    def __init__(self, shown: Sequence[Demonstration], steps: int, seed: int) -> None:
        settings = training_settings(None)
        self.config = settings.policy
        torch.manual_seed(seed)
        places = torch.from_numpy(np.concatenate([d.images for d in shown]))
        states = torch.from_numpy(np.concatenate([d.state for d in shown]))
        targets = torch.from_numpy(np.concatenate([chunk_targets(d.action, self.config.chunk) for d in shown]))
        self._module = ActionModule(self.config, places.shape[1], states.shape[1])
        self._normaliser = Normaliser(states.shape[1], self.config.chunk, self.config.targets == "relative")
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
    with Progress() as bars, tempfile.TemporaryDirectory() as cache:
        bar = bars.add_task("episodes", total=len(arguments.demonstrations) * len(arguments.seeds) * arguments.episodes)
        for count in arguments.demonstrations:
            for seed in arguments.seeds:
                shown = demonstrations(arguments.task, told, count, seed, Path(cache)).demonstrations
                policy = Policy(shown, arguments.steps, seed)
                won = 0
                for episode in range(arguments.episodes):
                    won += told.perform(policy, episode)
                    bars.advance(bar)
                interval = wilson_interval(won, arguments.episodes)
                ticks = sum(map(len, shown))
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
