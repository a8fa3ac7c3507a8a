"""Normalisation of states and targets."""

from __future__ import annotations

import pytest
import torch

from lam_ros.policy.normaliser import MIN_STATE_STD, MIN_TARGET_SCALE, Normaliser


def fitted(is_relative: bool = True) -> tuple[Normaliser, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.tensor([0.5, -2.0]) + torch.tensor([3.0, 0.1]) * torch.randn(400, 2, generator=generator)
    targets = states[:, None] + 0.2 * torch.randn(400, 3, 2, generator=generator)
    normaliser = Normaliser(joints=2, chunk=3, is_relative=is_relative)
    normaliser.fit(states, targets)
    return normaliser, states, targets


def test_unfitted_it_changes_nothing_but_the_origin() -> None:
    normaliser, values = Normaliser(2, 3, is_relative=True), torch.randn(4, 2)
    torch.testing.assert_close(normaliser.state(values), values)
    torch.testing.assert_close(normaliser.chunk(values[:, None].expand(4, 3, 2), values), torch.zeros(4, 3, 2))


@pytest.mark.parametrize("is_relative", [True, False])
def test_normalised_values_have_deviation_one(is_relative: bool) -> None:
    normaliser, states, targets = fitted(is_relative)
    normalised = normaliser.state(states)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(0, unbiased=False), torch.ones(2))
    chunks = normaliser.chunk(targets, states)
    torch.testing.assert_close(chunks.square().mean(0), torch.ones(3, 2))
    if not is_relative:
        torch.testing.assert_close(chunks.std(0, unbiased=False), torch.ones(3, 2))


def test_a_joint_that_hangs_below_where_it_is_held_is_an_ordinary_target() -> None:
    normaliser, states = Normaliser(1, 1, is_relative=True), torch.randn(50, 1)
    held = states[:, None] + 0.05
    normaliser.fit(states, held)
    torch.testing.assert_close(normaliser.chunk(held, states), torch.ones(50, 1, 1))


def test_staying_where_one_is_is_zero() -> None:
    normaliser, _, _ = fitted()
    state = torch.tensor([0.3, -1.0])
    torch.testing.assert_close(normaliser.targets(torch.zeros(3, 2), state), state.expand(3, 2))


def test_absolute_targets_do_not_depend_on_the_state() -> None:
    normaliser, states, targets = fitted(is_relative=False)
    torch.testing.assert_close(normaliser.chunk(targets, states), normaliser.chunk(targets, states + 1.0))
    torch.testing.assert_close(normaliser.chunk(targets, states).mean(0), torch.zeros(3, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("is_relative", [True, False])
def test_targets_undo_chunks(is_relative: bool) -> None:
    normaliser, states, _ = fitted(is_relative)
    targets = torch.randn(400, 3, 2)
    torch.testing.assert_close(
        normaliser.targets(normaliser.chunk(targets, states), states), targets, atol=1e-5, rtol=1e-5
    )


def test_a_joint_that_hardly_moves_is_not_blown_up() -> None:
    normaliser = Normaliser(1, 1, is_relative=True)
    normaliser.fit(torch.full((10, 1), 0.7), torch.full((10, 1, 1), 0.7))
    assert normaliser.state_std.item() == torch.tensor(MIN_STATE_STD).item()
    assert normaliser.target_scale.item() == torch.tensor(MIN_TARGET_SCALE).item()


def test_the_statistics_are_part_of_the_weights() -> None:
    normaliser, states, targets = fitted(is_relative=False)
    copy = Normaliser(2, 3, is_relative=False)
    copy.load_state_dict(normaliser.state_dict())
    torch.testing.assert_close(copy.chunk(targets, states), normaliser.chunk(targets, states))
