"""Perception, action and gate on a robot: `ros2 launch lam_ros deploy.launch.py robot:=my.yaml checkpoint:=FILE`."""

from lam_ros.launching import launch_description

ARGUMENTS = {"checkpoint": "", "task": "", "simulated": "false", "composed": "false", "dataset": ""}


def generate_launch_description():
    return launch_description("deploy", ARGUMENTS)
