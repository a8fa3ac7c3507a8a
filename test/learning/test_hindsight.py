"""Labels that the end of a demonstration gives to its beginning."""

from __future__ import annotations

import numpy as np

from lam_ros.learning.hindsight import contact_ticks, look_back, way_points

GRIPPERS = np.array([False, False, True])


def grasp() -> tuple[np.ndarray, np.ndarray]:
    """20 ticks: the arm moves, halts at tick 8 to close its hand at 10, moves on from 12, opens at 17."""
    speed = np.full(20, 0.05)
    speed[8:12] = 0.005
    arm = np.cumsum(speed)
    hand = np.full(20, 0.03)
    hand[10:17] = 0.01
    state = np.stack([arm, -arm, hand], 1).astype(np.float32)
    return state, state.copy()


def test_contacts_are_where_the_hand_changes_and_where_the_arm_halts() -> None:
    assert contact_ticks(*grasp(), GRIPPERS).tolist() == [7, 10, 17, 19]


def test_a_hesitation_at_the_start_is_no_halt() -> None:
    state, _ = grasp()
    jolt = np.concatenate([[0.0, 0.05], np.full(3, 0.051)]).astype(np.float32)  # moves for a tick, and waits
    arm = np.concatenate([jolt, state[:, 0] + 0.1])
    longer = np.stack([arm, -arm, np.concatenate([np.full(5, 0.03, np.float32), state[:, 2]])], 1)
    assert contact_ticks(longer, longer, GRIPPERS).tolist() == [12, 15, 22, 24]


def test_a_hand_that_trembles_touches_nothing() -> None:
    state, action = grasp()
    action[:, 2] = 0.03 + 0.001 * (np.arange(20) % 2)
    assert contact_ticks(state, action, GRIPPERS).tolist() == [7, 19]


def test_a_hand_has_closed_at_half_its_stroke() -> None:
    state, action = grasp()
    action[8:14, 2] = [0.028, 0.025, 0.022, 0.019, 0.015, 0.01]  # 0.02 is half way from 0.03 to 0.01
    assert contact_ticks(state, action, GRIPPERS).tolist() == [7, 11, 17, 19]


def test_an_arm_without_hands_has_its_halts_and_its_end() -> None:
    state, action = grasp()
    assert contact_ticks(state, action, np.zeros(3, dtype=bool))[-1] == 19
    assert contact_ticks(state[:1], action[:1], GRIPPERS).tolist() == [0]


def test_each_tick_is_told_its_next_contact_and_its_end() -> None:
    state, action = grasp()
    labels = look_back(state, action, GRIPPERS)
    np.testing.assert_array_equal(labels.destination, np.tile(state[-1], (20, 1)))
    np.testing.assert_array_equal(labels.contact[:8], np.tile(state[7], (8, 1)))
    np.testing.assert_array_equal(labels.contact[8:11], np.tile(state[10], (3, 1)))
    np.testing.assert_array_equal(labels.contact[18:], np.tile(state[19], (2, 1)))
    assert labels.time_to_go.tolist() == list(range(19, -1, -1))


def test_what_a_human_does_ends_where_a_policy_takes_over() -> None:
    state, action = grasp()
    human = np.ones(20, dtype=bool)
    for name, values in vars(look_back(state, action, GRIPPERS, human)).items():
        np.testing.assert_array_equal(values, getattr(look_back(state, action, GRIPPERS), name))
    human[[0, 1, 13, 14]] = False
    told = look_back(state, action, GRIPPERS, human)
    for stretch in (slice(2, 13), slice(15, 20)):
        alone = look_back(state[stretch], action[stretch], GRIPPERS)
        for name, values in vars(told).items():
            np.testing.assert_array_equal(values[stretch], getattr(alone, name))
            assert len(values) == 20


def test_the_way_is_told_by_its_length_and_not_by_its_time() -> None:
    """A line from 0 to 1, whose second half is done four times as slowly; the other joint never moves."""
    arm = np.concatenate([np.linspace(0.0, 0.5, 11), np.linspace(0.5, 1.0, 41)[1:]])
    state = np.stack([arm, np.full(51, 0.7)], 1)
    way = way_points(state).reshape(51, 3, 2)
    for start, tick in ((0.0, 0), (0.2, 4), (0.5, 10), (0.75, 30)):
        expected = start + (1.0 - start) * np.array([0.25, 0.5, 0.75])
        np.testing.assert_allclose(way[tick, :, 0], expected, atol=0.05)
    np.testing.assert_array_equal(way[..., 1], np.full((51, 3), 0.7))
    np.testing.assert_array_equal(way[-1], np.tile(state[-1], (3, 1)))
    np.testing.assert_array_equal(way_points(state[:1]), np.tile(state[0], (1, 3)))
