"""What a running graph offers an arm: cameras, joint states, controllers that listen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from lam_ros.contract import HAND
from lam_ros.images import DEPTH
from lam_ros.nodes.base import spinning, stamp_to_ns, type_name
from lam_ros.nodes.joints import ROBOT_COMMAND_TYPES
from lam_ros.nodes.qos import SENSOR
from lam_ros.robot_init import Found, FoundCamera

OTHER_QUANTITIES = re.compile(r"velocit|effort|torque|wrench|force", re.IGNORECASE)  # not positions
OWN = ("lam/", "teleop/")  # topics of lam_ros itself
LOOK_S = 0.5  # how often new topics are looked for
USUAL_HZ = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 60.0, 90.0, 100.0, 125.0, 200.0, 250.0, 500.0, 1000.0)
NEAR = 0.12  # a measured rate this near to a usual one is meant to be it


@dataclass
class _Heard:
    """A topic that was heard: its newest message, and when the messages were stamped, in ns."""

    message: Any = None
    stamps: list[int] = field(default_factory=list)

    def take(self, message: Any) -> None:
        self.message = message
        self.stamps.append(stamp_to_ns(message.header.stamp) or time.monotonic_ns())

    @property
    def rate_hz(self) -> float:
        """The median rate, as a driver would call it."""
        periods = np.diff(self.stamps)
        periods = periods[periods > 0]
        if not len(periods):
            return 0.0
        rate = 1e9 / float(np.median(periods))
        usual = min(USUAL_HZ, key=lambda hz: abs(rate / hz - 1))
        return usual if abs(rate / usual - 1) < NEAR else round(rate, 1)


class DiscoveryNode(Node):
    """Listens to every image and joint-state topic there is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("lam_discovery", **kwargs)
        self.heard: dict[str, tuple[type, _Heard]] = {}
        self.create_timer(LOOK_S, self.look)
        self.look()

    def look(self) -> None:
        """Listen to what has appeared since."""
        kinds = {type_name(kind): kind for kind in (Image, CompressedImage, JointState)}
        for topic, types in self.get_topic_names_and_types():
            kind = kinds.get(types[0])
            is_own = any(f"/{part}" in topic for part in OWN)
            if kind is None or topic in self.heard or is_own or not self.count_publishers(topic):
                continue
            heard = _Heard()
            self.heard[topic] = kind, heard
            self.create_subscription(kind, topic, heard.take, SENSOR)

    def found(self, joints: Sequence[str]) -> Found:
        """What was heard, for an arm with these joints."""
        cameras, remarks = [], []
        states: list[tuple[int, str, float]] = []
        raw = {topic for topic, (kind, heard) in self.heard.items() if kind is Image and heard.message is not None}
        for topic, (kind, heard) in sorted(self.heard.items()):
            if heard.message is None:
                remarks.append(f"{topic} is announced, but nothing came: is its driver running?")
            elif kind is JointState:
                states.append((len(set(joints).intersection(heard.message.name)), topic, heard.rate_hz))
            elif kind is Image or topic.removesuffix("/compressed") not in raw:
                camera = _camera(topic, heard, kind is Image)
                if kind is Image and heard.message.encoding in DEPTH:
                    remarks.append(f"{topic} is depth, which the policy's CNN would see as almost black: left out.")
                elif camera is None:
                    remarks.append(f"{topic} sends pictures that cannot be read.")
                else:
                    cameras.append(camera)
        states.sort(key=lambda state: (-state[0], state[1]))
        known, topic, rate = states[0] if states else (0, "", 0.0)
        if states and known < len(joints):
            remarks.append(f"{topic} has {known} of the {len(joints)} joints; the others are never measured there.")
        listeners = self._listeners(topic.rpartition("/")[0] if known else "")
        return Found(
            tuple(cameras),
            (topic, rate) if known else None,
            listeners[0] if listeners else None,
            tuple(other for named, other, _ in states[1:] if known and named == known),
            tuple(other for other, _ in listeners[1:]),
            remarks,
        )

    def _listeners(self, namespace: str) -> list[tuple[str, str]]:
        """Topics of a type the gate speaks, and the type, that somebody listens to and nobody commands; best first.

        Controllers listen while they are inactive too, so that a graph has several. First comes what is in the
        namespace of the joint states, is no hand's, and takes trajectories.
        """
        kinds = {type_name(kind): name for name, kind in ROBOT_COMMAND_TYPES.items() if kind is not JointState}

        def rank(listener: tuple[str, str]) -> tuple[bool, bool, bool, str]:
            topic, kind = listener
            is_elsewhere = not topic.startswith(f"{namespace}/")
            return is_elsewhere, bool(HAND.search(topic)), kind != "joint_trajectory", topic

        listeners = [
            (topic, kinds[types[0]])
            for topic, types in self.get_topic_names_and_types()
            if types[0] in kinds
            and not OTHER_QUANTITIES.search(topic)
            and self.count_subscribers(topic)
            and not self.count_publishers(topic)
        ]
        return sorted(listeners, key=rank)


def _camera(topic: str, heard: _Heard, is_raw: bool) -> FoundCamera | None:
    message, frame = heard.message, heard.message.header.frame_id
    if is_raw:
        return FoundCamera(topic, message.width, message.height, heard.rate_hz, frame_id=frame)
    picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_GRAYSCALE) if message.data else None
    if picture is None:
        return None
    base = topic.removesuffix("/compressed")
    return FoundCamera(base, picture.shape[1], picture.shape[0], heard.rate_hz, "compressed", frame)


def look_around(seconds: float, joints: Sequence[str], report: Callable[[float], None] = lambda done: None) -> Found:
    """Listen for some seconds of wall time; ``report`` is told the share that is over."""
    with spinning(DiscoveryNode) as (node, spin):
        began = time.monotonic()
        while (spent := time.monotonic() - began) < seconds:
            spin()
            report(min(1.0, spent / seconds))
        return node.found(joints)
