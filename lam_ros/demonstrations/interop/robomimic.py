"""To robomimic's HDF5: data/demo_<i>/{obs, next_obs, actions, rewards, dones, states}, and a split by episode.

Images are `<camera>_image`, joints `joint_positions`; actions are joint targets in rad or m, not scaled to [-1, 1]:
give robomimic ``"hdf5_normalize_obs": true`` and ``"train.action_config.actions.normalization": "min_max"``. Format:
https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.episode import Episode
from lam_ros.demonstrations.interop.output import written_whole
from lam_ros.errors import EpisodeError

GYM = 2  # robomimic's EnvType.GYM_TYPE; it has none for real robots, and training without rollouts never asks
VALIDATION_SHARE = 0.1


def export_robomimic(
    episodes: Iterable[Episode],
    robot: RobotConfig,
    out: Path,
    command_topic: str = "lam/command",
    size: tuple[int, int] | None = None,
) -> int:
    """Write one HDF5 file; a reward of 1 at the end of each episode that was marked a success.

    Args:
        out: the file, which must not exist; written beside and renamed when it is whole.
        size: (width, height) of the images; by default that of the first camera.

    Returns:
        How many ticks it holds.

    Raises:
        EpisodeError: ``out`` exists, an episode cannot be aligned, or the disk does not take it.
    """
    import h5py

    first = next(iter(robot.cameras.values()))
    ticks, names = 0, []
    with written_whole(out) as making, h5py.File(making, "w") as file:
        data = file.create_group("data")
        for number, episode in enumerate(episodes):
            demonstration = align(episode, robot, size or (first.width, first.height), command_topic)
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = len(demonstration)
            observations: dict[str, np.ndarray] = {"joint_positions": demonstration.state}
            for index, camera in enumerate(robot.camera_names):
                observations[f"{camera}_image"] = demonstration.images[:, index]
            for key, values in observations.items():
                _store(group, f"obs/{key}", values)
                _store(group, f"next_obs/{key}", np.concatenate([values[1:], values[-1:]]))
            ends = np.zeros(len(demonstration))
            ends[-1] = 1.0
            _store(group, "actions", demonstration.action)
            _store(group, "states", demonstration.state)
            _store(group, "dones", ends.astype(np.int64))
            _store(group, "rewards", ends * (episode.manifest.outcome == "success"))
            ticks += len(demonstration)
            names.append(f"demo_{number}")
        if not names:
            raise EpisodeError("there is no episode to export.")
        data.attrs["total"] = ticks
        described = {"env_name": robot.name, "type": GYM, "env_kwargs": {}, "env_version": "lam_ros"}
        data.attrs["env_args"] = json.dumps(described)
        held_out = max(1, round(VALIDATION_SHARE * len(names))) if len(names) > 1 else 0
        order = np.random.default_rng(0).permutation(len(names))
        file["mask/valid"] = np.array([names[i] for i in sorted(order[:held_out])], dtype="S")
        file["mask/train"] = np.array([names[i] for i in sorted(order[held_out:])], dtype="S")
    return ticks


def _store(group: Any, name: str, values: np.ndarray) -> None:
    # Training reads single frames: each is a chunk of its own.
    packed = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 1}
    group.create_dataset(name, data=values, **(packed if values.ndim == 4 else {}))
