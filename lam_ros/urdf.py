"""What a URDF says of an arm's joints; read here alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from lam_ros.errors import ConfigError

UNITS = {"revolute": "rad", "continuous": "rad", "prismatic": "m"}


@dataclass(frozen=True)
class UrdfJoint:
    """A joint that moves.

    Attributes:
        position: lower and upper limit in rad or m, None where the URDF gives none, or the joint turns without end.
        velocity: per s, None where the URDF gives none.
        effort: N m or N; 0 where the URDF gives none.
        is_mimic: it follows another.
    """

    name: str
    unit: str
    position: tuple[float, float] | None
    velocity: float | None
    effort: float = 0.0
    is_mimic: bool = False


def read_urdf(path: Path) -> ElementTree.Element:
    """The <robot> of a URDF file.

    Raises:
        ConfigError: it cannot be read, is no URDF, or is a xacro that was not expanded.
    """
    try:
        robot = ElementTree.parse(path).getroot()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from None
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path} is not XML: {error}.") from None
    if robot.tag != "robot":
        raise ConfigError(f"{path} is no URDF: its first element is <{robot.tag}>, not <robot>.")
    if any("xacro" in element.tag for element in robot.iter()):
        raise ConfigError(f"{path} is a xacro; expand it first: `ros2 run xacro xacro {path} -o arm.urdf`.")
    return robot


def moving_joints(robot: ElementTree.Element) -> dict[str, UrdfJoint]:
    """Name -> joint, of all that move, in the order of the file.

    Raises:
        ConfigError: a limit is no number.
    """
    found = {}
    for joint in robot.iterfind("joint"):
        kind, name, limit = joint.get("type", ""), joint.get("name", ""), joint.find("limit")
        if kind not in UNITS:
            continue
        numbers = {}
        for key, text in ({} if limit is None else limit.attrib).items():
            try:
                numbers[key] = float(text)
            except ValueError:
                raise ConfigError(f"joint {name}: {key} is {text!r} in the URDF; a number was expected.") from None
        position = (numbers["lower"], numbers["upper"]) if {"lower", "upper"} <= numbers.keys() else None
        found[name] = UrdfJoint(
            name,
            UNITS[kind],
            None if kind == "continuous" else position,
            numbers.get("velocity") or None,
            numbers.get("effort", 0.0),
            joint.find("mimic") is not None,
        )
    return found


def driven_joints(robot: ElementTree.Element) -> tuple[UrdfJoint, ...]:
    """The joints that move and mimic no other, in the order of the file; raises ConfigError as ``moving_joints``."""
    return tuple(joint for joint in moving_joints(robot).values() if not joint.is_mimic)
