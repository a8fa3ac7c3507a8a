"""teleop_node: a demonstrator drives. The scripted expert in simulation, a keyboard that works over SSH, a gamepad, a
leader arm, or whatever sends how fast the tool shall move."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from lam_ros.config import urdf_path
from lam_ros.control.gate import Driver
from lam_ros.control.limits import MotionLimits
from lam_ros.control.standing import Standing
from lam_ros.control.teleop import Approach, JoyJog, KeyboardJog, LeaderArm
from lam_ros.control.terminal import Keys
from lam_ros.demonstrations.alignment import StateHistory
from lam_ros.errors import ConfigError, ContractError
from lam_ros.nodes.base import ERROR, OK, WARN, PlainNode, stamp_to_ns
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.qos import COMMAND, LATCHED, SENSOR, STREAM

RELEASE_NS = 400_000_000  # without a key for so long, nobody drives
JOY_RELEASE_NS = 200_000_000  # likewise without a message of the gamepad (joy_node repeats itself 20 times a second)
TWIST_RELEASE_NS = 300_000_000  # without a gamepad's button: without a twist that moves anything
JOG_PERIOD_S = 0.02
GATE_NS = 200_000_000  # without a command of ours sent on by the gate for so long, it does not go along
RECORDER_KEYS = {" ": "start", "\r": "stop", "\x7f": "discard", "+": "mark_success", "-": "mark_failure"}
LEAD_S = 0.5  # how far a jog may be ahead of what the gate sends, at full speed: its ramp takes most of it
STAYS = "the arm stays with whoever held it: plug it in and let go of its button, or end teleop and call lam/resume"


class TeleopNode(PlainNode):
    """Publishes ``teleop/command`` and says on ``lam/takeover`` whether a human drives."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("teleop", **kwargs)
        sources = (
            "expert (the simulator's scripted demonstrator), keyboard, joy, leader or twist (see teleop in the robot "
            "YAML)."
        )
        self.declare("source", "expert", sources, read_only=True)
        self.declare("task", "reach", "The task that the expert demonstrates.", read_only=True)
        self._history = StateHistory(self.robot.joint_states)
        self._measured: np.ndarray | None = None
        self._target: np.ndarray | None = None  # of a jog, while it lasts
        self._takeover = False
        self._is_lost = False  # a gamepad that says nothing
        self._limits = MotionLimits.of(self.robot, self.robot_file)
        self._lead = LEAD_S * self._limits.velocity
        self._standing = Standing(self._limits.velocity, self.robot.following_errors, self.robot.gate.staleness_s)
        self._gate_at: np.ndarray | None = None
        self._gate_heard_at = 0
        self.create_subscription(JointState, self.robot.joint_states.topic, self._on_joint_states, SENSOR)
        self.create_subscription(JointState, "lam/command", self._on_sent, SENSOR)
        self.need_joint_states()
        self.open_outputs()
        source = self.parameter("source")
        if source == "expert":
            self._begin_expert()
        elif source == "keyboard":
            self._begin_keyboard()
        elif source == "joy":
            self._begin_joy()
        elif source == "leader":
            self._begin_leader()
        elif source == "twist":
            self._begin_twist()
        else:
            raise ConfigError(f"source is {source!r}; valid are expert, keyboard, joy, leader and twist.")

    def open_outputs(self) -> None:
        """Offer the topics on which a human drives."""
        self._commands = self.create_publisher(JointState, "teleop/command", COMMAND)
        self._takeovers = self.create_publisher(Bool, "lam/takeover", LATCHED)
        self.need_subscriber(self._commands)

    def _on_joint_states(self, message: JointState) -> None:
        state = self.joint_positions(message)
        if state is not None:
            self._measured = state
            self._standing.measured(state.astype(np.float64), self._steady.now().nanoseconds)
            self._history.push(stamp_to_ns(message.header.stamp), state)

    def _on_sent(self, message: JointState) -> None:
        try:
            sent = self.contract.in_order(message.name, message.position, "lam/command").astype(np.float64)
        except ContractError as error:
            self.note("gate", ERROR, str(error))
            return
        self.note("gate", OK, "its commands fit the robot")
        now_ns = self._steady.now().nanoseconds
        self._standing.sent(sent, now_ns)
        if message.header.frame_id == Driver.TELEOP.value:
            self._gate_at, self._gate_heard_at = sent, now_ns

    def gate_at(self) -> np.ndarray | None:
        """Where the gate sends the arm for this driver (J,); None while it does not go along, as after an e-stop."""
        return self._gate_at if self._steady.now().nanoseconds - self._gate_heard_at <= GATE_NS else None

    def jog_from(self) -> np.ndarray:
        """Where a jog goes on from (J,): its last target, or where the arm stands while the gate does not go along.
        What was asked for in vain would else be made up for once the gate moves again."""
        if self._target is not None and self.gate_at() is not None:
            return self._target
        return self._standing.start()

    def jog_to(self, target: np.ndarray) -> None:
        """Drive to joint positions (J,), as far as the arm comes along: not on and on behind a workspace's edge."""
        at = self.gate_at()
        self._target = target if at is None else np.clip(target, at - self._lead, at + self._lead)
        self.send(self._target, self.get_clock().now().nanoseconds)

    def drive(self, is_driving: bool) -> None:
        """Say whether a human drives."""
        if is_driving != self._takeover:
            self._takeover = is_driving
            self._takeovers.publish(Bool(data=is_driving))

    def send(self, target: np.ndarray, stamp_ns: int) -> None:
        """Drive to joint positions (J,)."""
        self.drive(True)
        self._commands.publish(joint_message(self.contract.joints, target, stamp_ns))

    # The scripted expert

    def _begin_expert(self) -> None:
        from lam_ros.control.kinematics import Kinematics
        from lam_ros.simulation.experts import make_expert

        kinematics = Kinematics(urdf_path(self.robot, self.robot_file), self.robot.joint_names)
        self._expert = make_expert(self.parameter("task"), self.robot, kinematics)
        self._episode: int | None = None
        self.create_subscription(MarkerArray, "simulation/objects", self._on_objects, STREAM)
        self.need_publisher("simulation/objects")

    def _on_objects(self, message: MarkerArray) -> None:
        from lam_ros.simulation.simulation import Pose

        if not message.markers:
            return
        first = message.markers[0]
        stamp_ns = stamp_to_ns(first.header.stamp)
        if first.id != self._episode:
            self._episode = first.id
            self._expert.begin(first.id)
        objects = {}
        for marker in message.markers:
            place, turn = marker.pose.position, marker.pose.orientation
            objects[marker.ns] = Pose(np.array([place.x, place.y, place.z]), 2.0 * float(np.arctan2(turn.z, turn.w)))
        try:
            state = self._history.at(stamp_ns)
        except ContractError as error:
            self.note("expert", ERROR, str(error))
            return
        self.send(self._expert.act(state.astype(np.float64), objects), stamp_ns)
        self.note("expert", OK, "the expert demonstrates")

    # The keyboard

    def _begin_keyboard(self) -> None:
        self._keys = Keys("keyboard teleoperation needs a terminal; start it with `lam node teleop` in one.")
        self._jog = KeyboardJog(self.contract.joints, self._limits)
        self._pressed_at = 0
        self._recorder = {name: self.create_client(Trigger, f"recorder/{name}") for name in RECORDER_KEYS.values()}
        sys.stdout.write(
            f"{self._jog.help()}\nspace record   enter keep   backspace discard   + success   - failure   Ctrl-C end\n"
        )
        sys.stdout.flush()
        self.create_timer(JOG_PERIOD_S, self._on_keys, clock=self._steady)

    def _on_keys(self) -> None:
        now_ns = self._steady.now().nanoseconds  # a finger keeps wall time
        for key in self._keys.pressed():
            if key in RECORDER_KEYS:
                self._call_recorder(RECORDER_KEYS[key])
            elif self._measured is not None:
                target = self._jog.press(key, self.jog_from())
                if target is not None:
                    self._target, self._pressed_at = target, now_ns
        if self._target is not None and now_ns - self._pressed_at <= RELEASE_NS:
            self.jog_to(self._target)
        else:
            self._let_go()

    # A gamepad, a leader arm, a twist

    def _listen_to_joy(self) -> None:
        described = self.robot.teleop.joy
        assert described is not None
        self._joy: Joy | None = None
        self._joy_at = 0
        self._sticks = JoyJog(described, self.contract.joints, self._limits)
        self.create_subscription(Joy, described.topic, self._on_joy, SENSOR)
        self.need_publisher(described.topic)

    def _on_joy(self, message: Joy) -> None:
        self._joy, self._joy_at = message, self._steady.now().nanoseconds

    def _is_held(self) -> bool:
        """Whether somebody holds the dead-man's button of a gamepad that is there."""
        self._is_lost = self._joy is None or self._steady.now().nanoseconds - self._joy_at > JOY_RELEASE_NS
        if self._is_lost or self._joy is None:
            self.note("joy", WARN, f"the gamepad says nothing; {STAYS if self._takeover else 'nobody drives'}")
            return False
        try:
            held = self._sticks.is_held(self._joy.buttons)
        except ContractError as error:
            self.note("joy", ERROR, str(error))
            return False
        self.note("joy", OK, "the gamepad is there")
        return held

    def _begin_joy(self) -> None:
        if self.robot.teleop.joy is None:
            raise ConfigError("source is joy, and the robot YAML has no teleop.joy; docs/recording.md shows one.")
        self._listen_to_joy()
        self.create_timer(JOG_PERIOD_S, self._on_sticks, clock=self._steady)

    def _let_go(self) -> None:
        """Drive no more. A gamepad that is lost, as a leader arm that is, hands nothing back: who held it is near."""
        self._target = None
        if not self._is_lost:
            self.drive(False)

    def _on_sticks(self) -> None:
        if self._measured is None or not self._is_held():
            self._let_go()
            return
        target = self._pushed(self.jog_from())
        if target is not None:
            self.jog_to(target)

    def _pushed(self, target: np.ndarray) -> np.ndarray | None:
        """The target (J,) after a period with the sticks as they are; None, noted, where they cannot be read."""
        assert self._joy is not None
        try:
            return self._sticks.move(self._joy.axes, target, JOG_PERIOD_S)
        except ContractError as error:
            self.note("joy", ERROR, str(error))
            return None

    def _begin_leader(self) -> None:
        described = self.robot.teleop.leader
        if described is None:
            raise ConfigError("source is leader, and the robot YAML has no teleop.leader; docs/recording.md shows one.")
        self._leader = LeaderArm(described, self.contract.joints)
        self._approach = Approach(self._limits)
        if self.robot.teleop.joy is not None:
            self._listen_to_joy()
        self.create_subscription(JointState, described.topic, self._on_leader, SENSOR)
        self.need_publisher(described.topic)

    def _on_leader(self, message: JointState) -> None:
        """Where it falls silent the takeover lasts, and the gate holds: unplugged, a leader arm hands nothing back."""
        if self.robot.teleop.joy is not None and not self._is_held():
            self._let_go()
            return
        try:
            target = self._leader.target(message.name, message.position)
        except ContractError as error:
            self.note("leader", ERROR, str(error))
            return
        self.note("leader", OK, "the leader arm leads")
        if self._measured is None:
            return
        self.send(self.approach(target), self.get_clock().now().nanoseconds)

    def approach(self, leader: np.ndarray) -> np.ndarray:
        """Where (J,) the arm goes now whose leader is there (J,): slowly, until it is there too."""
        if self.gate_at() is None:
            self._approach.begin()
        return self._approach.target(leader, self._standing.start(), self._steady.now().nanoseconds)

    def _begin_twist(self) -> None:
        described = self.robot.teleop.twist
        if described is None:
            raise ConfigError("source is twist, and the robot YAML has no teleop.twist; docs/recording.md shows one.")
        from lam_ros.control.cartesian import CartesianJog

        urdf = urdf_path(self.robot, self.robot_file)
        self._tool = CartesianJog(described, urdf, self.contract.joints, self._limits)
        self._twist: TwistStamped | None = None
        self._twist_at = 0  # when one came that moves anything; with a gamepad, any
        if self.robot.teleop.joy is not None:
            self._listen_to_joy()
        self.create_subscription(TwistStamped, described.topic, self._on_twist, SENSOR)
        self.need_publisher(described.topic)
        self.create_timer(JOG_PERIOD_S, self._on_tool, clock=self._steady)

    def _on_twist(self, message: TwistStamped) -> None:
        self._twist = message
        if self.robot.teleop.joy is not None or any(twist_numbers(message)):
            self._twist_at = self._steady.now().nanoseconds

    def _on_tool(self) -> None:
        is_fresh = self._steady.now().nanoseconds - self._twist_at <= TWIST_RELEASE_NS
        with_joy = self.robot.teleop.joy is not None
        if self._measured is None or not (self._is_held() if with_joy else is_fresh):
            self._let_go()
            return
        if self._target is None:
            self._tool.begin()
        target = self._pushed(self.jog_from()) if with_joy else self.jog_from()  # such as the gripper
        if target is None:
            return
        if self._twist is not None and is_fresh:
            *linear, a, b, c = twist_numbers(self._twist)
            try:
                target = self._tool.move(self._twist.header.frame_id, linear, (a, b, c), target, JOG_PERIOD_S)
            except ContractError as error:
                self.note("twist", ERROR, str(error))
                return
            self.note("twist", OK, "the tool follows")
        self.jog_to(target)

    def _call_recorder(self, name: str) -> None:
        client = self._recorder[name]
        if not client.service_is_ready():
            sys.stdout.write("no recorder is running; start one with `lam up record`\n")
            return

        def told(future: Any) -> None:
            sys.stdout.write(f"{future.result().message}\n")
            sys.stdout.flush()

        client.call_async(Trigger.Request()).add_done_callback(told)

    def close(self) -> None:
        if hasattr(self, "_keys"):
            self._keys.close()


def twist_numbers(message: TwistStamped) -> tuple[float, ...]:
    """Linear and angular velocity (6,)."""
    linear, angular = message.twist.linear, message.twist.angular
    return linear.x, linear.y, linear.z, angular.x, angular.y, angular.z
