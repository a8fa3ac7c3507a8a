"""Gate and recorder: `ros2 launch lam_ros record.launch.py robot:=my.yaml dataset:=demos task:="fold it"`."""

from lam_ros.launching import launch_description

ARGUMENTS = {"task": "", "dataset": "demonstrations", "simulated": "false", "teleop": "none", "checkpoint": ""}


def generate_launch_description():
    return launch_description("record", ARGUMENTS)
