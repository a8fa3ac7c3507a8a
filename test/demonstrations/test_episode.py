"""Episodes: what was written is what is read, and nothing damaged passes for whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.episode import (
    EpisodeWriter,
    Storage,
    Topic,
    list_episodes,
    next_episode_name,
    open_episode,
    read_messages,
)
from lam_ros.errors import EpisodeError

JOINTS = "sensor_msgs/msg/JointState"
FRONT = "/camera/front/image_raw"
MS = 1_000_000


def test_what_is_written_is_read_back_byte_for_byte(tmp_path: Path, messages: Any) -> None:
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    writer.add_topic(Topic("/joint_states", JOINTS, 100.0))
    sent = [messages.joint_state(n * 10 * MS, [0.1 * n] * 7) for n in range(20)]
    for n, data in enumerate(sent):
        writer.write("/joint_states", data, n * 10 * MS + 5)
    assert writer.messages == 20
    episode = open_episode(writer.seal("success"))
    expected = [("/joint_states", JOINTS, data, n * 10 * MS + 5) for n, data in enumerate(sent)]
    assert list(episode.messages()) == expected


def test_the_manifest_says_what_was_recorded(recording: Any, robot: RobotConfig) -> None:
    recording.usual()
    recording.command(2000, 1.0, "hold")
    manifest = recording.sealed("failure").manifest
    assert (manifest.name, manifest.task, manifest.outcome) == ("episode_000000", "wave", "failure")
    assert (manifest.robot, manifest.robot_digest) == ("desk_arm", robot.digest)
    assert manifest.drivers == {"teleop": 6, "hold": 1}
    assert manifest.topics[FRONT].count == 6
    assert manifest.topics[FRONT].rate_hz == pytest.approx(20.0)
    assert manifest.topics["/joint_states"].count == 30
    assert set(manifest.sha256) == {"episode_000000_0.mcap", "metadata.yaml"}


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("how", ["a bit", "the end", "a message"])
def test_what_does_not_read_back_as_it_was_written_is_not_sealed(
    tmp_path: Path, messages: Any, monkeypatch: pytest.MonkeyPatch, how: str, compress: bool
) -> None:
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave", storage=Storage(compress=compress))
    writer.add_topic(Topic("/joint_states", JOINTS, 100.0))
    for n in range(20):
        writer.write("/joint_states", messages.joint_state(n * 10 * MS, [0.1 * n] * 7), n * 10 * MS + 5)
    sentence = "cannot be read back"
    if how == "a message":
        writer.note("/joint_states", messages.joint_state(200 * MS, [0.0] * 7), 200 * MS)
        sentence = "reads back .*, but .* were written"

    def on_a_bad_disk(bag: Path, read: Any = writer._read_back) -> str:
        data = bytearray(bag.read_bytes())
        if how == "a bit":
            data[len(data) // 3] ^= 1
        bag.write_bytes(data[: len(data) // 2] if how == "the end" else data)
        return str(read(bag))

    monkeypatch.setattr(writer, "_read_back", on_a_bad_disk)
    with pytest.raises(EpisodeError, match=f"{sentence}.*; it is kept as it is"):
        writer.seal("success")
    assert writer.bag.stat().st_size > 0
    assert list_episodes(tmp_path) == []


def test_a_good_recording_passes(recording: Any) -> None:
    assert recording.usual(20).sealed().manifest.verdict.grade == "PASS"


def test_a_camera_that_stops_midway_does_not_pass(recording: Any) -> None:
    recording.usual(10)
    for step in range(300):
        recording.state(1500 + 10 * step, 0.0)
    assert recording.sealed().manifest.verdict.grade == "FAIL"


def test_a_missing_camera_fails(recording: Any) -> None:
    recording.state(0, 0.0)
    verdict = recording.sealed().manifest.verdict
    assert verdict.grade == "FAIL"
    assert f"{FRONT} never arrived." in verdict.findings


def test_a_message_without_a_stamp_counts_by_its_arrival(tmp_path: Path, messages: Any) -> None:
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    writer.add_topic(Topic("/joint_states", JOINTS, 100.0))
    for n in range(11):
        writer.write("/joint_states", messages.joint_state(0, [0.0] * 7), n * 10 * MS)
    report = open_episode(writer.seal("unmarked")).manifest.topics["/joint_states"]
    assert report.rate_hz == pytest.approx(100.0)
    assert report.backwards == 0


def test_lost_messages_are_in_the_verdict(recording: Any) -> None:
    recording.usual(20)
    recording.writer.count_lost(FRONT, 5)
    verdict = recording.sealed().manifest.verdict
    assert verdict.grade == "FAIL"
    assert f"{FRONT} lost 5 of 25 messages." in verdict.findings


def test_other_tools_open_an_episode_as_a_bag(recording: Any) -> None:
    episode = recording.usual().sealed()
    with AnyReader([episode.folder]) as reader:
        assert reader.message_count == 48
        connections = [c for c in reader.connections if c.topic == FRONT]
        assert connections[0].msgtype == "sensor_msgs/msg/Image"
        images = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(connections)]
    assert [int(np.asarray(image.data)[0]) for image in images] == [0, 10, 20, 30, 40, 50]


def test_the_metadata_tells_the_publishers_qos(tmp_path: Path, messages: Any) -> None:
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    writer.add_topic(Topic("/joint_states", JOINTS, 100.0, reliable=False, transient_local=True, depth=3))
    writer.write("/joint_states", messages.joint_state(MS, [0.0] * 7), 2 * MS)
    folder = writer.seal("unmarked")
    text = (folder / "metadata.yaml").read_text()
    assert "&" not in text  # no anchors: not every reader knows them
    information = yaml.safe_load(text)["rosbag2_bagfile_information"]
    (topic,) = information["topics_with_message_count"]
    (qos,) = yaml.safe_load(topic["topic_metadata"]["offered_qos_profiles"])
    assert (qos["reliability"], qos["durability"], qos["depth"]) == (2, 1, 3)
    assert topic["topic_metadata"]["type_description_hash"].startswith("RIHS01_")
    assert information["starting_time"] == {"nanoseconds_since_epoch": 2 * MS}


def test_until_it_is_sealed_an_episode_is_partial(recording: Any, tmp_path: Path) -> None:
    recording.usual()
    assert recording.writer.folder.name == "episode_000000.partial"
    assert list_episodes(tmp_path / "data") == []
    episode = recording.sealed()
    assert not recording.writer.folder.exists()
    assert list_episodes(tmp_path / "data") == [episode]
    with pytest.raises(EpisodeError, match=r"holds no episodes itself, but .*/data does"):
        list_episodes(tmp_path)


def test_a_whole_episode_verifies(recording: Any) -> None:
    episode = recording.usual().sealed()
    episode.verify()
    assert sum(1 for _ in episode.messages()) == 48


@pytest.mark.parametrize("name", ["episode_000000_0.mcap", "metadata.yaml"])
def test_a_tampered_or_missing_file_is_found(recording: Any, name: str) -> None:
    episode = recording.usual().sealed()
    file = episode.folder / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(EpisodeError, match=f"{name} has changed since it was sealed; restore it from a copy"):
        episode.verify()
    file.unlink()
    with pytest.raises(EpisodeError, match=f"{name} is missing; restore it"):
        episode.verify()


def test_a_damaged_bag_is_refused_or_read_whole(recording: Any) -> None:
    episode = recording.usual().sealed()
    whole, data = list(episode.messages()), episode.bag.read_bytes()
    refused = 0
    for place in range(0, len(data), max(1, len(data) // 600)):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        episode.bag.write_bytes(damaged)
        try:
            read = [message[2] for message in episode.messages()]
        except EpisodeError:
            refused += 1
        else:
            assert read == [message[2] for message in whole], f"byte {place} changed what is read"
    assert refused > 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_bag_is_refused(recording: Any, share: float) -> None:
    episode = recording.usual().sealed()
    data = episode.bag.read_bytes()
    episode.bag.write_bytes(data[: int(share * len(data))])
    with pytest.raises(EpisodeError, match="cannot be read"):
        list(episode.messages())


def test_a_missing_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match=r"none\.mcap cannot be read"):
        list(read_messages(tmp_path / "none.mcap"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "lam_ros.episode/9"}, r"has the schema 'lam_ros\.episode/9'; this version reads"),
        ({"name": "episode_000007"}, "belongs to episode_000007; the folder was renamed"),
        ({"outcome": "great"}, "outcome is 'great'; valid are 'success'"),
        ({"colour": "red"}, "colour is not a known key"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(recording: Any, change: dict[str, str], message: str) -> None:
    episode = recording.usual().sealed()
    file = episode.folder / "episode.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(EpisodeError, match=message):
        open_episode(episode.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}'])
def test_a_damaged_manifest_is_refused(recording: Any, text: str) -> None:
    episode = recording.usual().sealed()
    (episode.folder / "episode.json").write_text(text)
    with pytest.raises(EpisodeError, match=r"episode\.json cannot be read"):
        open_episode(episode.folder)


def test_a_folder_that_is_not_there_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="is no folder of episodes; record some with `lam record"):
        list_episodes(tmp_path / "nowhere")


def test_a_dataset_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EpisodeError, match=r"cannot take a new episode: .*Check its path and permissions"):
        EpisodeWriter(tmp_path / "file" / "data", "desk_arm", "digest", "wave")


def test_names_are_never_used_twice(tmp_path: Path) -> None:
    assert next_episode_name(tmp_path) == "episode_000000"
    for name in ("episode_000002", "episode_000004.set_aside", "notes", "episode_x"):
        (tmp_path / name).mkdir()
    assert next_episode_name(tmp_path) == "episode_000005"
    (tmp_path / "episode_1000000.partial").mkdir()
    assert next_episode_name(tmp_path) == "episode_1000001"


def test_episodes_are_listed_by_number(tmp_path: Path) -> None:
    (tmp_path / "episode_999999.partial").mkdir()
    late = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave").seal("success")
    (tmp_path / "episode_999999.partial").rmdir()
    late.rename(tmp_path / "aside")
    early = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave").seal("success")
    (tmp_path / "aside").rename(late)
    assert [episode.folder for episode in list_episodes(tmp_path)] == [early, late]


def test_discarding_leaves_nothing_behind(recording: Any, tmp_path: Path) -> None:
    recording.usual()
    recording.writer.discard()
    assert list((tmp_path / "data").iterdir()) == []


def test_a_camera_that_starts_late_is_told(recording: Any) -> None:
    for step in range(300):
        recording.state(1000 + 10 * step, 0.0)
    recording.usual(20, start_ms=4000)
    verdict = recording.sealed().manifest.verdict
    assert verdict.grade == "WARN"
    assert f"{FRONT} first came 3.0 s after the take began; nothing before is used." in verdict.findings
