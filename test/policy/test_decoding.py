"""From overlapping chunks to one target a tick."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.policy.decoding import ActionDecoder

WIDE = (np.full(2, -100.0), np.full(2, 100.0))


@pytest.mark.parametrize("decay", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_target_is_the_weighted_mean_of_all_that_was_said_of_its_tick(decay: float, chunk: int) -> None:
    chunks = np.random.default_rng(0).normal(size=(9, chunk, 2))
    decoder = ActionDecoder(*WIDE, decay=decay, smoothing=0.0)
    for t in range(9):
        target = decoder.decode(chunks[t])
        said = [(np.exp(-decay * (t - s)), chunks[s, t - s]) for s in range(max(0, t - chunk + 1), t + 1)]
        expected = sum(weight * value for weight, value in said) / sum(weight for weight, _ in said)
        np.testing.assert_allclose(target, expected, rtol=1e-5)
        assert target.dtype == np.float32


def test_chunks_that_agree_are_followed_exactly() -> None:
    path = np.linspace(0, 1, 12)[:, None] * np.array([1.0, -2.0])
    decoder = ActionDecoder(*WIDE, decay=0.1, smoothing=0.0)
    for t in range(8):
        np.testing.assert_allclose(decoder.decode(path[t : t + 4]), path[t], atol=1e-6)


def test_where_ticks_were_lost_the_plans_are_followed_further_on() -> None:
    path = np.linspace(0, 1, 20)[:, None] * np.array([1.0, -2.0])
    decoder, last = ActionDecoder(*WIDE, decay=0.1, smoothing=0.0), -1
    for t in (0, 1, 2, 6, 7, 15):  # three lost, then more than a chunk covers
        np.testing.assert_allclose(decoder.decode(path[t : t + 4], t - last), path[t], atol=1e-6)
        last = t


def test_smoothing_keeps_a_share_of_the_last_target() -> None:
    decoder = ActionDecoder(*WIDE, decay=0.0, smoothing=0.75)
    assert decoder.decode(np.array([[8.0, 0.0]]))[0] == pytest.approx(8.0)
    assert decoder.decode(np.array([[0.0, 0.0]]))[0] == pytest.approx(6.0)
    assert decoder.decode(np.array([[0.0, 0.0]]))[0] == pytest.approx(4.5)


def test_targets_stay_inside_the_joint_limits() -> None:
    decoder = ActionDecoder(np.array([-1.0, 0.0]), np.array([1.0, 0.5]), decay=0.1, smoothing=0.0)
    np.testing.assert_allclose(decoder.decode(np.array([[7.0, -3.0]])), [1.0, 0.0])


def test_reset_forgets_chunks_and_the_last_target() -> None:
    decoder = ActionDecoder(*WIDE, decay=0.1, smoothing=0.5)
    decoder.decode(np.full((3, 2), 50.0))
    decoder.reset()
    np.testing.assert_allclose(decoder.decode(np.ones((3, 2))), 1.0)
