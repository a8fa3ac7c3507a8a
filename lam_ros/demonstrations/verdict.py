"""The verdict on an episode: what arrived on each topic, against what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lam_ros.contract import NANOSECONDS

Grade = Literal["PASS", "WARN", "FAIL"]
WARN_RATE, FAIL_RATE = 0.9, 0.5  # of the expected rate
WARN_LATE_S = 2.0
WARN_GAP, FAIL_GAP = 3.0, 10.0  # expected periods between two messages


class TopicMeter:
    """Counts one topic while it is recorded; gaps come from header stamps where there are any.

    Args:
        expected_hz: the rate in the robot YAML; None where nothing is expected (commands come when they come).
    """

    def __init__(self, expected_hz: float | None) -> None:
        self.expected_hz = expected_hz
        self.count = 0
        self.lost = 0
        self.backwards = 0
        self.largest_gap_ns = 0
        self._first_ns: int | None = None
        self._last_ns = 0

    def add(self, stamp_ns: int, is_stamped: bool = True) -> None:
        """Count a message; without a header stamp its time of arrival serves, and two may arrive at once."""
        self.count += 1
        if self._first_ns is None:
            self._first_ns = stamp_ns
        elif stamp_ns < self._last_ns or (is_stamped and stamp_ns == self._last_ns):
            self.backwards += 1
        else:
            self.largest_gap_ns = max(self.largest_gap_ns, stamp_ns - self._last_ns)
        self._last_ns = stamp_ns

    @property
    def first_ns(self) -> int | None:
        return self._first_ns

    @property
    def last_ns(self) -> int:
        return self._last_ns

    def report(self, start_ns: int | None = None, end_ns: int = 0) -> TopicReport:
        """What arrived in a take from ``start_ns`` to ``end_ns``.

        Silence at its end counts as a gap. Silence at its beginning is told apart: a simulator's first frame, or a
        driver's, may follow the joint states.
        """
        late_ns = 0
        if self.count and self.expected_hz:
            self.largest_gap_ns = max(self.largest_gap_ns, end_ns - self._last_ns)
            if start_ns is not None and self._first_ns is not None:
                late_ns = max(0, self._first_ns - start_ns)
        span_s = (self._last_ns - (self._first_ns or 0)) / NANOSECONDS
        rate = (self.count - 1) / span_s if self.count > 1 and span_s > 0 else 0.0
        return TopicReport(
            self.count,
            rate,
            self.expected_hz,
            self.largest_gap_ns / NANOSECONDS,
            self.lost,
            self.backwards,
            late_ns / NANOSECONDS,
        )


@dataclass(frozen=True)
class TopicReport:
    """What arrived on one topic: messages, rate in Hz, largest gap in s, messages lost, steps back in time, and
    how many seconds after the take began it first came."""

    count: int
    rate_hz: float
    expected_hz: float | None
    largest_gap_s: float
    lost: int = 0
    backwards: int = 0
    late_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """PASS, WARN or FAIL, with one plain sentence for each thing found."""

    grade: Grade
    findings: tuple[str, ...] = ()


def judge(topics: dict[str, TopicReport], required: tuple[str, ...], findings: tuple[str, ...] = ()) -> Verdict:
    """Judge an episode from its topics; those ``required`` must be there; ``findings`` are warnings known before."""
    fails: list[str] = []
    warns: list[str] = [*findings]
    for topic in required:
        if topic not in topics or topics[topic].count == 0:
            fails.append(f"{topic} never arrived.")
    for topic, report in topics.items():
        if report.lost:
            fails.append(f"{topic} lost {report.lost} of {report.lost + report.count} messages.")
        if report.backwards:
            warns.append(f"{topic} went back in time, or stood still, {report.backwards} times.")
        if report.expected_hz and report.count > 1:
            share = report.rate_hz / report.expected_hz
            if share < WARN_RATE:
                text = f"{topic} came at {report.rate_hz:.1f} Hz instead of {report.expected_hz:g}."
                (fails if share < FAIL_RATE else warns).append(text)
            if report.late_s > WARN_LATE_S:
                warns.append(f"{topic} first came {report.late_s:.1f} s after the take began; nothing before is used.")
            periods = report.largest_gap_s * report.expected_hz
            if periods > WARN_GAP:
                text = f"{topic} paused for {report.largest_gap_s:.2f} s."
                (fails if periods > FAIL_GAP else warns).append(text)
    return Verdict("FAIL" if fails else "WARN" if warns else "PASS", (*fails, *warns))
