"""Batches: each epoch is a function of the seed and the epoch."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Dataset
from lam_ros.learning.batches import EpisodesInOrder, Frames, InOrder, Shuffled, Windows


def alike(count: int) -> np.ndarray:
    return np.ones(count)


def test_frames_lay_demonstrations_end_to_end(demonstrate: Any, robot: RobotConfig) -> None:
    first, second = [*demonstrate(1, ticks=5), *demonstrate(1, ticks=3, seed=1)]
    frames = Frames.of(Dataset(Contract.of(robot), "wave", "desk_arm", [first, second], "x", [1.0, 3.0]), chunk=4)
    assert frames.lengths == [5, 3]
    assert frames.weights.tolist() == [1.0, 3.0]
    assert frames.images.shape == (8, 2, 24, 24, 3)
    np.testing.assert_array_equal(frames.state[5:], second.state)
    np.testing.assert_array_equal(frames.targets[3], first.action[[3, 4, 4, 4]])
    np.testing.assert_array_equal(frames.targets[5], second.action[[0, 1, 2, 2]])
    np.testing.assert_array_equal(frames.destination[:5], np.tile(first.state[-1], (5, 1)))
    np.testing.assert_array_equal(frames.destination[5:], np.tile(second.state[-1], (3, 1)))
    assert frames.time_to_go.tolist() == [4, 3, 2, 1, 0, 2, 1, 0]
    assert copy.deepcopy(frames) is frames, "averaging weights must not copy the data"


@pytest.mark.parametrize(("count", "batch", "batches"), [(10, 4, 5), (3, 8, 4), (7, 7, 2), (100, 1, 50)])
def test_a_shuffle_shows_everything_once_before_anything_twice(count: int, batch: int, batches: int) -> None:
    shuffled = Shuffled(alike(count), batch, batches, seed=0)
    drawn = list(shuffled)
    assert len(drawn) == len(shuffled) == batches
    assert all(len(index) == min(batch, count) for index in drawn)
    order = torch.cat(drawn)
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count].tolist()) == list(range(count))


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        shuffled = Shuffled(alike(30), 5, 6, seed)
        shuffled.set_epoch(epoch)
        return torch.cat(list(shuffled)).tolist()

    visited = Shuffled(alike(30), 5, 6, 0)
    for epoch in range(3):
        visited.set_epoch(epoch)
        assert torch.cat(list(visited)).tolist() == order(0, epoch)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_weights_say_how_often() -> None:
    drawn = Counter(torch.cat(list(Shuffled(np.array([1.0, 1.0, 8.0]), 3, 2000, seed=0))).tolist())
    assert drawn[2] / 6000 == pytest.approx(0.8, abs=0.02)
    assert drawn[0] / 6000 == pytest.approx(0.1, abs=0.02)


def test_in_order_shows_everything_once() -> None:
    batches = InOrder(torch.ones(7), 3)
    assert [index.tolist() for index in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches) == 3
    assert [index.tolist() for index in InOrder(torch.tensor([0.0, 4.0, 1.0]), 3)] == [[1, 2]]


def test_what_a_policy_did_itself_is_not_taught(robot: RobotConfig, demonstrate: Any) -> None:
    plain, taken = demonstrate(2, ticks=6)
    human = np.array([False, False, True, True, True, False])
    taken = dataclasses.replace(taken, human=human)
    dataset = Dataset(Contract.of(robot), "wave", "desk_arm", [plain, taken], "x", [1.0, 2.0])
    frames = Frames.of(dataset, chunk=3, corrections=5.0)
    assert frames.taught.tolist() == [1.0] * 6 + [5.0, 5.0, 5.0, 0.0]
    assert frames.frame_weights.tolist() == [1.0] * 6 + [10.0, 10.0, 10.0, 0.0]
    drawn = torch.cat(list(Shuffled(frames.frame_weights, 4, 500, seed=0)))
    assert set(drawn.tolist()) == set(range(9))
    # What a human has begun ends with the takeover, not with what the policy did next.
    np.testing.assert_array_equal(frames.targets[6 + 1], taken.action[[3, 4, 4]])
    np.testing.assert_array_equal(frames.destination[6 : 6 + 3], np.tile(taken.state[4], (3, 1)))
    assert frames.time_to_go[6 : 6 + 3].tolist() == [2, 1, 0]


def test_a_memory_lasts_from_takeover_to_takeover_as_in_use(robot: RobotConfig, demonstrate: Any) -> None:
    plain, taken, alone = demonstrate(3, ticks=8)
    taken = dataclasses.replace(taken, human=np.array([0, 0, 1, 1, 0, 1, 1, 1], dtype=bool))
    alone = dataclasses.replace(alone, human=np.zeros(8, dtype=bool))
    assert plain.takeovers.tolist() == [0]
    assert taken.takeovers.tolist() == [2, 5]
    frames = Frames.of(Dataset(Contract.of(robot), "wave", "desk_arm", [plain, taken, alone], "x", [1, 2, 3]), chunk=2)
    assert frames.lengths == [8, 3, 3, 8]
    assert frames.weights.tolist() == [1, 2, 2, 3]
    for values, name in ((frames.images, "images"), (frames.state, "state")):
        every = np.concatenate([plain.__dict__[name], taken.__dict__[name][2:], alone.__dict__[name]])
        np.testing.assert_array_equal(values, every)
    assert len(frames.destination) == len(frames.time_to_go) == len(frames.targets) == sum(frames.lengths)


LENGTHS = [5, 3, 7, 2]
OWNER = np.repeat(np.arange(4), LENGTHS)
PLACE = np.concatenate([np.arange(length) for length in LENGTHS])


@pytest.mark.parametrize("window", [0, 2, 3, 100])
def test_a_stream_walks_through_whole_episodes(window: int) -> None:
    windows = list(Windows(LENGTHS, alike(4), batch=2, window=window, batches=40, seed=3))
    seen: list[list[int]] = [[], []]
    for batch in windows:
        assert batch.index.shape == batch.mask.shape
        assert not window or batch.index.shape[1] <= window
        for stream in range(2):
            count = int(batch.mask[stream].sum())
            assert batch.mask[stream, :count].all(), "padding comes last"
            ticks = batch.index[stream, :count].tolist()
            assert len(set(OWNER[ticks])) == 1, "no window spans two episodes"
            assert bool(batch.fresh[stream]) == (PLACE[ticks[0]] == 0)
            if not batch.fresh[stream]:
                assert ticks[0] == seen[stream][-1] + 1, "it goes on where it stopped"
            elif seen[stream]:
                last = seen[stream][-1]
                assert PLACE[last] == LENGTHS[OWNER[last]] - 1, "an episode is begun when the last has ended"
            seen[stream].extend(ticks)
    assert set(OWNER[seen[0] + seen[1]]) == {0, 1, 2, 3}


def test_an_episodes_number_stays_with_it() -> None:
    numbers: dict[int, int] = {}
    for batch in Windows(LENGTHS, alike(4), batch=1, window=2, batches=20, seed=0):
        if batch.fresh[0]:
            assert int(batch.draw[0]) not in numbers.values()
        else:
            assert int(batch.draw[0]) == numbers[0]
        numbers[0] = int(batch.draw[0])


def test_each_process_takes_its_share_of_a_window() -> None:
    (batch,) = Windows(LENGTHS, alike(4), batch=4, window=0, batches=1, seed=0)
    shares = [batch.share(rank, 2) for rank in range(2)]
    torch.testing.assert_close(shares[0].index, batch.index[0::2])
    torch.testing.assert_close(shares[1].mask, batch.mask[1::2])


def test_windows_repeat_by_seed_and_epoch() -> None:
    def order(epoch: int) -> list[list[int]]:
        windows = Windows(LENGTHS, alike(4), 2, 3, 5, seed=1)
        windows.set_epoch(epoch)
        return [batch.index.flatten().tolist() for batch in windows]

    assert order(2) == order(2)
    assert order(2) != order(3)


def test_held_out_episodes_come_once_and_whole() -> None:
    batches = EpisodesInOrder(LENGTHS, 3)
    first, second = batches
    assert len(batches) == 2
    assert first.mask.tolist() == [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]
    assert first.index[1, :3].tolist() == [5, 6, 7]
    assert second.index.tolist() == [[15, 16]]
    assert bool(first.fresh.all())
