"""Normalisation lives in the policy and its checkpoint, never in callers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_STATE_STD = 1e-3  # rad or m: a joint that hardly moves must not be blown up
MIN_TARGET_SCALE = 1e-4


class Normaliser(nn.Module):
    """z = (state - mean) / std for states, y = (target - origin) / scale for the targets of a chunk.

    The origin of relative targets is the measured state, so that "stay" is 0 for every joint; that of absolute ones is
    their mean.

    Buffers: state_mean (J,), state_std (J,), target_mean (K, J), target_scale (K, J).
    """

    state_mean: Tensor
    state_std: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, joints: int, chunk: int, is_relative: bool) -> None:
        super().__init__()
        self.is_relative = is_relative
        self.register_buffer("state_mean", torch.zeros(joints))
        self.register_buffer("state_std", torch.ones(joints))
        self.register_buffer("target_mean", torch.zeros(chunk, joints))
        self.register_buffer("target_scale", torch.ones(chunk, joints))

    def fit(self, states: Tensor, targets: Tensor) -> None:
        """Take the statistics of states (N, J) and the joint targets of the next ticks (N, K, J)."""
        self.state_mean.copy_(states.mean(0))
        self.state_std.copy_(states.std(0, unbiased=False).clamp_min(MIN_STATE_STD))
        if self.is_relative:
            away = targets - states[:, None]
        else:
            self.target_mean.copy_(targets.mean(0))
            away = targets - self.target_mean
        # Of how far from the origin, not from a mean: a joint that always hangs a little below where it is held.
        self.target_scale.copy_(away.square().mean(0).sqrt().clamp_min(MIN_TARGET_SCALE))

    def state(self, state: Tensor) -> Tensor:
        """Normalised states (..., J)."""
        return (state - self.state_mean) / self.state_std

    def _origin(self, state: Tensor) -> Tensor:
        return state[..., None, :] if self.is_relative else self.target_mean

    def chunk(self, targets: Tensor, state: Tensor) -> Tensor:
        """Normalised chunks (..., K, J) of joint targets (..., K, J) at states (..., J)."""
        return (targets - self._origin(state)) / self.target_scale

    def targets(self, chunk: Tensor, state: Tensor) -> Tensor:
        """Joint targets (..., K, J) of normalised chunks (..., K, J) at states (..., J)."""
        return chunk * self.target_scale + self._origin(state)
