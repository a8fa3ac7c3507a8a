"""Batches: each epoch is a function of the seed and the epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lam_ros.learning.batches import Episodes, Frames, InOrder, Shuffled


def test_frames_lay_demonstrations_end_to_end(demonstrate: Any) -> None:
    first, second = [*demonstrate(1, ticks=5), *demonstrate(1, ticks=3, seed=1)]
    frames = Frames.of([first, second], chunk=4)
    assert frames.lengths == [5, 3]
    assert frames.images.shape == (8, 2, 24, 24, 3)
    np.testing.assert_array_equal(frames.state[5:], second.state)
    np.testing.assert_array_equal(frames.chunk[3], first.action[[3, 4, 4, 4]])
    np.testing.assert_array_equal(frames.chunk[5], second.action[[0, 1, 2, 2]])
    np.testing.assert_array_equal(frames.destination[:5], np.tile(first.state[-1], (5, 1)))
    np.testing.assert_array_equal(frames.destination[5:], np.tile(second.state[-1], (3, 1)))


def test_offsets_are_targets_relative_to_the_state(demonstrate: Any) -> None:
    frames = Frames.of(demonstrate(2, ticks=4), chunk=3)
    for tick in range(8):
        torch.testing.assert_close(frames.offsets[tick], frames.chunk[tick] - frames.state[tick])
    index = torch.tensor([6, 1])
    torch.testing.assert_close(frames.offsets_at(index), frames.offsets[index])


@pytest.mark.parametrize(("count", "batch", "batches"), [(10, 4, 5), (3, 8, 4), (7, 7, 2), (100, 1, 50)])
def test_a_shuffle_shows_everything_once_before_anything_twice(count: int, batch: int, batches: int) -> None:
    shuffled = Shuffled(count, batch, batches, seed=0)
    drawn = list(shuffled)
    assert len(drawn) == len(shuffled) == batches
    assert all(len(index) == min(batch, count) for index in drawn)
    order = torch.cat(drawn)
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count].tolist()) == list(range(count))


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        shuffled = Shuffled(30, 5, 6, seed)
        shuffled.set_epoch(epoch)
        return torch.cat(list(shuffled)).tolist()

    visited = Shuffled(30, 5, 6, 0)
    for epoch in range(3):
        visited.set_epoch(epoch)
        assert torch.cat(list(visited)).tolist() == order(0, epoch)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_in_order_shows_everything_once() -> None:
    batches = InOrder(7, 3)
    assert [index.tolist() for index in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches) == 3


def test_episodes_are_padded_and_masked() -> None:
    lengths = [2, 4, 1]
    features, state, offsets = torch.randn(7, 5), torch.randn(7, 3), torch.randn(7, 2, 3)
    episodes = Episodes.of(features, state, offsets, lengths)
    assert episodes.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    torch.testing.assert_close(episodes.features[1], features[2:6])
    torch.testing.assert_close(episodes.state[0, :2], state[:2])
    torch.testing.assert_close(episodes.offsets[2, 0], offsets[6])
    assert episodes.offsets[0, 2:].abs().sum() == 0


def test_picked_episodes_are_cut_to_the_longest_among_them() -> None:
    episodes = Episodes.of(torch.randn(7, 5), torch.randn(7, 3), torch.randn(7, 2, 3), [2, 4, 1])
    picked = episodes.pick(torch.tensor([2, 0]))
    assert picked.features.shape == (2, 2, 5)
    assert picked.offsets.shape == (2, 2, 2, 3)
    assert picked.mask.tolist() == [[1, 0], [1, 1]]
    torch.testing.assert_close(picked.state[1], episodes.state[0, :2])
