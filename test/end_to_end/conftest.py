"""A DDS domain of the test's own, a policy that never rests, and someone who watches the arm."""

from __future__ import annotations

import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import JointState

from lam_ros.nodes.base import make_executor, stamp_to_ns


@pytest.fixture
def restless(turning_policy):
    """A policy that always turns the waist further, so that a hold can be told from a pause."""
    return turning_policy(0.05, 0.0)


class Watcher:
    """Follows the waist of the simulated arm, in simulated time."""

    def __init__(self, domain):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("watcher", context=self.context)
        self.executor = make_executor(self.context)
        self.executor.add_node(self.node)
        self.samples = []
        self.node.create_subscription(JointState, "joint_states", self._on_state, 100)

    def _on_state(self, message):
        self.samples.append((stamp_to_ns(message.header.stamp), message.position[0]))

    def until(self, condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"the last samples were {self.samples[-3:]}"
            self.executor.spin_once(timeout_sec=0.02)

    def moved(self, span_ns):
        """How far the waist went in the last ``span_ns``."""
        if not self.samples:
            return 0.0
        end = self.samples[-1][0]
        recent = [angle for stamp, angle in self.samples if stamp >= end - span_ns]
        return abs(recent[-1] - recent[0])

    def close(self):
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def watcher(domain):
    made = Watcher(domain)
    yield made
    made.close()
