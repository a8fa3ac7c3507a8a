"""The embedded simulation: reset, step, render. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from lam_ros.config import RobotConfig, load_robot, urdf_path
from lam_ros.contract import NANOSECONDS, Observation
from lam_ros.simulation.tasks import Task, make_task
from lam_ros.simulation.world import PHYSICS_STEP_S, CameraRenderer, build_arm

HOME = {"shoulder": -0.1, "elbow": 0.6, "wrist_angle": 1.07, "gripper": 0.02}  # the rest start at 0

MIRROR_MARGIN_M = 0.001  # other physics lets shapes that touch lie so far apart
MIMIC_FINGER = "right_finger"  # follows the joint `gripper`


@dataclass(frozen=True)
class Pose:
    """Position (3,) in m and yaw about the vertical in rad, in the base frame."""

    position: np.ndarray
    yaw: float


def compile_world(robot: RobotConfig, task: str, robot_file: str | Path | None) -> tuple[mujoco.MjModel, Task]:
    """The arm on its table with what a task puts there; raises SimulationError, ConfigError."""
    made = make_task(task)
    spec = build_arm(robot, urdf_path(robot, robot_file))
    made.furnish(spec)
    return spec.compile(), made


class Simulation:
    """One arm, one task.

    Time goes on over resets and never back, as on a robot. An episode runs from ``reset`` until ``is_over``.

    Args:
        robot: joints, cameras and rates.
        task: ``reach``, ``push`` or ``pick_place``.
        robot_file: the YAML the robot came from; its URDF may lie beside it.

    Raises:
        SimulationError, ConfigError: unknown task, or the URDF does not fit the robot.
    """

    def __init__(self, robot: RobotConfig, task: str, robot_file: str | Path | None = None) -> None:
        self.robot = robot
        self._model, self.task = compile_world(robot, task, robot_file)
        self._data = mujoco.MjData(self._model)
        self._renderer = CameraRenderer(self._model, robot)
        self._qpos = np.array([self._model.joint(name).qposadr[0] for name in robot.joints])
        self._qvel = np.array([self._model.joint(name).dofadr[0] for name in robot.joints])
        joints = {self._model.joint(i).name for i in range(self._model.njnt)}
        self._finger = MIMIC_FINGER if MIMIC_FINGER in joints else None
        self._arm = np.array([joint.unit == "rad" for joint in robot.joints.values()])
        self._nominal = {
            "camera_pos": self._model.cam_pos.copy(),
            "camera_quat": self._model.cam_quat.copy(),
            "light_pos": self._model.light_pos.copy(),
        }
        self._rng = np.random.default_rng(0)
        self._now_ns = 0
        self._disturbance = 0.0
        self.reset(0)

    @classmethod
    def of(cls, robot: str | Path, task: str) -> Simulation:
        """From a robot YAML's path or the name of a shipped robot."""
        return cls(load_robot(robot), task, robot)

    def reset(self, seed: int, disturbance: float = 0.0) -> None:
        """Start a new episode: shuffle the table, the light and the cameras, and put the arm near its home.

        Args:
            seed: the same seed gives the same episode.
            disturbance: standard deviation (rad) of the slowly wandering error that the servos make. A demonstrator
                who corrects it shows how to recover, and what is recorded stays the clean correction
                (DART: Laskey et al. 2017, arXiv 1703.09327).
        """
        self._rng = rng = np.random.default_rng(seed)
        model, data = self._model, self._data
        mujoco.mj_resetData(model, data)
        home = np.array([HOME.get(name, 0.0) for name in self.robot.joints])
        home[self._arm] += rng.normal(0.0, 0.12, self._arm.sum())
        lower, upper = self.robot.position_limits
        data.qpos[self._qpos] = data.ctrl[:] = np.clip(home, lower, upper)
        if self._finger is not None:
            data.joint(self._finger).qpos = data.joint("gripper").qpos
        self._shuffle_appearance(rng)
        self.task.shuffle(model, data, rng)
        mujoco.mj_forward(model, data)
        self._disturbance = disturbance
        self._offset = np.zeros(len(self._qpos))
        self._target = data.ctrl.copy()
        self._elapsed_s = 0.0
        self._done_for_s = 0.0

    def _shuffle_appearance(self, rng: np.random.Generator) -> None:
        model = self._model
        model.geom("table").rgba[:3] = np.clip(np.array([0.55, 0.52, 0.48]) + rng.uniform(-0.08, 0.08, 3), 0, 1)
        model.light_pos[:] = self._nominal["light_pos"] + rng.uniform(-0.3, 0.3, model.light_pos.shape)
        model.light_diffuse[:] = 0.7 + rng.uniform(-0.12, 0.12)
        model.cam_pos[:] = self._nominal["camera_pos"] + rng.uniform(-0.004, 0.004, model.cam_pos.shape)
        turned = self._nominal["camera_quat"] + rng.uniform(-0.003, 0.003, model.cam_quat.shape)
        model.cam_quat[:] = turned / np.linalg.norm(turned, axis=1, keepdims=True)

    def advance(self, duration_s: float, target: np.ndarray | None = None) -> None:
        """Let physics run for ``duration_s`` with joint position targets (J,); the last ones hold where none are given.

        The arm's servos take any target; limits are the gate's business.
        """
        if target is not None:
            self._target = np.asarray(target, dtype=np.float64)
        if self._disturbance > 0.0:  # Ornstein-Uhlenbeck, 0.25 s correlation
            keep = np.exp(-duration_s / 0.25)
            kick = self._rng.normal(0.0, self._disturbance * np.sqrt(1 - keep**2), len(self._offset))
            self._offset = keep * self._offset + np.where(self._arm, kick, 0.0)
        self._data.ctrl[:] = self._target + self._offset
        mujoco.mj_step(self._model, self._data, max(1, round(duration_s / PHYSICS_STEP_S)))
        self._now_ns += round(duration_s * NANOSECONDS)
        self._count(duration_s)

    def mirror(self, duration_s: float, state: np.ndarray, placed: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Show, and judge, what another simulator or a robot has come to after ``duration_s``; no physics of its own.

        Args:
            duration_s: since the last call.
            state: joint positions (J,) there.
            placed: position (3,) in m and quaternion (w, x, y, z) of bodies of the task.
        """
        model, data = self._model, self._data
        model.geom_margin[:] = MIRROR_MARGIN_M
        data.qpos[self._qpos] = state
        if self._finger is not None:
            data.joint(self._finger).qpos = data.joint("gripper").qpos
        for name, (position, quaternion) in placed.items():
            mocap = model.body(name).mocapid[0]
            if mocap >= 0:
                data.mocap_pos[mocap], data.mocap_quat[mocap] = position, quaternion
            else:
                data.joint(name).qpos = [*position, *quaternion]
        mujoco.mj_forward(model, data)
        self._now_ns += round(duration_s * NANOSECONDS)
        self._count(duration_s)

    def _count(self, duration_s: float) -> None:
        self._elapsed_s += duration_s
        self._done_for_s = self._done_for_s + duration_s if self.task.is_done(self._model, self._data) else 0.0

    def skip(self, duration_s: float) -> None:
        """Let time pass with nothing moving, as between two episodes."""
        self._now_ns += round(duration_s * NANOSECONDS)

    def step(self, target: np.ndarray) -> None:
        """One tick of the policy with joint position targets (J,) in rad or m."""
        self.advance(1.0 / self.robot.policy.rate_hz, target)

    def render(self, camera: str) -> np.ndarray:
        """uint8 (H, W, 3) RGB of the camera, at the size in the robot YAML."""
        return self._renderer.render(self._data, camera)

    def observe(self) -> Observation:
        """Every camera and the joint state at this instant."""
        images = {camera: self.render(camera) for camera in self.robot.cameras}
        return Observation(self.now_ns, images, self.state)

    @property
    def now_ns(self) -> int:
        return self._now_ns

    @property
    def state(self) -> np.ndarray:
        """float32 (J,), measured joint positions."""
        return self._data.qpos[self._qpos].astype(np.float32)

    @property
    def velocity(self) -> np.ndarray:
        """float32 (J,), measured joint velocities."""
        return self._data.qvel[self._qvel].astype(np.float32)

    @property
    def objects(self) -> dict[str, Pose]:
        """Poses of the task's objects: for experts and displays, never for the policy."""
        poses = {}
        for name in self.task.objects:
            body = self._data.body(name)
            rotation = body.xmat.reshape(3, 3)
            poses[name] = Pose(body.xpos.copy(), float(np.arctan2(rotation[1, 0], rotation[0, 0])))
        return poses

    @property
    def placed(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Position (3,) in m and quaternion (w, x, y, z) of everything that the task has put on the table."""
        model, data = self._model, self._data
        roots = [i for i in range(1, model.nbody) if model.body_parentid[i] == 0]
        return {model.body(i).name: (data.xpos[i].copy(), data.xquat[i].copy()) for i in roots[1:]}

    @property
    def elapsed_s(self) -> float:
        return self._elapsed_s

    @property
    def has_succeeded(self) -> bool:
        return self._done_for_s >= self.task.hold_s - 1e-9

    @property
    def is_over(self) -> bool:
        return self.has_succeeded or self._elapsed_s >= self.task.time_limit_s - 1e-9

    def close(self) -> None:
        self._renderer.close()
