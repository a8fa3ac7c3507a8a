"""Tasks of Meta-World, OCBench and the SO-101 over a pipe; in environments of their own: two pin their own MuJoCo.

    python arena_server.py        (remote_arena.py starts it; arena_environments.sh makes its environments)

A request is a line of JSON: {"arena": number, "do": "make" | "demonstrate" | "begin" | "step", …}. An answer is a line
of JSON, and the pictures where there are any. Arenas of one server share nothing but the process.

Joint targets: what these tasks take as displacements is written here as a target, measured value plus displacement, so
that all policies see one kind of action.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import mujoco
import numpy as np

SIDE = 96


class Camera:
    """Pictures of a model without what makes software rendering slow: shadows and multisampling.

    Args:
        model: MuJoCo's.
        views: names of its cameras, or free ones.
        option: what is drawn.
    """

    def __init__(self, model: Any, views: tuple[Any, ...], option: Any = None) -> None:
        model.vis.quality.shadowsize, model.vis.quality.offsamples = 0, 0
        self._views, self._option = views, option
        self._renderer = mujoco.Renderer(model, SIDE, SIDE)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False

    def __call__(self, data: Any, disc: np.ndarray | None = None) -> np.ndarray:
        """uint8 (C, h, w, 3); with a green disc at a place (3,) where one is given."""
        pictures = []
        for view in self._views:
            scene = self._renderer.scene
            self._renderer.update_scene(data, view, self._option)
            if disc is not None:
                kind, size, colour = mujoco.mjtGeom.mjGEOM_CYLINDER, np.array([0.025, 0.001, 0.0]), (0.1, 0.7, 0.2, 1.0)
                mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, disc, np.eye(3).ravel(), np.float32(colour))
                scene.ngeom += 1
            pictures.append(self._renderer.render())
        return np.stack(pictures)


def drawn_by_collision_shapes(groups: list[int]) -> Any:
    """An option for ``Camera``: which groups of shapes are drawn, meshes by their convex hulls."""
    option = mujoco.MjvOption()
    option.geomgroup[:] = groups
    option.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = 1
    return option


class Timed:
    """What all families share: an episode ends with success, or when its time is over."""

    time_limit_s: float
    rate_hz: float
    has_succeeded = False
    _ticks = 0

    def start_clock(self) -> None:
        self._ticks, self.has_succeeded = 0, False

    @property
    def seconds(self) -> float:
        return self._ticks / self.rate_hz

    @property
    def is_over(self) -> bool:
        return self.has_succeeded or self.seconds >= self.time_limit_s


class MetaWorld(Timed):
    """A task of Meta-World v3 with its own scripted expert: the hand's position and its fingers.

    The camera is corner2, moved closer as is usual with images; the success is Meta-World's own, at any time.
    """

    cameras = ("corner2", "gripperPOV")
    repeat = 2  # 40 Hz instead of 80
    time_limit_s = 5.0
    scale_m = 0.01  # of its actions
    noise = 0.2  # of a demonstration's actions, which the next ones correct

    def __init__(self, task: str) -> None:
        name = f"sawyer_{task.replace('-', '_')}_v3"
        self._expert: Any = getattr(
            importlib.import_module(f"metaworld.policies.{name}_policy"), _camel(name) + "Policy"
        )()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

        self._env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-v3-goal-observable"](seed=0)
        self._env._freeze_rand_vec, self._env.seeded_rand_vec = False, True  # a new table from each seed
        self._env.model.camera("corner2").pos = (0.75, 0.075, 0.7)
        self._look = Camera(self._env.model, self.cameras)
        self.rate_hz = 1.0 / (self._env.dt * self.repeat)

    def describe(self) -> dict[str, Any]:
        low, high = self._env.mocap_low - 0.1, self._env.mocap_high + 0.1
        names, units = ("x", "y", "z", "fingers"), ("m", "m", "m", "share")
        return {"joints": names, "units": units, "low": [*low, -1.0], "high": [*high, 1.0]}

    def begin(self, seed: int) -> None:
        self._env.seed(seed)
        self._seen, _ = self._env.reset()
        self.start_clock()

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        return self._look(self._env.data), self._seen[:4].astype(np.float32)

    def _target(self, action: np.ndarray) -> np.ndarray:
        return np.append(self._seen[:3] + self.scale_m * action[:3], action[3]).astype(np.float32)

    def step(self, target: np.ndarray) -> None:
        action = np.append((target[:3] - self._seen[:3]) / self.scale_m, target[3])
        for _ in range(self.repeat):
            self._seen, *_, info = self._env.step(np.clip(action, -1.0, 1.0).astype(np.float32))
            self.has_succeeded |= bool(info["success"])
        self._ticks += 1

    def show(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What the expert would do, and the same with the noise that is performed."""
        action = np.clip(self._expert.get_action(self._seen), -1.0, 1.0)
        disturbed = action + np.append(self.noise * rng.standard_normal(3), 0.0)
        return self._target(action), self._target(np.clip(disturbed, -1.0, 1.0))


class OcBench(Timed):
    """A task of OCBench with its own scripted oracle: the joints of a UR5e and its gripper, at 10 Hz.

    The arm is drawn by the shapes it collides with: 18 instead of 46 ms a pair of pictures.
    """

    cameras = ("front", "ur5e/wrist")  # the visual variant's; front_pixels does not see the sides of the table
    time_limit_s = 20.0  # its own 200 steps
    noise_rad = 0.03  # of a demonstration's arm joints, which the next ticks correct

    def __init__(self, task: str) -> None:
        import ocbench
        from ocbench.oracles.controllers import BlockController

        self._env: Any = ocbench.make(f"{task.replace('block-lite', 'block-cpu-lite')}-task1-v0")
        self._inner = self._env.unwrapped
        self._env.reset(seed=0)
        self._oracle = BlockController(self._env, p_mistake=0.0)
        self._look = Camera(self._inner._model, self.cameras, drawn_by_collision_shapes([1, 1, 0, 1, 0, 0]))
        self.rate_hz = 1.0 / self._inner._control_timestep

    def describe(self) -> dict[str, Any]:
        joints = ["shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3", "gripper"]
        ranges = self._inner._model.actuator_ctrlrange[self._inner._arm_actuator_ids]
        units = [*["rad"] * 6, "share"]
        return {"joints": joints, "units": units, "low": [*ranges[:, 0], 0.0], "high": [*ranges[:, 1], 1.0]}

    def begin(self, seed: int) -> None:
        _, self._info = self._env.reset(seed=seed)
        self.start_clock()

    def _state(self) -> np.ndarray:
        gripper = self._info["proprio/gripper_opening"]
        return np.concatenate([self._info["proprio/joint_pos"], gripper]).astype(np.float32)

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        return self._look(self._inner._data), self._state()

    def step(self, target: np.ndarray) -> None:
        action = self._inner.normalize_action(target - self._state())
        *_, self._info = self._env.step(action)
        self.has_succeeded |= bool(self._info["success"])
        self._ticks += 1

    def show(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self._ticks == 0:
            np.random.seed(int(rng.integers(2**31)))
            self._oracle.reset(self._inner.compute_observation(), self._info)
        action = self._oracle.select_action(self._inner.compute_observation(), self._info)
        target = (self._state() + self._inner.unnormalize_action(action)).astype(np.float32)
        return target, disturbed(target, self.noise_rad, rng)


class So101(Timed):
    """Pick and place of lerobot-env-so101 with its own controller: the joints of an SO-101 and its gripper, at 10 Hz.

    Its goal cannot be seen, so a disc is drawn there; the arm is drawn by the convex hulls it collides with, which is
    eight times faster than its 300,000 triangles; and two cameras stand closer than its own.
    """

    cameras = ("front", "side")
    rate_hz, time_limit_s = 10.0, 15.0
    noise_rad = 0.02  # of a demonstration's servos, which the next ticks correct

    def __init__(self, task: str) -> None:
        from lerobot_env_so101.pick_place_env import SO101PickPlaceGymEnv
        from lerobot_env_so101.policy import DEFAULT_ACTION_SCALE
        from lerobot_env_so101.scripted.pick_place import PickPlaceController

        assert task == "pick-place"
        self._env: Any = SO101PickPlaceGymEnv(
            control_dt=1.0 / self.rate_hz, random_block_position=True, action_scale=DEFAULT_ACTION_SCALE
        )
        self._ticks_of_physics = self._env._n_substeps
        self._controller = PickPlaceController(DEFAULT_ACTION_SCALE)
        option = drawn_by_collision_shapes([1, 0, 0, 1, 0, 0])
        self._look = Camera(self._env.model, tuple(_camera_at(azimuth) for azimuth in (180.0, 120.0)), option)

    def describe(self) -> dict[str, Any]:
        model = self._env.model
        names = [model.actuator(i).name for i in range(model.nu)]
        low, high = model.actuator_ctrlrange.T.tolist()
        return {"joints": names, "units": ["rad"] * model.nu, "low": low, "high": high}

    def begin(self, seed: int) -> None:
        self._env.reset(seed=seed)
        self._controller.reset()
        self.start_clock()

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        env = self._env
        disc = np.append(env.goal_pos[:2], 0.001)
        state = [env.data.joint(env.model.actuator(i).name).qpos[0] for i in range(env.model.nu)]
        return self._look(env.data, disc), np.array(state, dtype=np.float32)

    def step(self, target: np.ndarray) -> None:
        # The environment's own step, with joint targets where it would solve for a displacement of the hand.
        self._env.apply_action = self._follow
        *_, info = self._env.step(target)
        del self._env.apply_action
        self.has_succeeded |= bool(info["succeed"])
        self._ticks += 1

    def _follow(self, target: np.ndarray) -> None:
        self._env.data.ctrl[:] = np.clip(target, *self._env.model.actuator_ctrlrange.T)
        mujoco.mj_step(self._env.model, self._env.data, self._ticks_of_physics)

    def show(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        env = self._env
        action = self._controller.act(env.ik_point_pos, env.data.sensor("block_pos").data, env.goal_pos)
        env._n_substeps = 0  # solve for the joints, and move nothing yet
        env.apply_action(action)
        env._n_substeps = self._ticks_of_physics
        target = env.data.ctrl.astype(np.float32)
        return target, disturbed(target, self.noise_rad, rng)


def disturbed(target: np.ndarray, noise_rad: float, rng: np.random.Generator) -> np.ndarray:
    """What a demonstration does instead of joint targets (J,) whose last is the gripper's, which stays as it is."""
    return (target + noise_rad * np.append(rng.standard_normal(len(target) - 1), 0.0)).astype(np.float32)


def _camera_at(azimuth: float) -> Any:
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = (0.2, 0.0, 0.04), 0.45, azimuth, -35.0
    return camera


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def make_arena(task: str) -> Any:
    """``metaworld:push``, ``ocbench:block-lite-single`` or ``so101:pick-place``."""
    family, name = task.split(":")
    return {"metaworld": MetaWorld, "ocbench": OcBench, "so101": So101}[family](name)


def demonstrate(arena: Any, seed: int, file: str) -> bool:
    """One demonstration, written as arrays; False where the expert failed."""
    rng = np.random.default_rng(seed)
    arena.begin(seed)
    rows = []
    while not arena.is_over:
        images, state = arena.look()
        target, disturbed = arena.show(rng)
        rows.append((images, state, target))
        arena.step(disturbed)
    if not arena.has_succeeded:
        return False
    images, state, action = (np.stack(part) for part in zip(*rows, strict=True))
    np.savez(file, images=images, state=state, action=action)
    return True


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand among the answers
    arenas: dict[int, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        number, what = asked["arena"], asked["do"]
        pictures = b""
        if what == "make":
            arenas[number] = make_arena(asked["task"])
            made = arenas[number]
            said = {**made.describe(), "cameras": made.cameras, "side": SIDE, "rate_hz": made.rate_hz}
        elif what == "demonstrate":
            said = {"shown": demonstrate(arenas[number], asked["seed"], asked["file"])}
        else:
            arena = arenas[number]
            if what == "begin":
                arena.begin(asked["seed"])
            else:
                arena.step(np.array(asked["target"]))
            images, state = arena.look()
            pictures = images.tobytes()
            said = {"state": state.tolist(), "over": arena.is_over, "shape": images.shape}
            said |= {"succeeded": arena.has_succeeded, "seconds": arena.seconds}
        answers.write(json.dumps(said, default=float).encode() + b"\n" + pictures)
        answers.flush()


if __name__ == "__main__":
    main()
