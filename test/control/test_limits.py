"""Motion limits: never beyond position, velocity, acceleration or jerk, no overshoot, always able to stop inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_ros.config import RobotConfig, load_robot, urdf_path
from lam_ros.control.limits import Motion, MotionLimiter, MotionLimits
from lam_ros.errors import ConfigError, LimitError

LIMITS = MotionLimits(
    lower=np.array([-2.6, 0.0]),
    upper=np.array([2.6, 0.035]),
    velocity=np.array([2.5, 0.2]),
    acceleration=np.array([25.0, 4.0]),
    jerk=np.array([1250.0, 200.0]),
)
PLACES = st.tuples(st.floats(-2.6, 2.6), st.floats(0.0, 0.035)).map(np.array)
WISHES = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(np.array)
STEPS_S = st.floats(0.001, 0.15)


@pytest.fixture
def limiter() -> MotionLimiter:
    return MotionLimiter(LIMITS)


def test_limits_are_those_of_the_robot(robot: RobotConfig) -> None:
    limits = MotionLimits.of(robot)
    assert limits.lower[0] == -2.6
    assert limits.upper[-1] == 0.035
    assert limits.velocity[3] == 3.0
    assert limits.acceleration[-1] == 4.0
    assert limits.jerk[-1] == 4.0 / 0.02  # full acceleration within 20 ms, where the YAML says nothing


def robot_with(tmp_path: Path, old: str, new: str) -> tuple[RobotConfig, Path]:
    """The desk arm with a changed line, its URDF beside it."""
    text = Path("config/desk_arm.yaml").read_text()
    assert old in text
    file = tmp_path / "arm.yaml"
    file.write_text(text.replace(old, new).replace("description/desk_arm.urdf", str(urdf_path(load_robot("desk_arm")))))
    return load_robot(file), file


def test_the_urdf_narrows_what_the_yaml_allows(tmp_path: Path) -> None:
    robot, file = robot_with(tmp_path, "[-2.6, 2.6], velocity: 2.5", "[-9.0, 1.0], velocity: 99.0")
    limits = MotionLimits.of(robot, file)
    assert -2.7 < limits.lower[0] < -2.5  # the URDF's
    assert limits.upper[0] == 1.0  # the YAML's
    assert limits.velocity[0] < 10.0


def test_limits_that_leave_no_room_are_an_error(tmp_path: Path) -> None:
    robot, file = robot_with(tmp_path, "[-2.6, 2.6]", "[100.0, 120.0]")
    with pytest.raises(ConfigError, match=r"joint waist: the robot YAML allows 100 to 120, .*nothing is left"):
        MotionLimits.of(robot, file)


def test_a_joint_that_the_urdf_lacks_is_an_error(tmp_path: Path) -> None:
    robot, file = robot_with(tmp_path, "  waist:", "  waste:")
    with pytest.raises(ConfigError, match=r"desk_arm\.urdf has no joint waste"):
        MotionLimits.of(robot, file)


def assert_within_limits(before: Motion, after: Motion, dt_s: float) -> None:
    """By differences of what is sent, and by the bounds of what it is sampled from."""
    assert np.all(after.position >= LIMITS.lower - 1e-7)
    assert np.all(after.position <= LIMITS.upper + 1e-7)
    assert np.all(np.abs(after.position - before.position) <= LIMITS.velocity * dt_s * (1 + 1e-6) + 1e-9)
    assert np.all(np.abs(after.velocity - before.velocity) <= LIMITS.acceleration * dt_s * (1 + 1e-6) + 1e-9)
    assert np.all(np.abs(after.acceleration - before.acceleration) <= LIMITS.jerk * dt_s * (1 + 1e-6) + 1e-6)
    assert np.all(np.abs(after.velocity) <= LIMITS.velocity * (1 + 1e-6))
    assert np.all(np.abs(after.acceleration) <= LIMITS.acceleration * (1 + 1e-6))


@settings(max_examples=200, deadline=None)
@given(
    start=PLACES,
    wishes=st.lists(st.tuples(WISHES, STEPS_S, st.sampled_from([1.0, 1.0, 0.3, 0.1])), min_size=1, max_size=40),
)
def test_any_wishes_at_an_unsteady_rate_stay_within_every_limit(
    start: np.ndarray, wishes: list[tuple[np.ndarray, float, float]]
) -> None:
    limiter, motion = MotionLimiter(LIMITS), Motion.at_rest(start)
    for wish, dt_s, speed in wishes:
        after = limiter.towards(motion, wish, dt_s, speed)
        assert_within_limits(motion, after, dt_s)
        motion = after


@settings(max_examples=200, deadline=None)
@given(start=PLACES, wishes=st.lists(st.tuples(PLACES, STEPS_S), min_size=1, max_size=20), step_s=STEPS_S)
def test_from_wherever_it_is_it_can_stop_inside_its_positions(
    start: np.ndarray, wishes: list[tuple[np.ndarray, float]], step_s: float
) -> None:
    limiter, motion = MotionLimiter(LIMITS), Motion.at_rest(start)
    for wish, dt_s in wishes:
        motion = limiter.towards(motion, wish, dt_s)
        (rest,) = limiter.stopping(motion)
        assert np.all((rest >= LIMITS.lower - 1e-7) & (rest <= LIMITS.upper + 1e-7))
    for _ in range(400):
        after = limiter.braking(motion, step_s)
        assert_within_limits(motion, after, step_s)
        motion = after
        if motion.rests:
            break
    assert motion.rests
    np.testing.assert_allclose(motion.position, rest, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(start=PLACES, goal=PLACES, steps_s=st.lists(STEPS_S, min_size=5, max_size=60))
def test_it_arrives_at_the_request_without_overshoot(start: np.ndarray, goal: np.ndarray, steps_s: list[float]) -> None:
    limiter, motion = MotionLimiter(LIMITS), Motion.at_rest(start)
    direction = np.sign(goal - start)
    for dt_s in steps_s:
        motion = limiter.towards(motion, goal, dt_s)
        assert np.all((goal - motion.position) * direction >= -1e-7)
    for _ in range(30):
        motion = limiter.towards(motion, goal, 0.1)
    np.testing.assert_allclose(motion.position, goal, atol=1e-6)
    assert motion.rests


def test_a_slower_speed_is_kept(limiter: MotionLimiter) -> None:
    motion = Motion.at_rest(np.array([-2.0, 0.0]))
    for _ in range(50):
        motion = limiter.towards(motion, np.array([2.0, 0.03]), 0.02, speed=0.1)
    assert motion.velocity[0] == pytest.approx(0.25)


def test_an_arm_found_outside_its_limits_comes_back_at_a_limited_speed(limiter: MotionLimiter) -> None:
    motion = Motion.at_rest(np.array([3.0, 0.02]))
    first = limiter.towards(motion, motion.position, 0.02)
    assert 3.0 - 2.5 * 0.02 <= first.position[0] < 3.0
    for _ in range(100):
        motion = limiter.towards(motion, np.array([9.0, 0.02]), 0.02)
    np.testing.assert_allclose(motion.position, [2.6, 0.02], atol=1e-6)


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (Motion(np.array([0.2, 0.0]), np.zeros(2), np.zeros(2)), "velocity"),
        (Motion(np.zeros(2), np.array([2.6, 0.0]), np.zeros(2)), "velocity, acceleration"),
        (Motion(np.zeros(2), np.zeros(2), np.array([24.0, 0.0])), "jerk"),
        (Motion(np.array([np.nan, 0.0]), np.zeros(2), np.zeros(2)), "position, velocity"),
        (Motion(np.array([0.0, -1e-4]), np.zeros(2), np.zeros(2)), "position"),
    ],
)
def test_a_step_that_leaves_a_limit_is_not_sent_whoever_computed_it(
    limiter: MotionLimiter, after: Motion, what: str
) -> None:
    with pytest.raises(LimitError, match=f"leave the limits of {what}; it is not sent"):
        limiter.check(Motion.at_rest(np.zeros(2)), after, 0.01)


def test_a_motion_that_is_not_finite_is_an_error(limiter: MotionLimiter) -> None:
    broken = Motion(np.array([np.nan, 0.0]), np.zeros(2), np.zeros(2))
    with pytest.raises(LimitError):
        limiter.towards(broken, np.zeros(2), 0.02)


STEP_S = 0.01
RESTING = Motion.at_rest((LIMITS.lower + LIMITS.upper) / 2)


@pytest.mark.parametrize(
    ("before", "change", "left"),
    [
        (RESTING, {}, ""),
        (Motion.at_rest(LIMITS.upper), {"position": 0.001}, "position"),
        (Motion.at_rest(LIMITS.lower), {"position": -0.001}, "position"),
        (Motion.at_rest(LIMITS.upper + 0.1), {"position": -0.001}, ""),  # found outside, it comes back
        (Motion.at_rest(LIMITS.upper + 0.1), {"position": 0.001}, "position"),
        (RESTING, {"position": 1.01 * STEP_S * LIMITS.velocity}, "velocity"),
        (RESTING, {"velocity": 1.01 * STEP_S * LIMITS.acceleration}, "acceleration"),
        (RESTING, {"acceleration": 1.01 * STEP_S * LIMITS.jerk}, "jerk"),
        (RESTING, {"position": float("nan")}, "position, velocity"),
    ],
)
def test_a_step_is_checked_however_it_was_found(
    before: Motion, change: dict[str, float | np.ndarray], left: str
) -> None:
    after = Motion(
        before.position + change.get("position", 0.0),
        before.velocity + change.get("velocity", 0.0),
        before.acceleration + change.get("acceleration", 0.0),
    )
    limiter = MotionLimiter(LIMITS)
    if not left:
        limiter.check(before, after, STEP_S)
        return
    with pytest.raises(LimitError, match=f"limits of {left}; it is not sent"):
        limiter.check(before, after, STEP_S)


def test_what_the_solver_finds_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise LimitError("checked.")

    monkeypatch.setattr(MotionLimiter, "check", refuse)
    with pytest.raises(LimitError, match="checked"):
        MotionLimiter(LIMITS).towards(RESTING, LIMITS.upper, STEP_S)
