"""gate_node: the only node that commands the robot. It limits, arbitrates, watches and holds; it knows no policy."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lam_ros.contract import Action, seconds_to_ns
from lam_ros.control.gate import CATCHING_UP, Driver, Gate, Orders, Request, Rules, Sent
from lam_ros.control.setpoints import Setpoints
from lam_ros.errors import ConfigError, ContractError
from lam_ros.nodes.base import ERROR, OK, SILENCE_S, WARN, LamNode, publishers_of, stamp_to_ns
from lam_ros.nodes.controller import Controller
from lam_ros.nodes.joints import ROBOT_COMMAND_TYPES, joint_message, robot_command
from lam_ros.nodes.middleware import was_restarted
from lam_ros.nodes.qos import ANY, COMMAND, SENSOR, STREAM
from lam_ros.nodes.takeover import Takeover

MOST_BRAKING_S = 5.0  # for an arm to come to rest before its gate ends: who ends nodes waits about twice as long
BRAKING_MARGIN_S = 1.0
LATE_NS, EARLY_NS = seconds_to_ns(0.25), seconds_to_ns(1.0)  # a stamp further from simulated time is of another clock


class GateNode(LamNode):
    """Each request is answered in its callback; a timer on top brakes and holds when requests stop."""

    _gate: Gate

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("gate", **kwargs)
        self.is_fed = False  # by an action node in the same process; what it publishes is then not taken twice
        # People are heard from here to the end, configured or not.
        self._orders = Orders(is_stopped=was_restarted())
        if self._orders.is_stopped:
            self.note("emergency stop", ERROR, "this node began anew and may have missed one; call lam/reset_estop")
        self._takeover = Takeover(self, self._on_takeover)
        # Latched from before this node was there, reliable so that a lost packet comes again, best effort.
        for qos in ANY:
            self.create_subscription(Bool, "lam/estop", self._on_estop, qos)
        self.create_service(Trigger, "lam/estop_now", self._on_estop_now)
        self.create_service(Trigger, "lam/reset_estop", self._on_reset_estop)
        self.create_service(Trigger, "lam/resume", self._on_resume)
        self.figure("emergency stop", lambda: self._orders.is_stopped)

    def configure(self) -> None:
        self._is_simulated = bool(self.parameter("use_sim_time"))
        rules = Rules.of(self.robot, self.robot_file)
        if self._is_simulated:
            rules = replace(rules, pause_ns=None)  # nobody stands beside that arm, and its tables take time to lay
        self._braking_s = rules.limits.braking_s
        if self._braking_s > MOST_BRAKING_S:
            raise ConfigError(
                f"from full speed this arm takes {self._braking_s:.1f} s to stop, more than {MOST_BRAKING_S:g}; give "
                "its joints less velocity or more acceleration and jerk."
            )
        self._gate = Gate(rules, self._orders)
        self._period_s = 1.0 / self.robot.gate.rate_hz
        takes_trajectories = self.robot.command.type == "joint_trajectory"
        self._setpoints = None if takes_trajectories else Setpoints(self._period_s, rules.limits.velocity)
        self._heard_ns: dict[Driver, int] = {}
        self._sent_count = 0
        self._last_driver: Driver | None = None
        self._refused_count = 0
        self._to_robot = self.create_publisher(
            ROBOT_COMMAND_TYPES[self.robot.command.type], self.robot.command.topic, COMMAND
        )
        self._controller = Controller(self, self.robot)
        self._sent = self.create_publisher(JointState, "lam/command", STREAM)
        self._subscriptions_made = [
            self.create_subscription(JointState, self.robot.joint_states.topic, self._on_joint_states, SENSOR),
            self.create_subscription(
                JointState, "lam/policy_command", partial(self._on_request, Driver.POLICY), COMMAND
            ),
            self.create_subscription(JointState, "teleop/command", partial(self._on_request, Driver.TELEOP), COMMAND),
        ]
        # On a steady clock, so that it goes on when simulated time does not.
        self._watchdog = self.create_timer(self._period_s, self._on_tick, clock=self._steady)
        self.need_joint_states()
        self.need_subscriber(self._to_robot)
        self.figure("driver", lambda: self._gate.driver.value)
        self.figure("commands sent", lambda: self._sent_count)
        self.figure("requests refused", lambda: self._refused_count)
        self.figure("astray", lambda: self._gate.astray)

    def _check_topics(self) -> None:
        super()._check_topics()
        if not self._needs:  # not configured
            return
        self._controller.ask()
        if self._controller.disorder:
            self.note("controller", ERROR, self._controller.disorder)
        others = publishers_of(self, self.robot.command.topic) - 1
        said = f"{others} more publish {self._to_robot.topic_name}; end them: two who command one arm fight over it"
        self.note("rivals", WARN if others > 0 else OK, said if others > 0 else "nobody else commands the robot")

    def _report(self) -> None:
        if self.is_active:
            for driver, heard_ns in self._heard_ns.items():
                if self.now_ns() - heard_ns > seconds_to_ns(SILENCE_S):
                    self.note(driver.value, OK, "silent")
        super()._report()

    def start(self) -> None:
        self._gate.reset()
        self._heard_ns.clear()
        self.note("gate", OK, "nobody drives yet")

    def stop(self) -> None:
        """Bring the arm to rest within its limits, since nobody watches it from here on."""
        self.note("gate", OK, "not active")
        now_ns, end_s = self.now_ns(), time.monotonic() + CATCHING_UP * self._braking_s + BRAKING_MARGIN_S
        while time.monotonic() < end_s:
            sent = self._gate.brake("the gate is not active.", now_ns)
            if sent is not None:
                self._send(sent)
            elif not self._go_on() and self._gate.rests:
                return
            time.sleep(self._period_s)
            now_ns += seconds_to_ns(self._period_s)  # simulated time stands while this callback runs

    def close(self) -> None:
        if self.is_active:
            self.is_active = False
            self.stop()

    def _on_joint_states(self, message: JointState) -> None:
        position = self.joint_positions(message)
        if position is not None:
            stamp_ns = stamp_to_ns(message.header.stamp)
            self._gate.measured(position, self._time_of(stamp_ns), stamp_ns)
            said = self._gate.implausible
            self.note("joint positions", ERROR if said else OK, said or "an arm can be there")

    def _time_of(self, stamp_ns: int) -> int:
        """Now. Simulated time is at least what joint states say: its clock's own message may come a moment later."""
        now_ns = self.now_ns()
        if not self._is_simulated:
            return now_ns
        return max(now_ns, stamp_ns - seconds_to_ns(self.robot.joint_states.latency_s))

    def _stamp_of(self, driver: Driver, stamp_ns: int) -> int:
        """When a command was given: a policy's by its images; a human's by the time here, since who drives may be
        on another machine, whose clock would shift what is learned from it. A simulator waits for the stamp of its own
        time, which its clock's message may not have told yet."""
        if driver is Driver.POLICY:
            return stamp_ns
        now_ns = self.get_clock().now().nanoseconds
        is_of_this_clock = -LATE_NS <= stamp_ns - now_ns <= EARLY_NS
        return stamp_ns if self._is_simulated and is_of_this_clock else now_ns

    def _on_request(self, driver: Driver, message: JointState) -> None:
        if not self.is_active or (self.is_fed and driver is Driver.POLICY):
            return
        try:
            target = self.contract.in_order(message.name, message.position, f"the command of {driver.value}")
        except ContractError as error:
            self._refused_count += 1
            self._heard_ns[driver] = self.now_ns()
            self.note(driver.value, ERROR, str(error))
            return
        self._request(Request(driver, target, self._stamp_of(driver, stamp_to_ns(message.header.stamp))))

    def take(self, action: Action) -> None:
        """A policy's action, from the same process."""
        if self.is_active:
            self._request(Request(Driver.POLICY, action.target, action.stamp_ns))

    def _request(self, request: Request) -> None:
        now_ns = self.now_ns()
        refusal = self._why_not()
        sent = None if refusal else self._gate.request(request, now_ns)
        self._tell_fault()
        self._heard_ns[request.driver] = now_ns
        if sent is None:
            self._refused_count += 1
            self.note(request.driver.value, WARN, refusal or self._gate.refusal)
            return
        self.note(request.driver.value, OK, "its commands fit the robot")
        self._send(sent)
        if self._gate.warning:
            self.note("gate", WARN, f"{request.driver.value} drives; {self._gate.warning}")
        else:
            self.note("gate", OK, f"{request.driver.value} drives")

    def _why_not(self) -> str:
        """What of the controller forbids to command it, in words."""
        self._controller.ask()
        if self._controller.is_awaited:
            return f"{self._controller.name} is asked for its joints."
        return self._controller.disorder

    def _on_tick(self) -> None:
        if not self.is_active:
            return
        driver = self._gate.driver
        sent = self._gate.tick(self.now_ns())
        self._tell_fault()
        if self._gate.driver is Driver.HOLD and driver is not Driver.HOLD:
            self.note("gate", WARN, f"holding: {self._gate.refusal}")
        if sent is not None:
            self._send(sent)
        else:
            self._go_on()

    def _tell_fault(self) -> None:
        if self._gate.fault:
            self.note("emergency stop", ERROR, self._gate.fault)

    def _go_on(self) -> bool:
        """The next setpoint on the way to what was sent, where the controller needs them; whether there was one."""
        setpoint = self._setpoints.next(time.monotonic_ns()) if self._setpoints is not None else None
        if setpoint is not None:
            self._to_robot.publish(robot_command(self.robot, setpoint, self._period_s))
        return setpoint is not None

    def _send(self, sent: Sent) -> None:
        reach_in_s = max(sent.reach_in_s, self._period_s)
        position = sent.position if self._setpoints is None else self._setpoints.begin(sent, time.monotonic_ns())
        self._to_robot.publish(robot_command(self.robot, position, reach_in_s))
        stamp = sent.stamp_ns if sent.stamp_ns is not None else self.get_clock().now().nanoseconds
        self._sent.publish(joint_message(self.contract.joints, sent.position, stamp, sent.driver.value))
        self._sent_count += 1
        if sent.driver is not self._last_driver:
            self._last_driver = sent.driver
            self.get_logger().info(f"{sent.driver.value} drives")

    def _on_takeover(self, is_on: bool) -> None:
        self._orders.takeover = is_on

    def _on_estop(self, message: Bool) -> None:
        if message.data:
            self._stop_now("lam/estop")

    def _on_estop_now(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stop_now("lam/estop_now")
        response.success, response.message = True, "stopped; lam/reset_estop lets it move again"
        return response

    def _stop_now(self, source: str) -> None:
        self._orders.is_stopped = True
        self.note("emergency stop", ERROR, f"pressed over {source}; lam/reset_estop lets it move again")
        self._on_tick()

    def _on_reset_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._orders.is_stopped = False
        if hasattr(self, "_gate"):
            self._gate.reset_estop()  # and a joint that went astray
        self.note("emergency stop", OK, "released")
        response.success, response.message = True, "released; the next request moves the arm"
        return response

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._takeover.resume():
            response.message = "a human is driving: lam/takeover is true. Let go first."
            return response
        self._orders.human_drove = False
        if hasattr(self, "_gate"):
            self._gate.resume()
        response.success, response.message = True, "the policy may go on"
        return response

    def _forget(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self.destroy_timer(self._watchdog)
        for publisher in (self._to_robot, self._sent):
            self.destroy_publisher(publisher)
        self._controller.close()
