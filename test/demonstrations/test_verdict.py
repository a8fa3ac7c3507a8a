"""The verdict on a recording."""

from __future__ import annotations

import pytest

from lam_ros.config import VerdictConfig
from lam_ros.demonstrations.verdict import TopicMeter, TopicReport, judge, report_all

MS = 1_000_000


def good(**changes: float) -> TopicReport:
    return TopicReport(**{"count": 100, "rate_hz": 20.0, "expected_hz": 20.0, "largest_gap_s": 0.05, **changes})


def metered(stamps_ms: list[int], is_stamped: bool = True, age_ms: int = 2) -> TopicReport:
    meter = TopicMeter(20.0)
    for stamp in stamps_ms:
        meter.add(stamp * MS if is_stamped else 0, (stamp + age_ms) * MS)
    return meter.report()


def test_a_meter_reports_rate_and_largest_gap() -> None:
    report = metered([1000, 1050, 1100, 1300, 1350, 1400])
    assert report.count == 6
    assert report.rate_hz == pytest.approx(5 / 0.4)
    assert report.largest_gap_s == pytest.approx(0.2)
    assert report.backwards == 0


def test_a_meter_counts_steps_back_and_repeated_stamps() -> None:
    report = metered([10, 50, 50, 40, 90])
    assert (report.backwards, report.duplicates, report.step_back_s) == (1, 1, 0.01)
    unstamped = metered([10, 50, 50, 40, 90], is_stamped=False)
    assert (unstamped.backwards, unstamped.duplicates, unstamped.age_s) == (1, 0, None)


def test_a_meter_knows_how_old_messages_arrive() -> None:
    meter = TopicMeter(20.0)
    for stamp, received in ((100, 110), (150, 152), (200, 230)):
        meter.add(stamp * MS, received * MS)
    assert meter.report().age_s == pytest.approx(0.010)


def test_the_median_age_of_a_long_take_is_kept_in_little_memory() -> None:
    meter = TopicMeter(500.0)
    for number in range(50_000):
        meter.add((1000 + 2 * number) * MS, (1000 + 2 * number) * MS + number * 1000)
    assert len(meter._ages_ns) <= 4001
    assert meter.report().age_s == pytest.approx(0.025, rel=0.01)


def test_a_meter_counts_frames_that_show_the_picture_before() -> None:
    meter = TopicMeter(20.0)
    for tick, picture in enumerate((7, 7, 7, 8, 7)):
        meter.add((1000 + 50 * tick) * MS, (1000 + 50 * tick) * MS, picture)
    assert meter.report().same == 2


def test_messages_that_the_stamps_miss_are_counted() -> None:
    assert metered(list(range(0, 1001, 50))).missing == 0
    gappy = [stamp for stamp in range(0, 1001, 50) if stamp not in (300, 350, 700)]
    assert metered(gappy).missing == 3
    meter = TopicMeter(20.0)
    for stamp in gappy:
        meter.add((stamp + 1) * MS, (stamp + 1) * MS)
    meter.lost = 2  # known to be lost on the way: not missing as well
    assert meter.report().missing == 1


def test_skew_is_measured_from_the_quickest_topic_that_has_a_rate() -> None:
    meters = {"/fast": TopicMeter(20.0), "/slow": TopicMeter(20.0), "/command": TopicMeter(None)}
    for tick in range(3):
        for topic, age in (("/fast", 5), ("/slow", 155), ("/command", 0)):
            meters[topic].add((1000 + 50 * tick) * MS, (1000 + 50 * tick + age) * MS)
    reports = report_all(meters)
    assert reports["/fast"].skew_s == 0.0
    assert reports["/slow"].skew_s == pytest.approx(0.15)
    assert reports["/command"].skew_s is None


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
        ({"backwards": 2}, "WARN", "/a went back in time 2 times."),
        ({"backwards": 2, "step_back_s": 0.05}, "WARN", "/a went back in time 2 times."),
        (
            {"backwards": 1, "step_back_s": 2.0},
            "FAIL",
            "/a went back in time 1 times by up to 2 s: before and after cannot be told apart. Set the clock before "
            "takes.",
        ),
        ({"backwards": 50, "step_back_s": 0.2}, "WARN", "/a went back in time 50 times."),
        ({"duplicates": 3}, "WARN", "/a repeated a stamp 3 times."),
        ({"same": 50}, "PASS", None),
        (
            {"same": 51},
            "WARN",
            "/a showed the same picture again in 51 of 100 frames: the camera is frozen, or nothing moved.",
        ),
        ({"age_s": -0.9}, "PASS", None),
        ({"age_s": -1.5}, "WARN", "/a is stamped 1.5 s in the future: set the clocks (chrony, PTP)."),
        ({"age_s": 90.0}, "WARN", "/a is stamped 90.0 s in the past: set the clocks (chrony, PTP)."),
        ({"skew_s": 0.09}, "PASS", None),
        ({"skew_s": 0.25}, "WARN", "/a arrives 250 ms later than the quickest topic, by its stamps."),
        ({"expected_hz": 500.0, "rate_hz": 500.0, "largest_gap_s": 0.09}, "PASS", None),
        ({"expected_hz": 500.0, "rate_hz": 500.0, "largest_gap_s": 0.2}, "WARN", "/a paused for 0.20 s."),
        ({"expected_hz": 500.0, "rate_hz": 500.0, "largest_gap_s": 0.4}, "FAIL", "/a paused for 0.40 s."),
    ],
)
def test_each_finding_is_graded_and_said(changes: dict[str, float], grade: str, finding: str | None) -> None:
    verdict = judge({"/a": good(**changes)}, ("/a",))
    assert verdict.grade == grade
    assert verdict.findings == (() if finding is None else (finding,))


def test_a_change_of_driver_is_no_fault_of_what_was_sent() -> None:
    """A policy's commands bear the stamps of images, a human's their own: at a takeover they jump."""
    assert judge({"/left/lam/command": good(backwards=1, duplicates=2)}, ()).grade == "PASS"


@pytest.mark.parametrize("topics", [{}, {"/a": good(count=0, rate_hz=0.0)}])
def test_a_required_topic_that_never_came_fails(topics: dict[str, TopicReport]) -> None:
    verdict = judge(topics, ("/a",))
    assert (verdict.grade, verdict.findings) == ("FAIL", ("/a never arrived.",))


def test_failures_are_said_before_warnings() -> None:
    verdict = judge({"/a": good(backwards=1), "/b": good(lost=1)}, ())
    assert verdict.grade == "FAIL"
    assert verdict.findings[0].startswith("/b lost")
    assert verdict.findings[1].startswith("/a went back")


def test_thresholds_can_be_set() -> None:
    lenient = VerdictConfig(warn_rate=0.4, fail_rate=0.2, fail_lost=0.3)
    verdict = judge({"/a": good(rate_hz=9.0, lost=25)}, (), thresholds=lenient)
    assert (verdict.grade, verdict.findings) == ("WARN", ("/a lost 25 of 125 messages.",))
