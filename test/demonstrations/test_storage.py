"""Room for demonstrations on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lam_ros.demonstrations.storage import room_for_takes


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    usage = SimpleNamespace(total=10_000, used=0, free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    return usage


def take(dataset: Path, name: str, size: int) -> None:
    folder = dataset / name
    folder.mkdir(parents=True)
    (folder / "bag.mcap").write_bytes(b"x" * (size - 10))
    (folder / "episode.json").write_bytes(b"y" * 10)


def test_before_the_first_take_only_the_space_is_known(tmp_path: Path, disk: SimpleNamespace) -> None:
    room = room_for_takes(tmp_path / "not" / "there" / "yet", 4_000)
    assert (room.free_bytes, room.usable_bytes, room.takes) == (10_000, 6_000, None)
    assert str(room) == "0.0 GB free"


def test_takes_that_fit_are_told_from_the_usual_size(tmp_path: Path, disk: SimpleNamespace) -> None:
    take(tmp_path, "episode_000000", 500)
    take(tmp_path, "episode_000001", 1_500)
    take(tmp_path, "episode_000002.set_aside", 9_000)
    room = room_for_takes(tmp_path, 4_000)
    assert room.takes == 6
    assert "room for about 6 more takes" in str(room)


def test_below_what_must_stay_free_nothing_fits(tmp_path: Path, disk: SimpleNamespace) -> None:
    take(tmp_path, "episode_000000", 500)
    disk.free = 3_000
    room = room_for_takes(tmp_path, 4_000)
    assert (room.usable_bytes, room.takes) == (-1_000, 0)


def test_the_real_disk_has_room(tmp_path: Path) -> None:
    assert room_for_takes(tmp_path, 0).free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
