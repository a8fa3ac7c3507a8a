"""Trains a tiny policy on synthetic demonstrations: run by test_distributed.py as one process, or as several."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from lam_ros.config import load_robot
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Dataset, Demonstration
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.training import train
from lam_ros.policy.configuration import PolicyConfig

CONFIG = TrainConfig(
    policy=PolicyConfig(image_size=(24, 24), hidden_size=8, chunk=2, head="refined"),  # the one that draws noise
    perception_steps=50,
    perception_batch=8,
    action_steps=50,
    action_batch=4,
    together_steps=50,
    together_batch=4,
    window=5,
    shift=2,
    learning_rate=2e-4,  # at more, Adam blows rounding up to more than what two processes may differ by
    together_rate=4e-5,
    views=1,
    memory_dropout=0.0,
    camera_dropout=0.3,
    state_dropout=0.1,
    contact_weight=0.5,
    precision="float32",
)


def demonstrations() -> list[Demonstration]:
    rng = np.random.default_rng(0)
    found = []
    for ticks in (7, 9, 12, 8, 11, 10, 9):
        state = rng.normal(0.0, 0.3, (ticks, 7)).astype(np.float32)
        images = rng.integers(0, 256, (ticks, 2, 24, 24, 3), dtype=np.uint8)
        found.append(Demonstration(images, state, state + np.float32(0.05), np.arange(ticks, dtype=np.int64)))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    contract = Contract.of(load_robot("desk_arm"))
    train(Dataset(contract, "wave", "desk_arm", demonstrations(), "synthetic"), CONFIG, Path(sys.argv[1]))
