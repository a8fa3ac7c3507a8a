"""A small policy for one robot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.runtime import PolicyNetwork

SMALL = PolicyConfig(image_size=(24, 24), hidden_size=16, chunk=3, bins=7)


@pytest.fixture
def make_network(robot: RobotConfig) -> Callable[..., PolicyNetwork]:
    """Builds a network with weights that depend on ``seed`` alone, and statistics as training leaves them."""

    def build(config: PolicyConfig = SMALL, seed: int = 0) -> PolicyNetwork:
        torch.manual_seed(seed)
        network = PolicyNetwork(config, Contract.of(robot))
        joints = len(robot.joints)
        states = torch.randn(50, joints)
        network.normaliser.fit(states, states[:, None] + 0.05 * torch.randn(50, config.chunk, joints))
        return network.eval()

    return build
