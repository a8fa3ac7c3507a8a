"""The gate between whoever wants to drive and the arm. It knows no policy: limits, who may drive, and when to hold.

idle ──request──▶ driving ──request too old, e-stop, no joint states──▶ braking ──at rest──▶ holding
                     ▲                                                                          │
                     └──────────── request (starts from the measured positions) ────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from lam_ros.control.limits import MotionLimits, limit_step

AT_REST = 1e-6  # rad/s or m/s
SHORTEST_STEP_S = 1e-6  # requests that come at once share what one may move


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
    """Decides what is sent. Time is given with each call, in seconds of any steady clock.

    Args:
        limits: of the joints.
        staleness_s: a request or a joint state older than this no longer counts.
    """

    def __init__(self, limits: MotionLimits, staleness_s: float) -> None:
        self._limits = limits
        self._staleness_s = staleness_s
        self.reset()
        self.is_stopped = False

    def reset(self) -> None:
        """Forget what was sent and measured, as at activation. The e-stop stays as it is."""
        self._measured: np.ndarray | None = None
        self._measured_at = -np.inf
        self._position: np.ndarray | None = None
        self._velocity = np.zeros_like(self._limits.lower)
        self._sent_at = -np.inf
        self._request_at = -np.inf
        self._teleop_at = -np.inf
        self.takeover = False
        self.refusal = "no request has come yet."
        self.driver = Driver.HOLD

    def measured(self, position: np.ndarray, now_s: float) -> None:
        """Note measured joint positions (J,); values that are not finite count as no measurement."""
        if not np.isfinite(position).all():
            return
        self._measured, self._measured_at = np.asarray(position, dtype=np.float64), now_s

    def estop(self) -> None:
        """Stop, and stay stopped until ``reset_estop``."""
        self.is_stopped = True

    def reset_estop(self) -> None:
        self.is_stopped = False

    def request(self, request: Request, now_s: float) -> Sent | None:
        """A request arrived: what to send now, None if it is refused (``refusal`` says why)."""
        if request.driver is Driver.TELEOP:
            self._teleop_at = now_s
        self.refusal = self._why_not(request, now_s)
        if self.refusal:
            return None
        if self._position is None or now_s - self._sent_at > self._staleness_s:
            # After a pause the arm stands wherever it stands: begin there, at rest.
            assert self._measured is not None
            self._position, self._velocity = self._measured.copy(), np.zeros_like(self._measured)
            dt_s = min(self._staleness_s, 0.02)
        else:
            dt_s = max(now_s - self._sent_at, SHORTEST_STEP_S)
        self._request_at = now_s
        self.driver = request.driver
        return self._step(request.target, dt_s, now_s, request.stamp_ns)

    def tick(self, now_s: float) -> Sent | None:
        """The watchdog: brakes when nobody drives any more. What to send now, None when there is nothing to send."""
        if self._position is None:
            return None
        state_age = now_s - self._measured_at
        drives = now_s - self._request_at <= self._staleness_s and state_age <= self._staleness_s
        if drives and not self.is_stopped:
            return None
        if self.driver is not Driver.HOLD:
            self.refusal = (
                "the emergency stop is pressed."
                if self.is_stopped
                else f"joint states stopped {state_age:.2f} s ago."
                if state_age > self._staleness_s
                else f"{self.driver.value} stopped {now_s - self._request_at:.2f} s ago."
            )
            self.driver = Driver.HOLD
        elapsed = now_s - self._sent_at
        if elapsed > 2.0 * self._staleness_s:
            self._velocity[:] = 0.0  # nothing was commanded for so long that the arm stands
        if np.all(np.abs(self._velocity) <= AT_REST) or elapsed <= 0.0:
            return None
        # Braking: ask for the nearest place at which each joint can stand.
        coasting = self._velocity * np.abs(self._velocity) / (2.0 * self._limits.acceleration)
        return self._step(self._position + coasting, elapsed, now_s, None)

    def _why_not(self, request: Request, now_s: float) -> str:
        if self.is_stopped:
            return "the emergency stop is pressed; call lam/reset_estop when it is safe."
        if request.target.shape != self._limits.lower.shape or not np.isfinite(request.target).all():
            return f"a request of {request.driver.value} is not {len(self._limits.lower)} finite positions."
        if self._measured is None:
            return "no joint states have arrived yet; check the robot driver."
        if now_s - self._measured_at > self._staleness_s:
            return f"joint states stopped {now_s - self._measured_at:.2f} s ago; check the robot driver."
        teleop_drives = self.takeover or now_s - self._teleop_at <= self._staleness_s
        if request.driver is Driver.POLICY and teleop_drives:
            return "a human is driving."
        return ""

    def _step(self, target: np.ndarray, dt_s: float, now_s: float, stamp_ns: int | None) -> Sent:
        assert self._position is not None
        self._position, self._velocity = limit_step(
            self._position, self._velocity, np.asarray(target, dtype=np.float64), self._limits, dt_s
        )
        self._sent_at = now_s
        return Sent(self._position.copy(), self.driver, stamp_ns)
