"""Conducts simulated episodes over ROS, as a person would: starts takes, resets the table, waits for the outcome."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from lam_ros.errors import BringUpError
from lam_ros.images import rgb_from_image
from lam_ros.learning.evaluation import EpisodeResult
from lam_ros.nodes.base import init_rclpy, make_executor
from lam_ros.nodes.qos import LATCHED, STREAM
from lam_ros.nodes.takeover import Takeover

READY_S = 60.0  # a cold start imports torch, on a busy machine
ANSWER_S = 600.0  # a long take is read back before it is sealed
STALLED_S = 180.0  # an episode takes the time it takes where a simulator is slow; one that stands still is over
DIAGNOSTICS_DEPTH = 50


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
        self._figures: dict[str, dict[str, str]] = {}
        self._node.create_subscription(DiagnosticStatus, "simulation/status", self._on_status, LATCHED)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, DIAGNOSTICS_DEPTH)
        self._node.create_subscription(MarkerArray, "simulation/objects", self._on_objects, STREAM)
        self._went_on_s = -np.inf  # when the episode was last seen to go on, monotonic
        self.events: list[str] = []  # what was said on recorder/event
        self._event_publisher = self._node.create_publisher(String, "recorder/event", LATCHED)
        self._node.create_subscription(String, "recorder/event", lambda event: self.events.append(event.data), LATCHED)
        self._takeover = Takeover(self._node, self._on_takeover)
        self.was_taken_over = False  # whether a human has driven since somebody set it to False
        self._clients: dict[str, Any] = {}
        self._film: list[tuple[str, np.ndarray]] | None = None

    def _on_status(self, message: DiagnosticStatus) -> None:
        self._status = message

    def _on_objects(self, _message: MarkerArray) -> None:
        self._went_on_s = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            namespace, _, name = status.name.rpartition("/")
            if (namespace or "/") == self._node.get_namespace():  # another arm's nodes speak on /diagnostics too
                self._figures[name] = {entry.key: entry.value for entry in status.values}

    def _on_takeover(self, is_on: bool) -> None:
        self.was_taken_over |= is_on

    @property
    def is_taken_over(self) -> bool:
        """Whether a human drives: it was said, and not by somebody who has ended since."""
        return self._takeover.is_sure

    def tell(self, event: str) -> None:
        """Say something on ``recorder/event``, for lights and sounds."""
        self._event_publisher.publish(String(data=event))

    def figures(self, name: str) -> dict[str, str]:
        """What a node last said of itself on ``/diagnostics``."""
        return self._figures.get(name, {})

    def spin(self, seconds: float = 0.05) -> None:
        """Let messages arrive for a moment; raises BringUpError when a node has died."""
        self._executor.spin_once(timeout_sec=seconds)
        self._check()

    def _until(
        self, condition: Callable[[], bool], seconds: float, what: str, since: Callable[[], float] = lambda: -np.inf
    ) -> None:
        """Spin until it is so; in vain for ``seconds`` from now, or ``since`` if that is later, is an error."""
        start = time.monotonic()
        while not condition():
            self.spin()
            if time.monotonic() > max(start, since()) + seconds:
                raise BringUpError(f"waited {seconds:.0f} s for {what}; see the nodes' logs above.")

    def call(self, service: str) -> str:
        """Call a Trigger service and give back its message.

        Raises:
            BringUpError: it is not there, or it says no.
        """
        if service not in self._clients:
            self._clients[service] = self._node.create_client(Trigger, service)
        client = self._clients[service]
        self._until(client.service_is_ready, READY_S, f"the service {service}")
        future = client.call_async(Trigger.Request())
        self._until(future.done, ANSWER_S, f"an answer of {service}")
        answer = future.result()
        if not answer.success:
            raise BringUpError(f"{service}: {answer.message}")
        return str(answer.message)

    def change_state(self, node: str, transition: Literal["configure", "activate", "deactivate"]) -> None:
        """Lead a lifecycle node through a transition.

        Raises:
            BringUpError: it is not there, or the transition fails.
        """
        client = self._node.create_client(ChangeState, f"{node}/change_state")
        self._until(client.service_is_ready, READY_S, f"the node {node}")
        future = client.call_async(ChangeState.Request(transition=Transition(label=transition)))
        self._until(future.done, ANSWER_S, f"{node} to {transition}")
        self._node.destroy_client(client)
        if not future.result().success:
            raise BringUpError(f"{node} cannot {transition}; see the nodes' log.")

    def set_checkpoint(self, node: str, file: str) -> None:
        """Give a running node another checkpoint.

        Raises:
            BringUpError: the node is not there, or the checkpoint does not fit.
        """
        client = self._node.create_client(SetParameters, f"{node}/set_parameters")
        self._until(client.service_is_ready, READY_S, f"the node {node}")
        request = SetParameters.Request(parameters=[Parameter("checkpoint", value=file).to_parameter_msg()])
        future = client.call_async(request)
        self._until(future.done, READY_S, f"an answer of {node}")
        (result,) = future.result().results
        if not result.successful:
            raise BringUpError(f"{node} refuses {file}: {result.reason}")

    def swap_checkpoint(self, file: str, digest: str) -> None:
        """Give action, then perception another checkpoint, and wait until both run it.

        Raises:
            BringUpError: one of them is not there or refuses it; what ran before then goes on.
        """
        self._load("action", file, lambda figures: digest in figures.get("checkpoints ready", ""))
        self._load("perception", file, lambda figures: figures.get("checkpoint") == digest)

    def _load(self, node: str, file: str, has_it: Callable[[dict[str, str]], bool]) -> None:
        self.set_checkpoint(node, file)
        self._figures.pop(node, None)  # what it said before it was asked
        said, loads_s = self.figures(node), time.monotonic()

        def is_over() -> bool:
            nonlocal said, loads_s
            if self.figures(node) is not said:
                said = self.figures(node)
                loads_s = time.monotonic() if said.get("is loading") == "True" else loads_s
            return has_it(said) or bool(said.get("checkpoint refused"))

        # However long it takes, as TensorRT does, but no longer than it says so.
        self._until(is_over, READY_S, f"{node} to load it", since=lambda: loads_s)
        if not has_it(said):
            raise BringUpError(f"{node} cannot load it: {said['checkpoint refused']} What ran before goes on.")

    def wait_until_ready(self, names: Collection[str]) -> None:
        """Until these nodes are active, each topic that they need has found its other end, and joint states arrive.

        Messages on a topic that is not matched yet are lost, and the first tick of the first episode with them.

        Raises:
            BringUpError: it takes too long.
        """
        sees = bool({"perception", "recorder"} & set(names))

        def lacks(name: str) -> str:
            figures = self.figures(name)
            if not figures or figures.get("active") == "False":
                return "not active"
            if figures["missing topics"]:
                return figures["missing topics"]
            if figures.get("joints measured") == "False":
                return "no joint state has arrived"
            return "nobody takes the cameras' frames" if sees and figures.get("camera subscribers") == "0" else ""

        def are_ready() -> bool:
            return self._status is not None and not any(map(lacks, names))

        try:
            self._until(are_ready, READY_S, "the nodes to be ready")
        except BringUpError as error:
            waits = [f"{name}: {lacks(name)}" for name in names if lacks(name)]
            raise BringUpError(f"{error} {'; '.join(waits)}.") from None

    def run_episode(self) -> Outcome:
        """Reset the table and wait for the episode's end. An arm that the gate holds as astray ends it as a failure."""
        seed = self.call("simulation/reset")

        def over() -> bool:
            status = self._status
            assert status is not None
            values = {entry.key: entry.value for entry in status.values}
            return values.get("seed") == seed and status.message in ("success", "failure")

        def is_held() -> bool:
            return bool(self.figures("gate").get("astray"))

        what = f"the episode with seed {seed} to go on or end"
        self._until(lambda: over() or is_held(), STALLED_S, what, since=lambda: self._went_on_s)
        if is_held():  # in a simulator nobody is to look at it before the next table
            self.call("lam/reset_estop")
            self._until(lambda: not is_held(), READY_S, "the gate to let go of the arm")
        assert self._status is not None
        values = {entry.key: entry.value for entry in self._status.values}
        latencies = tuple(float(text) for text in values["latencies_ms"].split())
        succeeded = over() and self._status.message == "success"
        result = EpisodeResult(int(seed), succeeded, float(values["elapsed_s"]), int(values["unanswered"]))
        return Outcome(result, latencies)

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
    init_rclpy([])
    conductor = Conductor(check)
    try:
        yield conductor
    finally:
        conductor.close()
        rclpy.try_shutdown()
