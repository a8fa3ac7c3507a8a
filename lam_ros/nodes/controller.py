"""What the ros2_control controller that takes the robot's commands says of itself."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

from lam_ros.config import RobotConfig

JOINTS = "joints"
PARTLY = "allow_partial_joints_goal"
BEGINS = ("interpolate_from_desired_state", "open_loop_control")  # one and the same; the second before Jazzy
ANSWER_S = 2.0  # a controller that does not answer for so long is taken as it is


class Controller:
    """Asks a controller for its parameters, once it is there.

    Args:
        node: that asks.
        robot: its command topic is ``<controller>/<topic>``, as ros2_control forms it.
    """

    def __init__(self, node: Node, robot: RobotConfig) -> None:
        self._node, self._robot = node, robot
        self.name = node.resolve_topic_name(robot.command.topic).rpartition("/")[0]
        self._client = node.create_client(GetParameters, f"{self.name}/get_parameters") if self.name else None
        self._asked_s: float | None = None
        self._awaited: set[str] = set()
        self._values: dict[str, Any] = {}

    def close(self) -> None:
        if self._client is not None:
            self._node.destroy_client(self._client)

    def ask(self) -> None:
        """Ask once, as soon as it is there; one by one, since one that it does not declare leaves no answer to any."""
        if self._client is None or self._asked_s is not None or not self._client.service_is_ready():
            return
        self._asked_s = time.monotonic()
        self._awaited = {JOINTS, PARTLY, *BEGINS}
        for name in (JOINTS, PARTLY, *BEGINS):
            answer = self._client.call_async(GetParameters.Request(names=[name]))
            answer.add_done_callback(partial(self._answered, name))

    def _answered(self, name: str, answer: Any) -> None:
        self._awaited.discard(name)
        values = answer.result().values
        kind = values[0].type if values else ParameterType.PARAMETER_NOT_SET
        if kind == ParameterType.PARAMETER_STRING_ARRAY:
            self._values[name] = tuple(values[0].string_array_value)
        elif kind == ParameterType.PARAMETER_BOOL:
            self._values[name] = values[0].bool_value
        else:
            self._values[name] = None

    @property
    def is_awaited(self) -> bool:
        """Whether it has been asked and may still answer."""
        return bool(self._awaited) and time.monotonic() - (self._asked_s or 0.0) < ANSWER_S

    @property
    def disorder(self) -> str:
        """Where numbers without names would reach other joints than they are for, in words; empty where they do not."""
        joints, own = self._values.get(JOINTS), self._robot.joint_names
        if self._robot.command.type != "multi_array" or not joints or joints == own:
            return ""
        return f"{self.name} takes numbers for {', '.join(joints)}; the robot YAML's order is {', '.join(own)}."

    @property
    def refusal(self) -> str:
        """Why it refuses trajectories of the robot's joints, in words; empty where it does not."""
        joints, own = self._values.get(JOINTS), self._robot.joint_names
        if self._robot.command.type != "joint_trajectory" or not joints:
            return ""
        lacks = [name for name in own if name not in joints]
        if lacks:
            return f"{self.name} does not drive {', '.join(lacks)}, and refuses commands that name it"
        more = [name for name in joints if name not in own]
        if more and not self._values.get(PARTLY):
            return f"{self.name} drives {', '.join(more)} too, and refuses commands without it ({PARTLY} is not true)"
        return ""

    @property
    def begins_from_measured(self) -> bool:
        """Whether it begins each motion where the arm is measured, which is behind where it was sent."""
        begins = [self._values.get(name) for name in BEGINS]
        return False in begins and True not in begins
