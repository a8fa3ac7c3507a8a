"""Gazebo's arm under ros2_control: tags for its URDF, the plugin for its world, the controllers' parameters.

gz_ros2_control reads the joints and their interfaces from the URDF that robot_state_publisher holds, and runs the
controllers inside Gazebo: the arm then takes commands as a real one under ros2_control does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import yaml

from lam_ros.config import RobotConfig
from lam_ros.errors import SimulationError
from lam_ros.share import share_path

GazeboVersion = Literal["harmonic", "fortress"]
CONTROLLERS = ("joint_state_broadcaster", "joint_trajectory_controller")
TRAJECTORY_TOPIC = "joint_trajectory_controller/joint_trajectory"
BROADCAST_TOPIC = "joint_states"


@dataclass(frozen=True)
class ControlPlugin:
    """What the plugin is called: its ROS package, the system of Gazebo, and the hardware that the URDF names."""

    package: str
    system: str
    hardware: str

    @property
    def filename(self) -> str:
        return f"{self.package}-system"


PLUGINS: dict[GazeboVersion, ControlPlugin] = {
    "harmonic": ControlPlugin(
        "gz_ros2_control", "gz_ros2_control::GazeboSimROS2ControlPlugin", "gz_ros2_control/GazeboSimSystem"
    ),
    "fortress": ControlPlugin(
        "ign_ros2_control", "ign_ros2_control::IgnitionROS2ControlPlugin", "ign_ros2_control/IgnitionSystem"
    ),
}


def tagged_urdf(robot: RobotConfig, urdf: Path, version: GazeboVersion) -> str:
    """The URDF with a ``<ros2_control>`` block: position commands, positions and velocities of every commanded joint.

    Joints that mimic one of them are told to in the way that the version knows: Fortress' plugin by parameters here,
    later ones by the URDF's own ``<mimic>``, with no command of their own.

    Raises:
        SimulationError: the URDF lacks a joint that the robot YAML names.
    """
    root = ElementTree.parse(urdf).getroot()
    joints = {joint.get("name", ""): joint for joint in root.iterfind("joint")}
    missing = [name for name in robot.joint_names if name not in joints]
    if missing:
        raise SimulationError(f"{urdf} has no joint {', '.join(missing)}, which the robot YAML names.")
    control = ElementTree.SubElement(root, "ros2_control", name=robot.name, type="system")
    hardware = ElementTree.SubElement(control, "hardware")
    ElementTree.SubElement(hardware, "plugin").text = PLUGINS[version].hardware
    for name, joint in joints.items():
        mimic = joint.find("mimic")
        leader = "" if mimic is None else mimic.get("joint", "")
        if name not in robot.joint_names and leader not in robot.joint_names:
            continue
        described = ElementTree.SubElement(control, "joint", name=name)
        if mimic is not None and version == "fortress":
            for key, value in (("mimic", leader), ("multiplier", mimic.get("multiplier", "1"))):
                ElementTree.SubElement(described, "param", name=key).text = value
        if mimic is None or version == "fortress":
            ElementTree.SubElement(described, "command_interface", name="position")
        for interface in ("position", "velocity"):
            ElementTree.SubElement(described, "state_interface", name=interface)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def plugin_element(robot: RobotConfig, version: GazeboVersion, parameters: Path, namespace: str) -> ElementTree.Element:
    """The ``<plugin>`` of the arm's model in a world.

    Args:
        parameters: YAML file of the controllers, see ``controller_parameters``.
        namespace: of the controller manager and its controllers.
    """
    plugin = PLUGINS[version]
    element = ElementTree.Element("plugin", filename=plugin.filename, name=plugin.system)
    ElementTree.SubElement(element, "parameters").text = str(parameters)
    names = ElementTree.Element("ros")
    if namespace:
        ElementTree.SubElement(names, "namespace").text = namespace
        ElementTree.SubElement(names, "remapping").text = "/clock:=clock"  # the bridge's, which is in it too
    if robot.joint_states.topic != BROADCAST_TOPIC:
        ElementTree.SubElement(names, "remapping").text = f"{BROADCAST_TOPIC}:={robot.joint_states.topic}"
    if len(names):
        element.append(names)
    return element


def controller_parameters(robot: RobotConfig) -> dict[str, Any]:
    """config/ros2_controllers.yaml for this robot's joints, whatever namespace they run in."""
    shipped: dict[str, Any] = yaml.safe_load(share_path("config/ros2_controllers.yaml").read_text())
    for given in shipped.values():
        if "joints" in given["ros__parameters"]:
            given["ros__parameters"]["joints"] = list(robot.joint_names)
    return {f"/**/{name}": given for name, given in shipped.items()}
