"""The three tasks: what lies on the table, how it is shuffled, and when physics says that the task is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import mujoco
import numpy as np

from lam_ros.errors import SimulationError
from lam_ros.simulation.world import make_graspable

Rng = np.random.Generator
RED, GREEN, BLUE, YELLOW = (0.85, 0.08, 0.08), (0.1, 0.65, 0.15), (0.1, 0.2, 0.8), (0.9, 0.8, 0.1)


def _polar(rng: Rng, radius: tuple[float, float], angle: tuple[float, float]) -> np.ndarray:
    r, a = rng.uniform(*radius), rng.uniform(*angle)
    return np.array([r * np.cos(a), r * np.sin(a)])


def _yaw_quaternion(yaw: float) -> np.ndarray:
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def _shade(rng: Rng, colour: tuple[float, float, float]) -> np.ndarray:
    """The colour as another batch of paint would show it."""
    return np.append(np.clip(np.array(colour) + rng.uniform(-0.08, 0.08, 3), 0, 1), 1.0)


class Task(ABC):
    """One task on the table; lengths in m, angles in rad, the base of the arm at the origin.

    Attributes:
        instruction: what to do, in words.
        time_limit_s: an episode that has not succeeded by then has failed.
        hold_s: success must last this long.
        objects: bodies whose pose an expert may know.
    """

    name: ClassVar[str]
    instruction: ClassVar[str]
    time_limit_s: ClassVar[float]
    hold_s: ClassVar[float] = 0.5
    objects: ClassVar[tuple[str, ...]]

    @abstractmethod
    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the task's bodies to the world."""

    @abstractmethod
    def shuffle(self, model: mujoco.MjModel, data: mujoco.MjData, rng: Rng) -> None:
        """Place and colour the bodies for a new episode."""

    @abstractmethod
    def is_done(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """Whether the physics says that the task is done at this instant."""


def _add_flat(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtGeom, size: list[float]) -> None:
    body = spec.worldbody.add_body(name=name, mocap=True)
    body.add_geom(name=name, type=kind, size=size, contype=0, conaffinity=0)


def _add_cube(spec: mujoco.MjSpec, half_m: float, mass_kg: float) -> None:
    body = spec.worldbody.add_body(name="cube", pos=[0.3, 0, half_m])
    body.add_freejoint(name="cube")
    geom = body.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=[half_m] * 3, mass=mass_kg)
    make_graspable(geom, friction=0.8)


def _place_cube(model: mujoco.MjModel, data: mujoco.MjData, xy: np.ndarray, yaw: float) -> None:
    joint = data.joint("cube")
    joint.qpos = [*xy, model.geom("cube").size[2], *_yaw_quaternion(yaw)]
    joint.qvel = 0.0


class Reach(Task):
    """Touch the red marker; three markers of other colours lie beside it."""

    name = "reach"
    instruction = "touch the red marker"
    time_limit_s = 4.0
    objects = ("red_marker",)
    tolerance_m = 0.025
    _colours: ClassVar = {"red_marker": RED, "green_marker": GREEN, "blue_marker": BLUE, "yellow_marker": YELLOW}

    def furnish(self, spec: mujoco.MjSpec) -> None:
        for marker in self._colours:
            _add_flat(spec, marker, mujoco.mjtGeom.mjGEOM_BOX, [0.02, 0.02, 0.005])

    def shuffle(self, model: mujoco.MjModel, data: mujoco.MjData, rng: Rng) -> None:
        places: list[np.ndarray] = []
        while len(places) < len(self._colours):
            place = _polar(rng, (0.22, 0.40), (-0.75, 0.75))
            if all(np.linalg.norm(place - other) > 0.09 for other in places):
                places.append(place)
        for (marker, colour), place in zip(self._colours.items(), places, strict=True):
            mocap = model.body(marker).mocapid[0]
            data.mocap_pos[mocap] = [*place, 0.005]
            data.mocap_quat[mocap] = _yaw_quaternion(rng.uniform(-np.pi, np.pi))
            model.geom(marker).rgba = _shade(rng, colour)

    def is_done(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        touch = data.body("red_marker").xpos + np.array([0, 0, 0.02])
        return bool(np.linalg.norm(data.body("tool_link").xpos - touch) < self.tolerance_m)


class Push(Task):
    """Push the cube onto the goal disc."""

    name = "push"
    instruction = "push the cube onto the green disc"
    time_limit_s = 10.0
    objects = ("cube", "goal")
    tolerance_m = 0.03

    def furnish(self, spec: mujoco.MjSpec) -> None:
        _add_cube(spec, half_m=0.025, mass_kg=0.08)
        _add_flat(spec, "goal", mujoco.mjtGeom.mjGEOM_CYLINDER, [0.045, 0.001, 0])

    def shuffle(self, model: mujoco.MjModel, data: mujoco.MjData, rng: Rng) -> None:
        start = _polar(rng, (0.23, 0.27), (-0.5, 0.5))
        heading = np.arctan2(start[1], start[0]) + rng.uniform(-0.6, 0.6)
        goal = start + rng.uniform(0.09, 0.12) * np.array([np.cos(heading), np.sin(heading)])
        _place_cube(model, data, start, heading + rng.uniform(-0.4, 0.4))
        data.mocap_pos[model.body("goal").mocapid[0]] = [*goal, 0.001]
        model.geom("cube").rgba = _shade(rng, RED)
        model.geom("goal").rgba = _shade(rng, GREEN)

    def is_done(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        gap = data.body("cube").xpos[:2] - data.body("goal").xpos[:2]
        return bool(np.linalg.norm(gap) < self.tolerance_m)


class PickPlace(Task):
    """Pick the cube up and let it go in the tray."""

    name = "pick_place"
    instruction = "put the cube into the tray"
    time_limit_s = 15.0
    objects = ("cube", "tray")
    _half_m = 0.07

    def furnish(self, spec: mujoco.MjSpec) -> None:
        _add_cube(spec, half_m=0.018, mass_kg=0.04)
        tray = spec.worldbody.add_body(name="tray", mocap=True)
        half, wall, rim = self._half_m, 0.004, 0.015
        boxes = {
            "floor": ([half, half, 0.002], [0, 0, 0.002]),
            "left": ([half, wall, rim], [0, half, rim]),
            "right": ([half, wall, rim], [0, -half, rim]),
            "front": ([wall, half, rim], [half, 0, rim]),
            "back": ([wall, half, rim], [-half, 0, rim]),
        }
        for part, (size, position) in boxes.items():
            tray.add_geom(name=f"tray_{part}", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=position)

    def shuffle(self, model: mujoco.MjModel, data: mujoco.MjData, rng: Rng) -> None:
        _place_cube(model, data, _polar(rng, (0.24, 0.36), (-0.75, 0.05)), rng.uniform(-0.7, 0.7))
        mocap = model.body("tray").mocapid[0]
        data.mocap_pos[mocap] = [*_polar(rng, (0.28, 0.34), (0.65, 0.85)), 0.0]
        model.geom("cube").rgba = _shade(rng, RED)
        for part in ("floor", "left", "right", "front", "back"):
            model.geom(f"tray_{part}").rgba = [0.25, 0.32, 0.45, 1]

    def is_done(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        cube, tray = data.body("cube"), data.body("tray").xpos
        inside = np.all(np.abs(cube.xpos[:2] - tray[:2]) < self._half_m) and cube.xpos[2] < 0.035
        return bool(inside and not self._is_held(model, data))

    @staticmethod
    def _is_held(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        cube = model.geom("cube").id
        for contact in data.contact:
            if cube in contact.geom:
                other = contact.geom[0] if contact.geom[1] == cube else contact.geom[1]
                if "finger" in model.body(model.geom_bodyid[other]).name:
                    return True
        return False


TASKS: dict[str, type[Task]] = {task.name: task for task in (Reach, Push, PickPlace)}


def make_task(name: str) -> Task:
    """Raises SimulationError, listing the tasks, when there is none of that name."""
    if name not in TASKS:
        raise SimulationError(f"there is no task {name!r}; the embedded simulator has {', '.join(TASKS)}.")
    return TASKS[name]()
