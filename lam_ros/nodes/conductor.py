"""Conducts simulated episodes over ROS, as a person would: starts takes, resets the table, waits for the outcome."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lam_ros.errors import BringUpError
from lam_ros.images import rgb_from_image
from lam_ros.learning.evaluation import EpisodeResult
from lam_ros.nodes.base import make_executor
from lam_ros.nodes.qos import LATCHED, STREAM

READY_S = 60.0  # a cold start imports torch, on a busy machine
EPISODE_S = 180.0
GATE_TOPIC = "lam/command"


@dataclass(frozen=True)
class Outcome:
    """How one episode over ROS ended: its result, and the wall time from each frame to its command, in ms."""

    result: EpisodeResult
    latencies_ms: tuple[float, ...]


class Conductor:
    """A client of the simulator and the recorder.

    Args:
        check: called while waiting; raises when a node has died.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._node = Node("conductor", start_parameter_services=False)
        self._executor = make_executor()
        self._executor.add_node(self._node)
        self._status: DiagnosticStatus | None = None
        self._node.create_subscription(DiagnosticStatus, "simulation/status", self._on_status, LATCHED)
        self._clients: dict[str, Any] = {}
        self._film: list[tuple[str, np.ndarray]] | None = None

    def _on_status(self, message: DiagnosticStatus) -> None:
        self._status = message

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self._executor.spin_once(timeout_sec=0.05)
            self._check()
            if time.monotonic() > deadline:
                raise BringUpError(f"waited {seconds:.0f} s for {what}; see the nodes' logs above.")

    def call(self, service: str) -> str:
        """Call a Trigger service and give back its message.

        Raises:
            BringUpError: it is not there, or it says no.
        """
        client = self._clients.setdefault(service, self._node.create_client(Trigger, service))
        self._until(client.service_is_ready, READY_S, f"the service {service}")
        future = client.call_async(Trigger.Request())
        self._until(future.done, READY_S, f"an answer of {service}")
        answer = future.result()
        if not answer.success:
            raise BringUpError(f"{service}: {answer.message}")
        return str(answer.message)

    def wait_until_ready(self, camera_topics: list[str]) -> None:
        """Until the simulator is there, somebody takes these frames, and a gate answers.

        Raises:
            BringUpError: it takes too long.
        """
        self._until(lambda: self._status is not None, READY_S, "the simulator")

        def connected() -> bool:
            frames = all(self._node.count_subscribers(topic) for topic in camera_topics)
            return (
                frames and self._node.count_publishers(GATE_TOPIC) > 0 and self._node.count_subscribers(GATE_TOPIC) > 0
            )

        self._until(connected, READY_S, "the nodes to find each other")

    def wait_for_active(self, names: list[str]) -> None:
        """Until lifecycle nodes are active; raises BringUpError when that takes too long."""
        from lifecycle_msgs.msg import State
        from lifecycle_msgs.srv import GetState

        for name in names:
            client = self._node.create_client(GetState, f"{name}/get_state")
            self._until(client.service_is_ready, READY_S, f"{name} to appear")
            active = False
            while not active:
                future = client.call_async(GetState.Request())
                self._until(future.done, READY_S, f"{name} to answer")
                active = future.result().current_state.id == State.PRIMARY_STATE_ACTIVE
            self._node.destroy_client(client)

    def run_episode(self) -> Outcome:
        """Reset the table and wait for the episode's end."""
        seed = self.call("simulation/reset")

        def over() -> bool:
            status = self._status
            assert status is not None
            values = {entry.key: entry.value for entry in status.values}
            return values.get("seed") == seed and status.message in ("success", "failure")

        self._until(over, EPISODE_S, f"the end of the episode with seed {seed}")
        assert self._status is not None
        values = {entry.key: entry.value for entry in self._status.values}
        latencies = tuple(float(text) for text in values["latencies_ms"].split())
        succeeded = self._status.message == "success"
        return Outcome(EpisodeResult(int(seed), succeeded, float(values["elapsed_s"])), latencies)

    def record_episode(self) -> Outcome:
        """One demonstration: recorded, marked with its outcome, sealed."""
        self.call("recorder/start")
        outcome = self.run_episode()
        self.call("recorder/mark_success" if outcome.result.success else "recorder/mark_failure")
        self.call("recorder/stop")
        return outcome

    @contextlib.contextmanager
    def filming(self, cameras: tuple[str, ...]) -> Iterator[list[tuple[str, np.ndarray]]]:
        """Collect (camera, RGB frame with the network's attention drawn in) while the context lasts."""
        frames: list[tuple[str, np.ndarray]] = []

        def keep(camera: str, message: Image) -> None:
            frames.append((camera, rgb_from_image(message).copy()))

        subscriptions = [
            self._node.create_subscription(Image, f"lam/explain/{camera}", partial(keep, camera), STREAM)
            for camera in cameras
        ]
        try:
            yield frames
        finally:
            for subscription in subscriptions:
                self._node.destroy_subscription(subscription)

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()


@contextlib.contextmanager
def conducting(check: Callable[[], None]) -> Iterator[Conductor]:
    """A conductor with rclpy around it, initialised from the environment as it is now."""
    # Without rclpy's handlers Ctrl-C is a KeyboardInterrupt, which every command answers in one sentence.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    conductor = Conductor(check)
    try:
        yield conductor
    finally:
        conductor.close()
        rclpy.try_shutdown()
