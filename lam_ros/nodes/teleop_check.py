"""What a gamepad, a leader arm or a twist would do, seen without commanding anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState, Joy

from lam_ros.nodes.base import OK
from lam_ros.nodes.teleop import TeleopNode, twist_numbers


class TeleopCheck(TeleopNode):
    """A teleop node that offers no topic. Without joint states the arm is taken to be in the middle of its ranges.

    Attributes:
        raw: topic -> its newest message, in words.
        target: where it would send the joints (J,); None while nobody drives.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.raw: dict[str, str] = {}
        self.target: np.ndarray | None = None
        super().__init__(**kwargs)
        self._middle = np.mean(self.robot.position_limits, axis=0).astype(np.float32)
        if self._measured is None:
            self._measured = self._middle
            self._standing.measured(self._middle, 0)

    def open_outputs(self) -> None:
        pass

    def gate_at(self) -> np.ndarray | None:
        """As if the gate went along."""
        return self.target

    def approach(self, leader: np.ndarray) -> np.ndarray:
        """As if the arm were there."""
        return leader

    def drive(self, is_driving: bool) -> None:
        if not is_driving:
            self.target = None

    def send(self, target: np.ndarray, stamp_ns: int) -> None:
        self.target = target

    @property
    def measured(self) -> np.ndarray:
        """Where the arm is (J,), or is taken to be."""
        assert self._measured is not None
        return self._measured

    @property
    def is_measured(self) -> bool:
        return self._measured is not self._middle

    def complaints(self) -> list[str]:
        """What is wrong at the moment."""
        return [text for level, text in self._status.values() if level != OK]

    def _on_joy(self, message: Joy) -> None:
        axes = "  ".join(f"axis {i} {value:+.2f}" for i, value in enumerate(message.axes))
        pressed = [str(i) for i, button in enumerate(message.buttons) if button]
        described = self.robot.teleop.joy
        assert described is not None
        self.raw[described.topic] = f"{axes}  buttons pressed: {', '.join(pressed) or 'none'}"
        super()._on_joy(message)

    def _on_leader(self, message: JointState) -> None:
        described = self.robot.teleop.leader
        assert described is not None
        pairs = zip(message.name, message.position, strict=False)
        self.raw[described.topic] = "  ".join(f"{name} {position:+.3f}" for name, position in pairs)
        super()._on_leader(message)

    def _on_twist(self, message: TwistStamped) -> None:
        described = self.robot.teleop.twist
        assert described is not None
        numbers = zip(("x", "y", "z", "about x", "about y", "about z"), twist_numbers(message), strict=True)
        said = "  ".join(f"{name} {value:+.3f}" for name, value in numbers)
        self.raw[described.topic] = f"{said}  in {message.header.frame_id or 'no frame'}"
        super()._on_twist(message)
