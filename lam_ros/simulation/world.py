"""The physics world: the arm of a URDF on a table, with actuators and cameras added in code."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

import mujoco
import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.control.arm_model import model_of_urdf
from lam_ros.errors import SimulationError

PHYSICS_STEP_S = 0.0025
FIELD_OF_VIEW_DEG = {"front": 45.0, "wrist": 75.0}
ARM_GAIN, ARM_DAMPING = 120.0, 8.0  # position servo: N·m/rad, N·m·s/rad
FINGER_GAIN, FINGER_DAMPING = 300.0, 10.0  # N/m, N·s/m
ROTOR_INERTIA = {"rad": 0.01, "m": 0.05}  # kg·m², kg: what the gears make of the motor's
CONTACT_TIME_S = 0.006  # stiff enough for a grasp, at least twice the physics step
OPTICAL_TO_MUJOCO = (0.0, 1.0, 0.0, 0.0)  # ROS optical frames look along +z with y down; MuJoCo's along -z with y up


def build_arm(robot: RobotConfig, urdf: Path) -> mujoco.MjSpec:
    """The URDF's arm with a position servo for each joint of ``robot``, its cameras, a table and a light.

    Raises:
        SimulationError: the URDF lacks a joint or a camera frame that the robot names.
    """
    spec = model_of_urdf(urdf)
    spec.option.timestep = PHYSICS_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    # Multisampling and the default shadow map cost 10 to 40 times without a GPU.
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0  # as every arm's own controller does
    _add_servos(spec, robot)
    _add_mimic_joints(spec, urdf)
    _add_cameras(spec, robot)
    for geom in spec.geoms:
        if "finger" in geom.parent.name:
            make_graspable(geom, friction=1.5)
    spec.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1.5, 1.5, 0.1], rgba=[0.55, 0.52, 0.48, 1]
    )
    spec.worldbody.add_light(name="light", pos=[0.3, 0.0, 1.6], dir=[0, 0, -1], castshadow=False)
    return spec


def make_graspable(geom: mujoco.MjsGeom, friction: float) -> None:
    """Give a shape the stiff, torsion-resisting contact that a grasp needs."""
    geom.friction = [friction, 0.02, 0.001]
    geom.condim = 4
    geom.solref = [CONTACT_TIME_S, 1.0]


def servo_gains(unit: str) -> tuple[float, float]:
    """Stiffness and damping of a joint's position servo; their ratio in 1/s is how fast it closes on its target."""
    return (ARM_GAIN, ARM_DAMPING) if unit == "rad" else (FINGER_GAIN, FINGER_DAMPING)


def _add_servos(spec: mujoco.MjSpec, robot: RobotConfig) -> None:
    known = {joint.name for joint in spec.joints}
    for name, joint in robot.joints.items():
        if name not in known:
            raise SimulationError(f"the URDF has no joint {name}; it has {', '.join(sorted(known))}.")
        gain, damping = servo_gains(joint.unit)
        servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=gain, kv=damping)
    for joint in spec.joints:
        sliding = joint.type == mujoco.mjtJoint.mjJNT_SLIDE
        joint.armature = ROTOR_INERTIA["m" if sliding else "rad"]


def _add_mimic_joints(spec: mujoco.MjSpec, urdf: Path) -> None:
    if len(spec.equalities):  # MuJoCo 4 reads <mimic> itself
        return
    import xml.etree.ElementTree as ElementTree

    for joint in ElementTree.parse(urdf).getroot().iter("joint"):
        mimic = joint.find("mimic")
        if mimic is not None:
            data = np.zeros(11)
            data[0], data[1] = float(mimic.get("offset", "0")), float(mimic.get("multiplier", "1"))
            spec.add_equality(
                type=mujoco.mjtEq.mjEQ_JOINT,
                objtype=mujoco.mjtObj.mjOBJ_JOINT,
                name1=joint.get("name", ""),
                name2=mimic.get("joint", ""),
                data=data,
            )


def _add_cameras(spec: mujoco.MjSpec, robot: RobotConfig) -> None:
    for name, camera in robot.cameras.items():
        frame = spec.body(camera.frame_id)
        if frame is None:
            raise SimulationError(f"camera {name}: the URDF has no link {camera.frame_id!r}; set its frame_id.")
        frame.add_camera(name=name, quat=OPTICAL_TO_MUJOCO, fovy=FIELD_OF_VIEW_DEG.get(name, 60.0))
        spec.visual.global_.offwidth = max(spec.visual.global_.offwidth, camera.width)
        spec.visual.global_.offheight = max(spec.visual.global_.offheight, camera.height)


class CameraRenderer:
    """Renders one model's cameras off screen at their own sizes; a context is made on first use."""

    def __init__(self, model: mujoco.MjModel, robot: RobotConfig) -> None:
        self._model = model
        self._sizes = {name: (camera.height, camera.width) for name, camera in robot.cameras.items()}
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """uint8 (H, W, 3), RGB.

        Raises:
            SimulationError: no OpenGL context can be made.
        """
        renderer = self._renderer(self._sizes[camera])
        renderer.update_scene(data, camera)
        image: np.ndarray = renderer.render()
        return image

    def _renderer(self, size: tuple[int, int]) -> mujoco.Renderer:
        if size not in self._renderers:
            try:
                renderer = mujoco.Renderer(self._model, *size)
            except Exception as error:  # each GL back end raises its own kind
                raise SimulationError(
                    f"no OpenGL context for the cameras (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}): {error}. "
                    "Run `make setup`, or install libegl1 libegl-mesa0 libgl1-mesa-dri and set MUJOCO_GL=egl."
                ) from error
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            if not self._renderers:  # contexts must go before MuJoCo's own exit handler ends EGL
                atexit.register(_close_all, self._renderers)
            self._renderers[size] = renderer
        return self._renderers[size]

    def close(self) -> None:
        """Give the contexts back; rendering again makes new ones."""
        _close_all(self._renderers)


def _close_all(renderers: dict[tuple[int, int], mujoco.Renderer]) -> None:
    for renderer in renderers.values():
        renderer.close()
    renderers.clear()
