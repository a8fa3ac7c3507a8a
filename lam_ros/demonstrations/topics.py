"""Under which names an episode holds a robot's topics."""

from __future__ import annotations

from dataclasses import dataclass

from lam_ros.config import RobotConfig
from lam_ros.contract import absolute_topic
from lam_ros.demonstrations.episode import Episode


@dataclass(frozen=True)
class RecordedTopics:
    """What an episode calls a robot's topics: the nodes that recorded it may have run in a namespace.

    Attributes:
        states, commands: without a leading slash, as all here.
        cameras: topic -> camera.
    """

    states: str
    commands: str
    cameras: dict[str, str]

    @classmethod
    def of(cls, episode: Episode, robot: RobotConfig, command_topic: str = "lam/command") -> RecordedTopics:
        """Found by the first of the robot's relative topics that the episode holds once."""
        cameras = {camera.subscribed_topic: name for name, camera in robot.cameras.items()}
        recorded = [f"/{topic.lstrip('/')}" for topic in episode.manifest.topics]
        namespace = ""
        for name in (command_topic, robot.joint_states.topic, *cameras):
            found = [topic for topic in recorded if topic.endswith(f"/{name}")] if name else []
            if found:
                namespace = found[0].removesuffix(name) if len(found) == 1 else ""
                break

        def called(topic: str) -> str:
            return absolute_topic(topic, namespace).lstrip("/") if topic else ""

        return cls(
            called(robot.joint_states.topic),
            called(command_topic),
            {called(topic): name for topic, name in cameras.items()},
        )
