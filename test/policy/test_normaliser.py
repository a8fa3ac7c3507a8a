"""Normalisation of states and offsets."""

from __future__ import annotations

import torch

from lam_ros.policy.normaliser import MIN_OFFSET_SCALE, MIN_STATE_STD, Normaliser


def fitted() -> tuple[Normaliser, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.tensor([0.5, -2.0]) + torch.tensor([3.0, 0.1]) * torch.randn(400, 2, generator=generator)
    offsets = 0.2 * torch.randn(400, 3, 2, generator=generator)
    normaliser = Normaliser(joints=2, chunk=3)
    normaliser.fit(states, offsets)
    return normaliser, states, offsets


def test_unfitted_it_changes_nothing() -> None:
    normaliser, values = Normaliser(2, 3), torch.randn(4, 2)
    torch.testing.assert_close(normaliser.state(values), values)
    torch.testing.assert_close(normaliser.offset(values[:, None]), values[:, None].expand(4, 3, 2))


def test_normalised_states_have_mean_zero_and_deviation_one() -> None:
    normaliser, states, offsets = fitted()
    normalised = normaliser.state(states)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(0, unbiased=False), torch.ones(2))
    torch.testing.assert_close(normaliser.offset(offsets).std(0, unbiased=False), torch.ones(3, 2))


def test_staying_where_one_is_is_zero() -> None:
    normaliser, _, _ = fitted()
    state = torch.tensor([0.3, -1.0])
    torch.testing.assert_close(normaliser.targets(torch.zeros(3, 2), state), state.expand(3, 2))


def test_targets_undo_offsets() -> None:
    normaliser, states, _ = fitted()
    targets = torch.randn(400, 3, 2)
    offsets = normaliser.offset(targets - states[:, None])
    torch.testing.assert_close(normaliser.targets(offsets, states), targets, atol=1e-5, rtol=1e-5)


def test_a_joint_that_hardly_moves_is_not_blown_up() -> None:
    normaliser = Normaliser(1, 1)
    normaliser.fit(torch.full((10, 1), 0.7), torch.zeros(10, 1, 1))
    assert normaliser.state_std.item() == torch.tensor(MIN_STATE_STD).item()
    assert normaliser.offset_scale.item() == torch.tensor(MIN_OFFSET_SCALE).item()


def test_the_statistics_are_part_of_the_weights() -> None:
    normaliser, _, _ = fitted()
    copy = Normaliser(2, 3)
    copy.load_state_dict(normaliser.state_dict())
    torch.testing.assert_close(copy.state(torch.ones(2)), normaliser.state(torch.ones(2)))
