"""recorder_node: writes what arrives, as it arrives, into sealed episodes."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lam_ros.demonstrations.episode import EpisodeWriter, Outcome, Topic
from lam_ros.demonstrations.repair import leftovers, recover
from lam_ros.demonstrations.storage import GIGABYTE, Room, room_for_takes
from lam_ros.errors import ConfigError, EpisodeError
from lam_ros.nodes.base import ERROR, OK, LamNode, resolve
from lam_ros.nodes.joints import ROBOT_COMMAND_TYPES

DEPTH = 1000  # of the subscriptions: room for the longest pause of a busy machine
BACKLOG_BYTES = 512 << 20  # received and not yet written; by bytes, since an image is 10,000 joint states
MATCH_PERIOD_S = 0.2
DISK_PERIOD_S = 1.0


@dataclass(frozen=True)
class _Wanted:
    """A topic to record: its message class, expected rate, and whether an episode is worthless without it."""

    kind: Any
    expected_hz: float | None
    required: bool


def _type_name(kind: Any) -> str:
    package, folder, name = kind.__module__.split(".")[0], "msg", kind.__name__
    return f"{package}/{folder}/{name}"


class RecorderNode(LamNode):
    """Receives on the node's thread, writes on another, with a bounded queue in between whose overflow is counted."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder", **kwargs)
        self.declare("dataset", "", "Folder that episodes are written to.", read_only=True)
        self.declare("task", "", "What is demonstrated, in words; stored with each episode.")

    def configure(self) -> None:
        if not self.parameter("dataset"):
            raise ConfigError("the parameter dataset is empty; give the folder that episodes go to.")
        self._dataset = resolve(self.parameter("dataset"))
        for leftover in leftovers(self._dataset):
            found = recover(leftover)
            self.get_logger().warning(f"{found.folder}: {found.sentence}")
        self._writer: EpisodeWriter | None = None
        self._outcome: Outcome = "unmarked"
        self._broken: str | None = None
        self._sealed = 0
        self._wanted = self._topics()
        self._required = tuple(topic for topic, wanted in self._wanted.items() if wanted.required)
        self._subscribed: dict[str, Any] = {}
        self._queue: queue.SimpleQueue[tuple[str, bytes, int] | None] = queue.SimpleQueue()
        self._backlog_bytes = 0
        self._backlog_lock = threading.Lock()
        self._matcher = self.create_timer(MATCH_PERIOD_S, self._match, clock=self._steady)
        self._room = Room(0, 0, None)
        self._watch_disk()
        self._disk_watcher = self.create_timer(DISK_PERIOD_S, self._watch_disk, clock=self._steady)
        self._services_made = [
            self.create_service(Trigger, f"recorder/{name}", partial(self._serve, action))
            for name, action in {
                "start": self._start_take,
                "stop": self._stop_take,
                "discard": self._discard_take,
                "mark_success": partial(self._mark, "success"),
                "mark_failure": partial(self._mark, "failure"),
            }.items()
        ]
        for topic in self._required:
            self.need("publishes", topic, partial(self._subscribed.__contains__, topic))
        self.figure("episodes sealed", lambda: self._sealed)
        self.figure("backlog in MB", lambda: self._backlog_bytes >> 20)
        self.figure("room", lambda: self._room)
        self.figure("recording", lambda: self._writer.name if self._writer else "no")

    def _topics(self) -> dict[str, _Wanted]:
        """Absolute topic -> what to record of it."""
        wanted = {
            camera.subscribed_topic: _Wanted(
                Image if camera.transport == "raw" else CompressedImage, camera.rate_hz, required=True
            )
            for camera in self.robot.cameras.values()
        }
        wanted[self.robot.joint_states.topic] = _Wanted(JointState, self.robot.joint_states.rate_hz, required=True)
        wanted["lam/command"] = _Wanted(JointState, None, required=True)
        for topic in ("teleop/command", "lam/policy_command"):
            wanted[topic] = _Wanted(JointState, None, required=False)
        wanted[self.robot.command.topic] = _Wanted(ROBOT_COMMAND_TYPES[self.robot.command.type], None, required=False)
        wanted["lam/takeover"] = _Wanted(Bool, None, required=False)
        return {self.resolve_topic_name(topic): entry for topic, entry in wanted.items()}

    def _match(self) -> None:
        """Subscribe to each topic once somebody publishes it, with the publisher's QoS."""
        for topic, wanted in self._wanted.items():
            if topic in self._subscribed:
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
            latched = all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
            profile = QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=DEPTH,
                reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
            )
            subscription = self.create_subscription(
                wanted.kind,
                topic,
                partial(self._on_message, topic),
                profile,
                raw=True,
                event_callbacks=SubscriptionEventCallbacks(message_lost=partial(self._on_lost, topic)),
            )
            described = Topic(topic, _type_name(wanted.kind), wanted.expected_hz, reliable, latched)
            self._subscribed[topic] = (subscription, described)
            if self._writer is not None:
                self._writer.add_topic(described)

    def _watch_disk(self) -> None:
        """Note the room that is left; a take in progress is sealed while there is still room to seal it."""
        keep_gb = self.robot.recorder.keep_free_gb
        try:
            self._room = room_for_takes(self._dataset, round(keep_gb * GIGABYTE))
        except OSError as error:
            self.note("disk", ERROR, f"{self._dataset} cannot be looked at: {error}")
            return
        if self._broken and self._writer is not None:
            self.note("recording", ERROR, self._broken)
        if self._room.usable_bytes > 0:
            self.note("disk", OK, str(self._room))
            return
        self.note("disk", ERROR, f"{self._room}; recorder.keep_free_gb is {keep_gb:g}: free some space.")
        if self._writer is not None:
            try:
                sealed = self._stop_take()
                self.note("recording", ERROR, f"{sealed} was sealed early, before the disk is full.")
            except EpisodeError as error:
                self.note("recording", ERROR, str(error))

    def _on_message(self, topic: str, data: bytes) -> None:
        if self._writer is None:
            return
        with self._backlog_lock:
            fits = self._backlog_bytes + len(data) <= BACKLOG_BYTES
            self._backlog_bytes += len(data) if fits else 0
        if fits:
            self._queue.put((topic, data, self.get_clock().now().nanoseconds))
        else:
            self._writer.count_lost(topic, 1)
            self.note("backlog", ERROR, f"the disk is too slow; messages of {topic} are lost, and counted.")

    def _on_lost(self, topic: str, event: Any) -> None:
        if self._writer is not None:
            self._writer.count_lost(topic, event.total_count_change)

    def _write_all(self, writer: EpisodeWriter) -> None:
        while (entry := self._queue.get()) is not None:
            topic, data, received_ns = entry
            with self._backlog_lock:
                self._backlog_bytes -= len(data)
            if self._broken:
                continue
            try:
                writer.write(topic, data, received_ns)
            except EpisodeError as error:
                self._broken = str(error)
            except Exception as error:  # a dead thread would leave the queue to fill up and the take to be lost
                self._broken = f"{topic} could not be written, a fault of lam_ros: {error!r}; {writer.name} is kept."

    # Services

    def _serve(self, action: Any, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if not self.is_active:
                raise EpisodeError("the recorder is not active; activate it first.")
            response.success, response.message = True, action()
        except EpisodeError as error:
            self.note("recording", ERROR, str(error))
            response.success, response.message = False, str(error)
        return response

    def _start_take(self) -> str:
        if self._writer is not None:
            raise EpisodeError(f"{self._writer.name} is being recorded; stop or discard it first.")
        self._match()
        missing = self.missing_topics()
        if missing:
            raise EpisodeError(f"{missing}; start the robot and the gate, then try again.")
        self._watch_disk()
        if self._room.usable_bytes <= 0:
            raise EpisodeError(f"no take starts: {self._status['disk'][1]}")
        writer = EpisodeWriter(self._dataset, self.robot.name, self.robot.digest, self.parameter("task"))
        for _, topic in self._subscribed.values():
            writer.add_topic(topic)
        self._outcome, self._broken = "unmarked", None
        self._thread = threading.Thread(target=self._write_all, args=(writer,), name="episode writer")
        self._thread.start()
        self._writer = writer
        self.note("recording", OK, f"recording {writer.name}")
        return writer.name

    def _end_take(self) -> EpisodeWriter:
        if self._writer is None:
            raise EpisodeError("nothing is being recorded; call recorder/start first.")
        writer, self._writer = self._writer, None
        self._queue.put(None)
        self._thread.join()
        return writer

    def _stop_take(self) -> str:
        writer = self._end_take()
        try:
            if self._broken:
                raise EpisodeError(self._broken)
            sealed = writer.seal(self._outcome, self._required)
        except EpisodeError as error:
            writer.abandon()
            raise EpisodeError(f"{error} `lam episodes repair` seals what was written.") from None
        self._sealed += 1
        self.note("recording", OK, f"sealed {sealed.name}")
        return str(sealed)

    def _discard_take(self) -> str:
        writer = self._end_take()
        writer.discard()
        return f"{writer.name} is discarded"

    def _mark(self, outcome: Outcome) -> str:
        if self._writer is None:
            raise EpisodeError("nothing is being recorded; mark a take before it is stopped.")
        self._outcome = outcome
        return f"{self._writer.name} is a {outcome}"

    def stop(self) -> None:
        """A take in progress is sealed, not lost."""
        if self._writer is not None:
            try:
                self.get_logger().info(f"sealed {self._stop_take()}")
            except EpisodeError as error:
                self.get_logger().error(str(error))

    def close(self) -> None:
        if self.is_active:
            self.stop()

    def _forget(self) -> None:
        for subscription, _ in self._subscribed.values():
            self.destroy_subscription(subscription)
        for service in self._services_made:
            self.destroy_service(service)
        self.destroy_timer(self._matcher)
        self.destroy_timer(self._disk_watcher)
