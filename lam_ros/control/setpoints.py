"""Positions between two commands, for controllers that go wherever they are told at once.

A trajectory controller spreads a step over the time it is given. A forward position controller does not: with steps at
a policy's rate alone, the arm would stand and jump.
"""

from __future__ import annotations

import numpy as np

from lam_ros.contract import seconds_to_ns
from lam_ros.control.gate import Sent


class Setpoints:
    """An even way to what was sent last, in setpoints of one period each.

    Args:
        period_s: how often ``next`` is asked.
    """

    def __init__(self, period_s: float) -> None:
        self._period_ns = seconds_to_ns(period_s)
        self._given: np.ndarray | None = None  # last
        self._from: np.ndarray | None = None
        self._to: np.ndarray | None = None
        self._began_ns, self._reach_ns = 0, 0

    def begin(self, sent: Sent, now_ns: int) -> np.ndarray:
        """Go where ``sent`` says, by when it says: the first setpoint (J,)."""
        goes_on = self._to is not None and np.array_equal(sent.start, self._to)
        self._from = self._given if goes_on else sent.start
        self._to, self._began_ns = sent.position, now_ns
        self._reach_ns = max(seconds_to_ns(sent.reach_in_s), self._period_ns)
        first = self.next(now_ns)
        assert first is not None
        return first

    def next(self, now_ns: int) -> np.ndarray | None:
        """The setpoint (J,) of the period that begins now; None once the way has ended."""
        if self._from is None or self._to is None:
            return None
        share = (now_ns - self._began_ns + self._period_ns) / self._reach_ns
        if share >= 1.0:
            self._given, self._from = self._to, None
        else:
            self._given = self._from + share * (self._to - self._from)
        return self._given
