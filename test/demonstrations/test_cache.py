"""The cache of aligned episodes gives what alignment gives, and is made anew when anything changes."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.cache import ARRAYS, FOLDER, cached
from lam_ros.demonstrations.episode import Episode

SIZE = (24, 24)


class Counting:
    """Aligns, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return align(*arguments)


@pytest.fixture
def episode(recording: Any) -> Episode:
    return recording.usual(20).sealed()


@pytest.fixture
def counting() -> Counting:
    return Counting()


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


def test_the_second_reading_is_mapped_and_the_same(episode: Episode, robot: RobotConfig, counting: Counting) -> None:
    first = cached(episode, robot, SIZE, "lam/command", counting)
    second = cached(episode, robot, SIZE, "lam/command", counting)
    assert counting.calls == 1
    assert same(first, align(episode, robot, SIZE, "lam/command"))
    assert same(first, second)
    assert isinstance(second.images, np.memmap)


def test_whatever_alignment_depends_on_makes_it_stale(episode: Episode, robot: RobotConfig, counting: Counting) -> None:
    cached(episode, robot, SIZE, "lam/command", counting)
    cached(episode, robot, (12, 12), "lam/command", counting)
    assert counting.calls == 2  # two sizes live side by side
    cached(episode, robot, SIZE, "lam/command", counting)
    assert counting.calls == 2
    slower = dataclasses.replace(
        robot,
        policy=dataclasses.replace(robot.policy, rate_hz=10.0),
        gate=dataclasses.replace(robot.gate, staleness_s=0.2),
    )
    assert len(cached(episode, slower, SIZE, "lam/command", counting)) < 20
    other = dataclasses.replace(episode.manifest, sha256={"episode_000000_0.mcap": "another"})
    cached(dataclasses.replace(episode, manifest=other), robot, SIZE, "lam/command", counting)
    assert counting.calls == 4
    assert len(list((episode.folder.parent / FOLDER).iterdir())) == 2  # one of each size; the stale are gone


@pytest.mark.parametrize("keep", [0, 100, 200])
def test_a_file_that_was_cut_short_is_made_anew(
    episode: Episode, robot: RobotConfig, counting: Counting, keep: int
) -> None:
    cached(episode, robot, SIZE, "lam/command", counting)
    (images,) = (episode.folder.parent / FOLDER).glob("*/images.npy")
    os.truncate(images, keep)
    again = cached(episode, robot, SIZE, "lam/command", counting)
    assert counting.calls == 2
    assert same(again, align(episode, robot, SIZE, "lam/command"))


def test_where_nothing_can_be_kept_training_goes_on(
    episode: Episode, robot: RobotConfig, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", refuse)
    assert len(cached(episode, robot, SIZE, "lam/command", counting)) == 20
    assert not list((episode.folder.parent / FOLDER).iterdir())
