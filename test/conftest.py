"""Fixtures that the tests of the core share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.policy.checkpoint import CheckpointInfo, save_checkpoint
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.policy import PolicyNetwork

os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is imported, which nothing above does

Demonstrate = Callable[..., list[Demonstration]]


@pytest.fixture
def robot() -> RobotConfig:
    return load_robot("desk_arm")


@pytest.fixture
def demonstrate(robot: RobotConfig) -> Demonstrate:
    """Builds ``count`` small random demonstrations of the robot."""

    def build(count: int, ticks: int = 12, size: tuple[int, int] = (24, 24), seed: int = 0) -> list[Demonstration]:
        rng = np.random.default_rng(seed)
        cameras, joints = len(robot.cameras), len(robot.joints)

        def one() -> Demonstration:
            state = rng.normal(0.0, 0.3, (ticks, joints)).astype(np.float32)
            return Demonstration(
                images=rng.integers(0, 256, (ticks, cameras, size[1], size[0], 3), dtype=np.uint8),
                state=state,
                action=state + rng.normal(0.0, 0.05, state.shape).astype(np.float32),
                stamps_ns=np.arange(ticks, dtype=np.int64) * 50_000_000,
            )

        return [one() for _ in range(count)]

    return build


@pytest.fixture
def turning_policy(tmp_path: Path, robot: RobotConfig) -> Callable[[float, float], Path]:
    """Writes a checkpoint that asks for ``offset`` rad more of the waist than measured, and for nothing else.

    ``keep`` is what is left of the head's random weights: the share of the answer that depends on what is seen.
    """

    def build(offset: float, keep: float) -> Path:
        torch.manual_seed(0)
        contract, config = Contract.of(robot), PolicyConfig(chunk=1)
        network = PolicyNetwork(config, contract)
        with torch.no_grad():
            network.action.head.linear.weight.mul_(keep)
            network.action.head.linear.bias.zero_()
            network.action.head.linear.bias[0] = offset
        path = tmp_path / "policy.safetensors"
        save_checkpoint(path, network, CheckpointInfo(contract, config, robot.name, "turn", "none"))
        return path

    return build


_domains = itertools.count(os.getpid())


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A DDS domain that no other test uses, on this machine alone."""
    number = 1 + next(_domains) % 100
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number
