"""The recorder's intake: receives every topic as it comes off the wire, counts what is lost, hands it to a writer.

publishers ──▶ intake thread (rclpy) ──▶ backlog, bounded in bytes ──▶ writer thread ──▶ episode
                    counts gaps in the publishers' sequence numbers       counts what did not fit
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from lam_ros.demonstrations.episode import EpisodeWriter, Topic
from lam_ros.demonstrations.preflight import Heard
from lam_ros.demonstrations.wire import definition
from lam_ros.errors import ConfigError, EpisodeError

DEPTH = 1000  # of the subscriptions: room for the longest pause of a busy machine
RATE_WINDOW_S = 2.0  # over which the live rate of a topic is taken
WINDOW_MESSAGES = 2000
WAIT_NS = 200_000_000
TAKE_AT_ONCE = 50
REST_S = 0.003  # let some messages gather: a wait costs as much as a small message. Their times are the middleware's.
CATCH_UP_S = 2.0  # at most, as a take ends, for what has arrived and was not taken yet on a busy machine
EVENTS_PERIOD_S = 0.5
STALLED_S = 0.5  # without a message for so long, and three periods, a topic has stalled


@dataclass(frozen=True)
class Wanted:
    """A topic to record: by its absolute name or, where nothing is ``required`` of it, a pattern.

    Attributes:
        msgtype: what it must be, None where any type will do.
        expected_hz: its rate in the robot YAML.
        required: an episode is worthless without it.
    """

    name: str
    msgtype: str | None = None
    expected_hz: float | None = None
    required: bool = False


@dataclass
class Stream:
    """One subscribed topic."""

    topic: Topic
    subscription: Any
    publishers: int = 1
    latest: bytes = b""
    newest: dict[bytes, bytes] = field(default_factory=dict)  # publisher -> its newest message
    latched: dict[bytes, bytes] = field(default_factory=dict)  # publisher -> its message that latecomers must hear too
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_MESSAGES))
    sequences: dict[bytes, int] = field(default_factory=dict)
    lost: int = 0  # by the gaps in the sequence numbers of its publishers, of this take
    lost_events: int = 0  # as the middleware says
    overflow: int = 0  # that the backlog had no room for

    def heard(self) -> Heard:
        """What preflight asks for."""
        return Heard(self.rate_hz(), self.latest, tuple(self.newest.values()))

    def rate_hz(self) -> float:
        """Messages a second of late; 0 when it is silent."""
        now_s = time.monotonic()
        recent = [at for at in list(self.arrivals_s) if now_s - at <= RATE_WINDOW_S]
        return (len(recent) - 1) / (now_s - recent[0]) if len(recent) > 1 else 0.0

    def health(self) -> str:
        """Its rate against the expected one, in a few words."""
        if not self.arrivals_s:
            return "silent"
        expected, rate = self.topic.expected_hz, self.rate_hz()
        if not expected:
            return f"{rate:.1f} Hz"
        pause_s = time.monotonic() - self.arrivals_s[-1]
        state = "STALLED" if pause_s > max(STALLED_S, 3.0 / expected) else "SLOW" if rate < 0.9 * expected else "OK"
        return f"{rate:.1f} of {expected:g} Hz, {state}"


def message_class(msgtype: str) -> Any:
    """The Python class of ``package/msg/Name``.

    Raises:
        ConfigError: its package is not installed here.
    """
    package, _, name = msgtype.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError, ValueError):
        raise ConfigError(f"the message type {msgtype} is not installed here; install its package.") from None


_PRIMITIVES = {"double": "float64", "float": "float32", "boolean": "bool", "octet": "byte"}


def _field_type(idl: str) -> tuple[str, str]:
    """(type in a .msg file, the message type it refers to or "") of a field's IDL type."""
    if idl.startswith("sequence<"):
        inner, _, bound = idl[len("sequence<") : -1].partition(", ")
        text, refers = _field_type(inner)
        return f"{text}[{'<=' + bound if bound else ''}]", refers
    if idl.endswith("]"):
        inner, _, size = idl[:-1].rpartition("[")
        text, refers = _field_type(inner)
        return f"{text}[{size}]", refers
    if "/" in idl:
        return idl, idl
    if idl.startswith(("string<", "wstring<")):
        return idl.replace("<", "<=")[:-1], ""
    return _PRIMITIVES.get(idl, idl), ""


def definition_of(kind: Any) -> str:
    """The definition of a message class with all it refers to, as MCAP's ``ros2msg`` schemas have it.

    Made from the class, so that a robot's own messages are described where only its Python packages are installed.
    """
    pending, done, parts = [("", kind)], set(), []
    while pending:
        name, message = pending.pop(0)
        lines = []
        for field_name, idl in message.get_fields_and_field_types().items():
            text, refers = _field_type(idl)
            lines.append(f"{text} {field_name}")
            if refers and refers not in done:
                done.add(refers)
                pending.append((refers, message_class(refers.replace("/", "/msg/"))))
        parts.append((f"{'=' * 80}\nMSG: {name}\n" if name else "") + "\n".join(lines) + "\n")
    return "".join(parts)


@contextlib.contextmanager
def _in_use(handles: Sequence[Any]) -> Iterator[None]:
    """Keep rclpy's handles from being destroyed while they are waited on."""
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield


class Intake:
    """Subscribes to topics as they appear, with their publishers' QoS, and receives on a thread of its own.

    Not with an executor: rclpy's events executor cannot give a message's sequence number (9.1), and the plain one costs
    a third of a core more at 1000 messages a second (benchmarks/README.md). So the subscriptions belong to a node of
    their own, whose wait set the thread waits on.

    Args:
        owner: the node that records; it gives names, time and context.
        wanted: what to subscribe to.
        backlog_bytes: how much may wait for the writer.

    Attributes:
        refused: topic -> why it cannot be recorded.
    """

    def __init__(self, owner: Any, wanted: Sequence[Wanted], backlog_bytes: int) -> None:
        self._owner, self._backlog_limit = owner, backlog_bytes
        self._is_simulated = bool(owner.parameter("use_sim_time"))
        self.refused: dict[str, str] = {}
        self._wanted = {entry.name: entry for entry in wanted if "*" not in entry.name}
        self._patterns = [entry.name for entry in wanted if "*" in entry.name]
        self._node = Node(
            f"{owner.get_name()}_intake",
            namespace=owner.get_namespace(),
            context=owner.context,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self.streams: dict[str, Stream] = {}
        self._writer: EpisodeWriter | None = None
        self.broken: str | None = None
        self._queue: queue.SimpleQueue[tuple[str, bytes, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.backlog_bytes = 0
        self._wake = self._node.create_guard_condition(lambda: None)
        self._caught_up: threading.Event | None = None  # set once all that had arrived when it was put here is taken
        self._is_receiving = True
        self._subscribed = 0
        self._receiver = threading.Thread(target=self._receive_all, name="intake", daemon=True)
        self._receiver.start()

    def _receive_all(self) -> None:
        heard_events_s = 0.0
        while self._is_receiving and self._node.context.ok():
            streams = [stream for stream in list(self.streams.values()) if stream.subscription is not None]
            with _in_use([self._wake.handle, *(stream.subscription.handle for stream in streams)]):
                wait_set = rclpy_implementation.WaitSet(len(streams), 1, 0, 0, 0, 0, self._node.context.handle)
                while self._is_receiving and self._node.context.ok() and len(streams) == self._subscribed:
                    self._receive_once(wait_set, streams)
                    if time.monotonic() - heard_events_s > EVENTS_PERIOD_S:
                        heard_events_s = time.monotonic()
                        self._hear_events(streams)

    def _receive_once(self, wait_set: Any, streams: list[Stream]) -> None:
        """Wait until something arrives, or a little while, and take it."""
        wait_set.clear_entities()
        wait_set.add_guard_condition(self._wake.handle)
        indices = [wait_set.add_subscription(stream.subscription.handle) for stream in streams]
        asked = self._caught_up
        wait_set.wait(WAIT_NS)
        is_all = True
        for stream, index in zip(streams, indices, strict=True):
            if wait_set.is_ready("subscription", index):
                is_all &= self._take(stream)
        if asked is not None and is_all:
            asked.set()
        time.sleep(REST_S)

    def _hear_events(self, streams: list[Stream]) -> None:
        """Ask for the middleware's events. Now and then, and apart: in each wait they would cost more than messages."""
        handlers = [handler for stream in streams for handler in stream.subscription.event_handlers]
        if not handlers:
            return
        with _in_use(handlers):
            wait_set = rclpy_implementation.WaitSet(0, 0, 0, 0, 0, len(handlers), self._node.context.handle)
            wait_set.clear_entities()
            for handler in handlers:
                handler.add_to_wait_set(wait_set)
            wait_set.wait(0)
            for handler in handlers:
                if handler.is_ready(wait_set):
                    handler.callback(handler.take_data())

    def _take(self, stream: Stream) -> bool:
        """Take what has arrived on a topic; not for ever, since the others wait. Whether that was all."""
        for _ in range(TAKE_AT_ONCE):
            taken = stream.subscription.handle.take_message(stream.subscription.msg_type, True)
            if taken is None:
                return True
            self._on_message(stream, *taken)
        return False

    # Topics

    def match(self) -> None:
        """Subscribe to what is wanted and published by now."""
        for stream in list(self.streams.values()):
            stream.publishers = self._node.count_publishers(stream.topic.name)
        wanted = [entry for name, entry in self._wanted.items() if name not in self.streams]
        if self._patterns:
            for name, _ in self._node.get_topic_names_and_types():
                is_meant = any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)
                if is_meant and name not in self.streams and name not in self._wanted:
                    wanted.append(Wanted(name))
        for entry in wanted:
            publishers = self._node.get_publishers_info_by_topic(entry.name)
            if publishers and entry.name not in self.refused:
                self._subscribe(entry, publishers)

    def hears(self, topic: str) -> bool:
        """Whether a topic is subscribed to, and has found its publisher: before, its messages pass by."""
        stream = self.streams.get(topic)
        if stream is None or stream.subscription is None:
            return False
        count = getattr(stream.subscription, "get_publisher_count", lambda: 1)  # from Jazzy on
        return bool(count())

    def _subscribe(self, entry: Wanted, publishers: Sequence[Any]) -> None:
        msgtype = publishers[0].topic_type
        try:
            if entry.msgtype and msgtype != entry.msgtype:
                raise ConfigError(f"{entry.name} has the type {msgtype}; the robot YAML means {entry.msgtype}.")
            kind = message_class(msgtype)
        except ConfigError as error:
            self.refused[entry.name] = f"{entry.name} is not recorded: {error}"
            return
        reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        latched = all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        is_standard = bool(definition(msgtype)[0])
        topic = Topic(
            entry.name,
            msgtype,
            entry.expected_hz,
            reliable,
            latched,
            definition="" if is_standard else definition_of(kind),
            type_hash="" if is_standard else str(getattr(publishers[0], "topic_type_hash", "")),  # from Iron on
        )
        stream = Stream(topic, None, publishers=len(publishers))
        with self._lock:
            self.streams[entry.name] = stream
            if self._writer is not None:
                self._writer.add_topic(topic)
        subscription = self._node.create_subscription(
            kind,
            entry.name,
            lambda data: None,  # the intake thread takes them itself
            profile,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=partial(self._on_lost, stream)),
        )
        stream.subscription = subscription
        self._subscribed += 1
        self._wake.trigger()

    def incompatible(self) -> list[str]:
        """A sentence for each publisher and subscription of a recorded topic that can never hear each other."""
        found = []
        for topic in self.streams:
            for publisher in self._node.get_publishers_info_by_topic(topic):
                for subscription in self._node.get_subscriptions_info_by_topic(topic):
                    outcome, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
                    if outcome == QoSCompatibility.ERROR:
                        found.append(
                            f"{subscription.node_name} cannot hear {publisher.node_name} on {topic}: "
                            f"{' '.join(reason.split())} Set the QoS of one like the other's."
                        )
        return found

    # Messages, on the intake thread

    def _on_message(self, stream: Stream, data: bytes, info: Any) -> None:
        publisher = info.get("publisher_gid", {}).get("data", b"")
        stream.latest = stream.newest[publisher] = data
        if stream.topic.transient_local:
            stream.latched[publisher] = data
        stream.arrivals_s.append(time.monotonic())
        missed = self._missed(stream, info)
        writer = self._writer
        if writer is None:
            return
        if missed:
            stream.lost += missed
            writer.count_lost(stream.topic.name, missed)
        with self._lock:
            if self._writer is not writer:  # the take has ended meanwhile; the next one must not get this
                return
            fits = self.backlog_bytes + len(data) <= self._backlog_limit
            if fits:
                self.backlog_bytes += len(data)
                self._queue.put((stream.topic.name, data, self._received_ns(info)))
        if not fits:
            writer.count_lost(stream.topic.name, 1)
            stream.overflow += 1

    def now_ns(self) -> int:
        """Now, by the clock of arrivals: the system's, or simulated time where the node lives in it."""
        return int(self._owner.get_clock().now().nanoseconds) if self._is_simulated else time.time_ns()

    def _received_ns(self, info: Any) -> int:
        """When a message arrived, as the middleware says where it does."""
        stamp = 0 if self._is_simulated else info.get("received_timestamp")
        return int(stamp or self.now_ns())

    @staticmethod
    def _missed(stream: Stream, info: Any) -> int:
        """How many messages of this publisher should have come since its last one; 0 where nobody numbers them."""
        number = info.get("publication_sequence_number")
        if "publisher_gid" in info:
            publisher = info["publisher_gid"]["data"]
        elif stream.publishers == 1:  # before Kilted rclpy does not say whose number it is
            publisher = b""
        else:
            return 0
        if number is None:  # before Jazzy
            return 0
        last = stream.sequences.get(publisher)
        stream.sequences[publisher] = number
        return 0 if last is None else max(0, number - last - 1)  # a publisher that began anew has lost nothing

    def _on_lost(self, stream: Stream, event: Any) -> None:
        if self._writer is not None:
            stream.lost_events += event.total_count_change

    # Takes

    def begin(self, writer: EpisodeWriter) -> None:
        """Hand what arrives from now on to a writer, and what every latecomer must hear."""
        self.broken = None
        with self._lock:
            for stream in self.streams.values():
                writer.add_topic(stream.topic)
                stream.lost = stream.lost_events = stream.overflow = 0
                for data in stream.latched.values():
                    self.backlog_bytes += len(data)
                    self._queue.put((stream.topic.name, data, self.now_ns()))
            self._thread = threading.Thread(target=self._write_all, args=(writer,), name="episode writer")
            self._thread.start()
            self._writer = writer

    def end(self) -> None:
        """Stop handing on; when this returns, all that had arrived when it was called is written."""
        self._catch_up()
        with self._lock:
            writer, self._writer = self._writer, None
            self._queue.put(None)
        self._thread.join()
        assert writer is not None
        for stream in self.streams.values():
            # What the middleware says is lost shows as a gap too, unless nothing came after it.
            writer.count_lost(stream.topic.name, max(0, stream.lost_events - stream.lost))

    def _catch_up(self) -> None:
        """Wait until the intake thread has taken what has arrived: the last moments of a take are its success."""
        self._caught_up = threading.Event()
        self._wake.trigger()
        deadline_s = time.monotonic() + CATCH_UP_S
        while self._receiver.is_alive() and time.monotonic() < deadline_s and not self._caught_up.wait(0.05):
            pass
        self._caught_up = None

    def _write_all(self, writer: EpisodeWriter) -> None:
        while (entry := self._queue.get()) is not None:
            topic, data, received_ns = entry
            with self._lock:
                self.backlog_bytes -= len(data)
            if self.broken:
                continue
            try:
                writer.write(topic, data, received_ns)
            except EpisodeError as error:
                self.broken = str(error)
            except Exception as error:  # a dead thread would leave the queue to fill up and the take to be lost
                self.broken = f"{topic} could not be written, a fault of lam_ros: {error!r}; {writer.name} is kept."

    def close(self) -> None:
        if not self._is_receiving:
            return
        self._is_receiving = False
        self._wake.trigger()
        self._receiver.join()
        self._node.destroy_node()
