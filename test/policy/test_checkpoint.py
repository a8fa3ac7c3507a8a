"""Checkpoints: whole, for this robot, and never executed."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from lam_ros.config import RobotConfig
from lam_ros.contract import Features
from lam_ros.errors import CheckpointError, ContractError
from lam_ros.policy.checkpoint import CheckpointInfo, digest, load_network, load_policy, read_info, save_checkpoint
from lam_ros.policy.policy import Policy
from lam_ros.policy.runtime import PolicyNetwork, TorchRuntime


def info_of(network: PolicyNetwork) -> CheckpointInfo:
    return CheckpointInfo(network.contract, network.config, "desk_arm", "wave", "abc", {"loss": 0.25})


@pytest.fixture
def network(make_network: Any) -> PolicyNetwork:
    return make_network()


@pytest.fixture
def checkpoint(tmp_path: Path, network: PolicyNetwork) -> Path:
    file = tmp_path / "models" / "policy.safetensors"
    save_checkpoint(file, network, info_of(network))
    return file


def rewrite(file: Path, weights: Callable[[dict[str, torch.Tensor]], Any] = dict, **metadata: str) -> None:
    with safetensors.safe_open(file, framework="np") as opened:
        kept = opened.metadata()
    save_file(weights(load_file(file)), file, {**kept, **metadata})


def test_a_checkpoint_acts_as_the_network_did(checkpoint: Path, network: PolicyNetwork, robot: RobotConfig) -> None:
    loaded, original = load_policy(checkpoint, robot), Policy(TorchRuntime(network), robot.position_limits)
    features, state = Features(0, np.ones((2, 192), np.float32)), np.full(7, 0.01, np.float32)
    for _ in range(4):
        np.testing.assert_array_equal(loaded.act_on(features, state).target, original.act_on(features, state).target)


def test_it_says_of_itself_what_was_saved(checkpoint: Path, network: PolicyNetwork) -> None:
    assert read_info(checkpoint) == info_of(network)
    assert [file.name for file in checkpoint.parent.iterdir()] == ["policy.safetensors"]


def test_the_digest_changes_with_the_weights(checkpoint: Path) -> None:
    before = digest(checkpoint)
    assert len(before) == 16
    assert digest(checkpoint) == before
    rewrite(checkpoint, lambda weights: {name: weight + 1 for name, weight in weights.items()})
    assert digest(checkpoint) != before


def renamed_joint(robot: RobotConfig) -> RobotConfig:
    joints = {("hip" if name == "waist" else name): joint for name, joint in robot.joints.items()}
    return dataclasses.replace(robot, joints=joints)


def turned_joints(robot: RobotConfig) -> RobotConfig:
    return dataclasses.replace(robot, joints=dict(reversed(robot.joints.items())))


def one_camera(robot: RobotConfig) -> RobotConfig:
    return dataclasses.replace(robot, cameras={"front": robot.cameras["front"]})


def larger_images(robot: RobotConfig) -> RobotConfig:
    cameras = {name: dataclasses.replace(camera, width=128) for name, camera in robot.cameras.items()}
    return dataclasses.replace(robot, cameras=cameras)


def other_rate(robot: RobotConfig) -> RobotConfig:
    return dataclasses.replace(robot, policy=dataclasses.replace(robot.policy, rate_hz=15.0))


def other_unit(robot: RobotConfig) -> RobotConfig:
    gripper = dataclasses.replace(robot.joints["gripper"], unit="rad")
    return dataclasses.replace(robot, joints={**robot.joints, "gripper": gripper})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed_joint, r"with joints = \[waist, .*this robot has \[hip"),
        (turned_joints, r"with joints = \[waist, .*this robot has \[gripper"),
        (other_unit, r"with units = "),
        (one_camera, r"with cameras = \[front, wrist\], this robot has \[front\]"),
        (larger_images, r"with image_sizes = \[96x96, 96x96\], this robot has \[128x96"),
        (other_rate, r"with rate_hz = 20, this robot has 15"),
    ],
)
def test_another_robot_is_refused_by_the_field_that_differs(
    checkpoint: Path, robot: RobotConfig, change: Callable[[RobotConfig], RobotConfig], message: str
) -> None:
    with pytest.raises(ContractError, match=message + ".*use a checkpoint of this robot"):
        load_policy(checkpoint, change(robot))


def test_a_robot_with_other_limits_may_use_it(checkpoint: Path, robot: RobotConfig) -> None:
    waist = dataclasses.replace(robot.joints["waist"], position=(-0.001, 0.001))
    narrow = dataclasses.replace(robot, joints={**robot.joints, "waist": waist})
    action = load_policy(checkpoint, narrow).act_on(Features(0, np.ones((2, 192), np.float32)), np.ones(7, np.float32))
    assert abs(action.target[0]) <= 0.0011


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(checkpoint: Path, robot: RobotConfig, share: float) -> None:
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"is not a readable checkpoint .*give a file that `lam train` wrote"):
        load_policy(checkpoint, robot)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, robot: RobotConfig) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
            load_policy(path, robot)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(checkpoint: Path, robot: RobotConfig, bad: float) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["action.head.linear.bias"][1] = bad
        return weights

    rewrite(checkpoint, poison)
    with pytest.raises(CheckpointError, match="holds weights that are not finite; train it again"):
        load_policy(checkpoint, robot)


@pytest.mark.parametrize(
    "info",
    [
        lambda text: text.replace('"hidden_size": 16', f'"hidden_size": {400 * "9"}'),
        lambda text: text.replace('"hidden_size": 16', '"hidden_size": 60000'),
        lambda text: text.replace('"layers": 1', '"layers": 10000000'),
        lambda text: text.replace('"image_size": [24, 24]', '"image_size": [1000000, 24000000]'),
        lambda text: text.replace('"strided"', '"timm:hf-hub:someone/model"'),
        lambda text: 100_000 * "[",
    ],
)
def test_a_file_that_asks_for_more_than_it_holds_is_refused_before_memory_is_taken(
    checkpoint: Path, robot: RobotConfig, info: Callable[[str], str]
) -> None:
    with safetensors.safe_open(checkpoint, framework="np") as opened:
        told = opened.metadata()["info"]
    assert info(told) != told
    rewrite(checkpoint, info=info(told))
    with pytest.raises(CheckpointError, match=r"damaged metadata|do not fit its own configuration: action"):
        load_policy(checkpoint, robot)


def test_weights_that_do_not_fit_are_named(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda weights: {k: v for k, v in weights.items() if k != "action.inlet.0.bias"})
    with pytest.raises(CheckpointError, match=r"do not fit its own configuration: .*action\.inlet\.0\.bias"):
        load_network(checkpoint)


def test_another_format_is_refused(checkpoint: Path) -> None:
    rewrite(checkpoint, format="lam_ros.policy/9")
    with pytest.raises(CheckpointError, match=r"has the format 'lam_ros\.policy/9'; 'lam_ros\.policy/3' was expected"):
        read_info(checkpoint)
    save_file({"weight": torch.ones(1)}, checkpoint)
    with pytest.raises(CheckpointError, match="has the format None"):
        read_info(checkpoint)


NOBODY = {"joints": ["a"], "units": ["rad"], "cameras": [], "image_sizes": [], "rate_hz": 20.0}


@pytest.mark.parametrize(
    "change", [{"policy": {"encoder": "resnet"}}, {"robot": 3}, {"extra": 1}, {"contract": NOBODY}]
)
def test_damaged_metadata_is_refused(checkpoint: Path, network: PolicyNetwork, change: dict[str, Any]) -> None:
    whole = dataclasses.asdict(info_of(network))
    rewrite(checkpoint, info=json.dumps({**whole, **change}))
    with pytest.raises(CheckpointError, match=r"has damaged metadata: .*Train it again"):
        read_info(checkpoint)
    rewrite(checkpoint, info="{")
    with pytest.raises(CheckpointError, match="has damaged metadata"):
        read_info(checkpoint)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def test_nothing_is_unpickled(tmp_path: Path, robot: RobotConfig) -> None:
    sprung, file = tmp_path / "sprung", tmp_path / "policy.safetensors"
    torch.save({"weights": Trap(sprung)}, file)
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        load_policy(file, robot)
    file.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        load_policy(file, robot)
    assert not sprung.exists()
    pickle.loads(file.read_bytes())
    assert sprung.exists(), "the trap itself works"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, network: PolicyNetwork) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be written: .*Check the folder and the free space"):
        save_checkpoint(tmp_path / "file" / "policy.safetensors", network, info_of(network))
