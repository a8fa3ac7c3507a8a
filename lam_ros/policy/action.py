"""The action module: an LSTM that carries its state over the episode, and a head that makes joint targets of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.heads import make_head

Hidden = tuple[Tensor, Tensor]  # (layers, B, H) each


class ActionModule(nn.Module):
    """What the episode so far suggests beside what this tick alone does.

        i_t = inlet(features_t, state_t);  s_t, h_t = LSTM(i_t, h_{t-1});  chunk_t = head(s_t, reflex(i_t))

    With s_t = 0, memory is silent: that is the policy without memory which training's first stage learns.
    """

    def __init__(self, config: PolicyConfig, inputs: int, joints: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.inlet = nn.Sequential(nn.Linear(inputs + joints, size), nn.ReLU())
        self.reflex = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU())
        self.lstm = nn.LSTM(size, size, config.layers, batch_first=True)
        self.head = make_head(3 * size, joints, config)

    def memoryless(self, features: Tensor, state: Tensor) -> Tensor:
        """The context for the head (..., 3H) of features (..., C * D) and normalised states (..., J) without memory."""
        reflex = self.reflex(self.inlet(torch.cat([features, state], -1)))
        return torch.cat([reflex.new_zeros(*reflex.shape[:-1], self.lstm.hidden_size), reflex], -1)

    def forward(
        self, features: Tensor, state: Tensor, hidden: Hidden | None = None, is_heard: Tensor | None = None
    ) -> tuple[Tensor, Hidden]:
        """Run over T ticks.

        Args:
            features: (B, T, C * D).
            state: (B, T, J), normalised.
            hidden: what the last call returned; None at an episode's start.
            is_heard: bool (B,), in which sequences the head is told of the memory; None for all.

        Returns:
            The context for the head (B, T, 3H), and the hidden state for the next call.
        """
        inlet = self.inlet(torch.cat([features, state], -1))
        outputs, hidden = self.lstm(inlet, hidden)
        if is_heard is not None:
            outputs = outputs * is_heard[:, None, None]
        return torch.cat([outputs, self.reflex(inlet)], -1), hidden

    def nothing_yet(self, batch: int) -> Hidden:
        """The hidden state at an episode's start."""
        zeros = self.lstm.all_weights[0][0].new_zeros(self.lstm.num_layers, batch, self.lstm.hidden_size)
        return zeros, zeros

    def step(self, features: Tensor, state: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """One tick of the same function, without the cost of a sequence (seven times less on a CPU).

        Args:
            features: (B, C * D).
            state: (B, J), normalised.
            hidden: what the last call returned; ``nothing_yet`` at an episode's start.

        Returns:
            The chunk (B, K, J), normalised, and the hidden state for the next call.
        """
        inlet = output = self.inlet(torch.cat([features, state], -1))
        outputs, memories = [], []
        for layer, weights in enumerate(self.lstm.all_weights):
            output, memory = torch.lstm_cell(output, (hidden[0][layer], hidden[1][layer]), *weights)
            outputs.append(output)
            memories.append(memory)
        chunk: Tensor = self.head(torch.cat([output, self.reflex(inlet)], -1))
        return chunk, (torch.stack(outputs), torch.stack(memories))
