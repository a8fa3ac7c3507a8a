"""A ROS graph of a test's own: one DDS domain, nodes and a probe in this process, spun until something happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState

from lam_ros.config import RobotConfig
from lam_ros.nodes.base import make_executor
from lam_ros.nodes.images import image_message
from lam_ros.nodes.joints import joint_message


class Graph:
    """Nodes under test and a probe that talks to them; everything runs in ``until``."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.executor = make_executor(self.context)
        self.probe = Node("probe", context=self.context)
        self.executor.add_node(self.probe)
        self._nodes: list[Any] = []
        self._diagnostics: dict[str, str] = {}
        self.probe.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._diagnostics[status.name] = status.message

    def add(self, kind: Any, activate: bool = True, **parameters: Any) -> Any:
        """Construct a node; a lifecycle node is configured and activated."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = kind(context=self.context, parameter_overrides=overrides)
        self._nodes.append(node)
        self.executor.add_node(node)
        if activate and hasattr(node, "trigger_configure"):
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.failure
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.failure
        return node

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Spin until the condition holds; fail with what the diagnostics said when it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"waited {seconds} s; diagnostics: {self._diagnostics}"
            self.executor.spin_once(timeout_sec=0.02)

    def said(self, node: str, text: str) -> Callable[[], bool]:
        """Whether a node has said something on /diagnostics."""
        return lambda: text in self._diagnostics.get(f"/{node}", "")

    def listen(self, kind: Any, topic: str, qos: Any = 50) -> list[Any]:
        """All messages that arrive on a topic from now on."""
        received: list[Any] = []
        self.probe.create_subscription(kind, topic, received.append, qos)
        return received

    def talk(self, kind: Any, topic: str, qos: Any = 50) -> Any:
        """A publisher that somebody already listens to."""
        publisher = self.probe.create_publisher(kind, topic, qos)
        self.until(publisher.get_subscription_count)
        return publisher

    def ask(self, kind: Any, service: str) -> Any:
        """Call a service with an empty request."""
        client = self.probe.create_client(kind, service)
        self.until(client.service_is_ready)
        future = client.call_async(kind.Request())
        self.until(future.done)
        return future.result()

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self.executor.shutdown(timeout_sec=1.0)
        for node in [*self._nodes, self.probe]:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def paced() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Lets a function be called 50 times a second at most: the executor takes one message at a time, and a flood of
    them leaves it none for anything else."""

    def pace(publish: Callable[..., None]) -> Callable[..., None]:
        last_s = 0.0

        def call(*given: Any) -> None:
            nonlocal last_s
            if time.monotonic() - last_s > 0.02:
                last_s = time.monotonic()
                publish(*given)

        return call

    return pace


@pytest.fixture
def graph(domain: int) -> Iterator[Graph]:
    built = Graph(domain)
    yield built
    built.close()


@pytest.fixture
def checkpoint(turning_policy: Callable[[float, float], Path]) -> Path:
    """A policy that turns the waist, and answers a little to what it sees."""
    return turning_policy(0.2, 1e-3)


class Arm:
    """Speaks for the robot: its joint states and camera frames, stamped as told."""

    def __init__(self, graph: Graph, robot: RobotConfig) -> None:
        self.robot = robot
        self._joints = graph.probe.create_publisher(JointState, robot.joint_states.topic, 10)
        self._cameras = {
            name: graph.probe.create_publisher(Image, camera.topic, 10) for name, camera in robot.cameras.items()
        }

    def publish_state(self, stamp_ns: int, position: np.ndarray | None = None) -> None:
        values = np.zeros(len(self.robot.joints)) if position is None else position
        self._joints.publish(joint_message(self.robot.joint_names, values, stamp_ns))

    def publish_frame(self, camera: str, stamp_ns: int, image: np.ndarray | None = None) -> None:
        described = self.robot.cameras[camera]
        frame = np.zeros((described.height, described.width, 3), np.uint8) if image is None else image
        self._cameras[camera].publish(image_message(frame, stamp_ns, described.frame_id))

    @property
    def is_heard(self) -> bool:
        return all(publisher.get_subscription_count() for publisher in self._cameras.values())

    @property
    def is_measured(self) -> bool:
        return bool(self._joints.get_subscription_count())


@pytest.fixture
def controller(graph: Graph) -> Iterator[Callable[..., Node]]:
    """Starts a node that has a controller's name and parameters."""
    nodes = []

    def start(name: str, **parameters: Any) -> Node:
        node = Node(name, context=graph.context)
        for parameter, value in parameters.items():
            node.declare_parameter(parameter, value)
        graph.executor.add_node(node)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.destroy_node()


@pytest.fixture
def arm(graph: Graph, robot: RobotConfig) -> Arm:
    return Arm(graph, robot)
