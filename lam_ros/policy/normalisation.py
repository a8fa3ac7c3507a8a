"""Batch normalisation whose statistics are those of the whole batch, also where it is spread over processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d``; in training with several processes the mean and variance are those of all their samples.

    So two processes train as one does with the same global batch. torch's SyncBatchNorm does this on GPUs only.
    """

    def forward(self, values: Tensor) -> Tensor:
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(values)
        from torch.distributed.nn.functional import all_reduce  # the one with a gradient

        count = values.numel() // values.shape[1] * distributed.get_world_size()  # every process has as many samples
        wide = values.float()
        mean = all_reduce(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight / torch.sqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(values.dtype)
