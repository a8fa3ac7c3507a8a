"""action_node: features and joint states in, the policy's joint targets out. The LSTM steps once a Features message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, JointState

from lam_ros.contract import NANOSECONDS, Action, Features, seconds_to_ns
from lam_ros.control.gate import Driver
from lam_ros.control.shadow import Agreement
from lam_ros.demonstrations.alignment import StateHistory
from lam_ros.errors import ContractError, LamError
from lam_ros.images import pixels
from lam_ros.nodes.base import ERROR, OK, SILENCE_S, WARN, stamp_to_ns
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.policy import Loaded, PolicyNode
from lam_ros.nodes.qos import COMMAND, SENSOR, STREAM
from lam_ros.nodes.takeover import Takeover

HUMAN_COMMANDS = 200  # two seconds at a gate's rate
MOST_GIVEN = 3  # policies that are kept ready and have not run yet
GAP_TICKS = 4.5  # a longer pause between two features is the end of one episode and the start of another


class ActionNode(PolicyNode):
    """Resets the LSTM at activation, as a takeover begins, and where the stream of features pauses or goes back.

    While a human drives, and in shadow mode, it goes on seeing and predicting, and commands nothing: so it is warm when
    it is handed control, and what it would have done is on ``lam/shadow``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("action", **kwargs)
        self.declare(
            "shadow", False, "Predict beside whoever drives, and command nothing; may be changed while it runs."
        )
        self.is_fed = False  # by a perception node in the same process; what it publishes is then not taken twice
        self.hand_over: Callable[[Action], None] | None = None  # to a gate in the same process
        self._takeover = Takeover(self, self._on_takeover)

    def configure(self) -> None:
        self._ready: list[Loaded] = []  # the policies that may be asked for, the newest last
        self._before = ""  # digest of the one that ran before this one
        self.load_policy()
        self._gap_ns = seconds_to_ns(GAP_TICKS / self.robot.policy.rate_hz)
        self._history = StateHistory(self.robot.joint_states)
        self._oldest_ns = seconds_to_ns(self.robot.oldest_image_s)
        self._last_stamp_ns: int | None = None
        self._human: deque[tuple[int, np.ndarray]] = deque(maxlen=HUMAN_COMMANDS)  # stamps in ns, and commands
        self._predicted: tuple[Action, np.ndarray] | None = None  # this tick's, and where the arm was
        self._agreement = Agreement(self.contract.joints, *self.robot.position_limits)
        self._resets = 0
        self._published = 0
        self._commands = self.create_publisher(JointState, "lam/policy_command", COMMAND)
        self._shadow = self.create_publisher(JointState, "lam/shadow", STREAM)
        self._subscriptions_made = [
            self.create_subscription(JointState, self.robot.joint_states.topic, self._on_joint_states, SENSOR),
            self.create_subscription(Image, "lam/features", self._on_features, STREAM),
            self.create_subscription(JointState, "lam/command", self._on_sent, STREAM),
        ]
        self.need_joint_states()
        self.need_publisher("lam/features")
        self.need_subscriber(self._commands)
        self.figure("commands published", lambda: self._published)
        self.figure("checkpoints ready", lambda: " ".join(loaded.digest for loaded in self._ready))
        self.figure("LSTM resets", lambda: self._resets)
        self.figure("shadow ticks", lambda: self._agreement.ticks)
        self.figure("shadow explained", lambda: f"{self._agreement.explained:.2f}")
        self.figure("shadow error", lambda: self._errors())

    def start(self) -> None:
        self._reset_policy()
        self._heard_ns = self.now_ns()

    def stop(self) -> None:
        self.note("policy", OK, "not active")

    def _report(self) -> None:
        if self.is_active:
            silent_s = (self.now_ns() - self._heard_ns) / NANOSECONDS
            if silent_s > SILENCE_S:
                self.note("policy", WARN, f"no features for {silent_s:.0f} s; see perception")
        super()._report()

    def run_with(self, loaded: Loaded) -> None:
        if loaded not in self._ready:
            self._ready.append(loaded)
        if self._is_loaded and loaded.digest != self._digest:
            self._before = self._digest
        super().run_with(loaded)

    def adopt(self, loaded: Loaded) -> None:
        """Be ready to answer features of this policy. The one that runs and the one before stay ready too, and some of
        those given since: perception may have run one, and go back to it, before its features were heard here."""
        self._ready = [*(known for known in self._ready if known.digest != loaded.digest), loaded]
        others = [known for known in self._ready if known.digest not in (self._digest, self._before)]
        self._ready = [known for known in self._ready if known not in others[:-MOST_GIVEN]]

    def _follow(self, checkpoint_digest: str) -> None:
        """Take up the policy that perception runs.

        Raises:
            ContractError: this node has not loaded it.
        """
        for loaded in self._ready:
            if loaded.digest == checkpoint_digest:
                self.run_with(loaded)
                self._reset_policy()
                self.tell_file()  # after a rollback it is not the one that was asked for last
                return
        raise ContractError(
            f"perception runs checkpoint {checkpoint_digest or '(none)'}, action {self._digest}; "
            "give both the same file."
        )

    def _reset_policy(self) -> None:
        self._policy.reset()
        self._last_stamp_ns = None
        self._resets += 1

    def _on_joint_states(self, message: JointState) -> None:
        state = self.joint_positions(message)
        if state is not None:
            self._history.push(stamp_to_ns(message.header.stamp), state)

    def _errors(self) -> str:
        errors = zip(self.contract.joints, self._agreement.errors, strict=True)
        return ", ".join(f"{joint} {error:.3g}" for joint, error in errors)

    def _on_takeover(self, is_on: bool) -> None:
        if not self.is_active:
            return
        self._predicted = None
        self._human.clear()
        if is_on:
            self._reset_policy()
            self._agreement.reset()
        else:
            self._policy.replan()

    def _on_sent(self, message: JointState) -> None:
        if message.header.frame_id != Driver.TELEOP.value:
            return
        try:
            command = self.contract.in_order(message.name, message.position, "lam/command")
            self._human.append((stamp_to_ns(message.header.stamp), command))
        except ContractError as error:
            self.note("shadow", ERROR, str(error))

    def _on_features(self, message: Image) -> None:
        if self.is_fed or not self.is_active:
            return
        try:
            values = np.array(pixels(message)[..., 0], dtype=np.float32)
        except LamError as error:
            self.note("policy", ERROR, str(error))
            return
        self.take(Features(stamp_to_ns(message.header.stamp), values), message.header.frame_id)

    def take(self, features: Features, checkpoint_digest: str) -> None:
        """Answer the features of one tick, made by the checkpoint of that digest."""
        if not self.is_active:
            return
        self._heard_ns = self.now_ns()
        stamp_ns = features.stamp_ns
        last = self._last_stamp_ns
        if last is not None and not 0 <= stamp_ns - last <= self._gap_ns:  # two ticks of a clock may share a frame
            self._reset_policy()
        try:
            if checkpoint_digest != self._digest:
                self._follow(checkpoint_digest)
            state = self._history.at(stamp_ns)
            self._check_age(stamp_ns)
            action = self._policy.act_on(features, state)
        except LamError as error:
            self.note("policy", ERROR, str(error))
            return
        self._last_stamp_ns = stamp_ns
        # Where that is not sure the gate decides, and says what lets the policy go on.
        if self._takeover.is_sure or self.parameter("shadow"):
            self._stand_beside(action, state)
            return
        if self.hand_over is not None:
            self.hand_over(action)
        self._commands.publish(joint_message(self.contract.joints, action.target, stamp_ns))
        self._published += 1
        self.note("policy", OK, "the policy answers")

    def _check_age(self, stamp_ns: int) -> None:
        """Raises ContractError where the images are so old that the arm may be elsewhere by now."""
        newest_ns = self._history.newest_ns
        assert newest_ns is not None
        if newest_ns - stamp_ns > self._oldest_ns:
            raise ContractError(
                f"the images are {(newest_ns - stamp_ns) / 1e9:.1f} s older than the joint states, more than "
                f"{self._oldest_ns / 1e9:.1f} s; check the cameras' network and whether the CNN keeps up."
            )

    def _stand_beside(self, action: Action, state: np.ndarray) -> None:
        """Tell what would be commanded; the tick before can now be compared with what the human did in it."""
        if self._predicted is not None:
            predicted, measured = self._predicted
            answers = (c for stamp_ns, c in self._human if predicted.stamp_ns <= stamp_ns < action.stamp_ns)
            commanded = next(answers, None)
            if commanded is not None:
                self._agreement.add(predicted.target, commanded, measured)
                self.note("shadow", OK if self._agreement.may_go else WARN, self._agreement.sentence())
        self._predicted = action, state
        self._shadow.publish(joint_message(self.contract.joints, action.target, action.stamp_ns))

    def _forget(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for publisher in (self._commands, self._shadow):
            self.destroy_publisher(publisher)
