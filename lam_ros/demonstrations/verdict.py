"""The verdict on an episode: what arrived on each topic, against what was expected."""

from __future__ import annotations

import array
import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lam_ros.config import VerdictConfig
from lam_ros.contract import NANOSECONDS

Grade = Literal["PASS", "WARN", "FAIL"]
STEP_BACK_S, STEPS_SHARE = 0.1, 0.1  # a clock set back during a take, and not two publishers of one topic
AGES = 4000  # so many are kept for the median: of a long take, every second one, every fourth…


class TopicMeter:
    """Counts one topic while it is recorded; gaps come from header stamps where there are any.

    Args:
        expected_hz: the rate in the robot YAML; None where nothing is expected (commands come when they come).
    """

    def __init__(self, expected_hz: float | None) -> None:
        self.expected_hz = expected_hz
        self.count = 0
        self.lost = 0
        self._backwards = 0
        self._largest_step_back_ns = 0
        self._duplicates = 0
        self._same = 0
        self._largest_gap_ns = 0
        self.first_ns: int | None = None
        self.last_ns = 0
        self.last_received_ns = 0
        self._ages_ns = array.array("q")
        self._aged_each = 1
        self._picture: int | None = None

    def add(self, stamp_ns: int, received_ns: int, picture: int | None = None) -> None:
        """Count a message.

        Args:
            stamp_ns: of its header; 0 where it has none: its time of arrival serves then.
            received_ns: when it arrived.
            picture: a hash of the image in it, where it is one.
        """
        is_stamped, stamp_ns = stamp_ns > 0, stamp_ns or received_ns
        self.count += 1
        if self.first_ns is None:
            self.first_ns = stamp_ns
        elif stamp_ns < self.last_ns:
            self._backwards += 1
            self._largest_step_back_ns = max(self._largest_step_back_ns, self.last_ns - stamp_ns)
        elif is_stamped and stamp_ns == self.last_ns:  # without a stamp, two may arrive at once
            self._duplicates += 1
        else:
            self._largest_gap_ns = max(self._largest_gap_ns, stamp_ns - self.last_ns)
        self.last_ns, self.last_received_ns = stamp_ns, received_ns
        if is_stamped:
            if self.count % self._aged_each == 0:
                self._ages_ns.append(received_ns - stamp_ns)
            if len(self._ages_ns) > AGES:
                self._ages_ns, self._aged_each = self._ages_ns[::2], 2 * self._aged_each
        self._same += picture is not None and picture == self._picture
        self._picture = picture

    def report(self, start_ns: int | None = None, end_ns: int = 0) -> TopicReport:
        """What arrived in a take from ``start_ns`` to ``end_ns``.

        Silence at its end counts as a gap. Silence at its beginning is told apart: a simulator's first frame, or a
        driver's, may follow the joint states.
        """
        late_ns, largest_gap_ns = 0, self._largest_gap_ns
        if self.count and self.expected_hz:
            largest_gap_ns = max(largest_gap_ns, end_ns - self.last_ns)
            if start_ns is not None and self.first_ns is not None:
                late_ns = max(0, self.first_ns - start_ns)
        span_s = (self.last_ns - (self.first_ns or 0)) / NANOSECONDS
        promised = round(span_s * self.expected_hz) + 1 if self.count and self.expected_hz else 0
        return TopicReport(
            count=self.count,
            rate_hz=(self.count - 1) / span_s if self.count > 1 and span_s > 0 else 0.0,
            expected_hz=self.expected_hz,
            largest_gap_s=largest_gap_ns / NANOSECONDS,
            lost=self.lost,
            backwards=self._backwards,
            step_back_s=self._largest_step_back_ns / NANOSECONDS,
            late_s=late_ns / NANOSECONDS,
            duplicates=self._duplicates,
            same=self._same,
            missing=max(0, promised - self.count - self.lost),
            age_s=statistics.median(self._ages_ns) / NANOSECONDS if self._ages_ns else None,
        )


@dataclass(frozen=True)
class TopicReport:
    """What arrived on one topic.

    Attributes:
        count: messages written.
        rate_hz: their rate, by their header stamps where they have any.
        expected_hz: the rate in the robot YAML.
        largest_gap_s: between two of them.
        lost: messages that were published and not written.
        backwards, duplicates: messages with a stamp before that of the message before, or with the same.
        late_s: how long after the take began the first came.
        missing: messages fewer than the rate promises between the first stamp and the last, and not counted as lost:
            the driver never sent them, or nobody numbers them.
        same: camera frames that show the very picture of the frame before.
        age_s: median age at arrival, None without stamps; a negative one is a clock that runs ahead.
        skew_s: how much more that is than the quickest topic's.
        step_back_s: by how much stamps went back, at most.
    """

    count: int
    rate_hz: float
    expected_hz: float | None
    largest_gap_s: float
    lost: int = 0
    backwards: int = 0
    late_s: float = 0.0
    duplicates: int = 0
    same: int = 0
    missing: int = 0
    age_s: float | None = None
    skew_s: float | None = None
    step_back_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """PASS, WARN or FAIL, with one plain sentence for each thing found."""

    grade: Grade
    findings: tuple[str, ...] = ()


def report_all(meters: Mapping[str, TopicMeter], ended_ns: int | None = None) -> dict[str, TopicReport]:
    """The reports of a take's topics, each compared with the others: late starts, silent ends, and skew.

    Args:
        ended_ns: when the take ended, by the clock of arrivals; by default with its last message.
    """
    firsts = [meter.first_ns for meter in meters.values() if meter.expected_hz and meter.first_ns is not None]
    end_ns = max((meter.last_ns for meter in meters.values()), default=0)
    if ended_ns is not None:
        arrived_ns = max((meter.last_received_ns for meter in meters.values()), default=ended_ns)
        end_ns += max(0, ended_ns - arrived_ns)
    reports = {topic: meter.report(min(firsts, default=None), end_ns) for topic, meter in meters.items()}
    # Commands carry the stamp of the image that they answer: they are older by design.
    ages = {topic: r.age_s for topic, r in reports.items() if r.expected_hz and r.age_s is not None}
    quickest = min(ages.values(), default=0.0)
    return {
        topic: dataclasses.replace(report, skew_s=ages[topic] - quickest) if topic in ages else report
        for topic, report in reports.items()
    }


def judge(
    topics: Mapping[str, TopicReport],
    required: tuple[str, ...],
    findings: tuple[str, ...] = (),
    thresholds: VerdictConfig | None = None,
) -> Verdict:
    """Judge an episode from its topics; those ``required`` must be there; ``findings`` are warnings known before."""
    limits = thresholds or VerdictConfig()
    fails = [f"{name} never arrived." for name in required if name not in topics or topics[name].count == 0]
    warns = [*findings]
    for topic, report in topics.items():
        for is_failure, sentence in _findings(topic, report, limits):
            (fails if is_failure else warns).append(sentence)
    return Verdict("FAIL" if fails else "WARN" if warns else "PASS", (*fails, *warns))


def _findings(topic: str, report: TopicReport, limits: VerdictConfig) -> Iterable[tuple[bool, str]]:
    """(whether it is a failure, sentence) for each thing found."""
    if report.lost:
        total = report.lost + report.count
        yield report.lost / total > limits.fail_lost, f"{topic} lost {report.lost} of {total} messages."
    # What is sent bears the stamp of what it answers: images under a policy, later times under a human.
    has_one_clock = not topic.endswith("lam/command")
    if report.backwards and has_one_clock:
        is_stepped = report.step_back_s > STEP_BACK_S and report.backwards < STEPS_SHARE * report.count
        back = (
            f" by up to {report.step_back_s:.2g} s: before and after cannot be told apart. Set the clock before takes"
        )
        yield is_stepped, f"{topic} went back in time {report.backwards} times{back if is_stepped else ''}."
    if report.duplicates and has_one_clock:
        yield False, f"{topic} repeated a stamp {report.duplicates} times."
    if report.same > limits.warn_same * report.count:
        yield (
            False,
            f"{topic} showed the same picture again in {report.same} of {report.count} frames: "
            "the camera is frozen, or nothing moved.",
        )
    if report.age_s is not None and report.expected_hz and abs(report.age_s) > limits.warn_clock_s:
        when = "in the future" if report.age_s < 0 else "in the past"
        yield False, f"{topic} is stamped {abs(report.age_s):.1f} s {when}: set the clocks (chrony, PTP)."
    if report.skew_s is not None and report.skew_s > limits.warn_skew_s:
        yield False, f"{topic} arrives {report.skew_s * 1e3:.0f} ms later than the quickest topic, by its stamps."
    if not report.expected_hz or report.count < 2:
        return
    share = report.rate_hz / report.expected_hz
    if share < limits.warn_rate:
        sentence = f"{topic} came at {report.rate_hz:.1f} Hz instead of {report.expected_hz:g}."
        yield share < limits.fail_rate, sentence
    if report.late_s > limits.warn_late_s:
        yield False, f"{topic} first came {report.late_s:.1f} s after the take began; nothing before is used."
    gap_s, periods = report.largest_gap_s, report.largest_gap_s * report.expected_hz
    if periods > limits.warn_gap and gap_s > limits.warn_gap_s:
        yield periods > limits.fail_gap and gap_s > limits.fail_gap_s, f"{topic} paused for {gap_s:.2f} s."
