"""Launch descriptions from the node table; the files in launch/ differ only in what they start.

Only names that launch and launch_ros have from Humble to rolling are used; test/test_launching.py holds the list.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lam_ros.bringup import (
    FOLLOW_PARENT,
    NAMESPACE,
    SEALING_S,
    BringUp,
    Command,
    GazeboOptions,
    Options,
    Process,
    enclave_arguments,
    node_environment,
    plan,
)
from lam_ros.config import load_robot, urdf_path
from lam_ros.errors import BringUpError, LamError

TRUE, FALSE = ("true", "1"), ("false", "0")
FLAGS = ("simulated", "composed", "respawn", "autostart", "headless", "tf", "rviz", "foxglove", "ros2_control")
RESPAWN_DELAY_S = 2.0

# Of every launch file, with their defaults; what says more about one of them stands in ARGUMENTS.
COMMON = {"robot": "desk_arm", "namespace": os.environ.get(NAMESPACE, ""), "params_file": "", "log_level": "info"}
OF_NODES = {"use_sim_time": "auto", "respawn": "false", "autostart": "true"}
ARGUMENTS = {
    "robot": "Robot YAML: a path, or the name of a robot that lam_ros ships.",
    "checkpoint": "Policy that `lam train` wrote (.safetensors). In record: predicts beside the human, moves nothing.",
    "task": "The simulator's task (reach, push, pick_place); on a robot what is demonstrated, in words.",
    "dataset": "Folder that episodes go to; in deploy: corrections, and no recorder if it is empty.",
    "teleop": "Who demonstrates: expert (the scripted one of the simulator), or none (run teleop_node yourself).",
    "simulated": "Whether the embedded simulator is the robot.",
    "composed": "Perception, action and gate in one process.",
    "namespace": "Namespace of all nodes and topics, so that two robots stand side by side.",
    "params_file": "ROS parameter file, read last. Key it `/**:`; a key with a namespace matches that one alone.",
    "log_level": "debug, info, warn, error or fatal.",
    "use_sim_time": "Time from /clock: true, false, or auto (true where a simulator runs).",
    "respawn": "Start perception, action and recorder again when they die. The gate is never: its end ends all.",
    "autostart": "Configure and activate the lifecycle nodes; false leaves that to you or a lifecycle manager.",
    "gz_version": "harmonic (and later), fortress, or auto: whichever is installed.",
    "headless": "Gazebo without a window, as where there is no display anyway.",
    "render_engine": "Of Gazebo's cameras: ogre2, ogre, or auto: ogre2 where there is a GPU.",
    "world": "An SDF of your own instead of the task's; with the arm and the task's objects by their names.",
    "ros2_control": "Let ros2_control's joint_trajectory_controller move the arm in Gazebo (needs gz_ros2_control).",
    "tf": "Start robot_state_publisher, where it is installed; false where your driver runs one.",
    "rviz": "Start RViz, where it is installed.",
    "foxglove": "Start foxglove_bridge, where it is installed; `lam robot layout` writes a layout for it.",
}


def launch_description(what: BringUp, defaults: Mapping[str, str]) -> Any:
    """A LaunchDescription of a bring-up.

    Args:
        what: simulate, record or deploy.
        defaults: its own launch arguments and their defaults, beside COMMON and OF_NODES.
    """
    return _described({**COMMON, **defaults, **OF_NODES}, lambda given: _nodes(what, given))


def view_description() -> Any:
    """A LaunchDescription of what shows a robot: the robot's state in tf, RViz, Foxglove's bridge."""
    defaults = {"use_sim_time": "false", "tf": "true", "rviz": "true", "foxglove": "false"}
    return _described({**COMMON, **defaults}, _viewers)


def _described(arguments: Mapping[str, str], start: Any) -> Any:
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    def checked(context: Any) -> list[Any]:
        given = {name: context.launch_configurations[name] for name in arguments}
        try:
            return list(start(_typed(given)))
        except LamError as error:  # ros2 launch would print where in Python it happened
            raise RuntimeError(str(error)) from None

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=ARGUMENTS[name])
        for name, default in arguments.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=checked)])


def _typed(given: Mapping[str, str]) -> dict[str, Any]:
    """Launch arguments with flags as booleans; raises BringUpError."""
    typed: dict[str, Any] = dict(given)
    for name in set(FLAGS).intersection(given):
        if given[name].lower() not in TRUE + FALSE:
            raise BringUpError(f"{name}:={given[name]} is neither true nor false.")
        typed[name] = given[name].lower() in TRUE
    time = given["use_sim_time"].lower()
    if time not in (*TRUE, *FALSE, "auto"):
        raise BringUpError(f"use_sim_time:={given['use_sim_time']} is none of true, false and auto.")
    typed["use_sim_time"] = None if time == "auto" else time in TRUE
    if given["params_file"] and not Path(given["params_file"]).is_file():
        raise BringUpError(f"there is no parameter file {given['params_file']}; give a path that exists.")
    return typed


def _nodes(what: BringUp, given: Mapping[str, Any]) -> list[Any]:
    """The actions that start the processes of a bring-up."""
    from launch.actions import EmitEvent, ExecuteProcess, RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown

    def shut_down(process: Process, event: Any, context: Any) -> Any:
        # While it is shutting down already, a second shutdown would make Ctrl-C end with exit code 1.
        if context.is_shutdown or not process.has_failed(event.returncode):
            return None
        return [EmitEvent(event=Shutdown(reason=f"{event.process_name} ended"))]

    options = {name: value for name, value in given.items() if name in Options.__dataclass_fields__}
    if "gz_version" in given:
        gazebo = GazeboOptions(
            given["gz_version"],
            given["headless"],
            given["render_engine"],
            given["world"],
            given["ros2_control"],
            given["namespace"],
        )
        options |= {"simulator": "gazebo", "gazebo": gazebo}
    actions = _environment()
    for process in plan(what, Options(**options)):
        on_exit = partial(shut_down, process)
        if isinstance(process, Command):
            command = ExecuteProcess(
                cmd=process.arguments(),
                output="screen",
                name=process.node.name,
                additional_env=dict(process.environment),
            )
            actions += [command, RegisterEventHandler(OnProcessExit(target_action=command, on_exit=on_exit))]
            continue
        parameters = dict(process.parameters)
        if given["use_sim_time"] is not None and "use_sim_time" in parameters:
            parameters["use_sim_time"] = given["use_sim_time"]
        if "autostart" in parameters:
            parameters["autostart"] = given["autostart"]
        respawns = given["respawn"] and process.node.may_respawn
        node = _node(process, parameters, given, respawns)
        actions.append(node)
        if not respawns:
            actions.append(RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit)))
    return actions


def _environment() -> list[Any]:
    from launch.actions import SetEnvironmentVariable

    wanted = {**node_environment(), FOLLOW_PARENT: str(os.getpid())}
    return [SetEnvironmentVariable(name, value) for name, value in wanted.items() if os.environ.get(name) != value]


def _node(process: Process, parameters: Mapping[str, Any], given: Mapping[str, Any], respawns: bool) -> Any:
    from launch_ros.actions import LifecycleNode, Node
    from launch_ros.parameter_descriptions import ParameterValue

    spec = process.node
    # Else launch reads a text as YAML: a task called 123 would be a number, and a URDF an error.
    parameters = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }
    said: dict[str, Any] = {
        "package": spec.package,
        "executable": spec.executable,
        "arguments": list(process.words),
        "additional_env": dict(process.environment),
        "namespace": given["namespace"],
        "parameters": [parameters, given["params_file"]] if given["params_file"] else [parameters],
        "output": "screen",
        "emulate_tty": True,
        "ros_arguments": ["--log-level", given["log_level"], *enclave_arguments(spec)],
        "respawn": respawns,
        "respawn_delay": RESPAWN_DELAY_S,
    }
    if spec.seals:
        said["sigterm_timeout"] = str(SEALING_S)
    if given["namespace"]:  # its own simulator's time, not its neighbour's
        said["remappings"] = [("/clock", "clock")]
    # A lifecycle node's transitions are events of the launch, to which including files may react.
    return LifecycleNode(name=spec.name, **said) if spec.is_lifecycle else Node(**said)


def _viewers(given: Mapping[str, Any]) -> list[Any]:
    """What shows the robot, as far as it is installed; a sentence about what is not."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    from launch.actions import LogInfo
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterValue

    from lam_ros.views import COMMANDED, root_link, write_rviz

    def is_there(package: str, what_for: str) -> bool:
        try:
            get_package_prefix(package)
        except PackageNotFoundError:
            debian = f"ros-{os.environ.get('ROS_DISTRO', '<distro>')}-{package.replace('_', '-')}"
            actions.append(LogInfo(msg=f"{package} is not installed, so {what_for}; apt install {debian}"))
            return False
        return True

    robot = load_robot(given["robot"])
    remappings = [("/clock", "clock")] if given["namespace"] else []
    said: dict[str, Any] = {
        "namespace": given["namespace"],
        "output": "screen",
        "ros_arguments": ["--log-level", given["log_level"]],
        "remappings": remappings,
    }
    time = {"use_sim_time": bool(given["use_sim_time"])}
    more = [given["params_file"]] if given["params_file"] else []
    actions: list[Any] = []
    if robot.urdf and (given["tf"] or given["rviz"]) and is_there("robot_state_publisher", "there is no tf of the arm"):
        urdf = urdf_path(robot, given["robot"]).read_text()
        publisher = {"package": "robot_state_publisher", "executable": "robot_state_publisher"}
        described = {"robot_description": ParameterValue(urdf, value_type=str), **time}

        def arm(moved: Mapping[str, str], parameters: Mapping[str, Any], **named: Any) -> Any:
            there = {**said, "remappings": [*remappings, *moved.items()]}
            return Node(**publisher, **named, parameters=[{**described, **parameters}, *more], **there)

        if given["tf"]:
            actions.append(arm({"joint_states": robot.joint_states.topic}, {}))
        if given["rviz"] and is_there("tf2_ros", "RViz does not show the arm as it is commanded"):
            moved = {"joint_states": "lam/command", "robot_description": f"{COMMANDED}/robot_description"}
            actions.append(arm(moved, {"frame_prefix": f"{COMMANDED}/"}, name=f"{COMMANDED}_arm"))
            root = root_link(urdf)
            words = ["--frame-id", root, "--child-frame-id", f"{COMMANDED}/{root}"]
            static = {"package": "tf2_ros", "executable": "static_transform_publisher", "name": f"{COMMANDED}_base"}
            actions.append(Node(**static, arguments=words, parameters=[time], **said))
    if given["rviz"] and is_there("rviz2", "RViz stays closed"):
        folder = tempfile.mkdtemp(prefix="lam_ros_")
        file = write_rviz(robot, Path(folder), given["namespace"], given["robot"])
        rviz = {"package": "rviz2", "executable": "rviz2", "arguments": ["-d", str(file)]}
        actions.append(Node(**rviz, parameters=[time, *more], **said))
    if given["foxglove"] and is_there("foxglove_bridge", "Foxglove finds nothing to connect to"):
        bridge = {"package": "foxglove_bridge", "executable": "foxglove_bridge"}
        actions.append(Node(**bridge, parameters=[time, *more], **said))
    return actions
