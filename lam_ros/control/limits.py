"""Motion limits: from the last command and a request to a command that the joints may follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lam_ros.config import RobotConfig


@dataclass(frozen=True)
class MotionLimits:
    """Limits of J joints, float64 (J,): positions in rad or m, and per s and s²."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def of(cls, robot: RobotConfig) -> MotionLimits:
        lower, upper = robot.position_limits
        return cls(lower, upper, robot.velocity_limits, robot.acceleration_limits)


def stoppable_speed(distance: np.ndarray, deceleration: np.ndarray, dt_s: float) -> np.ndarray:
    """The highest speed v for one step of dt after which the joint can still stop within ``distance``.

    A step covers v·dt and braking v²/(2a); v is the positive root of v·dt + v²/(2a) = distance. Whatever the lengths
    of the steps that follow, braking with ``deceleration`` then stays within what is left.
    """
    room = np.maximum(distance, 0.0)
    speed: np.ndarray = deceleration * (np.sqrt(dt_s**2 + 2.0 * room / deceleration) - dt_s)
    return speed


def limit_step(
    last: np.ndarray, velocity: np.ndarray, request: np.ndarray, limits: MotionLimits, dt_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """One step from the last command towards a request, within position, velocity and acceleration limits.

    The step never goes faster than it could stop at the request, so the arm arrives without overshoot.

    Args:
        last: the last command (J,).
        velocity: of the last step (J,).
        request: wanted positions (J,), finite.
        dt_s: time of this step, above 0.

    Returns:
        The new command (J,) and the velocity of this step (J,).
    """
    goal = np.clip(request, limits.lower, limits.upper)
    way = goal - last
    speed = np.minimum(stoppable_speed(np.abs(way), limits.acceleration, dt_s), limits.velocity)
    wanted = np.sign(way) * np.minimum(np.abs(way) / dt_s, speed)
    change = limits.acceleration * dt_s
    new_velocity = np.clip(wanted, velocity - change, velocity + change)
    # An arm that was found outside its limits is brought back at its own speed, not thrown to the limit.
    inner, outer = np.minimum(last, limits.lower), np.maximum(last, limits.upper)
    command = np.clip(last + new_velocity * dt_s, inner, outer)
    return command, (command - last) / dt_s
