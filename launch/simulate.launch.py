"""The embedded simulator and the gate; with checkpoint:=FILE the policy performs, else the scripted expert."""

from lam_ros.launching import launch_description

ARGUMENTS = {"task": "reach", "checkpoint": "", "teleop": "expert", "composed": "false"}


def generate_launch_description():
    return launch_description("simulate", ARGUMENTS)
