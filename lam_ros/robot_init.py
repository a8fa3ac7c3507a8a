"""A robot YAML to begin with, from an arm's URDF and from what is heard on the running graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lam_ros.config import GateConfig
from lam_ros.contract import HAND
from lam_ros.errors import ConfigError
from lam_ros.urdf import UrdfJoint, driven_joints, read_urdf

SHARE_OF_VELOCITY = 0.5  # of the URDF's limit, for the first steps
SECONDS_TO_FULL_SPEED = 0.25  # URDFs know no acceleration limits
FASTEST_TICK_HZ = 30.0
USUAL_CAMERA_HZ = 30.0
NO_CAMERA = "camera/image_raw"


@dataclass(frozen=True)
class FoundCamera:
    """A camera that was heard: its topic, without the transport's suffix, its size in pixels and rate in Hz."""

    topic: str
    width: int
    height: int
    rate_hz: float
    transport: str = "raw"
    frame_id: str = ""


@dataclass(frozen=True)
class Found:
    """What was heard on the graph.

    Attributes:
        cameras: in the order of their topics.
        joint_states: topic and rate (Hz) of the joint states that name most of the arm's joints.
        command: topic and type (as ``CommandConfig.type``) that a controller listens to.
        other_states: further topics that name as many of the joints.
        other_commands: further topics that controllers listen to.
    """

    cameras: tuple[FoundCamera, ...] = ()
    joint_states: tuple[str, float] | None = None
    command: tuple[str, str] | None = None
    other_states: tuple[str, ...] = ()
    other_commands: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)


def tick_rate(cameras: Sequence[FoundCamera]) -> float:
    """The policy's rate (Hz): that of the slowest camera, halved until it is no faster than an arm has use for."""
    rate = min((camera.rate_hz or USUAL_CAMERA_HZ for camera in cameras), default=FASTEST_TICK_HZ)
    while rate > FASTEST_TICK_HZ:
        rate /= 2
    return rate


def camera_names(cameras: Sequence[FoundCamera]) -> list[str]:
    """A short name for each: the first part of its topic that tells it from the others."""
    parts = [camera.topic.strip("/").split("/") for camera in cameras]
    if len(parts) == 1:
        return [parts[0][-2] if len(parts[0]) > 1 else parts[0][0]]
    names = []
    for own in parts:
        others = [other for other in parts if other is not own]
        telling = [word for i, word in enumerate(own) if all(i >= len(o) or o[i] != word for o in others)]
        names.append(telling[0] if telling else "_".join(own))
    return names if len(set(names)) == len(names) else ["_".join(own) for own in parts]


def _joint_lines(joint: UrdfJoint) -> str:
    known = joint.position if joint.position and joint.position[0] < joint.position[1] else None
    lower, upper = known or ((-math.pi, math.pi) if joint.unit == "rad" else (0.0, 0.1))
    velocity = SHARE_OF_VELOCITY * joint.velocity if joint.velocity else 0.5 if joint.unit == "rad" else 0.05
    acceleration = velocity / SECONDS_TO_FULL_SPEED
    guesses = [what for what, given in (("position", known), ("velocity", joint.velocity)) if not given]
    note = f" # {' and '.join(guesses)}: not in the URDF, a guess" if guesses else ""
    limits = f"position: [{lower:.6g}, {upper:.6g}], velocity: {velocity:.4g}, acceleration: {acceleration:.4g}"
    if HAND.search(joint.name):
        limits += f", following_error: {upper - lower:.4g}"  # it closes on things, and must not be held for that
    return f"  {joint.name}: {{unit: {joint.unit}, {limits}}}{note}"


def _camera_lines(name: str, camera: FoundCamera) -> str:
    more = "" if camera.transport == "raw" else f", transport: {camera.transport}"
    more += f", frame_id: {camera.frame_id}" if camera.frame_id else ""
    rate_hz = camera.rate_hz or USUAL_CAMERA_HZ
    size = f"width: {camera.width}, height: {camera.height}, rate_hz: {rate_hz:g}"
    guess = "" if camera.rate_hz else " # one frame was heard: the rate is a guess"
    return f"  {name}: {{topic: {camera.topic}, {size}{more}}}{guess}"


def _or_these(topics: Sequence[str]) -> str:
    return f" # a guess: or {', '.join(topics)}" if topics else ""


def robot_yaml(urdf: Path, found: Found, joints: Sequence[str] = ()) -> str:
    """The text of a robot YAML, with a comment wherever something was guessed.

    Args:
        urdf: the arm's URDF; the YAML names it as it is given here.
        found: what was heard on the graph.
        joints: only these of its joints, in this order; all if empty.

    Raises:
        ConfigError: the URDF is none, has no joint that is driven, or lacks one of ``joints``.
    """
    robot = read_urdf(urdf)
    driven = {joint.name: joint for joint in driven_joints(robot)}
    if not driven:
        raise ConfigError(f"{urdf} has no joint that moves.")
    unknown = [name for name in joints if name not in driven]
    if unknown:
        raise ConfigError(f"{urdf} drives no joint {', '.join(unknown)}; it drives {', '.join(driven)}.")
    chosen = [driven[name] for name in joints] if joints else list(driven.values())
    cameras = found.cameras or (FoundCamera(NO_CAMERA, 640, 480, 30.0),)
    nobody = "" if found.cameras else " # no camera was heard: a guess; start yours and run this again"
    states, rate = found.joint_states or ("joint_states", 100.0)
    unheard = _or_these(found.other_states) if found.joint_states else " # not heard: a guess"
    topic, kind = found.command or ("robot/command", "joint_trajectory")
    unasked = " # nobody listens yet: joint_trajectory, multi_array or joint_state"
    if found.command:
        unasked = _or_these(found.other_commands)
    rate_hz = tick_rate(cameras)
    stale_s = math.ceil(200 / min(rate_hz, rate)) / 100  # two periods of the slower
    lines = [
        f"# Written by `lam robot init` from {urdf.name}. Units: rad or m, s, Hz. The order of joints and cameras is",
        "# that of every array. Velocities are half of the URDF's limits, accelerations a guess: raise them once it",
        "# moves well.",
        f"name: {robot.get('name') or urdf.stem}",
        f"urdf: {urdf}",
        "joints: # limits: position [lower, upper], velocity in unit/s, acceleration in unit/s²",
        *(_joint_lines(joint) for joint in chosen),
        f"cameras:{nobody}",
        *(_camera_lines(name, camera) for name, camera in zip(camera_names(cameras), cameras, strict=True)),
        f"joint_states: {{topic: {states}, rate_hz: {rate:g}}}{unheard}",
        f"command: {{topic: {topic}, type: {kind}}}{unasked}",
        f"policy: {{rate_hz: {rate_hz:g}}}",
    ]
    if stale_s > GateConfig.staleness_s:
        lines.append(f"gate: {{staleness_s: {stale_s:g}}} # two periods of what comes slowest")
    return "\n".join(lines) + "\n"
