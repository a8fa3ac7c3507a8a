"""The gate: limits, who may drive, watchdog and emergency stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_ros.config import GateConfig, RobotConfig, WorkspaceConfig
from lam_ros.control.gate import CATCHING_UP, Driver, Gate, Request, Rules, Sent, Trespass
from lam_ros.control.limits import MotionLimiter, MotionLimits
from lam_ros.errors import LimitError
from lam_ros.share import share_path

STALENESS_S = 0.15
LIMITS = MotionLimits(
    lower=np.array([-1.0, -2.0]),
    upper=np.array([1.0, 2.0]),
    velocity=np.array([2.0, 3.0]),
    acceleration=np.array([20.0, 30.0]),
    jerk=np.array([1000.0, 1500.0]),
)
RULES = Rules(LIMITS, STALENESS_S)
START = np.array([0.2, -0.3])
FAR = np.array([0.9, 1.5])


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


def ask(gate: Gate, driver: Driver, now_s: float, target: np.ndarray = FAR) -> Sent | None:
    return gate.request(Request(driver, target, ns(now_s)), ns(now_s))


def drive(gate: Gate, seconds: float, target: np.ndarray = FAR, driver: Driver = Driver.POLICY) -> float:
    """Ask at 50 Hz with fresh joint states, from 0 s on; the time of the last request."""
    times = np.arange(0.0, seconds, 0.02)
    for now_s in times:
        gate.measured(START, ns(now_s))
        assert ask(gate, driver, now_s, target) is not None
    return float(times[-1])


@pytest.fixture
def gate() -> Gate:
    return Gate(RULES)


def test_the_first_command_starts_from_the_measured_positions(gate: Gate) -> None:
    gate.measured(START, ns(0.0))
    sent = ask(gate, Driver.POLICY, 0.01)
    assert sent is not None
    assert np.all(sent.position > START)
    assert np.all(np.abs(sent.position - START) <= LIMITS.acceleration * 0.02**2 + 1e-9)
    assert (sent.driver, sent.stamp_ns) == (Driver.POLICY, 10_000_000)


def test_it_arrives_at_the_request(gate: Gate) -> None:
    last_s = drive(gate, 2.0)
    sent = ask(gate, Driver.POLICY, last_s + 0.02)
    assert sent is not None
    np.testing.assert_allclose(sent.position, FAR, atol=1e-6)


def test_without_joint_states_requests_are_refused(gate: Gate) -> None:
    assert ask(gate, Driver.POLICY, 0.0) is None
    assert gate.refusal == "no joint states have arrived yet; check the robot driver."


def test_stale_joint_states_refuse_requests(gate: Gate) -> None:
    gate.measured(START, ns(0.0))
    assert ask(gate, Driver.TELEOP, 0.2) is None
    assert "joint states stopped 0.20 s ago; check the robot driver" in gate.refusal


@pytest.mark.parametrize(
    "target", [np.array([np.nan, 0.0]), np.array([0.0, np.inf]), np.zeros(3), np.zeros((1, 2)), np.float64(0.0)]
)
def test_a_target_that_is_not_finite_positions_is_refused(gate: Gate, target: np.ndarray) -> None:
    gate.measured(START, ns(0.0))
    assert ask(gate, Driver.POLICY, 0.0, np.asarray(target)) is None
    assert gate.refusal == "a request of policy is not 2 finite positions."


def test_a_human_beats_the_policy_until_it_has_been_quiet(gate: Gate) -> None:
    gate.measured(START, ns(0.0))
    assert ask(gate, Driver.TELEOP, 0.0) is not None
    gate.measured(START, ns(0.1))
    assert ask(gate, Driver.POLICY, 0.1) is None
    assert gate.refusal == "a human is driving."
    gate.measured(START, ns(0.2))
    assert ask(gate, Driver.POLICY, 0.2) is not None
    assert gate.driver is Driver.POLICY


def test_a_takeover_shuts_the_policy_out_for_as_long_as_it_lasts(gate: Gate) -> None:
    gate.orders.takeover = True
    gate.measured(START, ns(5.0))
    assert ask(gate, Driver.POLICY, 5.0) is None
    assert ask(gate, Driver.TELEOP, 5.0) is not None
    gate.orders.takeover = False
    gate.measured(START, ns(6.0))
    assert ask(gate, Driver.POLICY, 6.0) is not None


def test_the_emergency_stop_is_latched_over_reset(gate: Gate) -> None:
    gate.measured(START, ns(0.0))
    gate.orders.is_stopped = True
    assert ask(gate, Driver.TELEOP, 0.0) is None
    assert gate.refusal == "the emergency stop is pressed; call lam/reset_estop when it is safe."
    gate.reset()
    gate.measured(START, ns(1.0))
    assert ask(gate, Driver.TELEOP, 1.0) is None
    gate.reset_estop()
    assert ask(gate, Driver.TELEOP, 1.0) is not None


def test_the_watchdog_leaves_whoever_drives_alone(gate: Gate) -> None:
    assert gate.tick(ns(0.0)) is None
    last_s = drive(gate, 0.3)
    assert gate.tick(ns(last_s + 0.01)) is None
    assert gate.driver is Driver.POLICY


def brake(gate: Gate, from_s: float) -> list[np.ndarray]:
    """Tick at 100 Hz until nothing more is sent."""
    positions = []
    for now_s in from_s + 0.01 * np.arange(1, 200):
        sent = gate.tick(ns(now_s))
        if sent is not None:
            assert (sent.driver, sent.stamp_ns) == (Driver.HOLD, None)
            positions.append(sent.position)
    return positions


def test_an_emergency_stop_brakes_to_rest_within_the_acceleration_limit(gate: Gate) -> None:
    last_s = drive(gate, 0.2)
    gate.orders.is_stopped = True
    positions = brake(gate, last_s)
    assert gate.refusal == "the emergency stop is pressed."
    speeds = np.diff(positions, axis=0) / 0.01
    assert np.all(np.abs(np.diff(speeds, axis=0)) <= LIMITS.acceleration * 0.01 * 1.001)
    assert np.all(np.diff(np.abs(speeds), axis=0) <= 1e-9)
    assert np.all(np.abs(speeds[0]) > 0.5)
    np.testing.assert_allclose(speeds[-1], 0.0, atol=1e-3)
    assert gate.tick(ns(last_s + 2.0)) is None


@pytest.mark.parametrize("driver", [Driver.POLICY, Driver.TELEOP])
def test_a_driver_who_falls_silent_is_held(gate: Gate, driver: Driver) -> None:
    last_s = drive(gate, 0.2, driver=driver)
    gate.measured(START, ns(last_s + 0.16))
    sent = gate.tick(ns(last_s + 0.16))
    assert sent is not None
    assert sent.driver is Driver.HOLD
    assert gate.refusal == f"{driver.value} stopped 0.16 s ago."


@pytest.mark.parametrize(("silent_s", "brakes"), [(0.2, True), (0.28, True), (0.32, False), (5.0, False)])
def test_an_arm_that_was_sent_nothing_for_twice_the_staleness_stands(gate: Gate, silent_s: float, brakes: bool) -> None:
    now_s = drive(gate, 0.2) + silent_s
    assert not gate.rests
    sent = gate.tick(ns(now_s))
    assert (sent is not None) == brakes
    assert brakes or gate.rests


def test_when_joint_states_stop_the_arm_is_held(gate: Gate) -> None:
    last_s = drive(gate, 0.2)
    ask(gate, Driver.POLICY, last_s + 0.14)
    sent = gate.tick(ns(last_s + 0.16))
    assert sent is not None
    assert sent.driver is Driver.HOLD
    assert gate.refusal == "joint states stopped 0.16 s ago."


def test_after_a_pause_it_starts_where_the_arm_stands(gate: Gate) -> None:
    last_s = drive(gate, 0.5)
    brake(gate, last_s)
    moved = np.array([-0.7, 0.4])
    gate.measured(moved, ns(10.0))
    sent = ask(gate, Driver.POLICY, 10.0)
    assert sent is not None
    assert np.all(np.abs(sent.position - moved) <= LIMITS.acceleration * 0.02**2 + 1e-9)


def test_a_flood_of_requests_moves_no_faster_than_the_limits(gate: Gate) -> None:
    period_s = 1e-4
    gate.measured(START, ns(0.0))
    first = ask(gate, Driver.TELEOP, 0.0)
    assert first is not None
    position = first.position
    for now_s in period_s * np.arange(1, 300):
        sent = ask(gate, Driver.TELEOP, now_s)
        position = position if sent is None else sent.position
    assert np.all(np.abs(position - first.position) <= LIMITS.velocity * 300 * period_s + 1e-9)


def test_a_new_driver_comes_to_full_speed_slowly() -> None:
    gate = Gate(Rules(LIMITS, STALENESS_S, ramp_s=0.5))
    gate.measured(np.array([-1.0, -2.0]), 0)
    speeds, last = [], np.array([-1.0, -2.0])
    for now_s in np.arange(0.0, 0.6, 0.02):
        gate.measured(last, ns(now_s))
        sent = ask(gate, Driver.POLICY, now_s)
        assert sent is not None
        speeds.append((sent.position[0] - last[0]) / 0.02)
        last = sent.position
    ramp = np.clip(np.arange(0.0, 0.6, 0.02) / 0.5, 0.1, 1.0)
    assert np.all(speeds <= 2.0 * ramp + 1e-9)
    assert max(speeds) > 1.5
    taken = ask(gate, Driver.TELEOP, 0.6, last + np.array([0.9, 0.0]))  # another driver, another ramp
    assert taken is not None
    assert (taken.position[0] - last[0]) / 0.02 < speeds[-1]


def test_after_a_hold_the_first_step_is_a_short_one(gate: Gate) -> None:
    gate.measured(FAR, 0)
    assert ask(gate, Driver.POLICY, 0.0, FAR) is not None
    gate.orders.is_stopped = True
    gate.tick(ns(0.01))
    gate.reset_estop()
    gate.measured(FAR, ns(0.14))
    sent = ask(gate, Driver.POLICY, 0.14, START)
    assert sent is not None
    assert np.all(np.abs(sent.position - FAR) <= LIMITS.acceleration * 0.02**2)


def test_after_a_human_the_policy_waits_where_it_is_told_to() -> None:
    gate = Gate(Rules(LIMITS, STALENESS_S, waits_after_teleop=True))
    for now_s, driver in ((0.0, Driver.POLICY), (0.1, Driver.TELEOP)):
        gate.measured(START, ns(now_s))
        assert ask(gate, driver, now_s) is not None
    for now_s in (0.4, 3.0):
        gate.measured(START, ns(now_s))
        assert ask(gate, Driver.POLICY, now_s) is None
        assert gate.refusal == "a human drove and has let go; call lam/resume to let the policy go on."
    gate.orders.human_drove = False
    assert ask(gate, Driver.POLICY, 3.0) is not None


def test_a_joint_measured_where_no_arm_can_be_moves_nothing_and_holds_what_moves(gate: Gate) -> None:
    degrees = np.array([11.5, -17.2])
    gate.measured(degrees, ns(0.0))
    assert ask(gate, Driver.TELEOP, 0.0) is None
    assert gate.refusal == "joint 0 is measured at 11.5, far outside -1 to 1; check its unit and zero."
    last_s = drive(gate, 0.2, driver=Driver.TELEOP)
    gate.measured(degrees, ns(last_s + 0.01))
    sent = gate.tick(ns(last_s + 0.02))
    assert sent is not None
    assert sent.driver is Driver.HOLD
    assert "far outside" in gate.refusal


def test_the_rules_are_the_robot_yamls(robot: RobotConfig) -> None:
    given = GateConfig(staleness_s=0.2, ramp_s=0.4, after_teleop="hold", longest_pause_s=5.0)
    rules = Rules.of(replace(robot, gate=given), share_path("config/desk_arm.yaml"))
    assert (rules.staleness_s, rules.ramp_s, rules.waits_after_teleop, rules.pause_ns) == (0.2, 0.4, True, ns(5.0))
    np.testing.assert_array_equal(rules.following, robot.following_errors)
    assert (rules.joints, rules.oldest_ns) == (robot.joint_names, ns(robot.oldest_image_s))
    assert rules.workspace is None
    boxed = replace(given, workspace=WorkspaceConfig(z=(0.1, 0.5)), longest_pause_s=0.0)
    rules = Rules.of(replace(robot, gate=boxed), share_path("config/desk_arm.yaml"))
    assert rules.workspace is not None
    assert rules.pause_ns is None


def test_after_a_long_pause_the_policy_waits_for_a_word() -> None:
    gate = Gate(replace(RULES, pause_ns=ns(3.0)))
    last_s = drive(gate, 0.3)

    def asks(now_s: float, driver: Driver = Driver.POLICY) -> bool:
        gate.measured(START, ns(now_s))
        return ask(gate, driver, now_s) is not None

    assert asks(last_s + 2.9), "a short one it goes on after by itself"
    assert not asks(last_s + 6.0)
    assert gate.refusal.startswith("it would drive again after 3.10 s; call lam/resume")
    assert not asks(last_s + 6.1), "and asking again does not help"
    gate.resume()
    assert not asks(last_s + 9.2), "nor does a word that was given long before"
    gate.resume()
    assert asks(last_s + 12.1)
    assert not asks(last_s + 20.0)
    assert asks(last_s + 20.1, Driver.TELEOP), "a human may drive at any time"
    gate.orders.takeover = True
    for now_s in last_s + np.arange(20.2, 30.0, 0.1):  # and may think in between
        gate.tick(ns(float(now_s)))
        assert not asks(float(now_s))
    gate.orders.takeover = False
    assert asks(last_s + 30.0), "who had it in hand sees it go on"
    gate.orders.is_stopped = True
    assert not asks(last_s + 50.0)
    gate.reset_estop()
    assert asks(last_s + 50.1), "releasing the emergency stop is a word too"
    gate.orders.is_stopped = True
    assert not asks(last_s + 60.0)
    gate.reset_estop()
    assert not asks(last_s + 70.0), "for as long as a pause may last"


def test_a_target_in_another_unit_is_refused_and_one_slightly_beyond_is_clipped(gate: Gate) -> None:
    gate.measured(START, ns(0.0))
    assert ask(gate, Driver.TELEOP, 0.0, np.array([0.5, -17.2])) is None  # degrees
    assert gate.refusal == "teleop asks joint 1 for -17.2, far outside -2 to 2; check its unit and zero."
    assert ask(gate, Driver.TELEOP, 0.0, np.array([1.2, -2.1])) is not None


HELD = Rules(LIMITS, STALENESS_S, following=np.array([0.3, 0.5]))
SAGGING = np.array([-0.05, 0.4])  # from where it was sent: a lift under its load, a hand that closes on something


def settle(gate: Gate, until_s: float, place: np.ndarray, from_s: float = 0.0) -> None:
    """Joint states at 50 Hz, all at one place, and the watchdog."""
    for now_s in np.arange(from_s, until_s, 0.02):
        gate.measured(place, ns(now_s))
        gate.tick(ns(now_s))


def hold_and_sag() -> tuple[Gate, np.ndarray, np.ndarray, float]:
    """A gate whose arm holds since 2 s: where it was sent, where it is, and when it is."""
    gate = Gate(HELD)
    sent = START
    for now_s in np.arange(0.0, 1.0, 0.02):
        gate.measured(sent, ns(now_s))
        answer = ask(gate, Driver.POLICY, now_s, START)
        assert answer is not None
        sent = answer.position
    settle(gate, 3.0, sent + SAGGING, from_s=1.0)
    return gate, sent, sent + SAGGING, 3.0


def test_after_a_pause_a_hand_keeps_its_grip_and_an_arm_does_not_sink() -> None:
    gate, sent, _, now_s = hold_and_sag()
    answer = ask(gate, Driver.POLICY, now_s, START)
    assert answer is not None
    np.testing.assert_allclose(answer.position, sent, atol=1e-3)
    away_s = float(np.max(np.abs(SAGGING) / LIMITS.velocity))
    assert answer.reach_in_s >= away_s / CATCHING_UP, "a driver that did let go takes the way at the arm's speed"


def test_no_pose_is_put_together_that_is_outside_the_workspace() -> None:
    """One joint where it was sent, the other where it was moved to: each of the two poses is inside, not both."""
    gate, sent, measured, now_s = hold_and_sag()
    gate._rules = replace(HELD, workspace=lambda place, allowed: Trespass({"edge": (depth(place), "")}))
    moved = measured + np.array([0.0, 0.2])

    def depth(place: np.ndarray) -> float:
        return max(0.0, float(min(place[0] - moved[0], place[1] - sent[1])) - 0.01)

    assert depth(sent) == depth(moved) == 0.0
    assert depth(np.array([sent[0], moved[1]])) > 0.0
    settle(gate, now_s + 0.5, moved, from_s=now_s)
    answer = ask(gate, Driver.POLICY, now_s + 0.5, moved)
    assert answer is not None, gate.refusal
    np.testing.assert_array_equal(answer.start, moved)


def test_an_arm_that_is_held_outside_its_workspace_keeps_its_grip_too() -> None:
    gate, sent, measured, now_s = hold_and_sag()

    def depth(place: np.ndarray) -> float:
        return max(0.0, float(place[0] - measured[0]))

    gate._rules = replace(HELD, workspace=lambda place, allowed: Trespass({"edge": (depth(place), "")}))
    assert depth(sent) > depth(measured)
    answer = ask(gate, Driver.POLICY, now_s, START)
    assert answer is not None, gate.refusal
    np.testing.assert_array_equal(answer.start, sent)


@pytest.mark.parametrize("what", ["moved", "silent", "stopped", "far"])
def test_an_arm_that_may_not_be_held_there_goes_on_from_where_it_is_measured(what: str) -> None:
    gate, _, measured, now_s = hold_and_sag()
    if what == "moved":  # by hand
        measured = measured + 0.2
        settle(gate, now_s + 0.5, measured, from_s=now_s)
    elif what == "far":
        measured = measured + np.array([-0.3, 0.2])
        settle(gate, now_s + 0.5, measured, from_s=now_s)
    elif what == "silent":  # its driver began anew
        settle(gate, now_s + 0.5, measured, from_s=now_s + 0.3)
    else:
        gate.orders.is_stopped = True
        settle(gate, now_s + 0.5, measured, from_s=now_s)
        gate.reset_estop()
    answer = ask(gate, Driver.POLICY, now_s + 0.5, measured)
    assert answer is not None, gate.refusal
    np.testing.assert_allclose(answer.position, measured, atol=1e-3)


def test_two_who_publish_joint_states_move_nothing() -> None:
    gate = Gate(replace(RULES, joints=("lift", "swing")))
    for i in range(200):  # the driver at 100 Hz, and zeros at 10 Hz
        now_s = 0.01 * i
        gate.measured(np.array([0.2, 1.2]), ns(now_s))
        if i % 10 == 5:
            gate.measured(np.zeros(2), ns(now_s + 0.003))
        if i > 20:
            assert ask(gate, Driver.POLICY, now_s + 0.004) is None
            assert gate.refusal.startswith("joint swing leaps between ")
            assert "two nodes publish its joint states" in gate.refusal
    gate.measured(np.array([0.2, 1.2]), ns(3.1))  # the other has ended
    gate.measured(np.array([0.2, 1.2]), ns(3.2))
    assert ask(gate, Driver.POLICY, 3.2) is not None


def test_a_bag_that_is_played_beside_the_driver_moves_nothing() -> None:
    gate = Gate(RULES)
    obeyed = 0
    for i in range(100):  # both at 100 Hz, at the same place
        now_s = 0.01 * i
        gate.measured(START, ns(now_s), ns(1e6 + now_s))
        gate.measured(START, ns(now_s + 0.004), ns(1e3 + now_s))
        obeyed += ask(gate, Driver.TELEOP, now_s + 0.005) is not None
    assert obeyed <= 2
    assert gate.refusal.startswith("joint states go back by 9.99e+05 s and on again: two nodes publish them")


def test_a_clock_that_is_set_back_once_stops_nothing() -> None:
    gate = Gate(RULES)
    for i in range(100):
        now_s = 0.01 * i
        gate.measured(START, ns(now_s), ns((1e6 if i < 50 else 1e3) + now_s))
        assert ask(gate, Driver.TELEOP, now_s) is not None, gate.refusal


def test_joint_states_that_come_late_or_by_hand_are_no_leaps() -> None:
    gate = Gate(RULES)
    for now_s in (0.0, 0.5, 1.0, 1.5):  # at full speed to and fro, and most samples lost
        gate.measured(START + (0.9 if now_s % 1 else 0.0), ns(now_s))
        assert ask(gate, Driver.POLICY, now_s) is not None, gate.refusal


STRAYING = Rules(LIMITS, STALENESS_S, following=np.array([0.3, 0.5]), joints=("lift", "swing"))


def test_a_joint_that_does_not_follow_is_held_until_somebody_sees_to_it() -> None:
    gate = Gate(STRAYING)
    last_s = 0.0
    for now_s in np.arange(0.0, 1.0, 0.02):  # the arm is stuck where it was
        gate.measured(START, ns(now_s))
        gate.tick(ns(now_s))
        if ask(gate, Driver.POLICY, now_s) is None:
            last_s = float(now_s)
            break
    assert 0.05 < last_s < 0.5
    assert gate.refusal.startswith("joint lift is 0.")
    assert gate.driver is Driver.HOLD
    brake(gate, last_s)
    for now_s in last_s + np.arange(2.0, 3.0, 0.02):
        gate.measured(START, ns(now_s))
        assert ask(gate, Driver.POLICY, now_s) is None, "it stays held, though requests go on"
    gate.reset_estop()
    assert ask(gate, Driver.POLICY, last_s + 3.0) is not None


def test_an_arm_that_a_simulator_puts_elsewhere_is_not_astray() -> None:
    gate = Gate(STRAYING)
    last_s = drive(gate, 0.1)
    for _ in range(5):  # its new place is heard before its new time
        gate.measured(START + 1.0, ns(last_s + 0.01))
    gate.measured(START + 1.0, ns(last_s + 0.51))
    sent = ask(gate, Driver.POLICY, last_s + 0.51)
    assert sent is not None, gate.refusal
    np.testing.assert_allclose(sent.position, START + 1.0, atol=0.01)


def test_a_human_may_take_an_arm_in_hand_that_did_not_follow() -> None:
    gate = Gate(STRAYING)
    drive(gate, 0.1)
    for now_s in np.arange(0.1, 0.6, 0.02):
        gate.measured(START, ns(now_s))
        ask(gate, Driver.POLICY, now_s)
    assert ask(gate, Driver.POLICY, 0.6) is None
    gate.measured(START, ns(0.9))
    assert ask(gate, Driver.TELEOP, 0.9, START) is not None
    gate.measured(START, ns(1.5))
    assert ask(gate, Driver.POLICY, 1.5, START) is not None


def test_a_joint_that_lags_as_joints_do_is_let_alone() -> None:
    gate, measured = Gate(STRAYING), START
    for now_s in np.arange(0.0, 1.0, 0.02):
        gate.measured(measured, ns(now_s))
        sent = ask(gate, Driver.POLICY, now_s)
        assert sent is not None, gate.refusal
        measured = measured + 0.3 * (sent.position - measured)


def box(upper: float) -> Rules:
    """The first joint may go no further than ``upper``."""

    def trespass(position: np.ndarray, allowed: Trespass | None) -> Trespass:
        return Trespass({"lift": (max(0.0, position[0] - upper), f"the lift would be at {position[0]:.2f}")})

    return Rules(LIMITS, STALENESS_S, workspace=trespass)


def test_it_stops_at_the_edge_of_its_workspace() -> None:
    gate = Gate(box(0.5))
    last = START
    for now_s in np.arange(0.0, 2.0, 0.02):
        gate.measured(last, ns(now_s))
        sent = ask(gate, Driver.POLICY, now_s)
        assert sent is not None
        last = sent.position
        assert last[0] <= 0.5 + 1e-6
    assert last[0] > 0.48
    assert gate.warning == "the lift would be at 0.90; it goes as far as it may."
    gate.measured(last, ns(2.0))
    assert ask(gate, Driver.POLICY, 2.0, START) is not None
    assert gate.warning == ""


def test_an_arm_found_outside_its_workspace_may_come_back_but_not_go_further() -> None:
    for goal, comes in ((np.array([0.9, 0.0]), False), (np.array([0.2, 0.0]), True)):
        gate, last = Gate(box(0.5)), np.array([0.7, 0.0])
        for now_s in np.arange(0.0, 1.0, 0.02):
            gate.measured(last, ns(now_s))
            sent = ask(gate, Driver.POLICY, now_s, goal)
            assert sent is not None
            last = sent.position
        assert (last[0] < 0.21) == comes
        assert last[0] <= 0.7 + 1e-5


def test_a_clock_that_began_anew_lets_the_gate_begin_anew(gate: Gate) -> None:
    drive(gate, 0.5)
    gate.orders.takeover = True
    assert ask(gate, Driver.TELEOP, -3.0) is None
    assert gate.refusal == "no joint states have arrived yet; check the robot driver."
    gate.measured(START, ns(-2.9))
    sent = ask(gate, Driver.TELEOP, -2.9)
    assert sent is not None
    assert np.all(np.abs(sent.position - START) <= LIMITS.acceleration * 0.02**2)
    assert gate.orders.takeover, "who took over drives on"


def test_a_clock_that_stumbles_back_moves_nothing(gate: Gate) -> None:
    last_s = drive(gate, 0.3)
    before, after = (ask(gate, Driver.POLICY, now_s) for now_s in (last_s + 0.02, last_s - 0.05))
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after.position, before.position, atol=1e-5)


def test_a_fault_of_the_solver_stops_the_gate(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    last_s = drive(gate, 0.2)

    def fail(*arguments: object) -> None:
        raise LimitError("a step would leave the limits of jerk; it is not sent.")

    monkeypatch.setattr(MotionLimiter, "_after", fail)
    assert ask(gate, Driver.POLICY, last_s + 0.02) is None
    assert "limits of jerk; it is not sent. The gate has stopped; call lam/reset_estop" in gate.refusal
    assert gate.tick(ns(last_s + 0.03)) is None
    monkeypatch.undo()
    gate.measured(START, ns(last_s + 0.04))
    assert ask(gate, Driver.POLICY, last_s + 0.04) is None, "latched"
    assert "limits of jerk" in gate.fault, "and still told"
    gate.reset_estop()
    assert not gate.fault


TARGETS = st.tuples(*[st.one_of(*[st.floats(-2.9, 2.9)] * 8, st.floats(-9.0, 9.0), st.just(float("nan")))] * 2)
EVENTS = st.lists(
    st.tuples(
        st.floats(0.002, 0.1),
        st.sampled_from([*["measured"] * 5, *["policy"] * 5, "teleop", "tick", "estop", "reset", "reset", "takeover"]),
        TARGETS,
        st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_whatever_happens_only_who_may_drive_is_obeyed_and_within_limits(
    events: list[tuple[float, str, tuple[float, float], tuple[float, float]]],
) -> None:
    gate = Gate(RULES)
    now_s, measured_s, teleop_s, sent_s = 0.0, -np.inf, -np.inf, -np.inf
    stopped, last, measured = False, None, None
    for wait_s, kind, asked, place in events:
        now_s += wait_s
        sent, target = None, np.array(asked)
        if kind == "measured":
            measured, measured_s = START + np.array(place), now_s
            gate.measured(measured, ns(now_s))
        elif kind == "estop":
            gate.orders.is_stopped = True
            stopped = True
        elif kind == "reset":
            gate.reset_estop()
            stopped = False
        elif kind == "takeover":
            gate.orders.takeover = not gate.orders.takeover
        elif kind == "tick":
            sent = gate.tick(ns(now_s))
            assert sent is None or sent.driver is Driver.HOLD
        else:
            driver = Driver(kind)
            teleop_s = now_s if driver is Driver.TELEOP else teleop_s
            human = gate.orders.takeover or now_s - teleop_s <= STALENESS_S
            outside = np.maximum(LIMITS.lower - target, target - LIMITS.upper)
            may = bool(np.all(outside <= LIMITS.upper - LIMITS.lower))  # not with NaN, nor in another unit
            may = may and not stopped and now_s - measured_s <= STALENESS_S
            may = may and (driver is Driver.TELEOP or not human)
            sent = ask(gate, driver, now_s, target)
            assert (sent is not None) == may
            assert bool(gate.refusal) != may
            if sent is not None and now_s - sent_s > STALENESS_S:
                assert measured is not None
                starts = [measured] if last is None else [measured, last]  # each joint from where it stands
                assert np.all(np.any([np.isclose(sent.start, start) for start in starts], axis=0))
                last, sent_s = sent.start, now_s - 0.02
        if sent is not None:
            assert last is not None
            assert np.all(np.abs(sent.position - last) <= LIMITS.velocity * (now_s - sent_s) + 1e-6)
            assert np.all((sent.position >= LIMITS.lower) & (sent.position <= LIMITS.upper))
            last, sent_s = sent.position, now_s


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.002, 0.14), st.booleans(), st.tuples(st.floats(-1.0, 1.0), st.floats(-2.0, 2.0))),
        min_size=2,
        max_size=30,
    )
)
def test_however_requests_come_an_arm_that_takes_its_time_keeps_its_speed(
    steps: list[tuple[float, bool, tuple[float, float]]],
) -> None:
    gate = Gate(RULES)
    now_s, began_s = 0.0, 0.0
    arm, way = START, None  # as a trajectory controller: evenly from wherever it is, in the time it was given
    for wait_s, asks, target in steps:
        now_s += wait_s
        if way is not None:
            arm = arm + (way.position - arm) * min(1.0, (now_s - began_s) / way.reach_in_s)
        gate.measured(arm, ns(now_s))
        sent = ask(gate, Driver.POLICY, now_s, np.array(target)) if asks else gate.brake("told to.", ns(now_s))
        if sent is not None:
            assert np.all(np.abs(sent.position - arm) <= CATCHING_UP * LIMITS.velocity * sent.reach_in_s + 1e-6)
            way, began_s = sent, now_s


def test_requests_at_a_steady_rate_are_reached_as_the_next_comes(gate: Gate) -> None:
    sent = [ask_measured(gate, now_s) for now_s in np.arange(0.0, 1.0, 0.05)]
    assert [round(one.reach_in_s, 6) for one in sent[1:]] == [0.05] * 19
    late = ask_measured(gate, 1.05)
    assert late.reach_in_s == pytest.approx(0.1)
    soon = [ask_measured(gate, 1.05 + 0.01 * (i + 1)).reach_in_s for i in range(40)]
    assert soon[0] == pytest.approx((0.1 * 0.9 + 0.01) / CATCHING_UP), "what is under way is not cut short"
    assert soon[-1] == pytest.approx(0.01), "and is caught up with"


def ask_measured(gate: Gate, now_s: float) -> Sent:
    gate.measured(START, ns(now_s))
    sent = ask(gate, Driver.POLICY, now_s)
    assert sent is not None
    return sent
