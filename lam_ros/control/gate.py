"""The gate between whoever wants to drive and the arm. It knows no policy: limits, who may drive, and when to hold.

idle ──request──▶ driving ──request too old, e-stop, no joint states──▶ braking ──at rest──▶ holding
                     ▲                                                                          │
                     └──────────── request (starts from the measured positions) ────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from lam_ros.contract import NANOSECONDS, seconds_to_ns
from lam_ros.control.limits import MotionLimits, limit_step

AT_REST = 1e-6  # rad/s or m/s
FIRST_STEP_NS = 20_000_000  # after a pause nothing says how long the first step may take
SHORTEST_STEP_NS = 1_000  # requests that come at once share what one may move
LONG_AGO = -(2**62)


class Driver(str, Enum):
    """Who a command comes from; the names stand in ``lam/command``."""

    POLICY = "policy"
    TELEOP = "teleop"
    HOLD = "hold"


@dataclass(frozen=True)
class Request:
    """Joint targets (J,) that somebody wants, in the robot's order; ``stamp_ns`` is the image stamp it answers."""

    driver: Driver
    target: np.ndarray
    stamp_ns: int


@dataclass(frozen=True)
class Sent:
    """What goes to the robot: positions (J,), who drives, the stamp it answers (None for a hold)."""

    position: np.ndarray
    driver: Driver
    stamp_ns: int | None


class Gate:
    """Decides what is sent. Time is given with each call, in ns of any steady clock.

    Whole nanoseconds, because the same calls then give the same commands whenever the clock began.

    Args:
        limits: of the joints.
        staleness_s: a request or a joint state older than this no longer counts.
    """

    def __init__(self, limits: MotionLimits, staleness_s: float) -> None:
        self._limits = limits
        self._staleness_ns = seconds_to_ns(staleness_s)
        self.reset()
        self.is_stopped = False

    def reset(self) -> None:
        """Forget what was sent and measured, as at activation. The e-stop stays as it is."""
        self._measured: np.ndarray | None = None
        self._measured_at = LONG_AGO
        self._position: np.ndarray | None = None
        self._velocity = np.zeros_like(self._limits.lower)
        self._sent_at = LONG_AGO
        self._request_at = LONG_AGO
        self._teleop_at = LONG_AGO
        self.takeover = False
        self.refusal = "no request has come yet."
        self.driver = Driver.HOLD

    def measured(self, position: np.ndarray, now_ns: int) -> None:
        """Note measured joint positions (J,); values that are not finite count as no measurement."""
        if not np.isfinite(position).all():
            return
        self._measured, self._measured_at = np.asarray(position, dtype=np.float64), now_ns

    def estop(self) -> None:
        """Stop, and stay stopped until ``reset_estop``."""
        self.is_stopped = True

    def reset_estop(self) -> None:
        self.is_stopped = False

    def request(self, request: Request, now_ns: int) -> Sent | None:
        """A request arrived: what to send now, None if it is refused (``refusal`` says why)."""
        if request.driver is Driver.TELEOP:
            self._teleop_at = now_ns
        self.refusal = self._why_not(request, now_ns)
        if self.refusal:
            return None
        if self._position is None or now_ns - self._sent_at > self._staleness_ns:
            # After a pause the arm stands wherever it stands: begin there, at rest.
            assert self._measured is not None
            self._position, self._velocity = self._measured.copy(), np.zeros_like(self._measured)
            dt_ns = min(self._staleness_ns, FIRST_STEP_NS)
        else:
            dt_ns = max(now_ns - self._sent_at, SHORTEST_STEP_NS)
        self._request_at = now_ns
        self.driver = request.driver
        return self._step(request.target, dt_ns, now_ns, request.stamp_ns)

    def tick(self, now_ns: int) -> Sent | None:
        """The watchdog: brakes when nobody drives any more. What to send now, None when there is nothing to send."""
        if self._position is None:
            return None
        state_age = now_ns - self._measured_at
        drives = now_ns - self._request_at <= self._staleness_ns and state_age <= self._staleness_ns
        if drives and not self.is_stopped:
            return None
        if self.driver is not Driver.HOLD:
            self.refusal = (
                "the emergency stop is pressed."
                if self.is_stopped
                else f"joint states stopped {_seconds(state_age)} s ago."
                if state_age > self._staleness_ns
                else f"{self.driver.value} stopped {_seconds(now_ns - self._request_at)} s ago."
            )
            self.driver = Driver.HOLD
        elapsed = now_ns - self._sent_at
        if elapsed > 2 * self._staleness_ns:
            self._velocity[:] = 0.0  # nothing was commanded for so long that the arm stands
        if np.all(np.abs(self._velocity) <= AT_REST) or elapsed <= 0:
            return None
        # Braking: ask for the nearest place at which each joint can stand.
        coasting = self._velocity * np.abs(self._velocity) / (2.0 * self._limits.acceleration)
        return self._step(self._position + coasting, elapsed, now_ns, None)

    def _why_not(self, request: Request, now_ns: int) -> str:
        if self.is_stopped:
            return "the emergency stop is pressed; call lam/reset_estop when it is safe."
        if request.target.shape != self._limits.lower.shape or not np.isfinite(request.target).all():
            return f"a request of {request.driver.value} is not {len(self._limits.lower)} finite positions."
        if self._measured is None:
            return "no joint states have arrived yet; check the robot driver."
        if now_ns - self._measured_at > self._staleness_ns:
            return f"joint states stopped {_seconds(now_ns - self._measured_at)} s ago; check the robot driver."
        teleop_drives = self.takeover or now_ns - self._teleop_at <= self._staleness_ns
        if request.driver is Driver.POLICY and teleop_drives:
            return "a human is driving."
        return ""

    def _step(self, target: np.ndarray, dt_ns: int, now_ns: int, stamp_ns: int | None) -> Sent:
        assert self._position is not None
        self._position, self._velocity = limit_step(
            self._position, self._velocity, np.asarray(target, dtype=np.float64), self._limits, dt_ns / NANOSECONDS
        )
        self._sent_at = now_ns
        return Sent(self._position.copy(), self.driver, stamp_ns)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / NANOSECONDS:.2f}"
