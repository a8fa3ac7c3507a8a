"""The physics world agrees with the URDF, and the URDF with physics."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest

from lam_ros.config import RobotConfig, load_robot, urdf_path
from lam_ros.errors import SimulationError
from lam_ros.simulation.world import build_arm

ROOT = ElementTree.parse(urdf_path(load_robot("desk_arm"))).getroot()
LINKS = {link.get("name", ""): link for link in ROOT.iter("link") if link.find("inertial") is not None}
JOINTS = {joint.get("name", ""): joint for joint in ROOT.iter("joint") if joint.get("type") != "fixed"}


def numbers(element: ElementTree.Element, path: str, attribute: str) -> list[float]:
    found = element.find(path)
    assert found is not None
    return [float(number) for number in found.get(attribute, "").split()]


def mass_of(link: ElementTree.Element) -> float:
    return numbers(link, "inertial/mass", "value")[0]


def inertia_of(link: ElementTree.Element) -> np.ndarray:
    """The tensor (3, 3) about the centre of mass, in kg·m²."""
    xx, xy, xz, yy, yz, zz = (
        numbers(link, "inertial/inertia", key)[0] for key in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
    )
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    robot = load_robot("desk_arm")
    return build_arm(robot, urdf_path(robot)).compile()


@pytest.mark.parametrize("name", LINKS)
def test_every_link_keeps_its_mass_and_inertia(model: mujoco.MjModel, name: str) -> None:
    body = model.body(name)
    assert body.mass[0] == pytest.approx(mass_of(LINKS[name]))
    principal = np.sort(np.linalg.eigvalsh(inertia_of(LINKS[name])))
    np.testing.assert_allclose(np.sort(body.inertia), principal, rtol=1e-4)
    np.testing.assert_allclose(body.ipos, numbers(LINKS[name], "inertial/origin", "xyz"), atol=1e-9)


def test_the_arm_weighs_what_its_links_weigh(model: mujoco.MjModel) -> None:
    assert model.body_mass.sum() == pytest.approx(sum(mass_of(link) for link in LINKS.values()))


@pytest.mark.parametrize("name", LINKS)
def test_inertias_could_be_those_of_a_body(name: str) -> None:
    smallest, middle, largest = np.sort(np.linalg.eigvalsh(inertia_of(LINKS[name])))
    assert smallest > 0
    assert smallest + middle >= largest * (1 - 1e-6)


@pytest.mark.parametrize("name", LINKS)
def test_inertias_are_those_of_the_solid_shapes(name: str) -> None:
    link = LINKS[name]
    mass, shape = mass_of(link), link.find("visual/geometry")
    assert shape is not None
    if shape.find("box") is not None:
        x, y, z = numbers(shape, "box", "size")
        diagonal = mass / 12 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])
    else:
        radius, length = numbers(shape, "cylinder", "radius")[0], numbers(shape, "cylinder", "length")[0]
        across, along = mass * (3 * radius**2 + length**2) / 12, mass * radius**2 / 2
        lies_along_x = numbers(link, "visual/origin", "rpy")[1] != 0
        diagonal = np.array([along, across, across] if lies_along_x else [across, across, along])
    np.testing.assert_allclose(inertia_of(link), np.diag(diagonal), rtol=2e-3, atol=1e-9)
    assert numbers(link, "visual/origin", "xyz") == numbers(link, "inertial/origin", "xyz")


@pytest.mark.parametrize("name", JOINTS)
def test_every_joint_keeps_its_limits(model: mujoco.MjModel, name: str) -> None:
    (lower,), (upper,) = numbers(JOINTS[name], "limit", "lower"), numbers(JOINTS[name], "limit", "upper")
    np.testing.assert_allclose(model.joint(name).range, [lower, upper])
    assert model.jnt_limited[model.joint(name).id]


def test_the_robot_file_stays_within_the_urdf(robot: RobotConfig) -> None:
    for name, joint in robot.joints.items():
        assert joint.position == (
            numbers(JOINTS[name], "limit", "lower")[0],
            numbers(JOINTS[name], "limit", "upper")[0],
        )
        assert joint.velocity <= numbers(JOINTS[name], "limit", "velocity")[0]
        assert joint.unit == ("m" if JOINTS[name].get("type") == "prismatic" else "rad")


def test_every_joint_of_the_robot_has_a_servo(model: mujoco.MjModel, robot: RobotConfig) -> None:
    assert [model.actuator(i).name for i in range(model.nu)] == list(robot.joint_names)


def test_the_fingers_move_together(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    data.ctrl[model.actuator("gripper").id] = 0.03
    mujoco.mj_step(model, data, 800)
    assert data.joint("gripper").qpos[0] == pytest.approx(0.03, abs=3e-3)
    assert data.joint("right_finger").qpos[0] == pytest.approx(data.joint("gripper").qpos[0], abs=1e-3)


def test_cameras_look_where_the_optical_frames_do(model: mujoco.MjModel, robot: RobotConfig) -> None:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for name, camera in robot.cameras.items():
        frame = data.body(camera.frame_id).xmat.reshape(3, 3)
        seen = data.cam(name).xmat.reshape(3, 3)
        np.testing.assert_allclose(-seen[:, 2], frame[:, 2], atol=1e-6)
        np.testing.assert_allclose(-seen[:, 1], frame[:, 1], atol=1e-6)


def test_a_joint_or_camera_frame_that_the_urdf_lacks_is_named(robot: RobotConfig) -> None:
    stranger = dataclasses.replace(robot, joints={**robot.joints, "hip": robot.joints["waist"]})
    with pytest.raises(SimulationError, match=r"the URDF has no joint hip; it has .*waist"):
        build_arm(stranger, urdf_path(robot))
    front = dataclasses.replace(robot.cameras["front"], frame_id="moon")
    with pytest.raises(SimulationError, match="camera front: the URDF has no link 'moon'; set its frame_id"):
        build_arm(dataclasses.replace(robot, cameras={"front": front}), urdf_path(robot))


def test_a_program_that_rendered_ends_in_silence() -> None:
    code = "from lam_ros.simulation.simulation import Simulation; s = Simulation.of('desk_arm', 'reach'); s.observe()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("said", "taken"), [("", "egl"), ("disable", "disable")])
def test_a_program_draws_without_a_display_unless_told_how(said: str, taken: str) -> None:
    program = "import os; from lam_ros.control import arm_model; print(os.environ['MUJOCO_GL'])"
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    environment |= {"MUJOCO_GL": said} if said else {}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert ended.stdout.strip() == taken
