"""Losses."""

from __future__ import annotations

import pytest
import torch

from lam_ros.learning.losses import distance, masked_mean


def test_the_masked_mean_is_that_of_the_ticks_there_are() -> None:
    values = torch.arange(24.0).view(2, 3, 2, 2)
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    expected = torch.cat([values[0, :2].flatten(), values[1, :1].flatten()]).mean()
    torch.testing.assert_close(masked_mean(values, mask), expected)


def test_padding_gets_no_gradient() -> None:
    values = torch.randn(2, 3, 4, requires_grad=True)
    mask = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    masked_mean(values, mask).backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, mask[..., None].expand(2, 3, 4) / (4 * 4))


def test_without_a_tick_the_mean_is_zero() -> None:
    assert masked_mean(torch.ones(1, 2, 3), torch.zeros(1, 2)).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_distance_of_labels_is_their_mean(dtype: torch.dtype) -> None:
    predicted, wanted = torch.tensor([[1.0, -2.0], [0.0, 0.0]], dtype=dtype), torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert distance(predicted, wanted).dtype == torch.float32
    assert distance(predicted, wanted).tolist() == [2.0, 0.5]
