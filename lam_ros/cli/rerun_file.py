"""Episodes as a Rerun recording: cameras, joints and commands on one time line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.contract import NANOSECONDS
from lam_ros.demonstrations.episode import Episode
from lam_ros.demonstrations.signals import read_signals
from lam_ros.demonstrations.topics import RecordedTopics
from lam_ros.errors import EpisodeError, ImageError
from lam_ros.images import read_frame


def write_rerun(path: Path, episodes: Iterable[Episode], robot: RobotConfig) -> None:
    """Write one `.rrd` with an entity for each episode; its times are seconds since the episode's first joint state.

    Raises:
        EpisodeError: the Rerun SDK is not installed, or an episode cannot be read.
    """
    try:
        import rerun as rr
    except ImportError:
        raise EpisodeError("the Rerun SDK is not installed; `pip install 'lam_ros[view]'`.") from None
    recording = rr.RecordingStream("lam_ros")
    recording.save(path)
    for episode in episodes:
        topics = RecordedTopics.of(episode, robot).cameras
        name = episode.manifest.name
        signals = read_signals(episode, robot)
        for kind, times, values in (
            ("measured", signals.state_s, signals.state),
            ("commanded", signals.command_s, signals.command),
        ):
            for index, joint in enumerate(robot.joint_names):
                recording.send_columns(
                    f"{name}/{joint}/{kind}",
                    indexes=[rr.TimeColumn("take", duration=times)],
                    columns=rr.Scalars.columns(scalars=values[:, index].astype(np.float64)),
                )
        for topic, msgtype, data, _ in episode.messages():
            camera = topics.get(topic.lstrip("/"))
            if camera is None:
                continue
            try:
                stamp_ns, frame = read_frame(msgtype, data)
            except ImageError:
                continue
            recording.set_time("take", duration=(stamp_ns - signals.start_ns) / NANOSECONDS)
            recording.log(f"{name}/{camera}", rr.Image(frame).compress(jpeg_quality=85))
    recording.flush()
