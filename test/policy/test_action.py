"""The LSTM and its heads."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lam_ros.policy.action import BIN_RANGE, HEADS, ActionModule, CategoricalHead, RegressionHead, to_bins
from lam_ros.policy.configuration import PolicyConfig

CONFIG = PolicyConfig(hidden_size=16, chunk=3, bins=7)
CATEGORICAL = PolicyConfig(hidden_size=16, chunk=3, bins=7, head="categorical")
CENTRES = torch.linspace(-BIN_RANGE, BIN_RANGE, 7)


def module(config: PolicyConfig = CONFIG) -> ActionModule:
    torch.manual_seed(0)
    return ActionModule(config, inputs=5, joints=2)


def test_bins_are_the_nearest_centres() -> None:
    offsets = torch.linspace(-4, 4, 401) + 0.0013
    nearest = (offsets.clamp(-BIN_RANGE, BIN_RANGE)[:, None] - CENTRES).abs().argmin(1)
    torch.testing.assert_close(to_bins(offsets, 7), nearest)


@pytest.mark.parametrize("config", [CONFIG, CATEGORICAL])
def test_one_tick_at_a_time_is_the_whole_sequence(config: PolicyConfig) -> None:
    action = module(config)
    features, state = torch.randn(2, 9, 5), torch.randn(2, 9, 2)
    whole, (h, c) = action(features, state)
    hidden, ticks = None, []
    for t in range(9):
        prediction, hidden = action(features[:, t : t + 1], state[:, t : t + 1], hidden)
        ticks.append(prediction)
    torch.testing.assert_close(torch.cat(ticks, 1), whole)
    assert hidden is not None
    torch.testing.assert_close(hidden[0], h)
    torch.testing.assert_close(hidden[1], c)
    assert whole.shape == ((2, 9, 3, 2) if config is CONFIG else (2, 9, 3, 2, 7))


def test_the_past_counts_and_the_future_does_not() -> None:
    action = module()
    features, state = torch.randn(1, 6, 5), torch.randn(1, 6, 2)
    before, _ = action(features, state)
    features[:, 2] += 1.0
    after, _ = action(features, state)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 5], before[:, 5])


@pytest.mark.parametrize("config", [CONFIG, CATEGORICAL])
def test_every_weight_is_trained(config: PolicyConfig) -> None:
    action = module(config)
    prediction, _ = action(torch.randn(2, 4, 5), torch.randn(2, 4, 2))
    action.head.loss(prediction, torch.randn(2, 4, 3, 2)).mean().backward()
    for name, parameter in action.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_regression_loss_is_the_distance() -> None:
    head = RegressionHead(4, 2, CONFIG)
    prediction, target = torch.randn(2, 5, 3, 2), torch.randn(2, 5, 3, 2)
    torch.testing.assert_close(head.loss(prediction, target), (prediction - target).abs())
    torch.testing.assert_close(head.decode(prediction), prediction)


def test_the_categorical_loss_is_cross_entropy() -> None:
    head = CategoricalHead(4, 2, CATEGORICAL)
    logits, target = torch.randn(4, 3, 2, 7), 2 * torch.randn(4, 3, 2)
    expected = functional.cross_entropy(logits.flatten(0, 2), to_bins(target, 7).flatten(), reduction="none")
    torch.testing.assert_close(head.loss(logits, target), expected.view(4, 3, 2))


@pytest.mark.parametrize("best", range(7))
def test_a_sharp_choice_decodes_to_its_centre(best: int) -> None:
    head = CategoricalHead(4, 1, PolicyConfig(chunk=1, bins=7))
    logits = torch.zeros(1, 1, 7)
    logits[..., best] = 50.0
    torch.testing.assert_close(head.decode(logits)[0, 0], CENTRES[best])


def test_decoding_is_finer_than_a_bin_and_stays_out_of_between_two_modes() -> None:
    head = CategoricalHead(4, 1, PolicyConfig(chunk=1, bins=7))
    tied = torch.log(torch.tensor([[[1e-9, 1e-9, 1e-9, 1.0, 0.999, 1e-9, 1e-9]]]))
    torch.testing.assert_close(head.decode(tied)[0, 0], (CENTRES[3] + CENTRES[4]) / 2, atol=1e-3, rtol=0)
    two_modes = torch.log(torch.tensor([[[1.0, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 0.9]]]))
    torch.testing.assert_close(head.decode(two_modes)[0, 0], CENTRES[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_accuracy_counts_right_bins(name: str) -> None:
    head = HEADS[name](4, 1, PolicyConfig(chunk=1, bins=7))
    target = torch.tensor([[[-2.1]], [[0.2]]])
    right = functional.one_hot(to_bins(target, 7), 7).float() if name == "categorical" else target
    torch.testing.assert_close(head.accuracy(right, target), torch.ones(2, 1, 1))
    torch.testing.assert_close(head.accuracy(right.flip(0), target), torch.zeros(2, 1, 1))
