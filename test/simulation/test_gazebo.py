"""The Gazebo world: one definition with the embedded simulator's, and what Gazebo's own parser thinks of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import yaml

from lam_ros.config import load_robot, urdf_path
from lam_ros.errors import SimulationError
from lam_ros.share import share_path
from lam_ros.simulation.gazebo import GAZEBO_CAMERA, bridge_table, rotation_to_rpy, world_sdf
from lam_ros.simulation.ros2_control import CONTROLLERS, PLUGINS, controller_parameters, tagged_urdf
from lam_ros.simulation.simulation import compile_world
from lam_ros.simulation.tasks import TASKS

ROBOT = load_robot("desk_arm")
URDF = ElementTree.parse(urdf_path(ROBOT)).getroot()


def world(task: str = "push", **options: Any) -> ElementTree.Element:
    found = ElementTree.fromstring(world_sdf(ROBOT, task, "desk_arm", **options)).find("world")
    assert found is not None
    return found


def arm(task: str = "push") -> ElementTree.Element:
    found = world(task).find("model[@name='desk_arm']")
    assert found is not None
    return found


def number(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    assert text is not None, path
    return float(text)


def numbers(element: ElementTree.Element, path: str) -> np.ndarray:
    return np.array((element.findtext(path) or "").split(), dtype=float)


def rpy_to_rotation(rpy: np.ndarray) -> np.ndarray:
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def urdf_masses() -> dict[str, float]:
    masses = {}
    for link in URDF.iterfind("link"):
        mass = link.find("inertial/mass")
        if mass is not None:
            masses[link.get("name", "")] = float(mass.get("value", ""))
    return masses


def test_urdf_mujoco_and_gazebo_agree_on_masses() -> None:
    expected = urdf_masses()
    model, _ = compile_world(ROBOT, "push", "desk_arm")
    assert {name: model.body(name).mass[0] for name in expected} == pytest.approx(expected, abs=1e-6)
    written = {link.get("name", ""): number(link, "inertial/mass") for link in arm().iterfind("link")}
    assert written == pytest.approx(expected, abs=1e-6)


def test_urdf_mujoco_and_gazebo_agree_on_limits() -> None:
    model, _ = compile_world(ROBOT, "push", "desk_arm")
    joints = {joint.get("name"): joint for joint in arm().iterfind("joint") if joint.get("type") != "fixed"}
    movable = [joint for joint in URDF.iterfind("joint") if joint.get("type") != "fixed"]
    assert list(joints) == [joint.get("name") for joint in movable]
    for joint in movable:
        limit = joint.find("limit")
        assert limit is not None
        written = joints[joint.get("name")]
        for key in ("lower", "upper", "effort", "velocity"):
            assert number(written, f"axis/limit/{key}") == pytest.approx(float(limit.get(key, "")), abs=1e-6)
        bounds = [float(limit.get("lower", "")), float(limit.get("upper", ""))]
        np.testing.assert_allclose(model.joint(joint.get("name", "")).range, bounds, atol=1e-6)
        assert written.get("type") == joint.get("type")


def test_cameras_see_what_the_embedded_ones_see() -> None:
    model, _ = compile_world(ROBOT, "push", "desk_arm")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = {}
    for link in arm().iterfind("link"):
        pose = numbers(link, "pose")
        for sensor in link.iterfind("sensor"):
            found[sensor.get("name", "")] = sensor
            local, turned = numbers(sensor, "pose"), rpy_to_rotation(pose[3:])
            camera = model.camera(sensor.get("name", "")).id
            np.testing.assert_allclose(pose[:3] + turned @ local[:3], data.cam_xpos[camera], atol=1e-6)
            expected = data.cam_xmat[camera].reshape(3, 3) @ GAZEBO_CAMERA
            np.testing.assert_allclose(turned @ rpy_to_rotation(local[3:]), expected, atol=1e-6)
    assert set(found) == set(ROBOT.cameras)
    for name, sensor in found.items():
        described = ROBOT.cameras[name]
        size = number(sensor, "camera/image/width"), number(sensor, "camera/image/height")
        assert size == (described.width, described.height)
        half_height = np.tan(number(sensor, "camera/horizontal_fov") / 2) * described.height / described.width
        assert 2 * np.degrees(np.arctan(half_height)) == pytest.approx(model.camera(name).fovy[0], abs=1e-6)


def test_gazebos_camera_looks_where_mujocos_does() -> None:
    forward, left, up = GAZEBO_CAMERA.T  # Gazebo's axes, in MuJoCo's: x right, y up, -z ahead
    np.testing.assert_array_equal(forward, [0, 0, -1])
    np.testing.assert_array_equal(left, [-1, 0, 0])
    np.testing.assert_array_equal(up, [0, 1, 0])


def test_only_links_with_a_mass_are_written() -> None:
    for link in arm().iterfind("link"):
        assert number(link, "inertial/mass") > 0  # Gazebo would make one without a kilogram heavy


@pytest.mark.parametrize("task", TASKS)
def test_the_tasks_objects_are_there_and_tell_their_pose(task: str) -> None:
    model, _ = compile_world(ROBOT, task, "desk_arm")
    roots = [model.body(i).name for i in range(1, model.nbody) if model.body_parentid[i] == 0]
    models = {element.get("name"): element for element in world(task).iterfind("model")}
    assert set(models) == {"table", "desk_arm", *roots[1:]}
    for name in roots[1:]:
        plugins = [plugin.get("name") for plugin in models[name].iterfind("plugin")]
        assert plugins == ["gz::sim::systems::PosePublisher"]
        is_placed_by_hand = model.body(name).mocapid[0] >= 0
        assert (models[name].findtext("static") == "true") == is_placed_by_hand, "else it falls through the table"


@pytest.mark.parametrize("task", ["push", "pick_place"])
def test_a_cube_slides_on_everything_as_it_does_in_mujoco(task: str) -> None:
    """DART takes the smaller friction of two shapes (dart/constraint/ContactConstraint.cpp), MuJoCo the larger."""
    model, _ = compile_world(ROBOT, task, "desk_arm")
    collisions = {element.get("name"): element for element in world(task).iter("collision")}
    friction = {name: float(element.findtext("surface/friction/ode/mu") or 0) for name, element in collisions.items()}
    cube = model.geom("cube").id
    others = [i for i in range(model.ngeom) if model.geom_contype[i] and i != cube]
    assert len(others) > 10
    for other in others:
        ours = min(friction[f"collision_{cube}"], friction[f"collision_{other}"])
        assert ours == pytest.approx(max(model.geom_friction[cube][0], model.geom_friction[other][0]))


@pytest.mark.parametrize(
    ("version", "file", "name"),
    [
        ("harmonic", "gz-sim-joint-controller-system", "gz::sim::systems::JointController"),
        ("fortress", "ignition-gazebo-joint-controller-system", "ignition::gazebo::systems::JointController"),
    ],
)
def test_each_version_has_its_own_plugin_names(version: str, file: str, name: str) -> None:
    found = world(version=version).find("model[@name='desk_arm']")
    assert found is not None
    controllers = [p for p in found.iterfind("plugin") if p.get("name") == name]
    assert len(controllers) == 8  # seven joints, and the finger that mimics one
    assert {p.get("filename") for p in controllers} == {file}
    prefix = name.partition("::")[0]
    assert all(str(p.get("name")).startswith(f"{prefix}::") for p in world(version=version).iter("plugin"))


def test_a_shape_that_faces_the_light_is_as_bright_as_its_colour() -> None:
    """As in the embedded simulator, whose policies are to know it again; OGRE adds ambient and diffuse."""
    found = world("push")
    light = np.array([numbers(found, "scene/ambient"), numbers(found, "light/diffuse")])
    np.testing.assert_allclose(light[:, :3].sum(axis=0), 1.0, atol=0.05)


def test_the_render_engine_is_a_choice() -> None:
    engines = [plugin.findtext("render_engine") for plugin in world(render_engine="ogre").iterfind("plugin")]
    assert "ogre" in engines


@pytest.mark.parametrize("seed", range(5))
def test_angles_give_their_rotation_back(seed: int) -> None:
    quaternion = np.random.default_rng(seed).normal(size=4)
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quaternion / np.linalg.norm(quaternion))
    rotation = flat.reshape(3, 3)
    np.testing.assert_allclose(rpy_to_rotation(rotation_to_rpy(rotation)), rotation, atol=1e-9)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_angles_straight_up_give_their_rotation_back(pitch: float) -> None:
    rotation = rpy_to_rotation(np.array([0.3, pitch, -0.8]))
    np.testing.assert_allclose(rpy_to_rotation(rotation_to_rpy(rotation)), rotation, atol=1e-9)


def test_the_shipped_bridge_table_is_the_desk_arms() -> None:
    assert yaml.safe_load(share_path("config/gz_bridge.yaml").read_text()) == bridge_table(ROBOT, "push", "desk_arm")


def test_the_bridge_carries_what_the_nodes_listen_to() -> None:
    rows = {row["ros_topic_name"]: row for row in bridge_table(ROBOT, "reach", "desk_arm")}
    for camera in ROBOT.cameras.values():
        assert rows[camera.topic]["ros_type_name"] == camera.message_type
    assert rows["joint_states"]["gz_topic_name"] == "/world/lam_reach/model/desk_arm/joint_state"
    sensors = {sensor.findtext("topic") for sensor in world("reach").iter("sensor")}
    assert {rows[camera.topic]["gz_topic_name"] for camera in ROBOT.cameras.values()} == sensors
    to_gazebo = [row for row in rows.values() if row["direction"] == "ROS_TO_GZ"]
    assert {row["gz_topic_name"].split("/")[-2] for row in to_gazebo} == {*ROBOT.joints, "right_finger"}


def test_a_shape_that_gazebo_gets_no_file_of_is_refused(tmp_path: Path) -> None:
    tetrahedron = "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    (tmp_path / "part.obj").write_text(tetrahedron)
    text = urdf_path(ROBOT).read_text()
    cylinder = '<geometry><cylinder radius="0.05" length="0.09"/></geometry>'
    assert cylinder in text
    urdf = tmp_path / "arm.urdf"
    urdf.write_text(text.replace(cylinder, f'<geometry><mesh filename="{tmp_path}/part.obj"/></geometry>'))
    robot_file = tmp_path / "robot.yaml"
    shipped = share_path("config/desk_arm.yaml").read_text()
    robot_file.write_text(shipped.replace("urdf: description/desk_arm.urdf", f"urdf: {urdf}"))
    with pytest.raises(SimulationError, match="turret_link has a shape that is no box"):
        world_sdf(load_robot(robot_file), "push", robot_file)


@pytest.mark.skipif(shutil.which("ign") is None, reason="needs Debian's ignition-tools and libsdformat-dev")
@pytest.mark.parametrize("version", ["harmonic", "fortress"])
@pytest.mark.parametrize("task", TASKS)
def test_gazebos_own_parser_takes_the_world(task: str, version: str, tmp_path: Path) -> None:
    check_sdf(world_sdf(ROBOT, task, "desk_arm", version), tmp_path)  # type: ignore[arg-type]


def check_sdf(text: str, folder: Path) -> None:
    file = folder / "world.sdf"
    file.write_text(text)
    done = subprocess.run(["ign", "sdf", "-k", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert "Valid." in done.stdout, done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr


@pytest.fixture
def controllers(tmp_path: Path) -> Path:
    file = tmp_path / "controllers.yaml"
    file.write_text(yaml.safe_dump(controller_parameters(ROBOT)))
    return file


@pytest.mark.parametrize(("version", "plugin"), PLUGINS.items())
def test_under_ros2_control_its_plugin_replaces_gazebos_own(version: str, plugin: Any, controllers: Path) -> None:
    given = world(version=version, controllers=controllers, namespace="left").find("model[@name='desk_arm']")
    assert given is not None
    (found,) = given.iterfind("plugin")
    assert (found.get("filename"), found.get("name")) == (plugin.filename, plugin.system)
    assert (found.findtext("parameters"), found.findtext("ros/namespace")) == (str(controllers), "left")
    rows = bridge_table(ROBOT, "push", "desk_arm", ros2_control=True)
    assert {row["direction"] for row in rows} == {"GZ_TO_ROS"}
    assert "joint_states" not in {row["ros_topic_name"] for row in rows}


@pytest.mark.parametrize(("version", "commanded"), [("harmonic", 7), ("fortress", 8)])
def test_the_tagged_urdf_has_every_joint_and_the_finger_that_mimics(version: Any, commanded: int) -> None:
    control = ElementTree.fromstring(tagged_urdf(ROBOT, urdf_path(ROBOT), version)).find("ros2_control")
    assert control is not None
    assert control.findtext("hardware/plugin") == PLUGINS[version].hardware
    assert [joint.get("name") for joint in control.iterfind("joint")] == [*ROBOT.joint_names, "right_finger"]
    assert len(control.findall("joint/command_interface[@name='position']")) == commanded
    assert len(control.findall("joint/state_interface")) == 16
    assert [p.text for p in control.iterfind("joint/param")] == ([] if commanded == 7 else ["gripper", "1"])


def test_a_urdf_that_lacks_a_commanded_joint_gets_no_tags(tmp_path: Path) -> None:
    urdf = tmp_path / "arm.urdf"
    urdf.write_text(urdf_path(ROBOT).read_text().replace('"elbow"', '"knee"'))
    with pytest.raises(SimulationError, match=r"arm\.urdf has no joint elbow"):
        tagged_urdf(ROBOT, urdf, "harmonic")


def test_controllers_get_the_robots_joints_in_any_namespace() -> None:
    robot = load_robot("ur5e")
    given = controller_parameters(robot)
    controllers = {name: parameters["ros__parameters"] for name, parameters in given.items()}
    assert controllers["/**/joint_trajectory_controller"]["joints"] == list(robot.joint_names)
    assert set(CONTROLLERS) <= set(controllers["/**/controller_manager"])


@pytest.mark.skipif(shutil.which("ign") is None, reason="needs Debian's ignition-tools and libsdformat-dev")
@pytest.mark.parametrize("version", PLUGINS)
def test_gazebos_own_parser_takes_the_world_under_ros2_control(version: str, controllers: Path, tmp_path: Path) -> None:
    check_sdf(world_sdf(ROBOT, "push", "desk_arm", version, controllers=controllers), tmp_path)  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("check_urdf") is None, reason="needs Debian's liburdfdom-tools")
@pytest.mark.parametrize("version", PLUGINS)
def test_the_urdf_tools_take_the_tagged_arm(version: Any, tmp_path: Path) -> None:
    file = tmp_path / "arm.urdf"
    file.write_text(tagged_urdf(ROBOT, urdf_path(ROBOT), version))
    check_urdf(file)


@pytest.mark.skipif(shutil.which("check_urdf") is None, reason="needs Debian's liburdfdom-tools")
def test_the_urdf_tools_take_the_arm() -> None:
    check_urdf(urdf_path(ROBOT))


def check_urdf(file: Path) -> None:
    done = subprocess.run(["check_urdf", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Successfully Parsed XML" in done.stdout
