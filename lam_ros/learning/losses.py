"""Losses, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (B, T, ...) over the ticks where mask (B, T) is 1.

    With several processes the ticks of all count, so that the mean of what the processes return is the mean over all.
    """
    per_tick = values.flatten(2).mean(-1)
    count = mask.sum()
    if torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return (per_tick * mask).sum() / count.clamp_min(1e-6)


def distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    """L1 between predicted and real labels (..., J): one value a row, (...)."""
    return functional.l1_loss(predicted.float(), wanted, reduction="none").mean(-1)
