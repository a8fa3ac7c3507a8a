"""Moves one joint and watches: how late does each camera show it, and how late does the arm follow a command?"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool

from lam_ros.contract import NANOSECONDS
from lam_ros.control.latency import Delay, components_of, excitation, find_delay
from lam_ros.errors import BringUpError, ConfigError, LamError
from lam_ros.images import scale_image
from lam_ros.nodes.base import PlainNode, stamp_to_ns
from lam_ros.nodes.images import to_rgb, view
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.qos import COMMAND, LATCHED, SENSOR, STREAM

COMMAND_HZ = 100.0
WATCHED_SIZE = (96, 72)  # frames are kept so small
SILENCE_S = 10.0


class CalibrationNode(PlainNode):
    """Drives a joint through ``teleop/command`` along a smooth path; the gate limits it as it limits any teleoperation.

    Args:
        joint: which one moves.
        amplitude: how far to either side, in its unit.
        seconds: how long.

    Raises:
        ConfigError: there is no such joint.
    """

    def __init__(self, joint: str, amplitude: float, seconds: float, **kwargs: Any) -> None:
        super().__init__("calibration", **kwargs)
        if joint not in self.contract.joints:
            raise ConfigError(f"there is no joint {joint!r}; the robot has {', '.join(self.contract.joints)}.")
        self._index = self.contract.joints.index(joint)
        self._path = excitation(seconds, COMMAND_HZ, amplitude)
        self._step = -1
        self._start: np.ndarray | None = None
        self._measured: list[tuple[int, float]] = []
        self._sent: list[tuple[int, float]] = []
        self._films: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in self.robot.cameras}
        self._commands = self.create_publisher(JointState, "teleop/command", COMMAND)
        self._takeovers = self.create_publisher(Bool, "lam/takeover", LATCHED)
        self.create_subscription(JointState, self.robot.joint_states.topic, self._on_joint_states, SENSOR)
        self.create_subscription(JointState, "lam/command", self._on_sent, STREAM)
        for name, camera in self.robot.cameras.items():
            kind = Image if camera.transport == "raw" else CompressedImage
            self.create_subscription(kind, camera.subscribed_topic, partial(self._on_frame, name), SENSOR, raw=True)

    @property
    def progress(self) -> float:
        """How much of the path has been driven, 0 to 1."""
        return max(0, self._step) / len(self._path)

    def _on_joint_states(self, message: JointState) -> None:
        positions = self.joint_positions(message)
        if positions is None:
            return
        self._measured.append((stamp_to_ns(message.header.stamp), float(positions[self._index])))
        if self._start is None:
            self._start = positions.astype(np.float64)

    def _on_sent(self, message: JointState) -> None:
        if message.header.frame_id == "teleop":
            position = self.contract.in_order(message.name, message.position, "lam/command")[self._index]
            self._sent.append((self.get_clock().now().nanoseconds, float(position)))

    def _on_frame(self, camera: str, serialized: bytes) -> None:
        try:
            frame = view(serialized, self.robot.cameras[camera].transport == "compressed")
            self._films[camera].append((frame.stamp_ns, scale_image(to_rgb(frame), WATCHED_SIZE).copy()))
        except LamError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)

    def _silent(self) -> str:
        """What has not been heard yet and must be before anything moves; empty when all has."""
        if self._start is None:
            return self.robot.joint_states.topic
        if not self._commands.get_subscription_count():
            return "the gate (teleop/command)"
        return "" if self.now_ns() else "/clock"  # the path begins when time does, or the first tick is its end

    def drive(self, spin: Callable[[], None], report: Callable[[float], None]) -> None:
        """Drive the path.

        Args:
            spin: lets messages arrive for a moment.
            report: told the progress.

        Raises:
            BringUpError: the robot, the gate or simulated time is silent.
        """
        deadline = time.monotonic() + SILENCE_S
        while silent := self._silent():
            spin()
            if time.monotonic() > deadline:
                raise BringUpError(
                    f"{silent} is silent for {SILENCE_S:.0f} s; start the robot's driver, then try again."
                )
        assert self._start is not None
        self._takeovers.publish(Bool(data=True))
        began_ns = self.now_ns()
        moved_s = time.monotonic()
        while self._step < len(self._path) - 1:
            spin()
            step = int((self.now_ns() - began_ns) / NANOSECONDS * COMMAND_HZ)
            step = min(step, len(self._path) - 1)
            if step > self._step:
                self._step, moved_s = step, time.monotonic()
                target = self._start.copy()
                target[self._index] += self._path[step]
                stamp_ns = self.get_clock().now().nanoseconds
                self._commands.publish(joint_message(self.contract.joints, target, stamp_ns))
                report(self.progress)
            elif time.monotonic() - moved_s > SILENCE_S:
                raise BringUpError("simulated time stands still; start the simulation.")
        self._takeovers.publish(Bool(data=False))

    def delays(self) -> dict[str, Delay | str]:
        """Camera -> its delay, "command" -> the arm's; or a sentence where it cannot be told."""
        stamps_ns, positions = (np.array(column) for column in zip(*self._measured, strict=True))
        origin_ns = int(stamps_ns[0])
        times_s = (stamps_ns - origin_ns) / NANOSECONDS - self.robot.joint_states.latency_s
        found: dict[str, Delay | str] = {}
        for name, film in self._films.items():
            found[name] = self._delay(times_s, positions, film, origin_ns, components_of)
        if self._sent:
            sent_ns, targets = (np.array(column) for column in zip(*self._sent, strict=True))
            found["command"] = self._delay(
                (sent_ns - origin_ns) / NANOSECONDS,
                targets,
                list(zip(stamps_ns, positions[:, None], strict=True)),
                origin_ns + round(self.robot.joint_states.latency_s * NANOSECONDS),
                lambda seen: seen,
            )
        return found

    @staticmethod
    def _delay(
        times_s: np.ndarray,
        positions: np.ndarray,
        observed: list[tuple[int, np.ndarray]],
        origin_ns: int,
        reduce: Callable[[np.ndarray], np.ndarray],
    ) -> Delay | str:
        if not observed:
            return "nothing arrived; check its topic and driver."
        stamps_ns, seen = zip(*observed, strict=True)
        seen_s = (np.array(stamps_ns) - origin_ns) / NANOSECONDS
        try:
            return find_delay(times_s, positions, seen_s, reduce(np.stack(seen)))
        except ConfigError as error:
            return str(error)
