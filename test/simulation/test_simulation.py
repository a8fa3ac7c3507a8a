"""The embedded simulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.errors import SimulationError
from lam_ros.simulation.simulation import Simulation
from lam_ros.simulation.tasks import TASKS, make_task

Make = Callable[..., Simulation]


@pytest.fixture
def make(robot: RobotConfig) -> Iterator[Make]:
    made: list[Simulation] = []

    def build(task: str = "reach", robot: RobotConfig = robot) -> Simulation:
        made.append(Simulation(robot, task))
        return made[-1]

    yield build
    for simulation in made:
        simulation.close()


def trace(simulation: Simulation, seed: int, disturbance: float = 0.0) -> list[np.ndarray]:
    """States and last images of a short episode in which the arm swings."""
    simulation.reset(seed, disturbance)
    swing = np.array([0.1, -0.05, 0.05, 0.1, -0.1, 0.1, 0.002])
    states = []
    for tick in range(8):
        simulation.step(simulation.state + np.sin(tick) * swing)
        states.append(simulation.state)
    return [*states, *simulation.observe().images.values()]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_episode_depends_on_its_seed_alone(make: Make, task: str) -> None:
    used, fresh = make(task), make(task)
    trace(used, 1, disturbance=0.02)
    used.skip(2.0)
    for first, second in zip(trace(used, 5), trace(fresh, 5), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.allclose(trace(fresh, 6)[0], trace(used, 5)[0])
    assert {name: tuple(pose.position) for name, pose in used.objects.items()} != {
        name: tuple(pose.position) for name, pose in fresh.objects.items()
    }


def test_servo_disturbance_wanders_by_the_seed(make: Make) -> None:
    simulation = make()
    disturbed = trace(simulation, 3, disturbance=0.05)
    np.testing.assert_array_equal(disturbed[7], trace(simulation, 3, disturbance=0.05)[7])
    calm = trace(simulation, 3)
    assert np.abs(disturbed[7] - calm[7])[:6].max() > 1e-3


def test_time_goes_on_over_resets(make: Make) -> None:
    simulation = make()
    times = [simulation.now_ns]
    for action in (
        lambda: simulation.step(simulation.state),
        lambda: simulation.reset(4),
        lambda: simulation.advance(0.01),
        lambda: simulation.skip(0.5),
        lambda: simulation.reset(0),
        lambda: simulation.step(simulation.state),
    ):
        action()
        times.append(simulation.now_ns)
    np.testing.assert_array_equal(np.diff(times), [50_000_000, 0, 10_000_000, 500_000_000, 0, 50_000_000])
    assert simulation.elapsed_s == pytest.approx(0.05)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_arm_that_does_nothing_never_succeeds(make: Make, task: str) -> None:
    simulation = make(task)
    simulation.reset(2)
    home = simulation.state
    while not simulation.is_over:
        simulation.step(home)
    assert not simulation.has_succeeded
    assert simulation.elapsed_s == pytest.approx(simulation.task.time_limit_s)
    np.testing.assert_allclose(simulation.state[:6], home[:6], atol=0.02)


def put_on_goal(simulation: Simulation, height_m: float) -> None:
    cube = simulation._data.joint("cube")
    cube.qpos[:2] = next(pose for name, pose in simulation.objects.items() if name != "cube").position[:2]
    cube.qpos[2] = height_m
    cube.qvel[:] = 0.0


@pytest.mark.parametrize(("task", "height_m"), [("push", 0.025), ("pick_place", 0.03)])
def test_success_is_where_the_cube_stays(make: Make, task: str, height_m: float) -> None:
    simulation = make(task)
    simulation.reset(0)
    home = simulation.state
    put_on_goal(simulation, height_m)
    ticks = 0
    while not simulation.is_over:
        simulation.step(home)
        ticks += 1
    assert simulation.has_succeeded
    assert ticks == round(simulation.task.hold_s * 20)


def test_success_must_last(make: Make) -> None:
    simulation = make("push")
    simulation.reset(0)
    home = simulation.state
    put_on_goal(simulation, 0.025)
    for _ in range(8):
        simulation.step(home)
    simulation._data.joint("cube").qpos[:2] += 0.2
    for _ in range(8):
        simulation.step(home)
    assert not simulation.has_succeeded
    assert not simulation.is_over


def test_a_cube_that_is_held_is_not_yet_placed(make: Make) -> None:
    simulation = make("pick_place")
    model, data = simulation._model, simulation._data
    put_on_goal(simulation, 0.022)
    mujoco.mj_forward(model, data)
    assert simulation.task.is_done(model, data)
    data.joint("cube").qpos[:3] = data.body("left_finger_link").xipos
    mujoco.mj_forward(model, data)
    assert simulation.task._is_held(model, data)  # type: ignore[attr-defined]


def test_the_arm_follows_its_targets(make: Make) -> None:
    simulation = make()
    target = np.array([0.3, -0.2, 0.5, 0.2, 0.9, -0.3, 0.03])
    for _ in range(40):
        simulation.step(target)
    np.testing.assert_allclose(simulation.state, target, atol=0.02)
    np.testing.assert_allclose(simulation.velocity, 0.0, atol=0.02)


def test_the_last_target_holds_where_none_is_given(make: Make) -> None:
    simulation, other = make(), make()
    target = np.array([0.3, -0.2, 0.5, 0.2, 0.9, -0.3, 0.03])
    simulation.advance(0.1, target)
    simulation.advance(0.2)
    other.advance(0.1, target)
    other.advance(0.2, target)
    np.testing.assert_array_equal(simulation.state, other.state)


def test_images_have_the_sizes_of_the_robot_file(make: Make, robot: RobotConfig) -> None:
    cameras = {
        "front": dataclasses.replace(robot.cameras["front"], width=160, height=120),
        "wrist": dataclasses.replace(robot.cameras["wrist"], width=32, height=48),
    }
    wide = dataclasses.replace(robot, cameras=cameras)
    observation = make("push", wide).observe()
    assert observation.images["front"].shape == (120, 160, 3)
    assert observation.images["wrist"].shape == (48, 32, 3)
    for camera, image in observation.images.items():
        Contract.of(wide).validate_image(camera, image)
    assert all(image.std() > 10 for image in observation.images.values())


def test_the_front_camera_sees_the_red_marker_move(make: Make) -> None:
    simulation = make()
    centres, places = [], []
    for seed in range(6):
        simulation.reset(seed)
        image = simulation.render("front").astype(int)
        red = (image[..., 0] > 110) & (image[..., 1] < 70) & (image[..., 2] < 70)
        assert red.sum() > 10
        centres.append(np.argwhere(red).mean(0)[::-1])
        places.append(simulation.objects["red_marker"].position[:2])
    # The camera faces the base: what lies to the arm's left (+y) is seen to the right.
    columns, ys = np.array(centres)[:, 0], np.array(places)[:, 1]
    assert np.corrcoef(columns, ys)[0, 1] > 0.9


def test_an_unknown_task_lists_the_known_ones(robot: RobotConfig) -> None:
    with pytest.raises(SimulationError, match=r"there is no task 'fold'; .* reach, push, pick_place"):
        make_task("fold")
    with pytest.raises(SimulationError, match="there is no task 'fold'"):
        Simulation(robot, "fold")


def test_a_shipped_robot_is_known_by_name() -> None:
    assert Simulation.of("desk_arm", "push").robot.name == "desk_arm"
