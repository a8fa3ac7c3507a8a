"""Heads: the equations they claim."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional

from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.heads import (
    BIN_RANGE,
    HEADS,
    MIN_STD,
    REFINED_SHARE,
    CategoricalHead,
    MixtureHead,
    RefinedHead,
    RegressionHead,
    make_head,
    to_bins,
)

CENTRES = torch.linspace(-BIN_RANGE, BIN_RANGE, 7)


def head(kind: Any, inputs: int = 4, joints: int = 2, chunk: int = 3, **more: Any) -> Any:
    torch.manual_seed(0)
    return make_head(inputs, joints, PolicyConfig(head=kind, hidden_size=16, chunk=chunk, bins=7, **more))


def test_bins_are_the_nearest_centres() -> None:
    values = torch.linspace(-4, 4, 401) + 0.0013
    nearest = (values.clamp(-BIN_RANGE, BIN_RANGE)[:, None] - CENTRES).abs().argmin(1)
    torch.testing.assert_close(to_bins(values, 7), nearest)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_chunk_and_its_loss_fit_the_context(kind: str) -> None:
    made, context, target = head(kind), torch.randn(2, 5, 4), torch.randn(2, 5, 3, 2)
    assert made(context).shape == target.shape
    loss = made.loss(context, target)
    assert loss.shape[:2] == (2, 5)
    assert loss.dim() == 4
    assert made.accuracy(context, target).shape == target.shape


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_head_learns_what_its_context_says(kind: str) -> None:
    made, context = head(kind), torch.randn(256, 4)
    target = (context[:, :2] * 0.8)[:, None].expand(256, 3, 2)
    optimiser = torch.optim.Adam(made.parameters(), 1e-2)
    before = (made(context) - target).abs().mean()
    for _ in range(300):
        optimiser.zero_grad()
        made.loss(context, target).mean().backward()
        optimiser.step()
    assert (made(context) - target).abs().mean() < 0.35 * before


def test_the_regression_loss_is_the_distance() -> None:
    made = head("regression")
    assert isinstance(made, RegressionHead)
    context, target = torch.randn(2, 5, 4), torch.randn(2, 5, 3, 2)
    torch.testing.assert_close(made.loss(context, target), (made(context) - target).abs())


def test_the_categorical_loss_is_cross_entropy() -> None:
    made = head("categorical")
    assert isinstance(made, CategoricalHead)
    context, target = torch.randn(4, 4), 2 * torch.randn(4, 3, 2)
    expected = functional.cross_entropy(
        made.logits(context).flatten(0, 2), to_bins(target, 7).flatten(), reduction="none"
    )
    torch.testing.assert_close(made.loss(context, target), expected.view(4, 3, 2))


class Fixed(CategoricalHead):
    """A head whose logits are its context."""

    def logits(self, context: torch.Tensor) -> torch.Tensor:
        return context


def decoded(logits: torch.Tensor) -> torch.Tensor:
    return Fixed(4, 1, PolicyConfig(chunk=1, bins=7))(logits[None, None])[0, 0]


@pytest.mark.parametrize("best", range(7))
def test_a_sharp_choice_decodes_to_its_centre(best: int) -> None:
    torch.testing.assert_close(decoded(50.0 * functional.one_hot(torch.tensor(best), 7)), CENTRES[best])


def test_decoding_is_finer_than_a_bin_and_stays_out_of_between_two_modes() -> None:
    tied = torch.log(torch.tensor([1e-9, 1e-9, 1e-9, 1.0, 0.999, 1e-9, 1e-9]))
    torch.testing.assert_close(decoded(tied), (CENTRES[3] + CENTRES[4]) / 2, atol=1e-3, rtol=0)
    two_modes = torch.log(torch.tensor([1.0, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 0.9]))
    torch.testing.assert_close(decoded(two_modes), CENTRES[0], atol=1e-3, rtol=0)


def test_the_bins_reach_as_far_as_the_demonstrations() -> None:
    """A gripper that is closed in one tick of twenty is closed by four standard deviations."""
    made = Fixed(4, 1, PolicyConfig(chunk=1, bins=7))
    made.fit(torch.tensor([0.2] * 19 + [-4.4])[:, None, None])
    furthest = 50.0 * functional.one_hot(torch.tensor(0), 7)[None, None]
    torch.testing.assert_close(made(furthest), torch.full((1, 1), -4.4))
    assert made.accuracy(furthest, torch.tensor([[-4.4]])) == 1.0
    assert made.loss(furthest, torch.tensor([[-4.4]])) < made.loss(furthest, torch.tensor([[-2.9]]))


def test_what_is_nearer_to_no_bin_is_beyond_them() -> None:
    made, chunks = head("categorical"), torch.zeros(4, 3, 2)
    chunks[0] = 3.0
    made.fit(chunks)
    assert made.beyond(chunks).tolist() == [0.0, 0.0]
    chunks[1, 2] = torch.tensor([-3.4, 3.6])  # bins are 1 wide, and end half a one past their centre
    assert made.beyond(chunks).tolist() == [0.0, 0.25]
    assert head("regression").beyond(100.0 * chunks).tolist() == [0.0, 0.0]


def test_accuracy_counts_right_bins() -> None:
    made = Fixed(4, 1, PolicyConfig(chunk=1, bins=7))
    target = torch.tensor([[[-2.1]], [[0.2]]])
    right = functional.one_hot(to_bins(target, 7), 7).float()
    torch.testing.assert_close(made.accuracy(right, target), torch.ones(2, 1, 1))
    torch.testing.assert_close(made.accuracy(right.flip(0), target), torch.zeros(2, 1, 1))
    plain = head("regression")
    context = torch.randn(6, 4)
    torch.testing.assert_close(plain.accuracy(context, plain(context)), torch.ones(6, 3, 2))
    torch.testing.assert_close(plain.accuracy(context, plain(context) + 3.0), torch.zeros(6, 3, 2))


def test_the_mixture_is_a_mixture_of_gaussians() -> None:
    made = head("gmm", modes=3)
    assert isinstance(made, MixtureHead)
    context, target = torch.randn(5, 4), torch.randn(5, 3, 2)
    spread = functional.softplus(made.spreads(context)).unflatten(-1, (3, 3, 2)) + MIN_STD
    means = made.means(context).unflatten(-1, (3, 3, 2))
    mixture = MixtureSameFamily(Categorical(logits=made.logits(context)), Independent(Normal(means, spread), 2))
    torch.testing.assert_close(made.log_likelihood(context, target), mixture.log_prob(target))
    torch.testing.assert_close(made.loss(context, target)[..., 0, 0], -mixture.log_prob(target) / 6)


def test_the_mixture_performs_its_likeliest_mode() -> None:
    made = head("gmm", modes=3)
    context = torch.randn(50, 4)
    means, best = made.means(context).unflatten(-1, (3, 3, 2)), made.logits(context).argmax(-1)
    assert len(best.unique()) > 1, "the test would not tell modes apart"
    torch.testing.assert_close(made(context), means[torch.arange(50), best])


def test_a_mixture_keeps_two_ways_apart_where_regression_takes_the_middle() -> None:
    target = torch.where(torch.arange(200)[:, None, None] % 2 == 0, 1.0, -1.0).expand(200, 1, 1)
    answers = {}
    for kind in ("gmm", "regression"):
        made = head(kind, joints=1, chunk=1)
        optimiser = torch.optim.Adam(made.parameters(), 3e-2)
        for _ in range(300):
            optimiser.zero_grad()
            loss = made.loss(torch.ones(200, 4), target)
            (loss if kind == "gmm" else (made(torch.ones(200, 4)) - target).square()).mean().backward()
            optimiser.step()
        answers[kind] = abs(float(made(torch.ones(1, 4)).detach()))
    assert answers["gmm"] > 0.9
    assert answers["regression"] < 0.1


def test_the_refined_head_answers_in_two_steps() -> None:
    made = head("refined")
    assert isinstance(made, RefinedHead)
    context, target = torch.randn(5, 4), torch.randn(5, 3, 2)

    def f(given: torch.Tensor, t: float) -> torch.Tensor:
        inputs = torch.cat([context, given.flatten(-2), torch.full((5, 1), t)], -1)
        return (made.net(inputs) + made.linear(context)).unflatten(-1, (3, 2))

    first = f(torch.zeros(5, 3, 2), 0.0)
    torch.testing.assert_close(made(context), f(REFINED_SHARE * first, REFINED_SHARE))
    z = torch.randn(target.shape)
    second = f(REFINED_SHARE * target + (1 - REFINED_SHARE) * z, REFINED_SHARE)
    expected = 0.5 * ((first - target).abs() + (second - target).abs())
    torch.testing.assert_close(made.loss(context, target, z), expected)
    assert not math.isclose(made.loss(context, target).sum().item(), expected.sum().item())
