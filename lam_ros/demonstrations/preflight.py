"""Before the first take: does every topic that the robot YAML names deliver what it says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lam_ros.config import CameraConfig, RobotConfig
from lam_ros.contract import Contract
from lam_ros.demonstrations.wire import decode, header_stamp_ns
from lam_ros.errors import LamError
from lam_ros.images import read_frame


@dataclass(frozen=True)
class Heard:
    """What has been heard of a topic: its rate of late in Hz, its newest serialized message, and each publisher's."""

    rate_hz: float
    latest: bytes
    of_each: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something that preflight found; no take is worth recording where it ``is_failure``."""

    is_failure: bool
    sentence: str


def preflight(robot: RobotConfig, heard: Mapping[str, Heard], has_rates: bool = True) -> list[Finding]:
    """Compare what arrives with the robot YAML.

    Args:
        heard: topic, as the robot YAML has it -> what has been heard of it.
        has_rates: whether rates can be judged; in simulated time they cannot, before the simulation runs.

    Returns:
        What is wrong; nothing, where all is well.
    """
    contract = Contract.of(robot)
    findings: list[Finding] = []
    for name, camera in robot.cameras.items():
        topic = camera.subscribed_topic
        findings += _rate(robot, topic, camera.rate_hz, heard.get(topic), has_rates)
        if topic in heard and heard[topic].latest:
            findings += _image(contract, name, camera, heard[topic].latest)
    topic = robot.joint_states.topic
    findings += _rate(robot, topic, robot.joint_states.rate_hz, heard.get(topic), has_rates)
    if topic in heard and heard[topic].latest:
        findings += _joint_states(contract, topic, _of_the_arm(contract, heard[topic]))
    return findings


def _rate(
    robot: RobotConfig, topic: str, expected_hz: float, heard: Heard | None, has_rates: bool
) -> Iterator[Finding]:
    if heard is None:
        yield Finding(True, f"nobody publishes {topic}; start its driver, or correct the topic in the robot YAML.")
    elif has_rates and not heard.latest:
        yield Finding(True, f"{topic} is silent: somebody publishes it, but nothing arrives; check the driver and QoS.")
    elif has_rates and heard.rate_hz < robot.recorder.verdict.warn_rate * expected_hz:
        yield Finding(
            heard.rate_hz < robot.recorder.verdict.fail_rate * expected_hz,
            f"{topic} comes at {heard.rate_hz:.1f} Hz, the robot YAML says {expected_hz:g}; "
            "set the driver's rate, or the YAML's.",
        )


def _image(contract: Contract, name: str, camera: CameraConfig, latest: bytes) -> Iterator[Finding]:
    try:
        _, image = read_frame(camera.message_type, latest)
        contract.validate_image(name, image)
    except LamError as error:
        yield Finding(True, str(error))
    yield from _stamp(camera.subscribed_topic, latest)


def _of_the_arm(contract: Contract, heard: Heard) -> bytes:
    """The newest joint states of a publisher that speaks of the robot's joints: a gripper or a base may send others."""
    for one in heard.of_each:
        try:
            if not contract.is_foreign(decode("sensor_msgs/msg/JointState", one).name):
                return one
        except LamError:  # said of the newest
            continue
    return heard.latest


def _joint_states(contract: Contract, topic: str, latest: bytes) -> Iterator[Finding]:
    try:
        message = decode("sensor_msgs/msg/JointState", latest)
        contract.in_order(message.name, message.position, topic)
    except LamError as error:
        yield Finding(True, str(error))
    yield from _stamp(topic, latest)


def _stamp(topic: str, latest: bytes) -> Iterator[Finding]:
    if not header_stamp_ns(latest):
        yield Finding(True, f"{topic} has no header stamps; without the time of capture nothing can be aligned.")
