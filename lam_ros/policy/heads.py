"""Heads: what the LSTM says becomes a chunk of joint targets. Each is one value of ``PolicyConfig.head``.

Context (..., H) is what a head sees; chunks y (..., K, J) are normalised joint targets of the next K ticks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lam_ros.policy.configuration import PolicyConfig

BIN_RANGE = 3.0  # standard scales from 0 that bins cover, where nothing is known of the data
MIN_STD = 0.02  # of a mode, in standard scales: a likelihood cannot grow without end
REFINED_SHARE = 0.9  # of the answer that the second step is given: MIP's t*


class Head(nn.Module):
    """From context to a chunk, with the loss that trains it; whether that takes noise."""

    bins: int
    draws = False

    def loss(self, context: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        """Loss at each tick: (..., K, J), or (..., 1, 1) where the chunk has one likelihood.

        Args:
            context: (..., H).
            target: (..., K, J).
            noise: drawn from N(0, 1), shaped as the target, for heads that ``draw``; their own if not given.
        """
        raise NotImplementedError

    def forward(self, context: Tensor) -> Tensor:
        """The chunk (..., K, J) to perform."""
        raise NotImplementedError

    def fit(self, chunks: Tensor) -> None:
        """Learn of the demonstrations' chunks (N, K, J) what must be known before training."""

    def beyond(self, chunks: Tensor) -> Tensor:
        """The share of chunks (N, K, J) in which a joint goes further than the head can say: (J,)."""
        return torch.zeros(chunks.shape[-1])

    def accuracy(self, context: Tensor, target: Tensor) -> Tensor:
        """1 where the chunk falls into the right bin, else 0: (..., K, J)."""
        return (to_bins(self(context), self.bins) == to_bins(target, self.bins)).float()


class RegressionHead(Head):
    """K joint targets at once; L1 loss (ACT: Zhao et al. 2023, arXiv 2304.13705)."""

    def __init__(self, inputs: int, joints: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = (config.chunk, joints)
        self.bins = config.bins
        self.linear = nn.Linear(inputs, config.chunk * joints)

    def forward(self, context: Tensor) -> Tensor:
        chunk: Tensor = self.linear(context)
        return chunk.unflatten(-1, self.shape)

    def loss(self, context: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        return functional.l1_loss(self(context), target, reduction="none")


class RefinedHead(Head):
    """Regression in two steps (MIP: arXiv 2512.01809): y0 = f(c, 0, 0), then y = f(c, t y0, t) with t = 0.9.

    Trained on |f(c, 0, 0) - a| + |f(c, t a + (1 - t) z, t) - a| with z from N(0, 1).
    """

    draws = True

    def __init__(self, inputs: int, joints: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = (config.chunk, joints)
        self.bins = config.bins
        size, outputs = config.hidden_size, config.chunk * joints
        self.net = nn.Sequential(nn.Linear(inputs + outputs + 1, 2 * size), nn.ReLU(), nn.Linear(2 * size, outputs))
        # A way past the hidden layer, as the plain regression has it.
        self.linear = nn.Linear(inputs, outputs)

    def _f(self, context: Tensor, given: Tensor, t: float) -> Tensor:
        level = torch.full_like(context[..., :1], t)
        chunk: Tensor = self.net(torch.cat([context, given.flatten(-2), level], -1)) + self.linear(context)
        return chunk.unflatten(-1, self.shape)

    def _first(self, context: Tensor) -> Tensor:
        return self._f(context, context.new_zeros(*context.shape[:-1], *self.shape), 0.0)

    def forward(self, context: Tensor) -> Tensor:
        return self._f(context, REFINED_SHARE * self._first(context), REFINED_SHARE)

    def loss(self, context: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        z = torch.randn_like(target) if noise is None else noise
        given = REFINED_SHARE * target + (1.0 - REFINED_SHARE) * z
        first = (self._first(context) - target).abs()
        second = (self._f(context, given, REFINED_SHARE) - target).abs()
        return 0.5 * (first + second)


class MixtureHead(Head):
    """p(y | c) = sum_m w_m N(y; mu_m, diag s_m^2) over whole chunks (BC-RNN-GMM: arXiv 2108.03298).

    The loss is -log p(y | c) / (K J). What is performed is the mean of the likeliest mode: robomimic's low-noise
    evaluation, without its noise, so that the same episode is performed alike twice.
    """

    def __init__(self, inputs: int, joints: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = (config.modes, config.chunk, joints)
        self.bins = config.bins
        values = math.prod(self.shape)
        self.means = nn.Linear(inputs, values)
        self.spreads = nn.Linear(inputs, values)
        self.logits = nn.Linear(inputs, config.modes)

    def _means(self, context: Tensor) -> Tensor:
        means: Tensor = self.means(context)
        return means.unflatten(-1, self.shape)

    def log_likelihood(self, context: Tensor, target: Tensor) -> Tensor:
        """log p(target | context): (...)."""
        spread = functional.softplus(self.spreads(context)).unflatten(-1, self.shape) + MIN_STD
        z = (target[..., None, :, :] - self._means(context)) / spread
        each = -0.5 * z.square() - spread.log() - 0.5 * math.log(2.0 * math.pi)
        return (each.sum((-2, -1)) + self.logits(context).log_softmax(-1)).logsumexp(-1)

    def loss(self, context: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        return -self.log_likelihood(context, target)[..., None, None] / math.prod(self.shape[1:])

    def forward(self, context: Tensor) -> Tensor:
        best = self.logits(context).argmax(-1)[..., None, None, None]
        return self._means(context).gather(-3, best.expand(*best.shape[:-3], 1, *self.shape[1:])).squeeze(-3)


class CategoricalHead(Head):
    """p = softmax over bins of each joint's target; loss -sum_t y_t log p_t, as in the articles.

    The chunk is the expectation over the most likely bin and its two neighbours: finer than a bin, and not between
    two modes.

    Buffers: reach (K, J), how far from 0 the bins go: as far as the demonstrations, so that all they do can be said.
    """

    centres: Tensor
    reach: Tensor

    def __init__(self, inputs: int, joints: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = (config.chunk, joints, config.bins)
        self.bins = config.bins
        self.linear = nn.Linear(inputs, config.chunk * joints * config.bins)
        self.register_buffer("centres", torch.linspace(-1.0, 1.0, config.bins), persistent=False)
        self.register_buffer("reach", torch.full((config.chunk, joints), BIN_RANGE))

    def fit(self, chunks: Tensor) -> None:
        self.reach.copy_(chunks.abs().amax(0).clamp_min(1.0))  # less only where nothing ever moves

    def beyond(self, chunks: Tensor) -> Tensor:
        outer_edge = self.reach * (1.0 + 1.0 / (self.bins - 1))  # half a bin past the last centre
        return (chunks.abs() > outer_edge).any(1).float().mean(0)

    def logits(self, context: Tensor) -> Tensor:
        """(..., K, J, bins)."""
        logits: Tensor = self.linear(context)
        return logits.unflatten(-1, self.shape)

    def loss(self, context: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        labels = to_bins(target, self.bins, self.reach)
        return -self.logits(context).log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)

    def forward(self, context: Tensor) -> Tensor:
        logits = self.logits(context)
        best = logits.argmax(-1, keepdim=True)
        index = torch.arange(self.bins, device=logits.device)
        weights = logits.masked_fill((index - best).abs() > 1, -torch.inf).softmax(-1)
        return (weights * self.centres).sum(-1) * self.reach

    def accuracy(self, context: Tensor, target: Tensor) -> Tensor:
        return (self.logits(context).argmax(-1) == to_bins(target, self.bins, self.reach)).float()


def to_bins(values: Tensor, bins: int, reach: Tensor | float = BIN_RANGE) -> Tensor:
    """Index of the nearest of ``bins`` evenly spaced centres from -reach to reach."""
    position = ((values / reach).clamp(-1.0, 1.0) + 1.0) / 2.0 * (bins - 1)
    return position.round().long()


HEADS = {
    "regression": RegressionHead,
    "refined": RefinedHead,
    "gmm": MixtureHead,
    "categorical": CategoricalHead,
}


def make_head(inputs: int, joints: int, config: PolicyConfig) -> Head:
    """The head that a configuration names, for contexts (..., inputs)."""
    head: Head = HEADS[config.head](inputs, joints, config)
    return head
