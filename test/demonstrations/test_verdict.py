"""The verdict on a recording."""

from __future__ import annotations

import pytest

from lam_ros.demonstrations.verdict import TopicMeter, TopicReport, judge

MS = 1_000_000


def good(**changes: float) -> TopicReport:
    return TopicReport(**{"count": 100, "rate_hz": 20.0, "expected_hz": 20.0, "largest_gap_s": 0.05, **changes})


def metered(stamps_ms: list[int], is_stamped: bool = True) -> TopicReport:
    meter = TopicMeter(20.0)
    for stamp in stamps_ms:
        meter.add(stamp * MS, is_stamped)
    return meter.report()


def test_a_meter_reports_rate_and_largest_gap() -> None:
    report = metered([1000, 1050, 1100, 1300, 1350, 1400])
    assert report.count == 6
    assert report.rate_hz == pytest.approx(5 / 0.4)
    assert report.largest_gap_s == pytest.approx(0.2)
    assert report.backwards == 0


def test_a_meter_counts_steps_back_and_standing_still() -> None:
    assert metered([0, 50, 50, 40, 90]).backwards == 2
    assert metered([0, 50, 50, 40, 90], is_stamped=False).backwards == 1


@pytest.mark.parametrize("stamps", [[], [70]])
def test_too_few_messages_have_no_rate(stamps: list[int]) -> None:
    report = metered(stamps)
    assert (report.count, report.rate_hz, report.largest_gap_s) == (len(stamps), 0.0, 0.0)


def test_what_came_as_expected_passes() -> None:
    verdict = judge({"/a": good(), "/b": good(expected_hz=None, rate_hz=0.1, largest_gap_s=9.0)}, ("/a",))
    assert (verdict.grade, verdict.findings) == ("PASS", ())


@pytest.mark.parametrize(
    ("changes", "grade", "finding"),
    [
        ({"rate_hz": 18.1}, "PASS", None),
        ({"rate_hz": 17.0}, "WARN", "/a came at 17.0 Hz instead of 20."),
        ({"rate_hz": 9.0}, "FAIL", "/a came at 9.0 Hz instead of 20."),
        ({"largest_gap_s": 0.14}, "PASS", None),
        ({"largest_gap_s": 0.2}, "WARN", "/a paused for 0.20 s."),
        ({"largest_gap_s": 0.6}, "FAIL", "/a paused for 0.60 s."),
        ({"lost": 25}, "FAIL", "/a lost 25 of 125 messages."),
        ({"backwards": 2}, "WARN", "/a went back in time, or stood still, 2 times."),
    ],
)
def test_each_finding_is_graded_and_said(changes: dict[str, float], grade: str, finding: str | None) -> None:
    verdict = judge({"/a": good(**changes)}, ("/a",))
    assert verdict.grade == grade
    assert verdict.findings == (() if finding is None else (finding,))


@pytest.mark.parametrize("topics", [{}, {"/a": good(count=0, rate_hz=0.0)}])
def test_a_required_topic_that_never_came_fails(topics: dict[str, TopicReport]) -> None:
    verdict = judge(topics, ("/a",))
    assert (verdict.grade, verdict.findings) == ("FAIL", ("/a never arrived.",))


def test_failures_are_said_before_warnings() -> None:
    verdict = judge({"/a": good(backwards=1), "/b": good(lost=1)}, ())
    assert verdict.grade == "FAIL"
    assert verdict.findings[0].startswith("/b lost")
    assert verdict.findings[1].startswith("/a went back")
