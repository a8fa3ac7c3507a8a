"""Launch descriptions from the node table; the files in launch/ differ only in what they start.

Only names that launch and launch_ros have from Humble to rolling are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lam_ros.bringup import BringUp, Options, node_environment, plan

DESCRIPTIONS = {
    "robot": "Robot YAML: a path, or the name of a robot that lam_ros ships",
    "checkpoint": "Policy that `lam train` wrote (.safetensors)",
    "task": "The simulator's task, or what is demonstrated, in words",
    "dataset": "Folder that episodes go to",
    "teleop": "Who demonstrates: expert, or none (run teleop_node yourself)",
    "simulated": "Whether the embedded simulator is the robot",
    "composed": "Perception, action and gate in one process",
}


def launch_description(what: BringUp, defaults: Mapping[str, str]) -> Any:
    """A LaunchDescription of a bring-up.

    Args:
        what: simulate, record or deploy.
        defaults: its launch arguments and their defaults; ``robot`` is always one.
    """
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    arguments = {"robot": "desk_arm", **defaults}
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=DESCRIPTIONS[name])
        for name, default in arguments.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[what, tuple(arguments)])])


def _start(context: Any, what: BringUp, names: tuple[str, ...]) -> list[Any]:
    from launch.actions import EmitEvent, RegisterEventHandler, SetEnvironmentVariable
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown
    from launch_ros.actions import Node

    given: dict[str, Any] = {name: context.launch_configurations[name] for name in names}
    for flag in ("simulated", "composed"):
        if flag in given:
            given[flag] = given[flag].lower() in ("true", "1")
    environment = node_environment()
    actions: list[Any] = [
        SetEnvironmentVariable(name, value) for name, value in environment.items() if os.environ.get(name) != value
    ]

    def shut_down(event: Any, context: Any) -> Any:
        # While it is shutting down already, a second shutdown would make Ctrl-C end with exit code 1.
        return None if context.is_shutdown else [EmitEvent(event=Shutdown(reason=f"{event.process_name} ended"))]

    for process in plan(what, Options(**given)):
        node = Node(
            package="lam_ros",
            executable=process.node.executable,
            parameters=[dict(process.parameters)],
            output="screen",
            emulate_tty=True,
        )
        actions += [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=shut_down))]
    return actions
