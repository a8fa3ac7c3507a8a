"""One tick of the action module is the same function as a sequence of ticks."""

from __future__ import annotations

import pytest
import torch

from lam_ros.policy.action import ActionModule
from lam_ros.policy.configuration import PolicyConfig


@pytest.mark.parametrize("head", ["regression", "categorical"])
def test_steps_are_the_sequence(head: str) -> None:
    torch.manual_seed(0)
    module = ActionModule(PolicyConfig(hidden_size=16, head=head, chunk=3), inputs=10, joints=4)
    features, state = torch.randn(2, 5, 10), torch.randn(2, 5, 4)
    sequence, (output, memory) = module(features, state)
    hidden = None
    for tick in range(5):
        prediction, hidden = module.step(features[:, tick], state[:, tick], hidden)
        torch.testing.assert_close(prediction, sequence[:, tick], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden[0], output[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden[1], memory[0], atol=1e-5, rtol=1e-5)
