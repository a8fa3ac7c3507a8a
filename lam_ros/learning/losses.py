"""Losses, as pure functions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (B, T, ...) over the ticks where mask (B, T) is 1."""
    per_tick = values.flatten(2).mean(-1)
    return (per_tick * mask).sum() / mask.sum().clamp_min(1.0)


def destination_loss(predicted: Tensor, destination: Tensor) -> Tensor:
    """L1 between the predicted and the real normalised joint positions (B, J) at the demonstration's end."""
    return functional.l1_loss(predicted.float(), destination)
