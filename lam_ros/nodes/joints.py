"""Joint messages: commands as lam_ros speaks of them, and as the robot's controller wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.errors import ContractError
from lam_ros.nodes.base import ns_to_stamp

ROBOT_COMMAND_TYPES = {
    "joint_trajectory": JointTrajectory,
    "multi_array": Float64MultiArray,
    "joint_state": JointState,
}


def joint_message(names: tuple[str, ...], positions: np.ndarray, stamp_ns: int, frame_id: str = "") -> JointState:
    """sensor_msgs/JointState with positions (J,)."""
    message = JointState(name=list(names), position=positions.astype(float).tolist())
    message.header.stamp, message.header.frame_id = ns_to_stamp(stamp_ns), frame_id
    return message


def robot_command(robot: RobotConfig, positions: np.ndarray, reach_in_s: float) -> Any:
    """A command (J,) in the type the robot YAML names.

    Args:
        reach_in_s: of a trajectory: when its one point is to be reached.
    """
    values = positions.astype(float).tolist()
    if robot.command.type == "multi_array":
        return Float64MultiArray(data=values)
    if robot.command.type == "joint_state":
        return JointState(name=list(robot.joint_names), position=values)
    return trajectory_message(robot.joint_names, positions, reach_in_s)


def trajectory_message(names: tuple[str, ...], positions: np.ndarray, reach_in_s: float) -> JointTrajectory:
    """trajectory_msgs/JointTrajectory of one point (J,), stamped zero: "now" to every trajectory controller."""
    nanoseconds = round(reach_in_s * 1e9)
    reach_in = Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    point = JointTrajectoryPoint(positions=positions.astype(float).tolist(), time_from_start=reach_in)
    return JointTrajectory(joint_names=list(names), points=[point])


def command_positions(message: Any, contract: Contract) -> np.ndarray:
    """Positions float32 (J,) of a command in any of the three types.

    Raises:
        ContractError: joints are missing, or values are not finite.
    """
    if isinstance(message, JointTrajectory):
        if not message.points:
            raise ContractError("a joint trajectory without points was sent; nothing is done.")
        return contract.in_order(message.joint_names, message.points[-1].positions, "the robot command")
    if isinstance(message, JointState):
        return contract.in_order(message.name, message.position, "the robot command")
    return contract.in_order(contract.joints[: len(message.data)], message.data, "the robot command")
