"""The gate between whoever wants to drive and the arm. It knows no policy: limits, who may drive, and when to hold.

idle ──request──▶ driving ──request too old, e-stop, no joint states, joint astray──▶ braking ──at rest──▶ holding
                     ▲                                                                                        │
                     └──────── request (starts slowly, from where the arm stands: standing.py) ───────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from lam_ros.config import RobotConfig, urdf_path
from lam_ros.contract import NANOSECONDS, seconds_to_ns
from lam_ros.control.limits import Motion, MotionLimiter, MotionLimits
from lam_ros.control.standing import Leaps, Standing
from lam_ros.errors import ConfigError, LimitError

FIRST_STEP_NS = 20_000_000  # after a pause nothing says how long the first step may take
BEHIND_NS = 50_000_000  # an arm that a simulator has just put elsewhere is not astray: its clock jumps a moment later
LONG_AGO = -(2**62)
SLOWEST = 0.1  # share of full speed that a ramp begins with
CATCHING_UP = 1.25  # times its velocity limits, at which an arm may take up what is still under way
GOAL_HALVINGS = 6  # of the way to a goal outside the workspace: it stops within 2 % of it before the edge
STOPPING_PLACES = 3  # looked at on the way to rest
EDGE_M = 1e-6  # what arithmetic may make of a pose on the workspace's edge


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
    """What goes to the robot.

    Attributes:
        position: of the joints (J,), in rad or m.
        driver: who drives.
        stamp_ns: the stamp it answers, None for a hold.
        reach_in_s: in which time the arm may go there, from wherever what was sent before has it by now.
        start: where the motion was before (J,): what was sent last, or after a pause where the arm stood.
    """

    position: np.ndarray
    driver: Driver
    stamp_ns: int | None
    reach_in_s: float
    start: np.ndarray


@dataclass
class Orders:
    """What people have ordered: it stands whatever becomes of the gate that obeys it.

    Attributes:
        is_stopped: the emergency stop was pressed, or the gate found a fault; until ``reset_estop``.
        takeover: a human says that they drive.
        human_drove: since the policy was last told to go on.
    """

    is_stopped: bool = False
    takeover: bool = False
    human_drove: bool = False


@dataclass(frozen=True)
class Trespass:
    """Which rules of the workspace a pose breaks: how far (m), and what is wrong in words; none where it is inside."""

    found: Mapping[str, tuple[float, str]] = field(default_factory=dict)

    def depth_m(self, rule: str) -> float:
        return self.found[rule][0] if rule in self.found else 0.0

    def beyond(self, *allowed: Trespass) -> str:
        """What is worst, in words, of what is broken further than by any of ``allowed``; empty where nothing is.

        Each rule for itself: an arm that is found beside its box is not let through the floor for that.
        """
        worst_m, said = 0.0, ""
        for rule, (depth_m, words) in self.found.items():
            excess_m = depth_m - max(EDGE_M, *(other.depth_m(rule) for other in allowed))
            if excess_m > worst_m:
                worst_m, said = excess_m, words or rule
        return said


@dataclass(frozen=True)
class Rest:
    """Where a motion would come to rest (J,) if it stopped now, and what of the workspace that breaks."""

    motion: Motion
    place: np.ndarray
    trespass: Trespass


@dataclass(frozen=True)
class Rules:
    """What a gate holds an arm to.

    Attributes:
        limits: of its J joints.
        staleness_s: a request or a joint state older than this no longer counts.
        ramp_s: how long a new driver takes to come to full speed.
        waits_after_teleop: whether the policy waits for ``resume`` after a human drove.
        pause_ns: a policy that nobody heard for longer waits for ``resume``; None lets it go on by itself.
        following: how far (J,) measured may be from commanded; None does not look.
        workspace: what joint positions (J,) break of it. Where that is already more than a second argument allows,
            it need not look on. None allows all.
        oldest_ns: a policy's request that answers images older than that, by the joint states' stamps, is refused.
        joints: names, for sentences.
    """

    limits: MotionLimits
    staleness_s: float
    ramp_s: float = 0.0
    waits_after_teleop: bool = False
    pause_ns: int | None = None
    following: np.ndarray | None = None
    workspace: Callable[[np.ndarray, Trespass | None], Trespass] | None = None
    oldest_ns: int | None = None
    joints: tuple[str, ...] = ()

    @classmethod
    def of(cls, robot: RobotConfig, robot_file: str | Path | None = None) -> Rules:
        """A robot YAML's.

        Args:
            robot_file: the YAML the robot came from.

        Raises:
            ConfigError: the URDF cannot be used, or a workspace is given and MuJoCo is not installed.
        """
        gate, workspace = robot.gate, None
        if gate.workspace is not None:
            try:
                from lam_ros.control.workspace import Workspace
            except ImportError:
                raise ConfigError("gate.workspace needs MuJoCo: pip install mujoco, or leave it out.") from None
            workspace = Workspace(gate.workspace, urdf_path(robot, robot_file), robot.joint_names).trespass
        return cls(
            MotionLimits.of(robot, robot_file),
            gate.staleness_s,
            ramp_s=gate.ramp_s,
            waits_after_teleop=gate.after_teleop == "hold",
            pause_ns=seconds_to_ns(gate.longest_pause_s) if gate.longest_pause_s else None,
            following=robot.following_errors,
            workspace=workspace,
            oldest_ns=seconds_to_ns(robot.oldest_image_s),
            joints=robot.joint_names,
        )


class Gate:
    """Decides what is sent. Time is given with each call, in ns of any clock.

    Whole nanoseconds, because the same calls then give the same commands whenever the clock began. A clock that goes
    back by more than the staleness began anew, and so does the gate; by less, it stands.

    Args:
        orders: of people to a gate before this one, which go on.

    Attributes:
        refusal, warning: why the last request was not obeyed, or not all the way.
        implausible: why the arm cannot be where it is measured; empty where it can.
        fault: what it stopped itself at, until ``reset_estop``.
    """

    def __init__(self, rules: Rules, orders: Orders | None = None) -> None:
        self._rules = rules
        self.orders = Orders() if orders is None else orders
        self._limiter = MotionLimiter(rules.limits)
        self._staleness_ns = seconds_to_ns(rules.staleness_s)
        self._leaps = Leaps(rules.limits.velocity, rules.joints)  # its memory outlasts an activation
        self.fault = ""
        self.reset()

    def reset(self) -> None:
        """Forget what was sent and measured, as at activation. What people have ordered stays as it is."""
        self._now = LONG_AGO
        self._measured: np.ndarray | None = None
        self._measured_at = LONG_AGO
        self._measured_stamp: int | None = None
        self._standing = Standing(self._rules.limits.velocity, self._rules.following, self._rules.staleness_s)
        self._motion: Motion | None = None
        self._rest: Rest | None = None
        self._sent_at = LONG_AGO
        self._owed_ns, self._reach_ns = 0.0, 0
        self._request_at = LONG_AGO
        self._teleop_at = LONG_AGO
        self._driven_at: int | None = None  # when somebody drove last, or had the arm for themselves
        self._ramp_from = LONG_AGO
        self._astray = ""
        self._behind_since: int | None = None
        self.implausible = ""
        self.refusal = "no request has come yet."
        self.warning = ""
        self.driver = Driver.HOLD

    def _at(self, now_ns: int) -> int:
        if now_ns < self._now - self._staleness_ns:
            self.reset()
        self._now = max(self._now, now_ns)
        return self._now

    def measured(self, position: np.ndarray, now_ns: int, stamp_ns: int | None = None) -> None:
        """Note joint positions (J,), measured at ``stamp_ns``; values that no arm can have count as no measurement."""
        now_ns = self._at(now_ns)
        if not self._is_plausible(position, now_ns, stamp_ns):
            return
        self._measured, self._measured_at = np.asarray(position, dtype=np.float64), now_ns
        self._measured_stamp = stamp_ns
        self._standing.measured(self._measured, now_ns)
        drives = self.driver is not Driver.HOLD and now_ns - self._sent_at <= self._staleness_ns
        if not drives or self._motion is None or self._rules.following is None:
            self._behind_since = None
            return
        error = np.abs(self._measured - self._motion.position)
        worst = int(np.argmax(error / self._rules.following))
        if error[worst] <= self._rules.following[worst]:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now_ns
        elif now_ns - self._behind_since >= BEHIND_NS:
            self._astray = (
                f"joint {self._name(worst)} is {error[worst]:.3g} from where it was sent, more than "
                f"{self._rules.following[worst]:.3g}; see what holds it, then drive it by hand or call "
                "lam/reset_estop."
            )

    def _is_plausible(self, position: np.ndarray, now_ns: int, stamp_ns: int | None) -> bool:
        """Whether an arm can be there, after where it was before; ``implausible`` says why not."""
        if position.shape != self._rules.limits.lower.shape:
            return False
        far = self._rules.limits.far_outside(position)
        if far is not None:
            self.implausible = f"joint {self._name(far)} is measured at {self._outside(far, position)}"
        else:
            self.implausible = self._leaps.found(position, now_ns, stamp_ns)
        return not self.implausible

    def _outside(self, joint: int, position: np.ndarray) -> str:
        lower, upper = self._rules.limits.lower[joint], self._rules.limits.upper[joint]
        return f"{position[joint]:.4g}, far outside {lower:g} to {upper:g}; check its unit and zero."

    @property
    def astray(self) -> str:
        """What keeps the arm held until somebody looks: a joint that did not follow; empty where none."""
        return self._astray

    def _name(self, joint: int) -> str:
        return self._rules.joints[joint] if self._rules.joints else str(joint)

    def reset_estop(self) -> None:
        """Let it move again, after a stop or a joint that went astray."""
        self.orders.is_stopped, self._astray, self.fault = False, "", ""
        self._pause_begins()

    def resume(self) -> None:
        """Let the policy go on, after a human drove or a long pause."""
        self.orders.human_drove = False
        self._pause_begins()

    def _pause_begins(self) -> None:
        """A word lets the policy go on within ``pause_ns`` from now, and not whenever it may come back."""
        if self._driven_at is not None:
            self._driven_at = self._now

    def request(self, request: Request, now_ns: int) -> Sent | None:
        """A request arrived: what to send now, None if it is refused (``refusal`` says why).

        ``warning`` says what keeps the arm from going all the way.
        """
        now_ns = self._at(now_ns)
        self.warning = ""
        if request.driver is Driver.TELEOP:
            if now_ns - self._teleop_at > self._staleness_ns:
                self._astray = ""  # somebody takes it in hand
            self._teleop_at, self.orders.human_drove = now_ns, True
        self.refusal = self._why_not(request, now_ns)
        if self.refusal:
            return None
        if self._motion is None or now_ns - self._sent_at > self._staleness_ns:
            motion, dt_ns = self._after_pause(now_ns), min(self._staleness_ns, FIRST_STEP_NS)
            self._ramp_from = now_ns
        else:
            motion, dt_ns = self._motion, now_ns - self._sent_at
            if request.driver is not self.driver:
                self._ramp_from = now_ns
                dt_ns = min(dt_ns, FIRST_STEP_NS) if motion.rests else dt_ns
        start = motion.position
        try:
            motion = self._towards(motion, np.asarray(request.target, dtype=np.float64), dt_ns, now_ns)
        except LimitError as error:
            self._fault(error)
            return None
        self._request_at, self._driven_at, self.driver = now_ns, now_ns, request.driver
        return self._send(start, motion, now_ns, request.stamp_ns, dt_ns)

    def _after_pause(self, now_ns: int) -> Motion:
        """At rest where the arm stands. Whatever it lacks to there, it is given the time for at its velocity limits."""
        assert self._measured is not None
        start, trespass = self._standing.start(), self._rules.workspace
        is_mixed = not self._standing.is_held.all()
        if is_mixed and trespass is not None and trespass(start, None).beyond(trespass(self._measured, None)):
            start = self._measured  # of joints as sent and as measured, a pose in which the arm never was
        away_s = float(np.max(np.abs(start - self._measured) / self._rules.limits.velocity))
        self._owed_ns = self._reach_ns = seconds_to_ns(away_s)
        self._sent_at = now_ns
        return Motion.at_rest(start)

    def tick(self, now_ns: int) -> Sent | None:
        """The watchdog: brakes when nobody drives any more. What to send now, None when there is nothing to send."""
        now_ns = self._at(now_ns)
        if self.orders.is_stopped:
            self._standing.forget()  # whoever releases it may have moved the arm, or begun its driver anew
        if self.orders.takeover and self._driven_at is not None:
            self._driven_at = now_ns  # who has the arm is there to see it go on, whether they move it or not
        reason = self._why_hold(now_ns)
        return self.brake(reason, now_ns) if reason else None

    @property
    def rests(self) -> bool:
        """Whether nothing that was sent is still under way."""
        return self._motion is None or self._motion.rests

    def brake(self, reason: str, now_ns: int) -> Sent | None:
        """Take the arm from whoever drives: what to send now, None when there is nothing to send."""
        now_ns = self._at(now_ns)
        if self._motion is None:
            return None
        if self.driver is not Driver.HOLD:
            self.refusal, self.driver = reason, Driver.HOLD
        elapsed = now_ns - self._sent_at
        if elapsed > 2 * self._staleness_ns:
            self._motion = Motion.at_rest(self._motion.position)  # nothing was sent for so long that the arm stands
        if self._motion.rests or elapsed <= 0:
            return None
        try:
            motion = self._limiter.braking(self._motion, elapsed / NANOSECONDS)
        except LimitError as error:
            self._fault(error)
            return None
        return self._send(self._motion.position, motion, now_ns, None, elapsed)

    def _why_hold(self, now_ns: int) -> str:
        state_age, request_age = now_ns - self._measured_at, now_ns - self._request_at
        if self.orders.is_stopped:
            return "the emergency stop is pressed."
        if self.implausible:
            return self.implausible
        if state_age > self._staleness_ns:
            return f"joint states stopped {_seconds(state_age)} s ago."
        if self._astray:
            return self._astray
        if request_age > self._staleness_ns:
            return f"{self.driver.value} stopped {_seconds(request_age)} s ago."
        return ""

    def _why_not(self, request: Request, now_ns: int) -> str:
        if self.orders.is_stopped:
            return "the emergency stop is pressed; call lam/reset_estop when it is safe."
        joints = self._rules.limits.lower.shape
        if request.target.shape != joints or not np.isfinite(request.target).all():
            return f"a request of {request.driver.value} is not {joints[0]} finite positions."
        far = self._rules.limits.far_outside(request.target)
        if far is not None:
            return f"{request.driver.value} asks joint {self._name(far)} for {self._outside(far, request.target)}"
        if self.implausible:
            return self.implausible
        if self._measured is None:
            return "no joint states have arrived yet; check the robot driver."
        if now_ns - self._measured_at > self._staleness_ns:
            return f"joint states stopped {_seconds(now_ns - self._measured_at)} s ago; check the robot driver."
        refusal = self._why_not_policy(request, now_ns) if request.driver is Driver.POLICY else ""
        return refusal or self._astray

    def _why_not_policy(self, request: Request, now_ns: int) -> str:
        if self.orders.takeover:
            return (
                "a human is driving (lam/takeover; where whoever said so has ended, or one of several has let go, call "
                "lam/resume)."
            )
        if now_ns - self._teleop_at <= self._staleness_ns:
            return "a human is driving."
        if self.orders.human_drove and self._rules.waits_after_teleop:
            return "a human drove and has let go; call lam/resume to let the policy go on."
        if self._rules.pause_ns is not None and self._driven_at is not None:
            pause_ns = now_ns - self._driven_at
            if pause_ns > self._rules.pause_ns:
                return (
                    f"it would drive again after {_seconds(pause_ns)} s; call lam/resume when nobody is in the arm's "
                    "way (gate.longest_pause_s in the robot YAML says how long a pause it goes on after by itself)."
                )
        if self._rules.oldest_ns is not None and self._measured_stamp is not None:
            age_ns = self._measured_stamp - request.stamp_ns
            if age_ns > self._rules.oldest_ns:
                return (
                    f"policy answers images {_seconds(age_ns)} s older than the joint states, more than "
                    f"{_seconds(self._rules.oldest_ns)} s; check the network between the nodes."
                )
        return ""

    def _towards(self, motion: Motion, target: np.ndarray, dt_ns: int, now_ns: int) -> Motion:
        """The next motion towards a target, no further than from where the arm can stop inside its workspace."""
        if dt_ns == 0:  # requests that come at once share what one may move
            return motion
        speed = 1.0
        if self._rules.ramp_s:
            speed = float(np.clip((now_ns - self._ramp_from) / NANOSECONDS / self._rules.ramp_s, SLOWEST, 1.0))
        trespass, dt_s = self._rules.workspace, dt_ns / NANOSECONDS
        goal = np.clip(target, self._rules.limits.lower, self._rules.limits.upper)
        if trespass is None:
            return self._limiter.towards(motion, goal, dt_s, speed)
        rest = self._rest
        if rest is None or rest.motion is not motion:  # else the last tick has looked there
            (place,) = self._limiter.stopping(motion)
            rest = Rest(motion, place, trespass(place, None))
        allowed = rest.trespass  # an arm that was found outside may come back
        outside = trespass(goal, allowed).beyond(allowed)
        if outside:
            self.warning = f"{outside}; it goes as far as it may."
            goal = _furthest(rest.place, goal, lambda place: not trespass(place, allowed).beyond(allowed))
        moved = self._limiter.towards(motion, goal, dt_s, speed)
        for place in (moved.position, *self._limiter.stopping(moved, STOPPING_PLACES)):
            found = trespass(place, None)
            if found.beyond(allowed) and (worse := found.beyond(allowed, trespass(motion.position, None))):
                self.warning = f"on its way {worse}; it stops before."
                return self._limiter.braking(motion, dt_s)
        self._rest = Rest(moved, place, found)  # the last place looked at
        return moved

    def _send(self, start: np.ndarray, motion: Motion, now_ns: int, stamp_ns: int | None, dt_ns: int) -> Sent:
        """What is sent after ``dt_ns`` of motion, and when it is to be reached.

        The arm trails what it is sent by one step, which takes it as long as the step before took. A short step after a
        long one, a stop in the middle of one, would else be reached many times faster than the arm may move.
        """
        under_way = max(0.0, 1.0 - (now_ns - self._sent_at) / self._reach_ns) if self._reach_ns else 0.0
        self._owed_ns = self._owed_ns * under_way + dt_ns  # of motion within the limits
        self._reach_ns = max(dt_ns, round(self._owed_ns / CATCHING_UP))
        self._motion, self._sent_at = motion, now_ns
        self._standing.sent(motion.position, now_ns)
        return Sent(motion.position.copy(), self.driver, stamp_ns, self._reach_ns / NANOSECONDS, start.copy())

    def _fault(self, error: LimitError) -> None:
        """What must not happen happened: nothing is sent from here on, until somebody looks."""
        self.orders.is_stopped, self.driver = True, Driver.HOLD
        if self._motion is not None:
            self._motion = Motion.at_rest(self._motion.position)
        self.fault = self.refusal = f"{error} The gate has stopped; call lam/reset_estop when it is safe."


def _furthest(start: np.ndarray, goal: np.ndarray, is_allowed: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The furthest place (J,) towards a goal, on the straight line from where the arm would stop, that is allowed."""
    low, high = 0.0, 1.0
    for _ in range(GOAL_HALVINGS):
        share = (low + high) / 2
        low, high = (share, high) if is_allowed(start + share * (goal - start)) else (low, share)
    return start + low * (goal - start)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / NANOSECONDS:.2f}"
