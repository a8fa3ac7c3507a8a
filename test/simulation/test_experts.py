"""The scripted experts succeed at their tasks, within the robot's limits."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.config import RobotConfig, urdf_path
from lam_ros.control.kinematics import Kinematics
from lam_ros.errors import SimulationError
from lam_ros.simulation.experts import EXPERTS, Expert, make_expert
from lam_ros.simulation.simulation import Simulation
from lam_ros.simulation.tasks import TASKS


@pytest.fixture
def arm(robot: RobotConfig) -> Kinematics:
    return Kinematics(urdf_path(robot), robot.joint_names)


def perform(simulation: Simulation, expert: Expert, seed: int, disturbance: float = 0.0) -> list[np.ndarray]:
    simulation.reset(seed, disturbance)
    expert.begin(seed)
    targets = []
    while not simulation.is_over:
        targets.append(expert.act(simulation.state, simulation.objects))
        simulation.step(targets[-1])
    return targets


@pytest.mark.parametrize("disturbance", [0.0, 0.02])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_expert_succeeds(robot: RobotConfig, arm: Kinematics, task: str, disturbance: float) -> None:
    simulation, expert = Simulation(robot, task), make_expert(task, robot, arm)
    failed = []
    for seed in range(100, 106):
        perform(simulation, expert, seed, disturbance)
        if not simulation.has_succeeded:
            failed.append(seed)
    assert failed == []


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_expert_repeats_itself_within_the_limits(robot: RobotConfig, arm: Kinematics, task: str) -> None:
    simulation, expert = Simulation(robot, task), make_expert(task, robot, arm)
    first, second = perform(simulation, expert, 7), perform(simulation, expert, 7)
    np.testing.assert_array_equal(first, second)
    lower, upper = robot.position_limits
    assert first[0].dtype == np.float32
    assert np.all((np.array(first) >= lower - 1e-6) & (np.array(first) <= upper + 1e-6))
    other = perform(simulation, expert, 8)
    assert not np.array_equal(first[:20], other[:20])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_target_is_at_most_one_tick_of_travel_away(robot: RobotConfig, arm: Kinematics, task: str) -> None:
    simulation, expert = Simulation(robot, task), make_expert(task, robot, arm)
    simulation.reset(3)
    expert.begin(3)
    while not simulation.is_over:
        state = simulation.state
        target = expert.act(state, simulation.objects)
        assert np.all(np.abs(target - state) <= robot.velocity_limits / robot.policy.rate_hz + 1e-6)
        simulation.step(target)


def test_nobody_knows_an_unknown_task(robot: RobotConfig, arm: Kinematics) -> None:
    with pytest.raises(SimulationError, match=r"no expert knows the task 'fold'; .* reach, push, pick_place"):
        make_expert("fold", robot, arm)
    assert EXPERTS.keys() == TASKS.keys()
