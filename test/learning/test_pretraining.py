"""Self-supervised pre-training: its losses, its pairs, and that training begins with what it wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Dataset
from lam_ros.errors import CheckpointError, TrainingError
from lam_ros.learning import pretraining, training
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.precision import faster_precision
from lam_ros.learning.pretraining import FAR_TICKS, NEAR_TICKS, TEMPERATURE, Pairs, contrastive_loss, pretrain
from lam_ros.learning.training import train, untrained_path
from lam_ros.policy.checkpoint import load_policy, read_info
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.perception import Perception

TINY = TrainConfig(
    policy=PolicyConfig(image_size=(24, 24), hidden_size=8, chunk=2),
    perception_steps=1,
    perception_batch=32,
    action_steps=1,
    action_batch=2,
    learning_rate=3e-3,
    shift=0,
    views=1,
    precision="float32",
)


@pytest.fixture
def films(robot: RobotConfig, demonstrate: Any) -> Dataset:
    """Films in which what is seen says where the joints are: a bright column moves with the waist."""
    demonstrations = []
    for demonstration in demonstrate(4, ticks=16):
        images = np.full_like(demonstration.images, 40)
        state = demonstration.state.copy()
        column = np.clip(np.cumsum(np.random.default_rng(len(demonstrations)).integers(-2, 4, 16)), 0, 19)
        state[:, 0] = column / 10.0
        for tick, place in enumerate(column):
            images[tick, :, :, place : place + 4] = 220
        demonstrations.append(dataclasses.replace(demonstration, images=images, state=state))
    return Dataset(Contract.of(robot), "film", "desk_arm", demonstrations, "films")


def test_the_contrastive_loss_is_info_nce() -> None:
    anchor, near = torch.randn(5, 8), torch.randn(5, 8)
    unit = [values / values.norm(dim=1, keepdim=True) for values in (anchor, near)]
    scores = torch.exp(unit[0] @ unit[1].T / TEMPERATURE)
    torch.testing.assert_close(contrastive_loss(anchor, near), -torch.log(scores.diag() / scores.sum(1)).mean())
    assert contrastive_loss(anchor, anchor) < contrastive_loss(anchor, near)


def test_pairs_stay_in_their_episode() -> None:
    lengths = [5, 1, 12]
    owner = np.repeat(np.arange(3), lengths)
    for pair in Pairs(lengths, batch=10, batches=20, seed=0):
        for other, most in ((pair.near, NEAR_TICKS), (pair.later, FAR_TICKS)):
            apart = (other - pair.anchor).numpy()
            assert apart.min() >= 0
            assert apart.max() <= most
            np.testing.assert_array_equal(owner[other], owner[pair.anchor])
        assert len(pair.anchor.unique()) == 10


@pytest.mark.parametrize(("faster", "arithmetic"), [("bf16", "bf16-mixed"), ("float32", "32-true")])
def test_auto_is_the_arithmetic_that_is_faster_here(
    films: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arithmetics: list[str],
    faster: str,
    arithmetic: str,
) -> None:
    for module in (training, pretraining):
        monkeypatch.setattr(module, "faster_precision", lambda perception, image_size: faster)
    settings = dataclasses.replace(TINY, precision="auto")
    pretrain(films, settings, 2, tmp_path / "perception.safetensors")
    train(films, settings, tmp_path / "policy.safetensors")
    assert arithmetics == [arithmetic, arithmetic, "32-true"]


def test_measuring_leaves_the_perception_as_it_is() -> None:
    perception = Perception(TINY.policy, ("front", "wrist"))
    before = {name: value.clone() for name, value in perception.state_dict().items()}
    drawn = torch.get_rng_state()
    assert faster_precision(perception, TINY.policy.image_size) in ("bf16", "float32")
    torch.testing.assert_close(dict(perception.state_dict()), before)
    torch.testing.assert_close(torch.get_rng_state(), drawn)
    assert all(weight.grad is None for weight in perception.parameters())


def test_pretraining_learns_and_training_begins_with_it(films: Dataset, tmp_path: Path) -> None:
    losses: list[float] = []
    file = tmp_path / "perception.safetensors"
    figures = pretrain(films, TINY, 60, file, lambda stage, done, total, loss: losses.append(loss))
    assert len(losses) == 60
    assert np.mean(losses[-20:]) < 0.93 * np.mean(losses[:10])
    assert figures.keys() == {"loss", "contrastive", "motion"}
    checkpoint = tmp_path / "policy.safetensors"
    train(films, TINY, checkpoint, pretrained=file)
    begun, learned = load_file(untrained_path(checkpoint)), load_file(file)
    for name, weight in learned.items():
        torch.testing.assert_close(begun[f"perception.{name}"], weight)


def test_a_perception_is_no_policy_and_fits_its_encoder_alone(
    films: Dataset, robot: RobotConfig, tmp_path: Path
) -> None:
    file = tmp_path / "perception.safetensors"
    pretrain(films, TINY, 1, file)
    with pytest.raises(CheckpointError, match=r"has the format 'lam_ros\.perception/1'"):
        load_policy(file, robot)
    other = dataclasses.replace(TINY, policy=dataclasses.replace(TINY.policy, encoder="article"))
    with pytest.raises(CheckpointError, match="holds another perception than the settings ask for"):
        train(films, other, tmp_path / "policy.safetensors", pretrained=file)
    checkpoint = tmp_path / "trained.safetensors"
    train(films, TINY, checkpoint)
    assert read_info(checkpoint).task == "film"
    with pytest.raises(CheckpointError, match="Give a file that `lam pretrain` wrote"):
        train(films, TINY, tmp_path / "policy.safetensors", pretrained=checkpoint)


@pytest.mark.parametrize("cameras", [("wrist", "front"), ("front", "side")])
def test_a_perception_is_of_its_cameras_unless_they_share_it(
    films: Dataset, tmp_path: Path, cameras: tuple[str, ...]
) -> None:
    other = dataclasses.replace(films, contract=dataclasses.replace(films.contract, cameras=cameras))
    file, checkpoint = tmp_path / "perception.safetensors", tmp_path / "policy.safetensors"
    pretrain(films, TINY, 1, file)
    with pytest.raises(
        CheckpointError, match=f"the cameras front, wrist, and the robot's are {', '.join(cameras)}; pre-"
    ):
        train(other, TINY, checkpoint, pretrained=file)
    shared = dataclasses.replace(TINY, policy=dataclasses.replace(TINY.policy, share_encoder=True))
    pretrain(films, shared, 1, file)
    train(other, shared, checkpoint, pretrained=file)


def test_too_few_frames_are_refused(films: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are 0 frames; pre-training needs films of several"):
        pretrain(dataclasses.replace(films, demonstrations=[], weights=[]), TINY, 1, tmp_path / "x.safetensors")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_without_another_pair_to_tell_from_is_refused(films: Dataset, tmp_path: Path, batch: int) -> None:
    small = dataclasses.replace(TINY, perception_batch=batch)
    with pytest.raises(TrainingError, match=rf"perception_batch is {batch}; .* at least 4\."):
        pretrain(films, small, 1, tmp_path / "x.safetensors")
    pretrain(films, dataclasses.replace(TINY, perception_batch=4), 1, tmp_path / "x.safetensors")
