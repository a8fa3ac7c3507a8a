"""Changes of light, colour and place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lam_ros.learning.augmentation import Augmentation, displaced


def images(batch: int = 4, ticks: int = 3) -> torch.Tensor:
    shape = (batch, ticks, 2, 6, 8, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def draws(batch: int = 4, first: int = 0) -> torch.Tensor:
    return torch.arange(first, first + batch)


EVERYTHING = Augmentation(light=0.2, colour=8.0, shift=2, erase=0.5)


def test_without_a_change_nothing_changes() -> None:
    same, displacement = Augmentation()(images(), draws())
    assert torch.equal(same, images())
    assert not displacement.any()


def test_the_number_decides_and_the_input_stays() -> None:
    source = images()
    first, displacement = EVERYTHING(source, draws())
    again, again_displacement = EVERYTHING(source, draws())
    assert torch.equal(first, again)
    assert torch.equal(displacement, again_displacement)
    assert not torch.equal(first, EVERYTHING(source, draws(first=9))[0])
    alone, alone_displacement = EVERYTHING(source[2:3], draws()[2:3])
    assert torch.equal(first[2:3], alone), "a sequence does not depend on the batch"
    assert torch.equal(displacement[2:3], alone_displacement)
    assert torch.equal(source, images())


def test_all_frames_of_a_sequence_change_alike() -> None:
    still = images(ticks=1).expand(4, 3, 2, 6, 8, 3).contiguous()
    changed, _ = EVERYTHING(still, draws())
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert not torch.equal(changed[0], EVERYTHING(still[:1].expand(2, *still.shape[1:]), draws(2))[0][1])


def test_each_channel_follows_its_own_line() -> None:
    """clip(gain * v + shift, 0, 255): recover gain and shift from two values, predict all others."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16, 1).expand(3, 1, 2, 16, 16, 3).contiguous()
    varied = Augmentation(0.3, 20.0)(ramp, draws(3))[0].float().view(3, 2, 256, 3)
    gains = (varied[:, :, 180] - varied[:, :, 60]) / 120
    lines = varied[:, :, 60, None] + gains[:, :, None] * (torch.arange(256.0)[:, None] - 60)
    assert (varied - lines.clamp(0, 255)).abs().max() < 2.5
    torch.testing.assert_close(varied[:, 0], varied[:, 1])
    assert (gains - gains[..., :1]).abs().max() < 2.5 / 120
    assert gains[:, 0, 0].std() > 0.01
    assert (varied[:, 0, 120, 0] - varied[:, 0, 120, 1]).abs().max() > 2


@pytest.mark.parametrize(("light", "lowest", "highest"), [(0.1, 90, 110), (0.5, 50, 150)])
def test_brightness_changes_by_at_most_light(light: float, lowest: int, highest: int) -> None:
    grey = torch.full((200, 1, 1, 1, 1, 3), 100, dtype=torch.uint8)
    levels = Augmentation(light)(grey, draws(200))[0].flatten(1)[:, 0].int()
    assert lowest - 1 <= levels.min() < lowest + 3
    assert highest - 3 < levels.max() <= highest


def test_a_displaced_picture_repeats_its_border() -> None:
    picture = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    moved = displaced(picture, 1, -2)
    np.testing.assert_array_equal(moved[1:, :4], picture[:-1, 2:])
    np.testing.assert_array_equal(moved[0, :4], picture[0, 2:])
    np.testing.assert_array_equal(moved[:, 4], moved[:, 3])
    np.testing.assert_array_equal(displaced(picture, 0, 0), picture)


def test_cameras_are_displaced_apart_and_by_at_most_shift() -> None:
    dot = torch.zeros((300, 1, 2, 9, 9, 3), dtype=torch.uint8)
    dot[:, :, :, 4, 4] = 255
    pictures, displacement = Augmentation(shift=3)(dot, draws(300))
    moved = pictures.numpy()[:, 0, :, :, :, 0]
    places = np.stack(np.unravel_index(moved.reshape(300, 2, -1).argmax(-1), (9, 9)), -1) - 4
    assert places.min() == -3
    assert places.max() == 3
    assert (places[:, 0] != places[:, 1]).any(-1).mean() > 0.8
    # Where (right, down) of a picture that is 2 wide and 2 high, it says so.
    np.testing.assert_allclose(displacement.numpy(), places[..., ::-1] * 2 / 9, rtol=1e-6)


def test_an_erased_rectangle_is_noise_of_at_most_that_size() -> None:
    grey = torch.full((200, 1, 1, 20, 30, 3), 100, dtype=torch.uint8)
    erased = (Augmentation(erase=0.5)(grey, draws(200))[0] != 100).any(-1)[:, 0, 0]
    rows, columns = erased.any(2).sum(1), erased.any(1).sum(1)
    assert 8 <= rows.max() <= 10
    assert 12 <= columns.max() <= 15
    assert erased.any(2).any(1).float().mean() > 0.9
