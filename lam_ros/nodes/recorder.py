"""recorder_node: writes what arrives, as it arrives, into sealed episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sensor_msgs.msg import Joy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lam_ros.contract import absolute_topic
from lam_ros.demonstrations.episode import EpisodeWriter, Outcome, change_manifest, open_episode, set_replaced
from lam_ros.demonstrations.preflight import Finding, preflight
from lam_ros.demonstrations.repair import leftovers, recover
from lam_ros.demonstrations.storage import GIGABYTE, Room, room_for_takes
from lam_ros.demonstrations.verdict import Verdict, judge
from lam_ros.errors import ConfigError, EpisodeError, LamError
from lam_ros.nodes.base import ERROR, OK, WARN, LamNode, resolve, type_name
from lam_ros.nodes.intake import Intake, Wanted
from lam_ros.nodes.joints import ROBOT_COMMAND_TYPES
from lam_ros.nodes.qos import LATCHED, STREAM

MATCH_PERIOD_S = 0.2
WATCH_PERIOD_S = 1.0
JUDGE_AFTER_S = 2.0  # of a take: before, every topic would be late
LEVELS = {"PASS": OK, "WARN": WARN, "FAIL": ERROR}


class RecorderNode(LamNode):
    """Records what the intake receives, take by take, and says how good it is while there is time to mend it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder", **kwargs)
        self.declare("dataset", "", "Folder that episodes are written to.", read_only=True)
        self.declare("task", "", "What is demonstrated, in words; stored with each episode.")
        self.declare("preflight", True, "Check topics, rates, sizes and QoS before the first take.")

    def configure(self) -> None:
        if not self.parameter("dataset"):
            raise ConfigError("the parameter dataset is empty; give the folder that episodes go to.")
        self._dataset = resolve(self.parameter("dataset"))
        for leftover in leftovers(self._dataset):
            found = recover(leftover)
            self.get_logger().warning(f"{found.folder}: {found.sentence}")
        self._writer: EpisodeWriter | None = None
        self._outcome: Outcome = "unmarked"
        self._sealed = 0
        self._last: Path | None = None  # the take that was sealed last
        self._replaces: Path | None = None  # what the take in progress is to replace
        self._is_checked = not self.parameter("preflight")
        self._pressed: list[int] = []
        wanted = self.recorded_topics()
        self._required = tuple(entry.name for entry in wanted if entry.required)
        self._intake = Intake(self, wanted, round(self.robot.recorder.backlog_mb * 1e6))
        self._room = Room(0, 0, None)
        self._watch()
        self._periodic = [
            self.create_timer(MATCH_PERIOD_S, self._match, clock=self._steady),
            self.create_timer(WATCH_PERIOD_S, self._watch, clock=self._steady),
        ]
        self._actions: dict[str, Callable[[], str]] = {
            "start": self._start_take,
            "stop": self._stop_take,
            "discard": self._discard_take,
            "again": self._take_again,
            "mark_success": partial(self._mark, "success"),
            "mark_failure": partial(self._mark, "failure"),
            "preflight": self._preflight,
        }
        self._services_made = [
            self.create_service(Trigger, f"recorder/{name}", partial(self._serve, name)) for name in self._actions
        ]
        self._events = self.create_publisher(String, "recorder/event", LATCHED)
        self._joystick = None
        if self.robot.recorder.buttons.actions:
            self._joystick = self.create_subscription(Joy, self.robot.recorder.buttons.topic, self._on_joy, STREAM)
        for topic in self._required:
            self.need("publishes", topic, partial(self._intake.hears, topic))
        self.figure("episodes sealed", lambda: self._sealed)
        self.figure("backlog in MB", lambda: self._intake.backlog_bytes >> 20)
        self.figure("room", lambda: self._room)
        self.figure("verdict", lambda: self._status.get("verdict", (OK, ""))[1])
        self.figure("recording", lambda: self._writer.name if self._writer else "no")

    def recorded_topics(self) -> list[Wanted]:
        """What to record, by absolute names."""
        robot, joint_state = self.robot, "sensor_msgs/msg/JointState"
        wanted = []
        for camera in robot.cameras.values():
            wanted.append(Wanted(camera.subscribed_topic, camera.message_type, camera.rate_hz, required=True))
            wanted.append(Wanted(f"{camera.topic.rpartition('/')[0]}/camera_info"))
        wanted.append(Wanted(robot.joint_states.topic, joint_state, robot.joint_states.rate_hz, required=True))
        wanted.append(Wanted("lam/command", joint_state, required=True))
        wanted += [Wanted(topic, joint_state) for topic in ("teleop/command", "lam/policy_command")]
        wanted.append(Wanted(robot.command.topic, type_name(ROBOT_COMMAND_TYPES[robot.command.type])))
        wanted.append(Wanted("lam/takeover", "std_msgs/msg/Bool"))
        wanted += [Wanted(topic) for topic in robot.recorder.topics]
        return [dataclasses.replace(entry, name=self._absolute(entry.name)) for entry in wanted]

    def _absolute(self, topic: str) -> str:
        if "*" not in topic:
            return str(self.resolve_topic_name(topic))
        return absolute_topic(topic, self.get_namespace())

    # What goes on

    def _match(self) -> None:
        self._intake.match()
        for topic, stream in list(self._intake.streams.items()):
            self.figure(f"topic {topic}", stream.health)
        for topic, sentence in self._intake.refused.items():
            self.note(topic, ERROR, sentence)
        late = [
            f"{topic} waits for the disk, which is too slow; {stream.overflow} messages are lost, and counted."
            for topic, stream in list(self._intake.streams.items())
            if stream.overflow
        ]
        self.note("backlog", ERROR if late else OK, " ".join(late) or "what arrives is written")

    def _watch(self) -> None:
        """Look at the disk and at the take; it is sealed while there is still room to seal it."""
        self._watch_disk()
        if self._writer is None:
            return
        if self._intake.broken:
            self.note("recording", ERROR, self._intake.broken)
        if self._writer.age_s > JUDGE_AFTER_S:
            reports = self._writer.reports(self._intake.now_ns())
            self._note_verdict(judge(reports, self._required, thresholds=self.robot.recorder.verdict))

    def _note_verdict(self, verdict: Verdict) -> None:
        self.note("verdict", LEVELS[verdict.grade], " ".join((verdict.grade, *verdict.findings)))

    def _watch_disk(self) -> None:
        keep_gb = self.robot.recorder.keep_free_gb
        try:
            self._room = room_for_takes(self._dataset, round(keep_gb * GIGABYTE))
        except OSError as error:
            self.note("disk", ERROR, f"{self._dataset} cannot be looked at: {error}")
            return
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

    def _tell(self, event: str) -> None:
        """Say it on ``recorder/event``, for lights and sounds."""
        if self.context.ok():
            self._events.publish(String(data=event))

    # Services and buttons

    def _serve(self, name: str, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._do(name)
        return response

    def _do(self, name: str) -> tuple[bool, str]:
        try:
            if not self.is_active:
                raise EpisodeError("the recorder is not active; activate it first.")
            return True, self._actions[name]()
        except LamError as error:
            self.note("recording", ERROR, str(error))
            self._tell(f"refused: {error}")
            return False, str(error)

    def _on_joy(self, message: Joy) -> None:
        pressed = [number for number, is_down in enumerate(message.buttons) if is_down]
        fresh = set(pressed) - set(self._pressed)
        self._pressed = pressed
        for action, button in self.robot.recorder.buttons.actions.items():
            # One button for start and stop: what it does depends on whether a take is on.
            can_be_done = action not in ("start", "stop") or (action == "stop") == (self._writer is not None)
            if button in fresh and can_be_done:
                fresh.discard(button)
                self._do(action)

    def _preflight(self) -> str:
        self._intake.match()
        streams = self._intake.streams
        resolved = {
            topic: streams.get(self._absolute(topic))
            for topic in (*(c.subscribed_topic for c in self.robot.cameras.values()), self.robot.joint_states.topic)
        }
        heard = {topic: stream.heard() for topic, stream in resolved.items() if stream}
        findings = preflight(self.robot, heard, has_rates=not self.parameter("use_sim_time"))
        findings += [Finding(True, sentence) for sentence in self._intake.incompatible()]
        failures = [finding.sentence for finding in findings if finding.is_failure]
        if failures:
            raise EpisodeError(" ".join(failures))
        self._is_checked = True
        return " ".join(finding.sentence for finding in findings) or "every topic delivers what the robot YAML says"

    # Takes

    def _start_take(self) -> str:
        if self._writer is not None:
            raise EpisodeError(f"{self._writer.name} is being recorded; stop or discard it first.")
        self._intake.match()
        missing = self.missing_topics()
        if missing:
            raise EpisodeError(f"{missing}; start the robot and the gate, then try again.")
        if not self._is_checked:
            self._preflight()
        self._watch_disk()
        if self._room.usable_bytes <= 0:
            raise EpisodeError(f"no take starts: {self._status['disk'][1]}")
        writer = EpisodeWriter.of(self.robot, self._dataset, self.parameter("task"))
        self._outcome, self._replaces = "unmarked", None
        self._intake.begin(writer)
        self._writer = writer
        self.note("recording", OK, f"recording {writer.name}")
        self._tell(f"recording {writer.name}")
        return writer.name

    def _end_take(self) -> EpisodeWriter:
        if self._writer is None:
            raise EpisodeError("nothing is being recorded; call recorder/start first.")
        writer, self._writer = self._writer, None
        self._intake.end()
        return writer

    def _stop_take(self) -> str:
        ended_ns = self._intake.now_ns()
        writer = self._end_take()
        try:
            if self._intake.broken:
                raise EpisodeError(self._intake.broken)
            self._last = writer.seal(self._outcome, self._required, ended_ns=ended_ns)
            if self._replaces is not None:
                set_replaced(self._replaces)
        except EpisodeError as error:
            writer.abandon()
            raise EpisodeError(f"{error} `lam episodes repair` seals what was written.") from None
        self._sealed += 1
        verdict = open_episode(self._last).manifest.verdict
        self.note("recording", OK, f"sealed {self._last.name}")
        self._note_verdict(verdict)
        self._tell(f"sealed {self._last.name} {verdict.grade}")
        return str(self._last)

    def _discard_take(self) -> str:
        writer = self._end_take()
        writer.discard()
        self._tell(f"discarded {writer.name}")
        return f"{writer.name} is discarded"

    def _take_again(self) -> str:
        """Record the take in progress anew, or else the last one; that one stays until the new one is sealed."""
        replaces = self._last if self._writer is None else self._replaces
        if self._writer is not None:
            self._discard_take()
        name = self._start_take()
        self._replaces = replaces
        return f"{name}, instead of {replaces.name}" if replaces else name

    def _mark(self, outcome: Outcome) -> str:
        if self._writer is not None:
            self._outcome = outcome
            self._tell(f"marked {self._writer.name} {outcome}")
            return f"{self._writer.name} is a {outcome}"
        if self._last is None:
            raise EpisodeError("nothing has been recorded yet; mark a take while it is recorded, or after.")
        change_manifest(open_episode(self._last), outcome=outcome)
        self._tell(f"marked {self._last.name} {outcome}")
        return f"{self._last.name} is a {outcome}"

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
        if hasattr(self, "_intake"):
            self._intake.close()

    def _forget(self) -> None:
        self._intake.close()
        for service in self._services_made:
            self.destroy_service(service)
        for timer in self._periodic:
            self.destroy_timer(timer)
        self.destroy_publisher(self._events)
        if self._joystick is not None:
            self.destroy_subscription(self._joystick)
