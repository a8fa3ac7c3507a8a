"""Demonstrations that lie elsewhere: fsspec's memory stands for S3."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lam_ros.demonstrations.episode import change_manifest, list_episodes
from lam_ros.demonstrations.remote import local_copy
from lam_ros.errors import ConfigError, EpisodeError

URL = "memory://bucket/demos"


@pytest.fixture
def bucket(recording: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with one sealed episode, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recording.usual().sealed("success")
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path / 'data'}/", "/bucket/demos/", recursive=True)
    yield memory
    memory.rm("/bucket", recursive=True)


def test_episodes_are_copied_once_and_whole(bucket: Any, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folder = local_copy(URL, lambda *done: told.append(done))
    assert told == [(1, 1)]
    (episode,) = list_episodes(folder)
    episode.verify()
    assert episode.bag.read_bytes() == list_episodes(tmp_path / "data")[0].bag.read_bytes()
    before = episode.bag.stat().st_mtime_ns
    assert local_copy(f"{URL}/") == folder
    assert episode.bag.stat().st_mtime_ns == before, "nothing is fetched twice"


def test_what_changed_there_is_fetched_again_and_what_went_goes(bucket: Any, tmp_path: Path) -> None:
    folder = local_copy(URL)
    shutil.copytree(folder / "episode_000000", folder / "episode_000007")
    (there,) = list_episodes(tmp_path / "data")
    change_manifest(there, tags=("good",))
    bucket.put(str(there.folder / "episode.json"), "/bucket/demos/episode_000000/episode.json")
    assert [episode.manifest.tags for episode in list_episodes(local_copy(URL))] == [("good",)]


def test_what_was_replaced_there_is_no_episode(bucket: Any) -> None:
    """`lam episodes trim` leaves the whole one beside what it cut out."""
    bucket.copy("/bucket/demos/episode_000000", "/bucket/demos/episode_000003.replaced", recursive=True)
    assert [episode.manifest.name for episode in list_episodes(local_copy(URL))] == ["episode_000000"]


def test_processes_that_train_together_do_not_disturb_each_other(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched, get_file = [], type(bucket).get_file

    def slow_get(there: Any, path: str, *local: str, **how: Any) -> None:
        fetched.append(path)
        time.sleep(0.1)
        get_file(there, path, *local, **how)

    monkeypatch.setattr(type(bucket), "get_file", slow_get)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(local_copy, [URL, URL])
    assert first == second
    assert len(fetched) == len(set(fetched)) == 3
    list_episodes(first)[0].verify()


def test_a_torn_transfer_leaves_nothing(bucket: Any) -> None:
    bag = "/bucket/demos/episode_000000/episode_000000_0.mcap"
    bucket.pipe_file(bag, bucket.cat_file(bag)[:-100])
    with pytest.raises(EpisodeError, match="what was fetched is not what was sealed"):
        local_copy(URL)
    bucket.pipe_file("/bucket/demos/episode_000000/episode.json", b"{")
    with pytest.raises(EpisodeError, match="what was fetched is not what was sealed"):
        local_copy(URL)


def test_an_address_without_episodes_or_of_an_unknown_kind_is_one_sentence(bucket: Any) -> None:
    with pytest.raises(EpisodeError, match="holds no sealed episodes; check the address"):
        local_copy("memory://bucket/empty")
    with pytest.raises((ConfigError, EpisodeError), match="nowhere://bucket"):
        local_copy("nowhere://bucket")
