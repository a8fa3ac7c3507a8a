"""What a crash leaves: readable messages are sealed again, the rest is set aside, and nothing in use is touched."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations import episode as episodes
from lam_ros.demonstrations.alignment import load_dataset
from lam_ros.demonstrations.episode import list_episodes, next_episode_name
from lam_ros.demonstrations.repair import leftovers, recover
from lam_ros.errors import EpisodeError


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


def test_a_repair_that_was_interrupted_begins_anew_from_the_original(crashed: Path) -> None:
    original = crashed / "episode_000000.partial"
    shutil.copytree(original, crashed / "episode_000000.set_aside")
    tear_off = next(original.glob("*.mcap"))
    tear_off.write_bytes(tear_off.read_bytes()[:200])
    assert recover(leftovers(crashed)[0]).is_sealed
    (episode,) = list_episodes(crashed)
    assert episode.manifest.topics["/joint_states"].count == 100


def test_where_the_copy_cannot_be_sealed_the_original_stays(crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise EpisodeError("No space left on device.")

    monkeypatch.setattr(episodes.EpisodeWriter, "seal", full)
    (bag,) = crashed.glob("*/*.mcap")
    before = bag.read_bytes()
    found = recover(leftovers(crashed)[0])
    assert not found.is_sealed
    assert "No space left" in found.sentence
    assert next(found.folder.glob("*.mcap")).read_bytes() == before
    assert not list(crashed.glob("*.partial"))


def test_repaired_images_are_the_recorded_ones(crashed: Path) -> None:
    recover(leftovers(crashed)[0])
    (episode,) = list_episodes(crashed)
    greys = [data[-1] for topic, _, data, _ in episode.messages() if topic == "/camera/front/image_raw"]
    np.testing.assert_array_equal(greys, 10 * np.arange(20) % 256)
