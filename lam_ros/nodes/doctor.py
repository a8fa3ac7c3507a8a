"""What the doctor hears on the running graph: topics, types, rates, QoS, clocks, pictures, who commands, transport."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import rclpy

from lam_ros.demonstrations.preflight import preflight
from lam_ros.demonstrations.wire import decode, header_stamp_ns
from lam_ros.doctor import Finding, Level, Scene
from lam_ros.errors import LamError
from lam_ros.images import DEPTH, view_image
from lam_ros.nodes.base import PlainNode, spinning
from lam_ros.nodes.controller import BEGINS, Controller
from lam_ros.nodes.images import to_rgb, view
from lam_ros.nodes.intake import Intake, Wanted
from lam_ros.nodes.middleware import shared_memory_of
from lam_ros.nodes.transport import Measured, Receiver
from lam_ros.share import share_path

MATCH_PERIOD_S = 0.3
BACKLOG_BYTES = 1 << 20
PATIENCE_S = 15.0  # for the sender of frames, which on a busy machine starts late
COMMANDER = "gate"  # may command the robot, one of it
ENOUGH = 0.98  # of the frames
FRAMES = 32  # that a driver's shared memory should hold; 19 of 27 KB were filled for good by a few killed subscribers
LATE_SHARE = 0.5  # of a camera's period that the way may take
SETTINGS = ("ROS_DISTRO", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "CYCLONEDDS_URI")


class DoctorNode(PlainNode):
    """Listens, and commands nothing."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("lam_doctor", **kwargs)
        robot = self.robot
        wanted = [
            Wanted(self.resolve_topic_name(camera.subscribed_topic), camera.message_type, camera.rate_hz)
            for camera in robot.cameras.values()
        ]
        states = self.resolve_topic_name(robot.joint_states.topic)
        wanted.append(Wanted(states, "sensor_msgs/msg/JointState", robot.joint_states.rate_hz))
        self._intake = Intake(self, wanted, BACKLOG_BYTES)
        self.create_timer(MATCH_PERIOD_S, self._intake.match, clock=self._steady)
        self._controller = Controller(self, robot)
        self.create_timer(MATCH_PERIOD_S, self._controller.ask, clock=self._steady)
        self.transport = Receiver(self, list(robot.cameras.values()))

    def close(self) -> None:
        self.transport.close()
        self._intake.close()

    def _latest(self, topic: str) -> bytes:
        stream = self._intake.streams.get(self.resolve_topic_name(topic))
        return stream.latest if stream else b""

    def scene(self) -> Scene:
        """What is measured now, as far as it can be read."""
        colours = {}
        for name, camera in self.robot.cameras.items():
            latest = self._latest(camera.subscribed_topic)
            with contextlib.suppress(LamError):
                if latest:
                    colours[name] = tuple(to_rgb(view(latest, camera.transport == "compressed")).mean((0, 1)).tolist())
        return Scene(self._state(), colours)

    def _state(self) -> np.ndarray | None:
        latest = self._latest(self.robot.joint_states.topic)
        try:
            message = decode("sensor_msgs/msg/JointState", latest) if latest else None
            return self.contract.in_order(message.name, message.position, "joint_states") if message else None
        except LamError:
            return None

    def findings(self) -> list[Finding]:
        """Everything that was heard, judged."""
        is_simulated = bool(self.count_publishers("/clock"))
        return [
            *self._middleware(),
            *self._topics(is_simulated),
            *self._pictures(),
            *self._shared_memory(),
            *([] if is_simulated else self._clocks()),
            *self._commanders(),
            *(_judged(measured) for measured in self.transport.measured()),
        ]

    def _middleware(self) -> Iterator[Finding]:
        settings = ", ".join(f"{name}={os.environ[name]}" for name in SETTINGS if os.environ.get(name))
        yield Finding("ok", f"{rclpy.get_rmw_implementation_identifier()}; {settings or 'no ROS_ variables are set'}")

    def _topics(self, is_simulated: bool) -> Iterator[Finding]:
        topics = [*(camera.subscribed_topic for camera in self.robot.cameras.values()), self.robot.joint_states.topic]
        streams = {topic: self._intake.streams.get(self.resolve_topic_name(topic)) for topic in topics}
        heard = {topic: stream.heard() for topic, stream in streams.items() if stream}
        refused = self._intake.refused
        unreadable = [topic for topic in topics if self.resolve_topic_name(topic) in refused]
        for sentence in refused.values():
            yield Finding(
                "failure", sentence, "nobody can read it.", "correct the topic or transport in the robot YAML"
            )
        found = [
            finding
            for finding in preflight(self.robot, heard, has_rates=not is_simulated)
            if not any(topic in finding.sentence for topic in unreadable)
        ]
        for finding in found:
            why = "no policy can act without it." if finding.is_failure else "ticks are late or missing."
            level: Level = "failure" if finding.is_failure else "warning"
            yield Finding(
                level,
                finding.sentence,
                why,
                "ros2 topic list; ros2 topic hz TOPIC; docs/first-robot.md: Nothing arrives",
            )
        for sentence in self._intake.incompatible():
            yield Finding(
                "failure", sentence, "the one waits for what the other sends in vain.", "ros2 topic info -v TOPIC"
            )
        if not found and not refused:
            rates = ", ".join(f"{topic} {one.rate_hz:.0f} Hz" for topic, one in heard.items())
            yield Finding("ok", f"every topic delivers what the robot YAML says: {rates}")

    def _pictures(self) -> Iterator[Finding]:
        for name, camera in self.robot.cameras.items():
            latest = self._latest(camera.subscribed_topic)
            if not latest or camera.transport != "raw":
                continue
            try:
                frame = view_image(latest)
            except LamError as error:
                yield Finding("failure", str(error), "the policy sees nothing.", "check the camera's driver")
                continue
            said = f"camera {name}: {frame.width} x {frame.height}, {frame.encoding}"
            if frame.encoding in DEPTH:
                yield Finding("warning", said, "depth becomes an almost black picture.", "take the colour topic")
            else:
                yield Finding("ok", said)

    def _shared_memory(self) -> Iterator[Finding]:
        """Whether drivers on this machine have room for their frames where the middleware hands them over."""
        own = [p for p in self.get_publishers_info_by_topic("/diagnostics") if p.node_name == self.get_name()]
        for name, camera in self.robot.cameras.items():
            if not own or camera.transport != "raw":
                continue
            frame_bytes = camera.width * camera.height * 3
            for driver in self.get_publishers_info_by_topic(self.resolve_topic_name(camera.subscribed_topic)):
                room = shared_memory_of(driver.endpoint_gid, own[0].endpoint_gid)
                if room is not None and room < FRAMES * frame_bytes:
                    yield Finding(
                        "warning",
                        f"camera {name}: {driver.node_name} hands frames of {frame_bytes / 1e3:.0f} KB over in "
                        f"{room / 1e3:.0f} KB of shared memory",
                        "frames that do not fit are mostly lost, and subscribers that are killed can fill it for good.",
                        f"start the driver with FASTDDS_DEFAULT_PROFILES_FILE={share_path('config/fastdds.xml')}",
                    )

    def _clocks(self) -> Iterator[Finding]:
        now_ns, limit_s = time.time_ns(), self.robot.recorder.verdict.warn_clock_s
        for topic in [*(c.subscribed_topic for c in self.robot.cameras.values()), self.robot.joint_states.topic]:
            stamp_ns = header_stamp_ns(self._latest(topic)) if self._latest(topic) else 0
            off_s = (now_ns - stamp_ns) / 1e9
            if stamp_ns and abs(off_s) > limit_s:
                yield Finding(
                    "failure",
                    f"{topic} is stamped {abs(off_s):.1f} s {'ago' if off_s > 0 else 'in the future'}",
                    "pictures and joint states of different clocks cannot be aligned.",
                    "synchronise the clocks: sudo apt install chrony; chronyc tracking",
                )

    def _commanders(self) -> Iterator[Finding]:
        topic = self.resolve_topic_name(self.robot.command.topic)
        names = sorted(p.node_name for p in self.get_publishers_info_by_topic(topic))
        if COMMANDER in names:
            names.remove(COMMANDER)
        if names:
            yield Finding(
                "failure",
                f"{', '.join(names)} publishes on {topic} too",
                "an arm with two masters jumps between them, and the gate cannot limit the other.",
                f"ros2 topic info -v {topic}; stop it, or let it publish on teleop/command",
            )
        controller = self._controller
        if controller.disorder:
            yield Finding(
                "failure",
                controller.disorder,
                "each joint would go where another should: the gate does not command it.",
                "bring `joints` in the robot YAML into the controller's order",
            )
        if controller.refusal:
            yield Finding(
                "failure",
                controller.refusal,
                "nothing moves.",
                f"ros2 param get {controller.name} joints; name the same in the robot YAML",
            )
        if controller.begins_from_measured:
            yield Finding(
                "warning",
                f"{controller.name} begins each motion where the arm is measured",
                "that is behind where it was sent: with each command it steps back, and then hurries.",
                f"set {BEGINS[0]}: true for {controller.name} (before Jazzy {BEGINS[1]}: true), and start it again",
            )
        if not self.count_subscribers(topic):
            yield Finding(
                "warning",
                f"nobody takes {topic}",
                "the arm's controller does not listen there: nothing will move.",
                "ros2 control list_controllers; set command.topic and command.type in the robot YAML",
            )


def _judged(measured: Measured) -> Finding:
    """Whether a camera's frames arrived from another process, and soon enough."""
    said = f"{measured.size} from another process: {measured.share:.0%} arrived, p99 {measured.p99_ms:.1f} ms"
    period_ms = 1e3 / float(measured.size.rpartition("@")[2])
    if measured.share >= ENOUGH and measured.p99_ms < LATE_SHARE * period_ms:
        return Finding("ok", said)
    return Finding(
        "warning" if measured.share > 0.5 else "failure",
        said,
        "the policy misses ticks, and recordings have holes.",
        "start nodes by `lam up` or ros2 launch (they use config/fastdds.xml); see /dev/shm and the load above",
    )


def listen(
    robot: str, seconds: float, report: Callable[[float], None] = lambda done: None
) -> tuple[list[Finding], Scene]:
    """Listen for some seconds of wall time.

    Args:
        report: is told the share that is over.

    Returns:
        What was found, and what is measured now.
    """
    with spinning(DoctorNode, robot=robot) as (node, spin):
        try:
            began = time.monotonic()
            while (spent := time.monotonic() - began) < seconds or (
                spent < seconds + PATIENCE_S and not node.transport.has_enough
            ):
                spin()
                report(min(1.0, spent / seconds))
            return node.findings(), node.scene()
        finally:
            node.close()
