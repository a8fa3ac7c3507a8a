"""The tasks that all policies are compared on: scripted demonstrations as arrays, and episodes that a policy performs.

An arena is given by seeds alone: the same seed gives the same demonstration, or the same table to a policy.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from methods import Method
from remote_arena import RemoteArena

from lam_ros.config import load_robot, urdf_path
from lam_ros.contract import Contract
from lam_ros.control.kinematics import Kinematics
from lam_ros.demonstrations.dataset import Dataset, Demonstration, digest_of
from lam_ros.learning.evaluation import EpisodeResult
from lam_ros.learning.rollouts import arm_jerk
from lam_ros.learning.seeds import DISTURBANCE, UNSEEN_SEED
from lam_ros.simulation.experts import make_expert
from lam_ros.simulation.simulation import Simulation


class Arena(Protocol):
    """One task: its contract, how to show it, and one episode at a time in which it is performed."""

    contract: Contract
    limits: tuple[np.ndarray, np.ndarray]

    def demonstrate(self, seed: int) -> Demonstration | None:
        """One scripted demonstration; None where the expert fails."""
        ...

    def begin(self, seed: int) -> None:
        """An episode on a table that no demonstration has shown; like ``step`` it may go on until the next ``look``."""
        ...

    @property
    def is_over(self) -> bool: ...

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (C, h, w, 3) and the state float32 (J,)."""
        ...

    def step(self, target: np.ndarray) -> None:
        """One tick towards joint targets (J,)."""
        ...

    def result(self) -> EpisodeResult:
        """How the episode went."""
        ...


def perform(arenas: Sequence[Arena], seeds: Sequence[int], method: Method) -> list[EpisodeResult]:
    """An episode in each arena, in step, which is what makes large networks affordable on a CPU.

    Those that are over are still shown to the policy, but no longer moved. All are told to move before any is looked
    at: those in other processes move at the same time.
    """
    for arena, seed in zip(arenas, seeds, strict=True):
        arena.begin(seed)
    method.reset(len(arenas))
    seen = [arena.look() for arena in arenas]
    while not all(arena.is_over for arena in arenas):
        images, states = (np.stack(part) for part in zip(*seen, strict=True))
        targets = method.act(images, states)
        moving = [i for i, arena in enumerate(arenas) if not arena.is_over]
        for i in moving:
            arenas[i].step(targets[i])
        for i in moving:
            seen[i] = arenas[i].look()
    return [arena.result() for arena in arenas]


class Embedded:
    """A task of the embedded simulator, without ROS; its demonstrators are disturbed so far (rad)."""

    def __init__(self, task: str, disturbance: float = DISTURBANCE, robot: str = "desk_arm") -> None:
        self._simulation = Simulation.of(robot, task)
        self._disturbance = disturbance
        self._robot = load_robot(robot)
        kinematics = Kinematics(urdf_path(self._robot, robot), self._robot.joint_names)
        self._expert = make_expert(task, self._robot, kinematics)
        self.contract = Contract.of(self._robot)
        self.limits = self._robot.position_limits

    def _seen(self) -> np.ndarray:
        return np.stack([self._simulation.render(camera) for camera in self.contract.cameras])

    def demonstrate(self, seed: int) -> Demonstration | None:
        simulation, rows = self._simulation, []
        simulation.reset(seed, self._disturbance)
        self._expert.begin(seed)
        while not simulation.is_over:
            state = simulation.state
            action = self._expert.act(state, simulation.objects)
            rows.append((self._seen(), state, action, simulation.now_ns))
            simulation.step(action)
        if not simulation.has_succeeded:
            return None
        images, state, action, stamps = zip(*rows, strict=True)
        return Demonstration(np.stack(images), np.stack(state), np.stack(action), np.array(stamps, dtype=np.int64))

    def begin(self, seed: int) -> None:
        self._seed = seed
        self._simulation.reset(UNSEEN_SEED + seed)
        self._path = [self._simulation.state]

    @property
    def is_over(self) -> bool:
        return self._simulation.is_over

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        return self._seen(), self._simulation.state

    def step(self, target: np.ndarray) -> None:
        self._simulation.step(target)
        self._path.append(self._simulation.state)

    def result(self) -> EpisodeResult:
        jerk = arm_jerk(self._path, self.contract)
        return EpisodeResult(self._seed, self._simulation.has_succeeded, self._simulation.elapsed_s, jerk=jerk)


ARENAS: dict[str, Callable[[], Arena]] = {
    "reach": lambda: Embedded("reach"),
    "reach_corrected": lambda: Embedded("reach", disturbance=0.04),
    "push": lambda: Embedded("push"),
    "pick_place": lambda: Embedded("pick_place"),
    "metaworld_push": lambda: RemoteArena("metaworld:push"),
    "metaworld_pick_place": lambda: RemoteArena("metaworld:pick-place"),
    "metaworld_drawer_open": lambda: RemoteArena("metaworld:drawer-open"),
    "ocbench_block": lambda: RemoteArena("ocbench:block-lite-single"),
    "so101_pick_place": lambda: RemoteArena("so101:pick-place"),
}


def demonstrations(name: str, arena: Arena, count: int, seed: int, cache: Path) -> Dataset:
    """``count`` successful demonstrations, kept in ``cache`` so that all policies learn from the same."""
    found: list[Demonstration] = []
    number = 0
    while len(found) < count:
        shown = demonstration(name, arena, 10_000 * seed + number, cache)
        number += 1
        if shown is not None:
            found.append(shown)
    digest = digest_of([name, str(count), str(seed)])
    return Dataset(arena.contract, name, "", found, digest)


def demonstration(name: str, arena: Arena, seed: int, cache: Path) -> Demonstration | None:
    """One demonstration, from ``cache`` if it is there; None where the expert fails."""
    file = cache / name / f"{seed}.npz"
    fields = [field.name for field in dataclasses.fields(Demonstration)]
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            return (
                Demonstration(**{field: kept[field] for field in fields if field in kept}) if "state" in kept else None
            )
    shown = arena.demonstrate(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {field: getattr(shown, field) for field in fields} if shown else {"failed": np.ones(1)}
    partial = file.with_suffix(f".{os.getpid()}.partial.npz")  # two cells may make the same one
    np.savez_compressed(partial, **arrays)
    partial.replace(file)
    return shown
