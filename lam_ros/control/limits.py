"""Motion limits: from where the arm was sent and a request to where it may be sent next.

What is sent are samples of one continuous motion, whose position, velocity, acceleration and jerk never leave their
limits, and from which the arm can always stop inside its positions. Ruckig computes the motion; whether it keeps the
limits is checked here, step by step, before anything leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Synchronization, Trajectory

from lam_ros.config import RobotConfig, urdf_path
from lam_ros.errors import ConfigError, LimitError
from lam_ros.urdf import moving_joints, read_urdf

ROUNDING = 1e-6  # share of a limit that arithmetic may be off


@dataclass(frozen=True)
class MotionLimits:
    """Limits of J joints, float64 (J,): positions in rad or m, and per s, s² and s³."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    @classmethod
    def of(cls, robot: RobotConfig, robot_file: str | Path | None = None) -> MotionLimits:
        """The robot YAML's, and the URDF's where they are narrower.

        Args:
            robot_file: the YAML the robot came from.

        Raises:
            ConfigError: the URDF is not there or cannot be read, or the two leave a joint no room.
        """
        lower, upper = robot.position_limits
        limits = cls(lower, upper, robot.velocity_limits, robot.acceleration_limits, robot.jerk_limits)
        return limits.within_urdf(robot, urdf_path(robot, robot_file)) if robot.urdf else limits

    @property
    def braking_s(self) -> float:
        """How long the slowest joint takes from full speed to rest, whatever its acceleration is as it begins."""
        return float(np.max(self.velocity / self.acceleration + 2.0 * self.acceleration / self.jerk))

    def far_outside(self, position: np.ndarray) -> int | None:
        """The first joint that is beyond its limits by more than their width, where no arm can be: another unit."""
        far = ~(np.maximum(self.lower - position, position - self.upper) <= self.upper - self.lower)  # so that NaN is
        return int(np.argmax(far)) if np.any(far) else None

    def within_urdf(self, robot: RobotConfig, urdf: Path) -> MotionLimits:
        """These limits, narrowed to the URDF's; raises ConfigError as ``of``."""
        joints = moving_joints(read_urdf(urdf))
        lower, upper, velocity = self.lower.copy(), self.upper.copy(), self.velocity.copy()
        for i, name in enumerate(robot.joint_names):
            if name not in joints:
                raise ConfigError(f"{urdf} has no joint {name} that moves, which the robot YAML names.")
            allowed = joints[name]
            if allowed.position is not None:
                lower[i], upper[i] = max(lower[i], allowed.position[0]), min(upper[i], allowed.position[1])
                if not lower[i] < upper[i]:
                    raise ConfigError(
                        f"joint {name}: the robot YAML allows {self.lower[i]:g} to {self.upper[i]:g}, {urdf.name} "
                        f"{allowed.position[0]:g} to {allowed.position[1]:g}; nothing is left. Check zero and unit."
                    )
            if allowed.velocity is not None and allowed.velocity > 0:
                velocity[i] = min(velocity[i], allowed.velocity)
        return replace(self, lower=lower, upper=upper, velocity=velocity)


@dataclass(frozen=True)
class Motion:
    """Where J joints were sent and how they move there: float64 (J,) each, per s and s²."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def at_rest(cls, position: np.ndarray) -> Motion:
        return cls(np.array(position, dtype=np.float64), np.zeros(len(position)), np.zeros(len(position)))

    @property
    def rests(self) -> bool:
        """Whether nothing moves any more, to a micrometre or microradian a second."""
        return bool(np.all(np.abs(self.velocity) <= 1e-6) and np.all(np.abs(self.acceleration) <= 1e-4))


class MotionLimiter:
    """Next steps of a motion within its limits: functions of their arguments alone."""

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        joints = len(limits.lower)
        self._solver, self._way = Ruckig(joints), Trajectory(joints)
        self._towards, self._braking = InputParameter(joints), InputParameter(joints)
        for given in (self._towards, self._braking):
            given.synchronization = Synchronization.No
            given.max_velocity = limits.velocity.tolist()
            given.max_acceleration = limits.acceleration.tolist()
            given.max_jerk = limits.jerk.tolist()
        self._braking.control_interface = ControlInterface.Velocity

    def towards(self, motion: Motion, goal: np.ndarray, dt_s: float, speed: float = 1.0) -> Motion:
        """The motion ``dt_s`` later on the fastest way to rest at a goal, each joint by itself.

        Args:
            goal: wanted positions (J,), finite; those beyond the limits mean the limits.
            dt_s: above 0.
            speed: share of the velocity limits to use, above 0 up to 1.

        Raises:
            LimitError: no such motion was found, or it does not keep the limits.
        """
        given = self._towards
        given.target_position = np.clip(goal, self.limits.lower, self.limits.upper).tolist()
        given.max_velocity = (self.limits.velocity * speed).tolist()
        return self._after(given, motion, dt_s)

    def braking(self, motion: Motion, dt_s: float) -> Motion:
        """The motion ``dt_s`` later if it stops as soon as it can.

        Raises:
            LimitError: as of ``towards``.
        """
        return self._after(self._braking, motion, dt_s)

    def stopping(self, motion: Motion, places: int = 1) -> np.ndarray:
        """Positions (places, J), at equal times, on its way to rest if it stopped now; the last is where it rests."""
        self._solve(self._braking, motion)
        times = self._way.duration * np.arange(1, places + 1) / places
        return np.array([self._way.at_time(time)[0] for time in times])

    def _solve(self, given: InputParameter, motion: Motion) -> None:
        given.current_position = motion.position.tolist()
        given.current_velocity = motion.velocity.tolist()
        given.current_acceleration = motion.acceleration.tolist()
        try:
            result = self._solver.calculate(given, self._way)
        except (RuckigError, ValueError) as error:  # refused, or ended with a code that has no name
            raise LimitError(f"no motion within the limits was found: {' '.join(str(error).split())}") from None
        if result not in (Result.Working, Result.Finished):
            raise LimitError(f"no motion within the limits was found ({result.name}).")

    def _after(self, given: InputParameter, motion: Motion, dt_s: float) -> Motion:
        self._solve(given, motion)
        found = Motion(*(np.array(values) for values in self._way.at_time(dt_s)[:3]))
        self.check(motion, found, dt_s)
        return found

    def check(self, before: Motion, after: Motion, dt_s: float) -> None:
        """Raises LimitError where a step leaves a limit, however it was found.

        A joint that was found beyond a limit may come back: it must only not go further out.
        """
        limits = self.limits
        slack = ROUNDING * (1.0 + np.abs(before.position))
        inside = (after.position >= np.minimum(limits.lower, before.position) - slack) & (
            after.position <= np.maximum(limits.upper, before.position) + slack
        )
        speed = np.abs(after.position - before.position) / dt_s
        change = np.abs(after.velocity - before.velocity) / dt_s
        jerk = np.abs(after.acceleration - before.acceleration) / dt_s
        kept = {
            "position": inside,
            "velocity": (speed <= limits.velocity * (1 + ROUNDING) + slack / dt_s)
            & (np.abs(after.velocity) <= limits.velocity * (1 + ROUNDING)),
            "acceleration": (change <= limits.acceleration * (1 + ROUNDING) + ROUNDING)
            & (np.abs(after.acceleration) <= limits.acceleration * (1 + ROUNDING)),
            "jerk": jerk <= limits.jerk * (1 + ROUNDING) + ROUNDING,
        }
        left = [name for name, fine in kept.items() if not np.all(fine)]  # what is not a number is not fine
        if left:
            raise LimitError(f"a step would leave the limits of {', '.join(left)}; it is not sent.")
