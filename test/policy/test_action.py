"""The LSTM that carries its state."""

from __future__ import annotations

import pytest
import torch

from lam_ros.policy.action import ActionModule
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.heads import HEADS


def module(head: str = "regression", layers: int = 1) -> ActionModule:
    torch.manual_seed(0)
    config = PolicyConfig(hidden_size=16, layers=layers, chunk=3, bins=7, head=head)  # type: ignore[arg-type]
    return ActionModule(config, inputs=5, joints=2)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_sequence_may_be_cut_anywhere(layers: int) -> None:
    action = module(layers=layers)
    features, state = torch.randn(2, 9, 5), torch.randn(2, 9, 2)
    whole, (h, c) = action(features, state)
    hidden, parts = None, []
    for cut in (slice(0, 4), slice(4, 5), slice(5, 9)):
        context, hidden = action(features[:, cut], state[:, cut], hidden)
        parts.append(context)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert hidden is not None
    torch.testing.assert_close(hidden[0], h)
    torch.testing.assert_close(hidden[1], c)


def test_without_memory_the_context_is_that_of_a_silent_lstm() -> None:
    action, features, state = module(), torch.randn(2, 4, 5), torch.randn(2, 4, 2)
    heard, _ = action(features, state)
    silent = action.memoryless(features, state)
    assert heard[..., :16].abs().min() > 0
    assert not silent[..., :16].any()
    torch.testing.assert_close(silent[..., 16:], heard[..., 16:])
    torch.testing.assert_close(action.memoryless(features[:, 2], state[:, 2]), silent[:, 2])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_steps_are_the_sequence(head: str, layers: int) -> None:
    action = module(head, layers)
    features, state = torch.randn(2, 5, 5), torch.randn(2, 5, 2)
    context, (output, memory) = action(features, state)
    chunks, hidden = action.head(context), action.nothing_yet(2)
    for tick in range(5):
        chunk, hidden = action.step(features[:, tick], state[:, tick], hidden)
        torch.testing.assert_close(chunk, chunks[:, tick], atol=1e-5, rtol=1e-5)
    assert chunks.shape == (2, 5, 3, 2)
    torch.testing.assert_close(hidden[0], output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden[1], memory, atol=1e-5, rtol=1e-5)


def test_the_past_counts_and_the_future_does_not() -> None:
    action = module()
    features, state = torch.randn(1, 6, 5), torch.randn(1, 6, 2)
    before, _ = action(features, state)
    features[:, 2] += 1.0
    after, _ = action(features, state)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 5], before[:, 5])


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_weight_is_trained(head: str) -> None:
    action = module(head, layers=2)
    context, _ = action(torch.randn(2, 4, 5), torch.randn(2, 4, 2))
    action.head.loss(context, torch.randn(2, 4, 3, 2)).mean().backward()
    for name, parameter in action.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
