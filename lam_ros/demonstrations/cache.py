"""Aligned episodes kept on disk, memory-mapped, so that training begins at once and reads at memory speed.

<dataset>/.cache/episode_000012.96x96.<key>/images.npy state.npy action.npy stamps_ns.npy human.npy

The key is a hash of everything that alignment depends on: the episode's own hashes, the robot YAML, the image size, the
topic of commands, and the version of the alignment. What has another key is stale, and made anew.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.dataset import Demonstration, digest_of
from lam_ros.demonstrations.episode import Episode

FOLDER = ".cache"
VERSION = "3"  # of alignment: to be raised when it gives other arrays for the same episode
ARRAYS = tuple(field.name for field in dataclasses.fields(Demonstration))


def cached(
    episode: Episode,
    robot: RobotConfig,
    image_size: tuple[int, int],
    command_topic: str,
    align: Callable[[Episode, RobotConfig, tuple[int, int], str], Demonstration],
) -> Demonstration:
    """The aligned episode, from the cache where it is fresh; else aligned now, and kept where the disk takes it."""
    hashes = [f"{name} {hash_}" for name, hash_ in sorted(episode.manifest.sha256.items())]
    key = digest_of([VERSION, *hashes, robot.digest, str(image_size), command_topic])
    film = "" if command_topic else ".film"  # kept beside what has commands: neither makes the other stale
    kind = f"{episode.manifest.name}{film}.{image_size[0]}x{image_size[1]}"
    folder = episode.folder.parent / FOLDER / f"{kind}.{key}"
    try:
        return _load(folder, robot, image_size)
    except Exception:  # not there, cut short or damaged, which fails anywhere in NumPy's reader
        demonstration = align(episode, robot, image_size, command_topic)
    try:
        for stale in folder.parent.glob(f"{kind}.*"):
            shutil.rmtree(stale)
        _store(folder, demonstration)
        return _load(folder, robot, image_size)
    except (OSError, ValueError):  # a read-only or full disk: training needs no cache
        return demonstration


def _load(folder: Path, robot: RobotConfig, image_size: tuple[int, int]) -> Demonstration:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    count, joints = len(arrays["stamps_ns"]), len(robot.joints)
    expected = {
        "images": (np.uint8, (count, len(robot.cameras), image_size[1], image_size[0], 3)),
        "state": (np.float32, (count, joints)),
        "action": (np.float32, (count, joints)),
        "stamps_ns": (np.int64, (count,)),
        "human": (np.bool_, (count,)),
    }
    for name, (dtype, shape) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise ValueError(f"{folder / name}.npy holds {arrays[name].dtype} {arrays[name].shape}")
    return Demonstration(**arrays)


def _store(folder: Path, demonstration: Demonstration) -> None:
    making = folder.with_name(f".{folder.name}.{os.getpid()}")  # another process may be at it too
    making.mkdir(parents=True)
    try:
        for name in ARRAYS:
            np.save(making / f"{name}.npy", getattr(demonstration, name), allow_pickle=False)
        making.rename(folder)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)
        raise
