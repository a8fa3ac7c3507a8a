"""Damaged files never give anything but the project's own errors; benchmarks/hostile_files.py runs many more."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader

from lam_ros.demonstrations.episode import read_messages
from lam_ros.errors import EpisodeError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hostile_files.py"


@pytest.fixture(scope="module")
def hostile() -> Any:
    spec = importlib.util.spec_from_file_location("hostile_files", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_damaged_files_are_refused_or_read_and_nothing_else(hostile: Any) -> None:
    result = hostile.campaign(inputs=200, seed=1)
    assert not result.faults, result.faults[0]
    assert sum(result.refused.values()) + sum(result.read.values()) == 200
    assert all(result.refused[name] > 0 for name in ("bag", "messages", "manifest", "checkpoint", "robot YAML"))
    assert result.grown_mb < 500


def test_damage_changes_the_file_and_follows_its_seed(hostile: Any) -> None:
    sound = bytes(range(256)) * 8
    changed = [hostile.damage(sound, np.random.default_rng(seed)) for seed in range(50)]
    assert sum(data != sound for data in changed) >= 48
    assert changed == [hostile.damage(sound, np.random.default_rng(seed)) for seed in range(50)]


def test_a_stamp_before_1970_does_not_stop_a_recording(recording: Any, messages: Any) -> None:
    recording.writer.write("/joint_states", messages.joint_state(-5_000_000_000, [0.0] * 7), 1_000_000)
    episode = recording.usual().sealed()
    assert episode.manifest.topics["/joint_states"].count == 31


@pytest.mark.parametrize("lies", [False, True])
def test_a_chunk_that_would_fill_the_memory_is_not_unpacked(
    recording: Any, monkeypatch: pytest.MonkeyPatch, lies: bool
) -> None:
    bag = recording.usual().sealed().bag
    with bag.open("r+b") as file:
        summary = make_reader(file).get_summary()
        assert summary is not None
        for chunk in summary.chunk_indexes if lies else ():
            file.seek(chunk.chunk_start_offset + 25)
            file.write((1).to_bytes(8, "little"))  # "unpacks to one byte"
    monkeypatch.setattr("lam_ros.demonstrations.episode.LARGEST_CHUNK", 5000)
    with pytest.raises(EpisodeError, match="a chunk of it unpacks to more than 0 MB"):
        next(read_messages(bag))
