"""Would this robot's images arrive? Another process sends as many as its cameras would, and they are counted here.

python -m lam_ros.nodes.transport WIDTHxHEIGHT@HZ …     sends, for as long as it is let live
"""

from __future__ import annotations

import array
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from lam_ros.bringup import FOLLOW_PARENT, follow_parent, node_environment
from lam_ros.config import CameraConfig
from lam_ros.images import view_image
from lam_ros.nodes.base import ns_to_stamp, run
from lam_ros.nodes.qos import SENSOR

TOPIC = "lam/doctor/camera_{}"
SETTLE_S, JUDGED_S = 1.0, 2.0  # of what is sent: the first messages wait for discovery, and so many count


@dataclass
class Arrivals:
    """Of one topic: the numbers of the frames that came, and how long each was under way (ms)."""

    numbers: list[int] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)

    def take(self, serialized: bytes) -> None:
        frame = view_image(serialized)
        self.numbers.append(int(frame.frame_id))
        self.ages_ms.append((time.time_ns() - frame.stamp_ns) / 1e6)


@dataclass(frozen=True)
class Measured:
    """What became of one camera's frames: the share that arrived, and the p99 of their way (ms)."""

    size: str
    share: float
    p99_ms: float


class Receiver:
    """Starts the sender, and subscribes to what it sends.

    Args:
        node: subscribes; somebody spins it.
        cameras: whose sizes and rates are tried.
    """

    def __init__(self, node: Node, cameras: list[CameraConfig]) -> None:
        self._sizes = [f"{camera.width}x{camera.height}@{camera.rate_hz:g}" for camera in cameras]
        self._arrivals = [Arrivals() for _ in cameras]
        for i, arrivals in enumerate(self._arrivals):
            node.create_subscription(Image, TOPIC.format(i), arrivals.take, SENSOR, raw=True)
        command = [sys.executable, "-m", "lam_ros.nodes.transport", *self._sizes]
        environment = {**node_environment(), FOLLOW_PARENT: str(os.getpid())}
        self._sender = subprocess.Popen(command, env=environment)

    @property
    def has_enough(self) -> bool:
        """Whether enough has arrived of every camera to judge it; on a busy machine the sender starts late."""
        return all(
            len(arrivals.numbers) >= (SETTLE_S + JUDGED_S) * _rate(size)
            for size, arrivals in zip(self._sizes, self._arrivals, strict=True)
        )

    def measured(self) -> list[Measured]:
        """Of each camera; nothing arrived is a share of 0."""
        found = []
        for size, arrivals in zip(self._sizes, self._arrivals, strict=True):
            settled = round(SETTLE_S * _rate(size))
            numbers, ages = arrivals.numbers[settled:], arrivals.ages_ms[settled:]
            sent = numbers[-1] - numbers[0] + 1 if numbers else 1
            late = float(np.percentile(ages, 99)) if ages else 0.0
            found.append(Measured(size, len(numbers) / sent, late))
        return found

    def close(self) -> None:
        self._sender.terminate()
        self._sender.wait()


def _rate(size: str) -> float:
    return float(size.rpartition("@")[2])


class Sender(Node):
    """Sends frames of noise, numbered in their ``frame_id``.

    Args:
        sizes: of each camera, as ``640x480@30``.
    """

    def __init__(self, sizes: list[str]) -> None:
        super().__init__("lam_doctor_sender", start_parameter_services=False)
        for number, size in enumerate(sizes):
            self.create_timer(1.0 / _rate(size), self._camera(number, size))

    def close(self) -> None:
        pass

    def _camera(self, number: int, size: str) -> Callable[[], None]:
        width, height = (int(part) for part in size.partition("@")[0].split("x"))
        publisher = self.create_publisher(Image, TOPIC.format(number), SENSOR)
        noise = np.random.default_rng(number).integers(0, 256, width * height * 3, dtype=np.uint8)
        message = Image(width=width, height=height, encoding="rgb8", step=3 * width)
        message.data = array.array("B", noise.tobytes())
        count = itertools.count()

        def send() -> None:
            message.header.stamp, message.header.frame_id = ns_to_stamp(time.time_ns()), str(next(count))
            publisher.publish(message)

        return send


if __name__ == "__main__":
    follow_parent(int(os.environ[FOLLOW_PARENT]))
    sys.exit(run([lambda: Sender(sys.argv[1:])]))
