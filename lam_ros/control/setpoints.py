"""Positions between two commands, for controllers that go wherever they are told at once.

A trajectory controller spreads a step over the time it is given. A forward position controller does not: with steps at
a policy's rate alone, the arm would stand and jump.
"""

from __future__ import annotations

import numpy as np

from lam_ros.contract import NANOSECONDS, seconds_to_ns
from lam_ros.control.gate import CATCHING_UP, Sent


class Setpoints:
    """An even way to what was sent last. Each setpoint says where to be a period later.

    Whenever it is asked, and however often, the way from one setpoint to the next is no longer than the time between
    them allows at ``CATCHING_UP`` times the velocity limits, and what was missed by asking late is not made up for in
    one step: the way takes longer.

    Args:
        period_s: how often ``next`` is asked, about.
        velocity: limits of the joints (J,), in rad/s or m/s.
    """

    def __init__(self, period_s: float, velocity: np.ndarray) -> None:
        self._period_ns = seconds_to_ns(period_s)
        self._fastest = CATCHING_UP * velocity / NANOSECONDS
        self._given: np.ndarray | None = None  # last
        self._given_for_ns = 0  # when the arm is to be there
        self._to: np.ndarray | None = None
        self._due_ns = 0

    @property
    def is_under_way(self) -> bool:
        return self._given is not self._to

    def begin(self, sent: Sent, now_ns: int) -> np.ndarray:
        """Go where ``sent`` says, by when it says: the first setpoint (J,)."""
        if self._to is None or not np.array_equal(sent.start, self._to):
            self._given = sent.start
        self._to = sent.position
        self._due_ns = now_ns + max(seconds_to_ns(sent.reach_in_s), self._period_ns)
        first = self.next(now_ns)
        assert first is not None
        return first

    def next(self, now_ns: int) -> np.ndarray | None:
        """The setpoint (J,) from now on; None once the way has ended."""
        if self._given is None or self._to is None or not self.is_under_way:
            return None
        begins_ns, ends_ns = max(self._given_for_ns, now_ns), now_ns + self._period_ns
        passes_ns = max(0, ends_ns - begins_ns)
        way = self._to - self._given
        needs_ns = max(self._due_ns - begins_ns, np.max(np.abs(way) / self._fastest))
        self._given = self._given + way * (passes_ns / needs_ns) if passes_ns < needs_ns else self._to
        self._given_for_ns = begins_ns + passes_ns
        return self._given
