"""robomimic's HDF5, as its documentation lays it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.interop.robomimic import export_robomimic
from lam_ros.errors import EpisodeError


def test_every_demo_holds_what_robomimic_reads(
    recording: Any, robot: RobotConfig, messages: Any, tmp_path: Path
) -> None:
    first = recording.usual(12).sealed("success")
    second = type(recording)(first.folder.parent, robot, messages).usual(7).sealed("unmarked")
    out = tmp_path / "demos.hdf5"
    assert export_robomimic([first, second], robot, out) == 19
    with h5py.File(out) as file:
        assert file["data"].attrs["total"] == 19
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "desk_arm"
        named = {name.decode() for part in ("train", "valid") for name in file[f"mask/{part}"]}
        assert named == set(file["data"]) == {"demo_0", "demo_1"}
        demo, expected = file["data/demo_0"], align(first, robot, (96, 96), "lam/command")
        assert demo.attrs["num_samples"] == 12
        np.testing.assert_array_equal(demo["actions"], expected.action)
        np.testing.assert_array_equal(demo["obs/joint_positions"], expected.state)
        np.testing.assert_array_equal(demo["obs/wrist_image"], expected.images[:, 1])
        np.testing.assert_array_equal(demo["next_obs/front_image"][:-1], expected.images[1:, 0])
        assert demo["dones"][:].tolist() == [0] * 11 + [1]
        assert demo["rewards"][-1] == 1.0
        assert file["data/demo_1/rewards"][-1] == 0.0
    with pytest.raises(EpisodeError, match="exists already"):
        export_robomimic([first], robot, out)


def test_without_episodes_nothing_is_left(robot: RobotConfig, tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="there is no episode to export"):
        export_robomimic([], robot, tmp_path / "demos.hdf5")
    assert not list(tmp_path.iterdir())
