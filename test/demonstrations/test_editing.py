"""New episodes of old ones: what is kept, what is set aside, and what the manifest says of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lam_ros.config import RobotConfig, VerdictConfig
from lam_ros.demonstrations.editing import Span, check_one_robot, copy, rewrite, split, tag, trim
from lam_ros.demonstrations.episode import (
    Episode,
    EpisodeWriter,
    Topic,
    list_episodes,
    open_episode,
    thresholds_of,
)
from lam_ros.errors import EpisodeError

TAKEOVER = "/lam/takeover"


@pytest.fixture
def episode(recording: Any) -> Episode:
    """20 ticks of 50 ms, after a latched message that holds for all of them."""
    recording.writer.add_topic(Topic(TAKEOVER, "std_msgs/msg/Bool", None, True, True))
    recording.writer.write(TAKEOVER, b"\x00\x01\x00\x00\x01", 1_000_000_000)
    return recording.usual(20).sealed()


def count(episode: Episode, topic: str) -> int:
    return sum(name == topic for name, _, _, _ in episode.messages())


def test_a_trimmed_episode_holds_the_span_and_what_latecomers_must_hear(episode: Episode) -> None:
    trimmed = trim(episode, Span(0.3, 0.6))
    assert 5 <= count(trimmed, "/camera/front/image_raw") <= 7
    assert count(trimmed, TAKEOVER) == 1
    assert trimmed.manifest.origin == "episode_000000, from 0.30 s to 0.60 s"
    assert (trimmed.manifest.task, trimmed.manifest.outcome) == ("wave", "success")
    trimmed.verify()
    assert [one.manifest.name for one in list_episodes(episode.folder.parent)] == ["episode_000001"]
    assert (episode.folder.parent / "episode_000000.replaced").is_dir()


def test_a_split_loses_no_message(episode: Episode) -> None:
    before = {topic: report.count for topic, report in episode.manifest.topics.items()}
    parts = split(episode, [0.7, 0.2])
    assert [part.manifest.origin for part in parts] == [
        "episode_000000, from 0.00 s to 0.20 s",
        "episode_000000, from 0.20 s to 0.70 s",
        "episode_000000, from 0.70 s to its end",
    ]
    for topic, messages in before.items():
        found = sum(count(part, topic) for part in parts)
        assert found == (3 if topic == TAKEOVER else messages)


def test_a_cut_behind_the_end_leaves_the_whole_and_nothing_beside_it(episode: Episode) -> None:
    with pytest.raises(EpisodeError, match="has no message in the span"):
        split(episode, [0.2, 50.0])
    assert [entry.name for entry in episode.folder.parent.iterdir()] == ["episode_000000"]


def test_a_part_is_judged_as_the_whole_was_and_has_its_share_of_what_was_lost(
    robot: RobotConfig, tmp_path: Path, record: Any
) -> None:
    recording = record(tmp_path / "other")
    thresholds = VerdictConfig(fail_lost=0.5)
    writer = EpisodeWriter(tmp_path / "data", robot.name, robot.digest, "wave", thresholds=thresholds)
    for channel in recording.writer._channels.values():
        writer.add_topic(channel.topic)
    recording.writer.discard()
    recording.writer = writer
    recording.usual(20)
    writer.count_lost("/joint_states", 10)
    whole = recording.sealed()
    assert whole.is_usable
    assert thresholds_of(whole.bag) == thresholds
    parts = split(whole, [0.5])
    assert all(part.is_usable for part in parts)
    assert sum(part.manifest.topics["/joint_states"].lost for part in parts) in (10, 11)
    assert thresholds_of(parts[0].bag) == thresholds


def test_ctrl_c_leaves_nothing_that_would_be_repaired_and_learned_from(episode: Episode, tmp_path: Path) -> None:
    seen = []

    def interrupted(topic: str, msgtype: str, data: bytes) -> bytes:
        seen.append(topic)
        if len(seen) > 20:
            raise KeyboardInterrupt
        return data

    with pytest.raises(KeyboardInterrupt):
        copy(episode, tmp_path / "shared", interrupted)
    assert list((tmp_path / "shared").iterdir()) == []


def test_an_empty_span_is_refused_and_leaves_nothing(episode: Episode) -> None:
    with pytest.raises(EpisodeError, match=r"has no message in the span from 50\.00 s to 60\.00 s"):
        trim(episode, Span(50.0, 60.0))
    assert [entry.name for entry in episode.folder.parent.iterdir()] == ["episode_000000"]


def test_a_copy_is_numbered_anew_and_says_where_it_is_from(episode: Episode, tmp_path: Path) -> None:
    there = tmp_path / "other"
    for number in range(2):
        copied = copy(tag(episode, ["good"]), there)
        assert copied.manifest.name == f"episode_00000{number}"
        assert copied.manifest.origin == "copied from data/episode_000000"
        assert copied.manifest.tags == ("good",)
        assert copied.manifest.topics.keys() == episode.manifest.topics.keys()
    assert list(copied.messages()) == list(episode.messages())


def test_messages_can_be_changed_on_the_way(episode: Episode, tmp_path: Path) -> None:
    def blank(topic: str, msgtype: str, data: bytes) -> bytes:
        return data[:64] + bytes(len(data) - 64) if topic.startswith("/camera") else data

    changed = rewrite(episode, tmp_path / "blank", "blanked", transform=blank)
    for topic, _, data, _ in changed.messages():
        assert (not any(data[64:])) == topic.startswith("/camera") or topic == TAKEOVER


def test_episodes_of_different_robots_do_not_mix(episode: Episode) -> None:
    other = dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, robot="other"))
    check_one_robot([episode, episode])
    with pytest.raises(EpisodeError, match="different robots: desk_arm, other"):
        check_one_robot([episode, other])


def test_tags_and_outcome_are_changed_without_touching_the_data(episode: Episode) -> None:
    tag(episode, ["b", "a"], outcome="failure")
    manifest = tag(open_episode(episode.folder), remove=["b"]).manifest
    assert (manifest.tags, manifest.outcome) == (("a",), "failure")
    open_episode(episode.folder).verify()
