"""Whether somebody says on lam/takeover that a human drives."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import Bool

from lam_ros.nodes.base import publishers_of
from lam_ros.nodes.qos import ANY

TOPIC = "lam/takeover"


class Takeover:
    """Hears it from anyone, with any QoS, from the node's beginning to its end.

    Which of several publishers has let go is not to be known (before Kilted rclpy does not say who published, and its
    events executor fails where it is asked to): then a human may still drive, until ``lam/resume``.

    Args:
        node: whose subscriptions they are.
        on_change: told whether a human may be driving, when that changes.

    Attributes:
        is_on: whether a human may be driving.
        is_unclear: whether one of several has let go.
    """

    def __init__(self, node: Node, on_change: Callable[[bool], None]) -> None:
        self._node, self._on_change = node, on_change
        self.is_on = self.is_unclear = False
        for qos in ANY:
            node.create_subscription(Bool, TOPIC, self._on_message, qos)

    def _on_message(self, message: Bool) -> None:
        self.is_unclear = not message.data and self.is_on and publishers_of(self._node, TOPIC) > 1
        self._set(message.data or self.is_unclear)

    def _set(self, is_on: bool) -> None:
        before, self.is_on = self.is_on, is_on
        if is_on != before:
            self._on_change(is_on)

    @property
    def is_sure(self) -> bool:
        """Whether a human drives: it was said, and not by somebody who has ended since."""
        return self.is_on and not self.is_unclear and publishers_of(self._node, TOPIC) > 0

    def resume(self) -> bool:
        """Let it be over where no human surely drives; whether it is."""
        if not self.is_sure:
            self.is_unclear = False
            self._set(False)
        return not self.is_on
