"""What a crash leaves: readable messages are sealed again, the rest is set aside, and nothing in use is touched."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.records import Message
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader

from lam_ros.config import RobotConfig
from lam_ros.demonstrations import closing
from lam_ros.demonstrations import episode as episodes
from lam_ros.demonstrations.alignment import load_dataset
from lam_ros.demonstrations.closing import close_bag
from lam_ros.demonstrations.episode import list_episodes, next_episode_name
from lam_ros.demonstrations.repair import leftovers, recover


@pytest.fixture(autouse=True)
def flush_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "Storage", functools.partial(episodes.Storage, flush_s=0.0))


@pytest.fixture
def crashed(recording: Any, tmp_path: Path) -> Path:
    """The dataset as kill -9 leaves it in the middle of a take: a copy of what was on the disk at that moment."""
    recording.usual(20)
    return Path(shutil.copytree(tmp_path / "data", tmp_path / "crashed"))


def tear(dataset: Path, keep: float) -> None:
    """Cut the bag short, as a power failure may."""
    (bag,) = dataset.glob("*/*.mcap")
    bag.write_bytes(bag.read_bytes()[: round(keep * bag.stat().st_size)])


def test_every_flushed_message_is_sealed_again(crashed: Path, robot: RobotConfig) -> None:
    (leftover,) = leftovers(crashed)
    found = recover(leftover)
    assert (found.folder, found.is_sealed) == (crashed / "episode_000000", True)
    (episode,) = list_episodes(crashed)
    episode.verify()
    assert {topic: report.count for topic, report in episode.manifest.topics.items()} == {
        "/camera/front/image_raw": 20, "/camera/wrist/image_raw": 20, "/joint_states": 100, "/lam/command": 20
    }  # fmt: skip
    assert episode.manifest.drivers == {"teleop": 20}
    assert (episode.manifest.robot, episode.manifest.task, episode.manifest.outcome) == ("desk_arm", "wave", "unmarked")
    assert episode.manifest.verdict.grade == "WARN"
    assert "recording ended before it was sealed" in episode.manifest.verdict.findings[0]
    assert [entry.name for entry in crashed.iterdir()] == ["episode_000000"]
    assert len(load_dataset([episode], robot, (96, 96)).demonstrations) == 1


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_torn_bag_gives_what_stands_before_the_tear(crashed: Path, keep: float) -> None:
    tear(crashed, keep)
    recover(leftovers(crashed)[0])
    (episode,) = list_episodes(crashed)
    episode.verify()
    assert 0.5 * keep * 160 < sum(report.count for report in episode.manifest.topics.values()) < 160


def test_damage_in_the_middle_ends_what_is_read(crashed: Path) -> None:
    (bag,) = crashed.glob("*/*.mcap")
    data = bytearray(bag.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    bag.write_bytes(data)
    recover(leftovers(crashed)[0])
    (episode,) = list_episodes(crashed)
    episode.verify()
    assert 0 < sum(report.count for report in episode.manifest.topics.values()) < 160


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_what_cannot_be_read_is_set_aside_with_a_reason(tmp_path: Path, content: bytes | None) -> None:
    partial = tmp_path / "episode_000003.partial"
    partial.mkdir()
    if content is not None:
        (partial / "episode_000003_0.mcap").write_bytes(content)
    found = recover(partial)
    assert (found.folder, found.is_sealed) == (tmp_path / "episode_000003.set_aside", False)
    assert "no message can be read" in (found.folder / "reason.txt").read_text()
    assert leftovers(tmp_path) == []
    assert leftovers(tmp_path, set_aside_too=True) == [found.folder]
    assert next_episode_name(tmp_path) == "episode_000004"


def test_a_recording_in_progress_is_left_alone(recording: Any, tmp_path: Path) -> None:
    recording.usual()
    assert leftovers(tmp_path / "data", set_aside_too=True) == []
    recording.writer.abandon()
    assert [folder.name for folder in leftovers(tmp_path / "data")] == ["episode_000000.partial"]


def test_sealed_episodes_are_left_alone(recording: Any, tmp_path: Path) -> None:
    recording.usual().sealed()
    assert leftovers(tmp_path / "data", set_aside_too=True) == []


@pytest.mark.parametrize("cut", [1, 8, 40, 300, 2000])
def test_a_repair_that_was_interrupted_begins_anew(crashed: Path, cut: int) -> None:
    """A bag whose new ending was cut short closes again, with every message."""
    (bag,) = crashed.glob("*/*.mcap")
    assert close_bag(bag) is not None
    closed = bag.read_bytes()
    bag.write_bytes(closed[:-cut])
    assert recover(leftovers(crashed)[0]).is_sealed
    (episode,) = list_episodes(crashed)
    assert episode.manifest.topics["/joint_states"].count == 100
    assert episode.bag.read_bytes() == closed


def test_a_full_disk_takes_a_repair(crashed: Path) -> None:
    """Nothing is copied: what is added are the types, topics and places of chunks."""
    (bag,) = crashed.glob("*/*.mcap")
    whole = bag.read_bytes()
    bag.write_bytes(whole[:-100])
    recover(leftovers(crashed)[0])
    (episode,) = list_episodes(crashed)
    repaired = episode.bag.read_bytes()
    kept = next(i for i, (a, b) in enumerate(zip(whole, repaired, strict=False)) if a != b)
    assert kept > 0.9 * len(whole)
    assert len(repaired) - kept < 40_000


def test_where_the_disk_takes_nothing_it_can_be_repaired_later(crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(found: Any) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(closing, "_ending", full)
        found = recover(leftovers(crashed)[0])
        assert not found.is_sealed
        assert "No space left on device Check its permissions and the disk" in found.sentence
    assert recover(leftovers(crashed)[0]).is_sealed
    assert list_episodes(crashed)[0].manifest.topics["/joint_states"].count == 100


def test_a_repaired_bag_reads_by_its_index_as_by_its_stream(crashed: Path) -> None:
    """mcap's seeking reader uses the summary that was written, rosbags the folder."""
    tear(crashed, 0.7)
    recover(leftovers(crashed)[0])
    (episode,) = list_episodes(crashed)
    with episode.bag.open("rb") as file:
        summary = make_reader(file, validate_crcs=True).get_summary()
        assert summary is not None
        assert summary.statistics is not None
        file.seek(0)
        streamed = [r for r in StreamReader(file, validate_crcs=True).records if isinstance(r, Message)]
    indexed = list(episode.messages())
    assert summary.statistics.message_count == len(indexed) == len(streamed) > 0
    assert sum(len(chunk.message_index_offsets) for chunk in summary.chunk_indexes) > 0
    with Reader(episode.folder) as reader:
        assert reader.message_count == len(indexed)
        assert len(list(reader.messages())) == len(indexed)


def test_what_was_set_aside_can_be_tried_again(crashed: Path) -> None:
    (bag,) = crashed.glob("*/*.mcap")
    whole = bag.read_bytes()
    bag.write_bytes(whole[:20])
    found = recover(leftovers(crashed)[0])
    assert not found.is_sealed
    next(found.folder.glob("*.mcap")).write_bytes(whole)
    again = recover(leftovers(crashed, set_aside_too=True)[0])
    assert again.is_sealed
    assert not (again.folder / "reason.txt").exists()


def test_repaired_images_are_the_recorded_ones(crashed: Path) -> None:
    recover(leftovers(crashed)[0])
    (episode,) = list_episodes(crashed)
    greys = [data[-1] for topic, _, data, _ in episode.messages() if topic == "/camera/front/image_raw"]
    np.testing.assert_array_equal(greys, 10 * np.arange(20) % 256)
