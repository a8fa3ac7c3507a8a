"""Normalisation lives in the policy and its checkpoint, never in callers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_STATE_STD = 1e-3  # rad or m: a joint that hardly moves must not be blown up
MIN_OFFSET_SCALE = 1e-4


class Normaliser(nn.Module):
    """z = (state - mean) / std for states, y = (target - state) / scale for the offsets of a chunk.

    Buffers: state_mean (J,), state_std (J,), offset_scale (K, J).
    """

    state_mean: Tensor
    state_std: Tensor
    offset_scale: Tensor

    def __init__(self, joints: int, chunk: int) -> None:
        super().__init__()
        self.register_buffer("state_mean", torch.zeros(joints))
        self.register_buffer("state_std", torch.ones(joints))
        self.register_buffer("offset_scale", torch.ones(chunk, joints))

    def fit(self, states: Tensor, offsets: Tensor) -> None:
        """Take the statistics of states (N, J) and offsets (N, K, J)."""
        self.state_mean.copy_(states.mean(0))
        self.state_std.copy_(states.std(0, unbiased=False).clamp_min(MIN_STATE_STD))
        self.offset_scale.copy_(offsets.std(0, unbiased=False).clamp_min(MIN_OFFSET_SCALE))

    def state(self, state: Tensor) -> Tensor:
        return (state - self.state_mean) / self.state_std

    def offset(self, offset: Tensor) -> Tensor:
        return offset / self.offset_scale

    def targets(self, normalised_offset: Tensor, state: Tensor) -> Tensor:
        """Joint targets (..., K, J) from offsets (..., K, J) and the state (..., J) they start from."""
        return normalised_offset * self.offset_scale + state[..., None, :]
