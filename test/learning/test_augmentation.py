"""Changes of light."""

from __future__ import annotations

import pytest
import torch

from lam_ros.learning.augmentation import vary_light


def images(batch: int = 4) -> torch.Tensor:
    shape = (batch, 2, 6, 8, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_light_and_colour_nothing_changes() -> None:
    assert torch.equal(vary_light(images(), 0.0, 0.0, generator()), images())


def test_the_seed_decides_and_the_input_stays() -> None:
    source = images()
    first, again = vary_light(source, 0.2, 8.0, generator()), vary_light(source, 0.2, 8.0, generator())
    assert torch.equal(first, again)
    assert not torch.equal(first, vary_light(source, 0.2, 8.0, generator(1)))
    assert torch.equal(source, images())


def test_each_channel_follows_its_own_line() -> None:
    """clip(gain * v + shift, 0, 255): recover gain and shift from two values, predict all others."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(3, 2, 16, 16, 3).contiguous()
    varied = vary_light(ramp, 0.3, 20.0, generator()).float().view(3, 2, 256, 3)
    gains = (varied[:, :, 180] - varied[:, :, 60]) / 120
    lines = varied[:, :, 60, None] + gains[:, :, None] * (torch.arange(256.0)[:, None] - 60)
    assert (varied - lines.clamp(0, 255)).abs().max() < 2.5
    torch.testing.assert_close(varied[:, 0], varied[:, 1])
    assert (gains - gains[..., :1]).abs().max() < 2.5 / 120
    assert gains[:, 0, 0].std() > 0.01
    assert (varied[:, 0, 120, 0] - varied[:, 0, 120, 1]).abs().max() > 2


@pytest.mark.parametrize(("light", "lowest", "highest"), [(0.1, 90, 110), (0.5, 50, 150)])
def test_brightness_changes_by_at_most_light(light: float, lowest: int, highest: int) -> None:
    grey = torch.full((200, 1, 1, 1, 3), 100, dtype=torch.uint8)
    levels = vary_light(grey, light, 0.0, generator()).flatten(1)[:, 0].int()
    assert lowest - 1 <= levels.min() < lowest + 3
    assert highest - 3 < levels.max() <= highest
