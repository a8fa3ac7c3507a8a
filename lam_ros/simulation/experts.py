"""Scripted demonstrators. They know where the objects are, and answer with joint targets as a leader arm would."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.control.kinematics import Kinematics, approach_rotation
from lam_ros.errors import SimulationError
from lam_ros.simulation.simulation import HOME, Pose

Objects = Mapping[str, Pose]


@dataclass(frozen=True)
class Style:
    """How one demonstrator moves: speed in m/s, gain of the approach, lift in m, lean of the tool in rad."""

    speed: float
    gain: float
    lift: float
    tilt: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Style:
        return cls(
            speed=rng.uniform(0.30, 0.55),
            gain=rng.uniform(0.7, 1.1),
            lift=rng.uniform(0.05, 0.09),
            tilt=rng.uniform(-0.15, 0.15),
        )


@dataclass(frozen=True)
class Waypoint:
    """Where the tool should go: position (3,) in m, yaw in rad, finger position in m."""

    position: np.ndarray
    yaw: float
    finger_m: float


class Expert(ABC):
    """A demonstrator of one task. ``begin`` starts an episode, ``act`` answers one tick."""

    def __init__(self, robot: RobotConfig, kinematics: Kinematics) -> None:
        self._robot = robot
        self._kinematics = kinematics
        self._tick_s = 1.0 / robot.policy.rate_hz
        self._posture = np.array([HOME.get(name, 0.0) for name in robot.joints])
        self._lower, self._upper = robot.position_limits
        self._max_step = 0.8 * robot.velocity_limits * self._tick_s
        self._fingers = np.array([joint.unit == "m" for joint in robot.joints.values()])
        self.begin(0)

    def begin(self, seed: int) -> None:
        """Forget the last episode and choose a style."""
        self._style = Style.sample(np.random.default_rng(seed))
        self._phase = 0
        self._ticks_in_phase = 0

    def act(self, q: np.ndarray, objects: Objects) -> np.ndarray:
        """Joint targets float32 (J,) from measured joint positions (J,) and the objects' poses."""
        position, _ = self._kinematics.tool_pose(q)
        phase = self._phase
        goal = self._next_waypoint(position, q, objects)
        self._ticks_in_phase = self._ticks_in_phase + 1 if self._phase == phase else 0
        return self._towards(q, position, goal)

    @abstractmethod
    def _next_waypoint(self, tool: np.ndarray, q: np.ndarray, objects: Objects) -> Waypoint:
        """Decide the phase and where to go in it, from the tool's position (3,)."""

    def _towards(self, q: np.ndarray, tool: np.ndarray, goal: Waypoint) -> np.ndarray:
        move = self._style.gain * (goal.position - tool)
        # A servo follows about half of a step within a tick: ask for twice the way that the speed allows.
        furthest = 2.0 * self._style.speed * self._tick_s
        distance = float(np.linalg.norm(move))
        if distance > furthest:
            move *= furthest / distance
        rotation = approach_rotation(goal.yaw, self._style.tilt)
        step = self._kinematics.joint_step(q, tool + move, rotation, self._posture)
        step[self._fingers] = goal.finger_m - q[self._fingers]
        target = q + np.clip(step, -self._max_step, self._max_step)
        return np.clip(target, self._lower, self._upper).astype(np.float32)

    def _near(self, tool: np.ndarray, goal: np.ndarray, tolerance_m: float) -> bool:
        return bool(np.linalg.norm(goal - tool) < tolerance_m)


def _bearing(position: np.ndarray) -> float:
    return float(np.arctan2(position[1], position[0]))


class ReachExpert(Expert):
    def _next_waypoint(self, tool: np.ndarray, q: np.ndarray, objects: Objects) -> Waypoint:
        marker = objects["red_marker"].position
        return Waypoint(marker + np.array([0.0, 0.0, 0.02]), _bearing(marker), 0.02)


class PushExpert(Expert):
    """Goes above and behind the cube, comes down, pushes along the line to the goal; starts over when it slips off."""

    _contact_m = 0.037  # from the tool's axis to the cube's centre while pushing

    def _next_waypoint(self, tool: np.ndarray, q: np.ndarray, objects: Objects) -> Waypoint:
        cube, goal = objects["cube"].position, objects["goal"].position
        gap = goal[:2] - cube[:2]
        remaining = float(np.linalg.norm(gap))
        ahead = gap / max(remaining, 1e-6)
        sideways = np.array([-ahead[1], ahead[0]])
        behind = cube[:2] - ahead * (self._contact_m + 0.03)
        relative = tool[:2] - cube[:2]
        yaw = float(np.arctan2(ahead[1], ahead[0]))
        low, high = 0.022, 0.05 + self._style.lift
        slipped = self._phase >= 2 and (abs(relative @ sideways) > 0.02 or relative @ ahead > -0.02)
        # One who slips off a cube that lies on the disc does not start over for the last centimetre.
        if remaining < (0.025 if slipped or self._phase == 3 else 0.010):
            self._phase = 3  # done: stay where it is
            return Waypoint(np.array([*tool[:2], low]), yaw, 0.0)
        if slipped:
            self._phase = 0
        if self._phase == 0:
            if tool[2] > high - 0.03 and np.linalg.norm(tool[:2] - behind) < 0.02:
                self._phase = 1
            # Up first, across only when clear of the cube.
            travel = behind if tool[2] > 0.055 else tool[:2]
            return Waypoint(np.array([*travel, high]), yaw, 0.0)
        if self._phase == 1:
            if tool[2] < low + 0.012:
                self._phase = 2
            return Waypoint(np.array([*behind, low]), yaw, 0.0)
        self._phase = 2
        lateral = relative @ sideways
        push = cube[:2] + ahead * (-self._contact_m + min(remaining, 0.03)) - sideways * 0.8 * lateral
        return Waypoint(np.array([*push, low]), yaw, 0.0)


class PickPlaceExpert(Expert):
    """Above the cube, down, close, up, above the tray, down, open; starts over when the cube is lost."""

    _open_m, _closed_m = 0.032, 0.006

    def _next_waypoint(self, tool: np.ndarray, q: np.ndarray, objects: Objects) -> Waypoint:
        cube, tray = objects["cube"], objects["tray"].position
        yaw = _nearest_quarter(cube.yaw, _bearing(cube.position))
        carry = 0.07 + self._style.lift
        grasp = np.array([*cube.position[:2], 0.016])
        above = np.array([*cube.position[:2], 0.05 + self._style.lift])
        held = np.linalg.norm(cube.position - tool) < 0.03
        over_tray = np.array([*tray[:2], carry])
        if self._phase in (3, 4) and not held:
            self._phase = 0
        if self._phase == 0:
            if np.linalg.norm(tool[:2] - above[:2]) < 0.012:
                self._phase = 1
            return Waypoint(above, yaw, self._open_m)
        if self._phase == 1:
            if self._near(tool, grasp, 0.010):
                self._phase = 2
            elif np.linalg.norm(tool[:2] - grasp[:2]) > 0.03:
                self._phase = 0
            return Waypoint(grasp, yaw, self._open_m)
        if self._phase == 2:
            if self._ticks_in_phase * self._tick_s >= 0.35:
                self._phase = 3
            return Waypoint(grasp, yaw, self._closed_m)
        if self._phase == 3:
            if tool[2] > carry - 0.02:
                self._phase = 4
            return Waypoint(np.array([*tool[:2], carry + 0.01]), _bearing(tool), self._closed_m)
        if self._phase == 4:
            if np.linalg.norm(tool[:2] - over_tray[:2]) < 0.02:
                self._phase = 5
            return Waypoint(over_tray, _bearing(over_tray), self._closed_m)
        low = np.array([*tray[:2], 0.045])
        if self._phase == 5:
            if tool[2] < 0.055:
                self._phase = 6
            return Waypoint(low, _bearing(tray), self._closed_m)
        away = low if self._ticks_in_phase * self._tick_s < 0.3 else over_tray
        return Waypoint(away, _bearing(tray), self._open_m)


def _nearest_quarter(yaw: float, reference: float) -> float:
    """A cube looks the same every quarter turn: the equivalent yaw that turns the wrist least."""
    quarter = np.pi / 2
    return float(yaw - quarter * np.round((yaw - reference) / quarter))


EXPERTS: dict[str, type[Expert]] = {"reach": ReachExpert, "push": PushExpert, "pick_place": PickPlaceExpert}


def make_expert(task: str, robot: RobotConfig, kinematics: Kinematics) -> Expert:
    """Raises SimulationError when nobody knows the task."""
    if task not in EXPERTS:
        raise SimulationError(f"no expert knows the task {task!r}; there are experts for {', '.join(EXPERTS)}.")
    return EXPERTS[task](robot, kinematics)
