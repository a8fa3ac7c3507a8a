"""What every node shares: described parameters, the robot YAML, diagnostics, errors in one sentence, spinning."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from lam_ros.bringup import NAMESPACE
from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import NANOSECONDS, Contract, seconds_to_ns
from lam_ros.errors import BringUpError, ConfigError, ContractError, LamError
from lam_ros.nodes.middleware import is_deaf, restart

if TYPE_CHECKING:
    from rclpy.context import Context

NodeType = TypeVar("NodeType", bound=Node)

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
DIAGNOSTICS_PERIOD_S = 1.0
SILENCE_S = 1.0  # after which what is awaited is missed on /diagnostics; what moves an arm stops long before
MATCHING_PERIOD_S = 0.1  # how soon a node says that the last topic it waited for is there


class _Basics(Node):
    """Parameters, time and diagnostics, for both kinds of nodes."""

    robot: RobotConfig
    contract: Contract
    robot_file: str

    def begin(self) -> None:
        """Declare what every node has; to be called first in a constructor."""
        self.failure: str | None = None
        self.gave_up = ""  # why it cannot go on: the process ends with it. Raised, it would come with a traceback.
        self.defaults: dict[str, Any] = {}  # of every parameter declared
        self._status: dict[str, tuple[bytes, str]] = {}
        self._measured_ns: int | None = None  # when joint states last arrived
        self._figures: dict[str, Callable[[], object]] = {}
        self._needs: list[tuple[str, str, Callable[[], int]]] = []
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.declare("robot", "", "Robot YAML: a path, or the name of a robot that lam_ros ships.", read_only=True)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=self._steady)
        self._matching = self.create_timer(MATCHING_PERIOD_S, self._check_topics, clock=self._steady)
        self.figure("missing topics", self.missing_topics)

    def load_robot(self) -> None:
        """Read the robot YAML that the parameter names; raises ConfigError."""
        if not self.parameter("robot"):
            raise ConfigError("the parameter robot is empty; give a robot YAML: `-p robot:=path/to/robot.yaml`.")
        self.robot_file = str(self.parameter("robot"))
        self.robot = load_robot(self.robot_file)
        self.contract = Contract.of(self.robot)

    def declare(
        self,
        name: str,
        default: Any,
        description: str,
        between: tuple[float, float] | None = None,
        read_only: bool = False,
        unit: str = "",
    ) -> None:
        """Declare a parameter with its description, range, unit and whether it may change while the node runs."""
        descriptor = ParameterDescriptor(description=description, read_only=read_only)
        descriptor.additional_constraints = f"unit: {unit}" if unit else ""
        if between is not None:
            low, high = between
            if isinstance(default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
                ]
        self.declare_parameter(name, default, descriptor)
        self.defaults[name] = default

    def parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def close(self) -> None:
        """Let go of what must not wait for the garbage collector: files, threads, contexts."""

    # Time

    def now_ns(self) -> int:
        """Now, for watchdogs: simulated time under ``use_sim_time``, else a clock that no one can set."""
        clock = self.get_clock() if self.parameter("use_sim_time") else self._steady
        return int(clock.now().nanoseconds)

    # Diagnostics

    def note(self, subject: str, level: bytes, message: str) -> None:
        """Set what ``/diagnostics`` says of a subject; told at once, and logged, when its level changes."""
        before = self._status.get(subject)
        self._status[subject] = (level, message)
        if before is None or before[0] != level:
            self.publish_diagnostics()
            if level != OK:
                self.get_logger().warning(f"{subject}: {message}")
            else:
                self.get_logger().info(f"{subject}: {message}")

    def joint_positions(self, message: Any) -> np.ndarray | None:
        """float32 (J,) of a JointState in the robot's order; None, told on /diagnostics, where it cannot be trusted.

        Also None for another's message on the same topic, a gripper's or a base's, once the robot's own have come.
        """
        if self._measured_ns is not None and self.contract.is_foreign(message.name):
            return None
        try:
            positions = self.contract.in_order(message.name, message.position, "joint_states")
        except ContractError as error:
            self.note("joint states", ERROR, str(error))
            return None
        self._measured_ns = self.now_ns()
        self.note("joint states", OK, "every joint is measured")
        return positions

    def figure(self, name: str, read: Callable[[], object]) -> None:
        """Show a value on ``/diagnostics``."""
        self._figures[name] = read

    def need(self, what: str, topic: str, is_there: Callable[[], int]) -> None:
        """Say "nobody <what> <topic>" on ``/diagnostics`` for as long as ``is_there`` gives nothing."""
        self._needs.append((what, topic, is_there))

    def need_publisher(self, topic: str) -> None:
        self.need("publishes", self.resolve_topic_name(topic), lambda: publishers_of(self, topic))

    def need_joint_states(self) -> None:
        """Need the arm's, and show whether they arrive: the graph knows a publisher before its messages reach us."""
        self.need_publisher(self.robot.joint_states.topic)
        self.figure("joints measured", lambda: self._measured_ns is not None)

    def need_subscriber(self, publisher: Any) -> None:
        self.need("takes", publisher.topic_name, publisher.get_subscription_count)

    def missing_topics(self) -> str:
        """Which needs are not met, "nobody <what> <topics>"; empty when all are."""
        missing: dict[str, list[str]] = {}
        for what, topic, is_there in self._needs:
            if not is_there():
                missing.setdefault(what, []).append(topic)
        return "; ".join(f"nobody {what} {', '.join(topics)}" for what, topics in missing.items())

    def _check_topics(self) -> None:
        if not self._needs:
            return
        missing = self.missing_topics()
        self.note("topics", WARN if missing else OK, missing or "every topic has its other end")
        if not missing:
            self._matching.cancel()
        elif self._matching.is_canceled():
            self._matching.reset()

    def _report(self) -> None:
        if is_deaf():
            raise DeafError
        self._check_topics()
        if self._measured_ns is not None:
            silent_ns = self.now_ns() - self._measured_ns
            if silent_ns > seconds_to_ns(SILENCE_S):
                self.note("joint states", WARN, f"none for {silent_ns / NANOSECONDS:.0f} s; check the robot driver")
        self.publish_diagnostics()

    def publish_diagnostics(self) -> None:
        level = max((entry[0] for entry in self._status.values()), default=OK)
        worst = [f"{subject}: {text}" for subject, (lvl, text) in self._status.items() if lvl == level]
        status = DiagnosticStatus(
            level=level,
            name=self.get_fully_qualified_name(),
            message="; ".join(worst) or "unconfigured",
            hardware_id=self.robot.name if hasattr(self, "robot") else "",
            values=[KeyValue(key=name, value=str(read())) for name, read in self._figures.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        if self.context.ok():  # else the node is shutting down
            self._diagnostics.publish(message)


class PlainNode(_Basics):
    """A node without a lifecycle for one robot: it is ready once constructed. Raises LamError from its constructor."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.begin()
        self.load_robot()


class LamNode(_Basics, LifecycleNode):
    """A lifecycle node for one robot.

    Subclasses implement ``configure`` (load and check everything, raise LamError), ``start`` and ``stop``.

    With the parameter ``autostart`` it configures and activates itself once it spins, and ends the process with one
    sentence where that fails.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.is_active = False
        self.begin()
        self.figure("active", lambda: self.is_active)
        self.declare("autostart", False, "Configure and activate without being asked.", read_only=True)
        if self.parameter("autostart"):
            self._autostart = self.create_timer(0.0, self._start_by_itself, clock=self._steady)

    # Lifecycle: subclasses fill in configure, start and stop.

    def configure(self) -> None:
        """Load and check everything; raise LamError where the node could not act safely."""

    def start(self) -> None:
        """Begin to act."""

    def stop(self) -> None:
        """Stop acting, safely."""

    def _attempt(self, step: Callable[[], None], subject: str) -> TransitionCallbackReturn:
        """Run one step of the lifecycle; rclpy would swallow what it raises."""
        try:
            step()
            self.note(subject, OK, "done")
        except LamError as error:
            self.failure = str(error)
            self.get_logger().fatal(f"{subject} failed: {error}")
            self.note(subject, ERROR, str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.failure = f"{subject} failed with a fault of lam_ros: {error!r}"
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        def load_and_configure() -> None:
            self._needs.clear()
            self.load_robot()
            self.configure()

        return self._attempt(load_and_configure, "configuration")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt(self.start, "activation")
        if result is not TransitionCallbackReturn.SUCCESS:
            return result
        self.is_active = True
        self.publish_diagnostics()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.is_active = False
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._needs.clear()
        self._forget()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.is_active:
            self.is_active = False
            self.stop()
        return TransitionCallbackReturn.SUCCESS

    def _forget(self) -> None:
        """Undo ``configure``: drop the subscriptions, publishers, services and timers it made."""

    def _start_by_itself(self) -> None:
        self._autostart.cancel()
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                self.gave_up = self.failure or "its lifecycle refused to go on."
                return


class DeafError(Exception):
    """The middleware can no longer hear; the process starts anew. See ``lam_ros.nodes.middleware``."""


def publishers_of(node: Node, topic: str) -> int:
    """How many publishers a node's topic has, under the name it is remapped to; rclpy counts those of the other."""
    return int(node.count_publishers(node.resolve_topic_name(topic)))


def type_name(kind: Any) -> str:
    """A message or service class as the graph calls it: ``sensor_msgs/msg/Image``."""
    package, _, rest = kind.__module__.partition(".")
    return f"{package}/{rest.partition('.')[0]}/{kind.__name__}"


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> Any:
    """builtin_interfaces/Time of nanoseconds; negative ones too (rclpy.time.Time refuses those), within its 32 bits."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return Time(sec=min(max(seconds, -(2**31)), 2**31 - 1), nanosec=rest)


def init_rclpy(args: Sequence[str]) -> None:
    """Initialise rclpy without its signal handlers; in LAM_ROS_NAMESPACE, where the arguments name no other namespace.

    Without rclpy's handlers Ctrl-C is a KeyboardInterrupt, which every command answers in one sentence.

    Raises:
        BringUpError: it is no name of a namespace.
    """
    namespace = os.environ.get(NAMESPACE, "").strip("/")
    if namespace and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", namespace):
        raise BringUpError(f"{NAMESPACE} is {namespace!r}; a namespace is letters, digits and _, such as left.")
    if namespace and not any("__ns:=" in argument for argument in args):
        args = [*args, "--ros-args", "-r", f"__ns:=/{namespace}"]
    rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)


def make_executor(context: Context | None = None) -> Executor:
    """The events executor where rclpy has it (Kilted and later: no wait set to rebuild), else the single-threaded."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor(context=context)
    return EventsExecutor(context=context) if context is not None else EventsExecutor()


@contextlib.contextmanager
def spinning(
    make: Callable[..., NodeType], moment_s: float = 0.05, **parameters: Any
) -> Iterator[tuple[NodeType, Callable[[], None]]]:
    """A node in the process of a command, with rclpy around it, and a function that lets messages arrive for a moment.

    Args:
        make: of the node, given ``parameter_overrides``.
        parameters: the node's.
    """
    init_rclpy([])
    executor = make_executor()
    try:
        node = make(parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()])
        executor.add_node(node)
        yield node, lambda: executor.spin_once(timeout_sec=moment_s)
    finally:
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()


def run(
    factories: Sequence[Callable[[], Any]],
    args: list[str] | None = None,
    connect: Callable[..., None] = lambda *nodes: None,
) -> int:
    """Run nodes in this process until it is told to stop: exit code 0 after Ctrl-C or SIGTERM, 1 after a failure.

    Args:
        factories: make the nodes.
        args: the command line, for rclpy.
        connect: told all nodes once they are made.
    """
    nodes: list[Any] = []
    executor = None
    is_deaf_now = False
    told_to_stop: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if told_to_stop or executor is None:  # said twice, or nothing to end in order yet
            raise KeyboardInterrupt
        told_to_stop.append(number)

    ends = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        ends.append(signal.SIGHUP)  # its terminal is closed
    for number in ends:
        signal.signal(number, stop)
    try:
        # Our own handlers: the callback that is running ends as usual, and nodes close while they can still speak.
        init_rclpy(sys.argv if args is None else args)
        executor = make_executor()
        for factory in factories:
            nodes.append(factory())
            executor.add_node(nodes[-1])
        connect(*nodes)
        # Not spin(): with rclpy 9.1's events executor it starves timers made later, and does not end with the context.
        # Not spin_once(): it costs 0.3 ms an event.
        while rclpy.ok() and not told_to_stop:
            # A future of its own each time: executors hang a callback on it and leave it there, for hours.
            executor.spin_until_future_complete(Future(executor=executor), timeout_sec=0.1)
            gave_up = next((node.gave_up for node in nodes if getattr(node, "gave_up", "")), "")
            if gave_up:
                raise LamError(gave_up)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except LamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except rclpy_implementation.RCLError as error:
        if "security" not in str(error):
            raise
        sys.stderr.write(
            "ROS_SECURITY_ENABLE is true, and this node gets no security: the middleware was built without it (the "
            f"wheels are, ROS 2's Debian packages not), or the keys do not fit; `lam secure` makes some. ({error})\n"
        )
        return 1
    except DeafError:
        is_deaf_now = True
        sys.stderr.write("the middleware's shared memory was deleted by another process; this node starts anew.\n")
    finally:
        # Whoever asks again must not cut off an arm that brakes, or an episode that is being sealed.
        for number in ends:
            signal.signal(number, lambda number, frame: sys.stderr.write("ending; what is recorded is sealed first.\n"))
        for node in nodes:
            node.close()
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    if is_deaf_now:
        restart()
        return 1
    return 0


def resolve(path: str) -> Path:
    """An absolute path; raises ConfigError for the home of nobody."""
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from None
