"""Setpoints between two commands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_ros.control.gate import CATCHING_UP, Driver, Gate, Request, Rules, Sent
from lam_ros.control.limits import MotionLimits
from lam_ros.control.setpoints import Setpoints

MS = 1_000_000
FAST = np.array([100.0])


def sent(start: float, position: float, reach_in_s: float) -> Sent:
    return Sent(np.array([position]), Driver.POLICY, 0, reach_in_s, np.array([start]))


def ways(setpoints: Setpoints, from_ms: int, to_ms: int) -> list[float]:
    given = (setpoints.next(now * MS) for now in range(from_ms, to_ms, 10))
    return [float(one[0]) for one in given if one is not None]


def test_a_step_is_spread_evenly_over_its_time() -> None:
    setpoints = Setpoints(0.01, FAST)
    first = setpoints.begin(sent(1.0, 2.0, 0.05), 0)
    assert first == pytest.approx([1.2])
    assert ways(setpoints, 10, 100) == pytest.approx([1.4, 1.6, 1.8, 2.0])


def test_a_step_as_short_as_a_period_is_given_at_once() -> None:
    setpoints = Setpoints(0.01, FAST)
    assert setpoints.begin(sent(1.0, 2.0, 0.004), 0) == pytest.approx([2.0])
    assert ways(setpoints, 10, 50) == []


def test_what_comes_before_the_end_of_a_way_goes_on_from_where_it_is() -> None:
    setpoints = Setpoints(0.01, FAST)
    setpoints.begin(sent(1.0, 2.0, 0.05), 0)
    ways(setpoints, 10, 20)
    assert setpoints.begin(sent(2.0, 2.4, 0.02), 20 * MS) == pytest.approx([1.4 + 0.5])
    assert ways(setpoints, 30, 60) == pytest.approx([2.4])


def test_after_a_pause_it_begins_where_the_arm_was_found() -> None:
    setpoints = Setpoints(0.01, FAST)
    setpoints.begin(sent(1.0, 2.0, 0.01), 0)
    assert setpoints.begin(sent(-3.0, -2.0, 0.02), 900 * MS) == pytest.approx([-2.5])


def test_asked_late_it_makes_up_for_that_within_the_velocity_limits() -> None:
    setpoints = Setpoints(0.01, np.array([20.0]))
    given = [setpoints.begin(sent(1.0, 2.0, 0.05), 0)[0]]
    given += ways(setpoints, 40, 50)  # as the process was busy with something else
    given.append(setpoints.begin(sent(2.0, 3.0, 0.05), 50 * MS)[0])
    given += ways(setpoints, 90, 200)
    assert np.diff(given).max() == pytest.approx(1.25 * 20.0 * 0.01)
    assert given[-1] == 3.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 140), st.integers(1, 12), st.booleans()), min_size=1, max_size=5),
    st.integers(0, 9),
)
def test_whatever_the_rhythm_of_requests_setpoints_keep_to_the_velocity_limits(
    rhythms: list[tuple[int, int, bool]], phase_ms: int
) -> None:
    """Requests so many ms apart, so many times, there or back; the timer comes when it comes, and pauses with them."""
    limits = MotionLimits(*(np.array([value]) for value in (-50.0, 50.0, 2.0, 20.0, 1000.0)))
    gate, setpoints = Gate(Rules(limits, staleness_s=0.15)), Setpoints(0.01, limits.velocity)
    asks = {0: 40.0}
    for gap_ms, count, is_there in rhythms:
        asks |= {max(asks) + gap_ms * (i + 1): 40.0 if is_there else -40.0 for i in range(count)}
    arm, times, places = np.zeros(1), [], []
    for now_ms in sorted({*asks, *range(phase_ms, max(asks), 10)}):
        gate.measured(arm, now_ms * MS)
        if now_ms in asks:
            sent = gate.request(Request(Driver.POLICY, np.array([asks[now_ms]]), 0), now_ms * MS)
            assert sent is not None
            setpoint = setpoints.begin(sent, now_ms * MS)
        else:
            setpoint = setpoints.next(now_ms * MS)
        if setpoint is not None:
            arm = setpoint
            times.append(now_ms / 1e3)
            places.append(float(setpoint[0]))
    ways, passed = np.abs(np.subtract.outer(places, places)), np.abs(np.subtract.outer(times, times))
    assert np.all(ways <= CATCHING_UP * 2.0 * passed + 1e-9)
