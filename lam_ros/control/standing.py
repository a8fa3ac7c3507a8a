"""What joint states say of an arm that stands, and whether they can be one arm's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lam_ros.contract import NANOSECONDS, seconds_to_ns

SETTLING_NS = 200_000_000  # after which an arm that was sent somewhere is where it will stay
STILL_S = 0.05  # at full speed: a joint further from where it stood was moved
NEAR_S = 0.2  # at full speed: a joint further from where it was sent may not be held there
LEAP_S = 0.1  # at twice the full speed, beyond what the time between two samples allows: a leap
BACK_NS = 500_000_000  # a stamp so much older than the one before is another's, or its clock was set
LEAPS, LEAPS_NS = 2, 1_000_000_000  # so many within so long are no arm's; a simulator that lays its table makes one


class Standing:
    """Where an arm goes on from after a pause.

    A hand that squeezes and a servo that carries a load are measured beside where they were sent. Going on from there
    would open the hand and let the arm sink, so each joint goes on from where it was sent last: if it is near that, has
    not been moved since it came to rest, and its joint states came all the time, from a driver that still holds it
    there. Else it goes on from where it is measured.

    Args:
        velocity: limits of the joints (J,).
        following: how far (J,) a joint that has come to rest may be from where it was sent; None: no further than
            before it came to rest.
        gap_s: joint states that pause for longer may come from a driver that began anew.
    """

    def __init__(self, velocity: np.ndarray, following: np.ndarray | None, gap_s: float) -> None:
        self._near, self._still = NEAR_S * velocity, STILL_S * velocity
        self._near_at_rest = self._near if following is None else following
        self._gap_ns = seconds_to_ns(gap_s)
        self._measured: np.ndarray | None = None
        self._measured_at = 0
        self.forget()

    def forget(self) -> None:
        """What was sent no longer counts, as after an emergency stop."""
        self._sent: np.ndarray | None = None
        self._settled: np.ndarray | None = None
        self._sent_at = 0

    def sent(self, position: np.ndarray, now_ns: int) -> None:
        """Note where (J,) the arm was sent."""
        self._sent, self._sent_at, self._settled = position, now_ns, None

    def measured(self, position: np.ndarray, now_ns: int) -> None:
        """Note where (J,) it is."""
        if not 0 <= now_ns - self._measured_at <= self._gap_ns:
            self.forget()
        self._measured, self._measured_at = position, now_ns
        if self._settled is None and now_ns - self._sent_at > SETTLING_NS:
            self._settled = position

    def start(self) -> np.ndarray:
        """Where (J,) it goes on from; it has been measured."""
        assert self._measured is not None
        return self._measured if self._sent is None else np.where(self.is_held, self._sent, self._measured)

    @property
    def is_held(self) -> np.ndarray:
        """Which joints go on from where they were sent: bool (J,)."""
        assert self._measured is not None
        if self._sent is None:
            return np.zeros(len(self._measured), dtype=bool)
        away = np.abs(self._sent - self._measured)
        if self._settled is None:
            near: np.ndarray = away <= self._near
            return near
        held: np.ndarray = (away <= self._near_at_rest) & (np.abs(self._settled - self._measured) <= self._still)
        return held


class Leaps:
    """Finds joint states that leap to and fro, in place or in time, as no arm's can: two nodes publish them.

    Args:
        velocity: limits of the joints (J,).
        joints: their names; numbers where there are none.
    """

    def __init__(self, velocity: np.ndarray, joints: Sequence[str] = ()) -> None:
        self._velocity = velocity
        self._joints = joints or [str(joint) for joint in range(len(velocity))]
        self._last: np.ndarray | None = None
        self._last_at = 0
        self._last_stamp: int | None = None
        self._leaps_at: list[int] = []
        self._words = ""

    def found(self, position: np.ndarray, now_ns: int, stamp_ns: int | None = None) -> str:
        """What is wrong with this sample (J,), measured at ``stamp_ns``, after those before, in words; empty where
        nothing is."""
        last, passed_ns, last_stamp = self._last, now_ns - self._last_at, self._last_stamp
        self._last, self._last_at, self._last_stamp = position, now_ns, stamp_ns
        if last is None or passed_ns < 0:
            self._leaps_at.clear()
            return ""
        beyond = np.abs(position - last) / self._velocity - 2.0 * (passed_ns / NANOSECONDS + LEAP_S)
        worst = int(np.argmax(beyond))
        back_ns = last_stamp - stamp_ns if last_stamp is not None and stamp_ns is not None else 0
        if back_ns > BACK_NS:
            self._words = (
                f"joint states go back by {back_ns / NANOSECONDS:.3g} s and on again: two nodes publish them, such as "
                "the driver and a bag that is played (`ros2 topic info -v` names them); end one."
            )
        elif beyond[worst] > 0.0:
            self._words = (
                f"joint {self._joints[worst]} leaps between {last[worst]:.3g} and {position[worst]:.3g}, which no arm "
                "can; if two nodes publish its joint states (`ros2 topic info -v` names them), end one."
            )
        if back_ns > BACK_NS or beyond[worst] > 0.0:
            self._leaps_at = [*self._leaps_at[1 - LEAPS :], now_ns]
        is_unsure = len(self._leaps_at) >= LEAPS and now_ns - self._leaps_at[-LEAPS] <= LEAPS_NS
        return self._words if is_unsure else ""
