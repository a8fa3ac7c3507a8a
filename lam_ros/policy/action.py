"""The action module: an LSTM that carries its state over the episode, and the heads that make joint targets of it.

Heads predict normalised offsets y of the next K targets from the measured state, y = (target - state) / scale, so that
"stay" is 0 for every joint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lam_ros.policy.configuration import PolicyConfig

Hidden = tuple[Tensor, Tensor]
BIN_RANGE = 3.0  # bins cover offsets of -3 to 3 standard scales


class Head(nn.Module):
    """From what the LSTM says (..., H) to offsets (..., K, J), with the loss that trains it."""

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of each element, (..., K, J), unreduced."""
        raise NotImplementedError

    def decode(self, prediction: Tensor) -> Tensor:
        """Normalised offsets (..., K, J)."""
        raise NotImplementedError

    def accuracy(self, prediction: Tensor, target: Tensor) -> Tensor:
        """1 where the offset falls into the right bin, else 0: (..., K, J)."""
        raise NotImplementedError


class RegressionHead(Head):
    """K joint offsets at once; L1 loss (ACT: Zhao et al. 2023, arXiv 2304.13705)."""

    def __init__(self, inputs: int, joints: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = (config.chunk, joints)
        self.bins = config.bins
        self.linear = nn.Linear(inputs, config.chunk * joints)

    def forward(self, hidden: Tensor) -> Tensor:
        prediction: Tensor = self.linear(hidden)
        return prediction.unflatten(-1, self.shape)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return functional.l1_loss(prediction, target, reduction="none")

    def decode(self, prediction: Tensor) -> Tensor:
        return prediction

    def accuracy(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (to_bins(prediction, self.bins) == to_bins(target, self.bins)).float()


class CategoricalHead(Head):
    """p = softmax over bins of each joint's offset; loss -sum_t y_t log p_t, as in the articles.

    Decoding takes the expectation over the most likely bin and its two neighbours: finer than a bin, and not between
    two modes.
    """

    centres: Tensor

    def __init__(self, inputs: int, joints: int, config: PolicyConfig) -> None:
        super().__init__()
        self.shape = (config.chunk, joints, config.bins)
        self.linear = nn.Linear(inputs, config.chunk * joints * config.bins)
        self.register_buffer("centres", torch.linspace(-BIN_RANGE, BIN_RANGE, config.bins), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.linear(hidden)
        return logits.unflatten(-1, self.shape)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        labels = to_bins(target, self.shape[-1])
        return -prediction.log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)

    def decode(self, prediction: Tensor) -> Tensor:
        best = prediction.argmax(-1, keepdim=True)
        index = torch.arange(self.shape[-1], device=prediction.device)
        near = (index - best).abs() <= 1
        weights = prediction.masked_fill(~near, -torch.inf).softmax(-1)
        return (weights * self.centres).sum(-1)

    def accuracy(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.argmax(-1) == to_bins(target, self.shape[-1])).float()


def to_bins(offset: Tensor, bins: int) -> Tensor:
    """Index of the nearest of ``bins`` evenly spaced centres from -BIN_RANGE to BIN_RANGE."""
    position = (offset.clamp(-BIN_RANGE, BIN_RANGE) + BIN_RANGE) / (2 * BIN_RANGE) * (bins - 1)
    return position.round().long()


HEADS: dict[str, type[RegressionHead] | type[CategoricalHead]] = {
    "regression": RegressionHead,
    "categorical": CategoricalHead,
}


class ActionModule(nn.Module):
    """s_t, h_t = LSTM(fc(features_t, state_t), h_{t-1}); the head sees s_t and, past the LSTM, its input."""

    def __init__(self, config: PolicyConfig, inputs: int, joints: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.inlet = nn.Sequential(nn.Linear(inputs + joints, size), nn.ReLU())
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.head: Head = HEADS[config.head](2 * size, joints, config)

    def forward(self, features: Tensor, state: Tensor, hidden: Hidden | None = None) -> tuple[Tensor, Hidden]:
        """Run over T ticks.

        Args:
            features: (B, T, C * D).
            state: (B, T, J), normalised.
            hidden: what the last call returned; None at an episode's start.

        Returns:
            The head's prediction (B, T, K, J) or (B, T, K, J, bins), and the hidden state for the next call.
        """
        inlet = self.inlet(torch.cat([features, state], -1))
        outputs, hidden = self.lstm(inlet, hidden)
        return self.head(torch.cat([outputs, inlet], -1)), hidden

    def step(self, features: Tensor, state: Tensor, hidden: Hidden | None = None) -> tuple[Tensor, Hidden]:
        """One tick of the same function, without the cost of a sequence (seven times less on a CPU).

        Args:
            features: (B, C * D).
            state: (B, J), normalised.
            hidden: what the last call returned, (B, H) each; None at an episode's start.

        Returns:
            The prediction (B, K, J) or (B, K, J, bins), and the hidden state for the next call.
        """
        inlet = self.inlet(torch.cat([features, state], -1))
        if hidden is None:
            zeros = inlet.new_zeros(len(inlet), self.lstm.hidden_size)
            hidden = (zeros, zeros)
        output, memory = torch.lstm_cell(inlet, hidden, *self.lstm.all_weights[0])
        return self.head(torch.cat([output, inlet], -1)), (output, memory)
