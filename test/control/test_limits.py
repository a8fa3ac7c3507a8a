"""Motion limits: never beyond position, velocity or acceleration, and no overshoot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_ros.config import RobotConfig
from lam_ros.control.limits import MotionLimits, limit_step, stoppable_speed

TOLERANCE = 1e-9
LIMITS = MotionLimits(
    lower=np.array([-2.6, 0.0]),
    upper=np.array([2.6, 0.035]),
    velocity=np.array([2.5, 0.2]),
    acceleration=np.array([25.0, 4.0]),
)
PLACES = st.tuples(st.floats(-2.6, 2.6), st.floats(0.0, 0.035)).map(np.array)
WISHES = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(np.array)
STEPS_S = st.floats(0.001, 0.15)


def assert_within_limits(last: np.ndarray, velocity: np.ndarray, new: np.ndarray, dt_s: float) -> np.ndarray:
    speed = (new - last) / dt_s
    assert np.all(new >= LIMITS.lower - TOLERANCE)
    assert np.all(new <= LIMITS.upper + TOLERANCE)
    assert np.all(np.abs(speed) <= LIMITS.velocity * (1 + 1e-6))
    assert np.all(np.abs(speed - velocity) <= LIMITS.acceleration * dt_s * (1 + 1e-6) + 1e-9)
    return speed


def test_limits_are_those_of_the_robot(robot: RobotConfig) -> None:
    limits = MotionLimits.of(robot)
    assert limits.lower[0] == -2.6
    assert limits.upper[-1] == 0.035
    assert limits.velocity[3] == 3.0
    assert limits.acceleration[-1] == 4.0


@settings(max_examples=60, deadline=None)
@given(start=PLACES, wishes=st.lists(WISHES, min_size=1, max_size=40), dt_s=STEPS_S)
def test_any_wishes_at_a_steady_rate_stay_within_every_limit(
    start: np.ndarray, wishes: list[np.ndarray], dt_s: float
) -> None:
    position, velocity = start, np.zeros(2)
    for wish in wishes:
        new, new_velocity = limit_step(position, velocity, wish, LIMITS, dt_s)
        speed = assert_within_limits(position, velocity, new, dt_s)
        np.testing.assert_allclose(new_velocity, speed, atol=1e-9)
        position, velocity = new, new_velocity


@settings(max_examples=100, deadline=None)
@given(start=PLACES, wishes=st.lists(st.tuples(WISHES, STEPS_S), min_size=1, max_size=40))
def test_any_wishes_at_an_unsteady_rate_stay_within_every_limit(
    start: np.ndarray, wishes: list[tuple[np.ndarray, float]]
) -> None:
    position, velocity = start, np.zeros(2)
    for wish, dt_s in wishes:
        new, new_velocity = limit_step(position, velocity, wish, LIMITS, dt_s)
        assert_within_limits(position, velocity, new, dt_s)
        position, velocity = new, new_velocity


@settings(max_examples=60, deadline=None)
@given(start=PLACES, goal=PLACES, dt_s=st.floats(0.002, 0.1))
def test_it_arrives_at_the_request_without_overshoot(start: np.ndarray, goal: np.ndarray, dt_s: float) -> None:
    position, velocity = start, np.zeros(2)
    direction = np.sign(goal - start)
    furthest_s = np.max(np.abs(goal - start) / LIMITS.velocity + 2 * LIMITS.velocity / LIMITS.acceleration)
    for _ in range(int(furthest_s / dt_s) + 20):
        position, velocity = limit_step(position, velocity, goal, LIMITS, dt_s)
        assert np.all((goal - position) * direction >= -TOLERANCE)
    np.testing.assert_allclose(position, goal, atol=1e-6)
    np.testing.assert_allclose(velocity, 0.0, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(start=PLACES, goal=PLACES, steps_s=st.lists(STEPS_S, min_size=5, max_size=60))
def test_it_does_not_overshoot_when_steps_come_unsteadily(
    start: np.ndarray, goal: np.ndarray, steps_s: list[float]
) -> None:
    position, velocity = start, np.zeros(2)
    direction = np.sign(goal - start)
    for dt_s in steps_s:
        position, velocity = limit_step(position, velocity, goal, LIMITS, dt_s)
        assert np.all((goal - position) * direction >= -1e-6)


def test_an_arm_found_outside_its_limits_comes_back_at_a_limited_speed() -> None:
    outside, dt_s = np.array([3.0, 0.02]), 0.02
    new, velocity = limit_step(outside, np.zeros(2), outside, LIMITS, dt_s)
    assert 3.0 - 2.5 * dt_s <= new[0] < 3.0
    assert abs(velocity[0]) <= 25.0 * dt_s + TOLERANCE


@pytest.mark.parametrize("distance", [1e-6, 0.01, 0.4, 3.0])
@pytest.mark.parametrize("dt_s", [0.001, 0.02, 0.1])
def test_stoppable_speed_leaves_room_for_one_step_and_braking(distance: float, dt_s: float) -> None:
    acceleration = 5.0
    (speed,) = stoppable_speed(np.array([distance]), np.array([acceleration]), dt_s)
    assert speed > 0
    assert speed * dt_s + speed**2 / (2 * acceleration) == pytest.approx(distance, rel=1e-6)


def test_stoppable_speed_is_zero_where_there_is_no_way_left() -> None:
    speed = stoppable_speed(np.array([0.0, -1.0]), np.array([5.0, 5.0]), 0.02)
    np.testing.assert_allclose(speed, 0.0, atol=1e-15)
