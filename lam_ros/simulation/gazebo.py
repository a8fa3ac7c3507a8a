"""The embedded simulator's world as a Gazebo world, and the table that bridges its topics to ROS.

Both are written from the compiled MuJoCo world, so that joints, limits, masses, shapes and cameras are one definition:

    URDF ─▶ build_arm ─┐
                       ├─▶ MuJoCo model ─▶ embedded simulator
    task.furnish ──────┘              └──▶ world_sdf ─▶ Gazebo Harmonic and later, or Fortress

Joints take velocities: torque control at this step would need the rotor inertia that SDF 1.6 cannot say, and Gazebo's
own position controller moves at full speed or creeps, so that an arm strikes what it should push. ``gazebo_node`` gives
them, as the embedded arm's servos would. Gravity does not act on the arm, as its own controller would see to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from lam_ros.config import RobotConfig, urdf_path
from lam_ros.errors import SimulationError
from lam_ros.simulation.ros2_control import GazeboVersion, plugin_element
from lam_ros.simulation.simulation import compile_world
from lam_ros.simulation.world import PHYSICS_STEP_S
from lam_ros.urdf import moving_joints, read_urdf

# A camera of MuJoCo looks along -z with y up, a sensor of Gazebo along x with z up: Gazebo's axes in MuJoCo's.
GAZEBO_CAMERA = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
SHAPES = {
    mujoco.mjtGeom.mjGEOM_BOX: "box",
    mujoco.mjtGeom.mjGEOM_CYLINDER: "cylinder",
    mujoco.mjtGeom.mjGEOM_CAPSULE: "cylinder",  # SDF 1.6 knows no capsule
    mujoco.mjtGeom.mjGEOM_SPHERE: "sphere",
    mujoco.mjtGeom.mjGEOM_PLANE: "plane",
}


def world_name(task: str) -> str:
    return f"lam_{task}"


def _text(parent: ElementTree.Element, tag: str, text: object, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = f"{text:.9g}" if isinstance(text, float) else str(text)
    return element


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.9g}" for value in np.where(np.abs(values) < 1e-12, 0.0, values))


def rotation_to_rpy(rotation: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (3,) in rad of a rotation (3, 3) = Rz(yaw) Ry(pitch) Rx(roll), as SDF and URDF mean them."""
    pitch = np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    if np.hypot(rotation[0, 0], rotation[1, 0]) < 1e-9:  # straight up or down: roll and yaw turn about one axis
        return np.array([np.arctan2(-rotation[1, 2], rotation[1, 1]), pitch, 0.0])
    roll = np.arctan2(rotation[2, 1], rotation[2, 2])
    return np.array([roll, pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quaternion)
    return flat.reshape(3, 3)


def _pose(parent: ElementTree.Element, position: np.ndarray, rotation: np.ndarray) -> None:
    _text(parent, "pose", _numbers([*position, *rotation_to_rpy(rotation)]))


class _World:
    """Writes one world."""

    def __init__(
        self,
        robot: RobotConfig,
        task: str,
        robot_file: str | Path | None,
        version: GazeboVersion,
        control: ElementTree.Element | None = None,
    ) -> None:
        self._robot, self._task, self._version, self._control = robot, task, version, control
        self._model, self._made = compile_world(robot, task, robot_file)
        self._data = mujoco.MjData(self._model)
        self._made.shuffle(self._model, self._data, np.random.default_rng(0))
        mujoco.mj_forward(self._model, self._data)
        self._limits = moving_joints(read_urdf(urdf_path(robot, robot_file)))
        self._names = [self._model.body(i).name for i in range(self._model.nbody)]
        self._roots = [i for i in range(1, self._model.nbody) if self._model.body_parentid[i] == 0]

    def _system(self, parent: ElementTree.Element, name: str) -> ElementTree.Element:
        """A plugin of Gazebo's own, by the name it has in this version."""
        file = "".join(f"-{c.lower()}" if c.isupper() else c for c in name)
        if self._version == "fortress":
            attributes = {"filename": f"ignition-gazebo{file}-system", "name": f"ignition::gazebo::systems::{name}"}
        else:
            attributes = {"filename": f"gz-sim{file}-system", "name": f"gz::sim::systems::{name}"}
        return ElementTree.SubElement(parent, "plugin", attributes)

    def sdf(self, render_engine: str) -> str:
        root = ElementTree.Element("sdf", version="1.6")
        world = ElementTree.SubElement(root, "world", name=world_name(self._task))
        physics = ElementTree.SubElement(world, "physics", name="step", type="ode")
        _text(physics, "max_step_size", PHYSICS_STEP_S)
        _text(physics, "real_time_factor", 1.0)
        for name in ("Physics", "UserCommands", "SceneBroadcaster"):
            self._system(world, name)
        _text(self._system(world, "Sensors"), "render_engine", render_engine)
        self._light(world)
        self._table(world)
        arm, *objects = self._roots
        self._arm(world, arm)
        for body in objects:
            self._object(world, body)
        ElementTree.indent(root)
        return '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"

    def _light(self, world: ElementTree.Element) -> None:
        """As bright as in the embedded simulator; its headlight, which Gazebo lacks, as if it came half from aside."""
        headlight = self._model.vis.headlight
        scene = ElementTree.SubElement(world, "scene")
        _text(scene, "ambient", _numbers([*(headlight.ambient + headlight.diffuse / 2), 1.0]))
        _text(scene, "background", "0 0 0 1")
        _text(scene, "shadows", "false")
        light = ElementTree.SubElement(world, "light", name="light", type="point")
        _text(light, "pose", _numbers([*self._model.light_pos[0], 0, 0, 0]))
        _text(light, "diffuse", _numbers([*self._model.light_diffuse[0], 1.0]))
        _text(light, "cast_shadows", "false")
        attenuation = ElementTree.SubElement(light, "attenuation")
        for tag, value in (("range", 10.0), ("constant", 1.0), ("linear", 0.0), ("quadratic", 0.0)):
            _text(attenuation, tag, value)

    def _table(self, world: ElementTree.Element) -> None:
        model = ElementTree.SubElement(world, "model", name="table")
        _text(model, "static", "true")
        link = ElementTree.SubElement(model, "link", name="table")
        self._shape(link, "collision", self._model.geom("table").id)
        self._shape(link, "visual", self._model.geom("table").id)

    def _shape(self, link: ElementTree.Element, tag: str, geom: int) -> None:
        model = self._model
        kind, size = SHAPES.get(mujoco.mjtGeom(model.geom_type[geom])), model.geom_size[geom]
        if kind is None:
            owner = self._names[model.geom_bodyid[geom]]
            raise SimulationError(
                f"{owner} has a shape that is no box, cylinder, sphere or plane; Gazebo worlds are "
                "written for arms of these alone. Draw its collisions and visuals from them."
            )
        shape = ElementTree.SubElement(link, tag, name=f"{tag}_{geom}")
        _pose(shape, model.geom_pos[geom], _matrix(model.geom_quat[geom]))
        described = ElementTree.SubElement(ElementTree.SubElement(shape, "geometry"), kind)
        if kind == "box":
            _text(described, "size", _numbers(2 * size))
        elif kind == "plane":
            _text(described, "normal", "0 0 1")
            _text(described, "size", _numbers(2 * size[:2]))
        else:
            _text(described, "radius", float(size[0]))
            if kind == "cylinder":
                _text(described, "length", float(2 * size[1]))
        if tag == "visual":
            material = ElementTree.SubElement(shape, "material")
            for part in ("ambient", "diffuse"):
                _text(material, part, _numbers(model.geom_rgba[geom]))
        else:
            ode = ElementTree.SubElement(
                ElementTree.SubElement(ElementTree.SubElement(shape, "surface"), "friction"), "ode"
            )
            for part in ("mu", "mu2"):
                _text(ode, part, self._friction(geom))

    def _friction(self, geom: int) -> float:
        """Of two shapes that touch MuJoCo takes the larger friction and Gazebo's DART the smaller: what lies about gets
        the largest of all, so that the other shape decides, and that has what MuJoCo would make of the two."""
        model = self._model
        sliding, lies_about = model.geom_friction[:, 0], model.body_dofnum[model.geom_bodyid] == 6
        largest = sliding if lies_about[geom] else np.append(sliding[lies_about], sliding[geom])
        return float(largest.max())

    def _shapes(self, link: ElementTree.Element, body: int) -> None:
        model = self._model
        geoms = range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body])
        collides = [geom for geom in geoms if model.geom_contype[geom] or model.geom_conaffinity[geom]]
        shown = [geom for geom in geoms if geom not in collides] or collides
        for geom in collides:
            self._shape(link, "collision", geom)
        for geom in shown:
            self._shape(link, "visual", geom)

    def _inertial(self, link: ElementTree.Element, mass: float, inertia: np.ndarray, at: tuple[Any, Any]) -> None:
        inertial = ElementTree.SubElement(link, "inertial")
        _pose(inertial, *at)
        _text(inertial, "mass", float(mass))
        moments = ElementTree.SubElement(inertial, "inertia")
        for tag, value in zip(("ixx", "iyy", "izz", "ixy", "ixz", "iyz"), [*inertia, 0.0, 0.0, 0.0], strict=True):
            _text(moments, tag, float(value))

    def _under(self, body: int) -> Iterator[int]:
        """A body and all that hang on it, parents first."""
        yield body
        for child in range(1, self._model.nbody):
            if self._model.body_parentid[child] == body:
                yield from self._under(child)

    def _carrier(self, body: int) -> int:
        """The nearest body with a mass: Gazebo would give one without a mass a kilogram."""
        while self._model.body_mass[body] == 0:
            body = int(self._model.body_parentid[body])
        return body

    def _arm(self, world: ElementTree.Element, root: int) -> None:
        model, data = self._model, self._data
        arm = ElementTree.SubElement(world, "model", name=self._robot.name)
        base = ElementTree.SubElement(arm, "joint", name="base_mount", type="fixed")
        _text(base, "parent", "world")
        _text(base, "child", self._names[root])
        for body in self._under(root):
            if model.body_mass[body] == 0:
                continue
            link = ElementTree.SubElement(arm, "link", name=self._names[body])
            _pose(link, data.xpos[body], data.xmat[body].reshape(3, 3))
            _text(link, "gravity", "false")
            at = model.body_ipos[body], _matrix(model.body_iquat[body])
            self._inertial(link, model.body_mass[body], model.body_inertia[body], at)
            self._shapes(link, body)
            self._cameras(link, body)
            if body != root:
                self._joint(arm, body)
        if self._control is not None:
            arm.append(self._control)
            return
        states = self._system(arm, "JointStatePublisher")
        _text(states, "update_rate", self._robot.joint_states.rate_hz)  # versions that do not know it: at each step
        for joint in self.driven:
            _text(states, "joint_name", joint)
            _text(self._system(arm, "JointController"), "joint_name", joint)

    @property
    def driven(self) -> list[str]:
        """Every joint of the arm that moves, those that mimic another too."""
        free = int(mujoco.mjtJoint.mjJNT_FREE)
        return [self._model.joint(i).name for i in range(self._model.njnt) if self._model.jnt_type[i] != free]

    def _joint(self, arm: ElementTree.Element, body: int) -> None:
        model = self._model
        is_fixed = model.body_jntnum[body] == 0
        number = int(model.body_jntadr[body])
        slides = not is_fixed and model.jnt_type[number] == int(mujoco.mjtJoint.mjJNT_SLIDE)
        name = f"{self._names[body]}_mount" if is_fixed else model.joint(number).name
        kind = "fixed" if is_fixed else "prismatic" if slides else "revolute"
        joint = ElementTree.SubElement(arm, "joint", name=name, type=kind)
        _text(joint, "parent", self._names[self._carrier(int(model.body_parentid[body]))])
        _text(joint, "child", self._names[body])
        if is_fixed:
            return
        axis = ElementTree.SubElement(joint, "axis")
        _text(axis, "xyz", _numbers(model.jnt_axis[number]))
        limit, dof = ElementTree.SubElement(axis, "limit"), int(model.jnt_dofadr[number])
        for tag, value in zip(("lower", "upper"), model.jnt_range[number], strict=True):
            _text(limit, tag, float(value))
        _text(limit, "effort", self._limits[name].effort)
        _text(limit, "velocity", self._limits[name].velocity or 0.0)
        dynamics = ElementTree.SubElement(axis, "dynamics")
        _text(dynamics, "damping", float(model.dof_damping[dof]))
        _text(dynamics, "friction", float(model.dof_frictionloss[dof]))

    def _cameras(self, link: ElementTree.Element, body: int) -> None:
        model, data = self._model, self._data
        carrier = data.xmat[body].reshape(3, 3)
        for number in range(model.ncam):
            if self._carrier(int(model.cam_bodyid[number])) != body:
                continue
            name = model.camera(number).name
            described = self._robot.cameras[name]
            sensor = ElementTree.SubElement(link, "sensor", name=name, type="camera")
            position = carrier.T @ (data.cam_xpos[number] - data.xpos[body])
            _pose(sensor, position, carrier.T @ data.cam_xmat[number].reshape(3, 3) @ GAZEBO_CAMERA)
            _text(sensor, "update_rate", described.rate_hz)
            _text(sensor, "topic", gazebo_camera(self._robot, name))
            camera = ElementTree.SubElement(sensor, "camera")
            half = np.tan(np.radians(model.cam_fovy[number]) / 2) * described.width / described.height
            _text(camera, "horizontal_fov", float(2 * np.arctan(half)))
            image = ElementTree.SubElement(camera, "image")
            _text(image, "width", described.width)
            _text(image, "height", described.height)
            _text(image, "format", "R8G8B8")
            clip = ElementTree.SubElement(camera, "clip")
            _text(clip, "near", 0.01)
            _text(clip, "far", 10.0)

    def _object(self, world: ElementTree.Element, body: int) -> None:
        model, data = self._model, self._data
        thing = ElementTree.SubElement(world, "model", name=self._names[body])
        _pose(thing, data.xpos[body], data.xmat[body].reshape(3, 3))
        link = ElementTree.SubElement(thing, "link", name="link")
        if model.body_mocapid[body] < 0:
            at = model.body_ipos[body], _matrix(model.body_iquat[body])
            self._inertial(link, model.body_mass[body], model.body_inertia[body], at)
        else:  # put elsewhere when Gazebo is asked to; all else falls in Fortress, whatever a link says of gravity
            _text(thing, "static", "true")
        self._shapes(link, body)
        poses = self._system(thing, "PosePublisher")
        _text(poses, "update_frequency", "50")
        for tag in ("publish_model_pose", "publish_nested_model_pose"):
            _text(poses, tag, "true")
        for tag in ("publish_link_pose", "use_pose_vector_msg"):
            _text(poses, tag, "false")

    @property
    def objects(self) -> list[str]:
        """Bodies of the task, by name."""
        return [self._names[body] for body in self._roots[1:]]


def gazebo_camera(robot: RobotConfig, camera: str) -> str:
    """Gazebo's own topic of a camera's images."""
    return f"/{robot.name}/{camera}/image"


def world_sdf(
    robot: RobotConfig,
    task: str,
    robot_file: str | Path | None = None,
    version: GazeboVersion = "harmonic",
    render_engine: str = "ogre2",
    controllers: Path | None = None,
    namespace: str = "",
) -> str:
    """The SDF 1.6 text of a world with the arm, the table and the task's objects.

    Args:
        robot: joints and cameras; its URDF is made of boxes, cylinders and spheres.
        task: as of the embedded simulator.
        robot_file: the YAML the robot came from.
        version: whose plugin names to use: ``harmonic`` (and later) or ``fortress``.
        render_engine: ``ogre2``, or ``ogre`` where there is no GPU.
        controllers: parameters of ros2_control's controllers, which then move the arm instead of Gazebo's own.
        namespace: theirs.

    Raises:
        SimulationError, ConfigError: no such task, or a URDF that cannot be used.
    """
    control = plugin_element(robot, version, controllers, namespace) if controllers else None
    return _World(robot, task, robot_file, version, control).sdf(render_engine)


def velocity_topic(joint: str) -> str:
    """ROS topic on which a joint of Gazebo's arm takes its velocity in rad/s or m/s."""
    return f"gazebo/{joint}/velocity"


def pose_topic(body: str) -> str:
    """ROS topic on which the pose of a task's object comes."""
    return f"gazebo/{body}/pose"


def bridge_table(
    robot: RobotConfig, task: str, robot_file: str | Path | None = None, ros2_control: bool = False
) -> list[dict[str, str]]:
    """What ros_gz_bridge carries, as its ``config_file`` wants it: every topic of the robot under its name in ROS.

    Under ros2_control joints need no bridge: its controllers speak ROS.
    """
    world = _World(robot, task, robot_file, "harmonic")
    arm, stage = f"/model/{robot.name}", f"/world/{world_name(task)}"

    def row(ros: str, gazebo: str, ros_type: str, gazebo_type: str, direction: str = "GZ_TO_ROS") -> dict[str, str]:
        return {
            "ros_topic_name": ros,
            "gz_topic_name": gazebo,
            "ros_type_name": ros_type,
            "gz_type_name": f"gz.msgs.{gazebo_type}",
            "direction": direction,
        }

    rows = [row("/clock", "/clock", "rosgraph_msgs/msg/Clock", "Clock")]
    if not ros2_control:
        rows.append(row(robot.joint_states.topic, f"{stage}{arm}/joint_state", "sensor_msgs/msg/JointState", "Model"))
    for name, camera in robot.cameras.items():
        if camera.subscribed_topic != camera.topic:
            raise SimulationError(
                f"Gazebo's camera {name} gives raw pictures, and {robot.name} wants them compressed: for Gazebo take a "
                "copy of its YAML with `transport: raw`."
            )
        topic = gazebo_camera(robot, name)
        info = camera.topic.rpartition("/")[0] + "/camera_info"
        rows.append(row(camera.topic, topic, "sensor_msgs/msg/Image", "Image"))
        rows.append(row(info, topic.rpartition("/")[0] + "/camera_info", "sensor_msgs/msg/CameraInfo", "CameraInfo"))
    for joint in () if ros2_control else world.driven:
        gazebo = f"{arm}/joint/{joint}/cmd_vel"
        rows.append(row(velocity_topic(joint), gazebo, "std_msgs/msg/Float64", "Double", "ROS_TO_GZ"))
    for body in world.objects:
        rows.append(row(pose_topic(body), f"/model/{body}/pose", "geometry_msgs/msg/PoseStamped", "Pose"))
    return rows
