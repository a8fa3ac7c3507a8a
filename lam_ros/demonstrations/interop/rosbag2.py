"""Episodes from any rosbag2 folder (MCAP or sqlite3), as `ros2 bag record` writes them.

Every message is kept as it is. What lam_ros needs beside is the command that was in force: ``lam/command`` is made of
the topic that the arm was driven by, or, where the arm was moved by hand, of where it went a moment later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_msg, get_typestore
from rosbags.typesys.stores import Stores

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract, absolute_topic, seconds_to_ns
from lam_ros.demonstrations.episode import Episode, EpisodeWriter, Outcome, Topic, change_manifest, open_episode
from lam_ros.demonstrations.messages import JOINT_STATE, joint_state
from lam_ros.demonstrations.wire import begins_with_header, decode, definition, header_stamp_ns
from lam_ros.errors import EpisodeError, LamError

COMMAND = "/lam/command"
COMMAND_TYPES = (JOINT_STATE, "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray")
RELIABLE, TRANSIENT_LOCAL = 1, 1  # as rosbag2 numbers them


def import_bag(
    bag: Path,
    dataset: Path,
    robot: RobotConfig,
    task: str,
    command_topic: str,
    lead_s: float = 0.0,
    outcome: Outcome = "unmarked",
) -> Episode:
    """Make a sealed episode of a rosbag2 folder.

    Args:
        command_topic: what drove the arm, of one of COMMAND_TYPES; the joint states' own topic where it was moved by
            hand. Ignored where the bag holds ``/lam/command`` already.
        lead_s: how much earlier than recorded a command is taken to have been given: with joint states as commands,
            about the time the arm takes to follow.

    Raises:
        EpisodeError: it is no bag, it lacks what the robot YAML names, or a command does not fit the robot.
    """
    try:
        with Reader(bag) as reader:
            return _import(reader, bag, dataset, robot, task, command_topic, lead_s, outcome)
    except LamError:
        raise
    except Exception as error:  # rosbags, sqlite3, mcap and yaml each raise their own
        raise EpisodeError(
            f"{bag} cannot be read as a rosbag2 folder: {error}. Where metadata.yaml is missing, `ros2 bag reindex` "
            "makes it."
        ) from None


def _import(
    reader: Any,
    bag: Path,
    dataset: Path,
    robot: RobotConfig,
    task: str,
    command_topic: str,
    lead_s: float,
    outcome: Outcome,
) -> Episode:
    contract = Contract.of(robot)
    expected = {absolute_topic(camera.subscribed_topic): camera.rate_hz for camera in robot.cameras.values()}
    expected[absolute_topic(robot.joint_states.topic)] = robot.joint_states.rate_hz
    topics = {connection.topic: _topic(connection, expected.get(connection.topic)) for connection in reader.connections}
    missing = [name for name in expected if name not in topics]
    if missing:
        raise EpisodeError(
            f"{bag} lacks {', '.join(missing)}; it has {', '.join(sorted(topics))}. "
            "Name the topics as in the bag in the robot YAML."
        )
    source = None if COMMAND in topics else absolute_topic(command_topic)
    if source is not None:
        if source not in topics or topics[source].msgtype not in COMMAND_TYPES:
            fits = ", ".join(sorted(name for name, topic in topics.items() if topic.msgtype in COMMAND_TYPES))
            raise EpisodeError(f"{source} is no topic of commands in {bag}; those that may be are {fits}.")
        topics[COMMAND] = Topic(COMMAND, JOINT_STATE)
    writer = EpisodeWriter.of(robot, dataset, task)
    with writer.whole_or_nothing():
        for topic in topics.values():
            writer.add_topic(topic)
        for connection, received_ns, data in reader.messages():
            writer.write(connection.topic, bytes(data), received_ns)
            if connection.topic == source:
                for command, stamp_ns in _commands(topics[source], bytes(data), received_ns, contract):
                    given_ns = stamp_ns - seconds_to_ns(lead_s)
                    writer.write(COMMAND, joint_state(given_ns, contract.joints, command, "teleop"), received_ns)
        sealed = open_episode(writer.seal(outcome, tuple(expected)))
    return change_manifest(sealed, origin=f"imported from the rosbag2 folder {bag.name}")


def _topic(connection: Any, expected_hz: float | None) -> Topic:
    profiles = connection.ext.offered_qos_profiles
    text, _ = definition(connection.msgtype)
    return Topic(
        connection.topic,
        connection.msgtype,
        expected_hz,
        reliable=all(profile.reliability.value == RELIABLE for profile in profiles),
        transient_local=bool(profiles) and all(profile.durability.value == TRANSIENT_LOCAL for profile in profiles),
        definition="" if text else _text(connection),
        type_hash="" if text else connection.digest,
    )


def _text(connection: Any) -> str:
    """The definition of a type that is not standard, where the bag holds it as .msg text that can be read."""
    text = str(connection.msgdef.data)
    try:
        get_typestore(Stores.EMPTY).register(get_types_from_msg(text, connection.msgtype))
    except Exception:  # IDL, or nothing: recorded all the same, only not described
        return ""
    return text


def _commands(topic: Topic, data: bytes, received_ns: int, contract: Contract) -> Iterator[tuple[np.ndarray, int]]:
    """(joint targets (J,), when they were given) of one message."""
    message = decode(topic.msgtype, data)
    text, _ = topic.described
    stamp_ns = (header_stamp_ns(data) if begins_with_header(text) else 0) or received_ns
    if topic.msgtype == JOINT_STATE:
        yield contract.in_order(message.name, message.position, topic.name), stamp_ns
    elif topic.msgtype == "std_msgs/msg/Float64MultiArray":
        yield contract.in_order(contract.joints, message.data, topic.name), stamp_ns
    else:
        for point in message.points[-1:]:
            yield contract.in_order(message.joint_names, point.positions, topic.name), stamp_ns
