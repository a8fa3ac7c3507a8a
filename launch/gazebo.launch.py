"""The arm and a task in Gazebo, with the gate; with checkpoint:=FILE the policy performs, else the scripted expert."""

from lam_ros.launching import launch_description

ARGUMENTS = {
    "task": "reach",
    "checkpoint": "",
    "teleop": "expert",
    "composed": "false",
    "gz_version": "auto",
    "headless": "false",
    "render_engine": "auto",
    "world": "",
    "ros2_control": "false",
}


def generate_launch_description():
    return launch_description("simulate", ARGUMENTS)
