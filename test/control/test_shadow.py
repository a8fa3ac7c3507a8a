"""Shadow mode's arithmetic: what a policy explains of what a human does."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.control.shadow import ENOUGH_TICKS, Agreement

LOWER, UPPER = np.array([-1.0, 0.0]), np.array([1.0, 0.04])


def agreement(share: float, ticks: int = ENOUGH_TICKS) -> Agreement:
    """A policy that makes so much of the human's motion, the same for each joint."""
    beside, rng = Agreement(("lift", "grip"), LOWER, UPPER), np.random.default_rng(0)
    for _ in range(ticks):
        measured, commanded = rng.uniform(LOWER, UPPER), rng.uniform(LOWER, UPPER)
        beside.add(measured + share * (commanded - measured), commanded, measured)
    return beside


@pytest.mark.parametrize(("share", "explained"), [(1.0, 1.0), (0.8, 0.96), (0.0, 0.0), (-1.0, -3.0), (1.3, 0.91)])
def test_what_is_explained_is_against_standing_still(share: float, explained: float) -> None:
    assert agreement(share).explained == pytest.approx(explained)


def test_the_sentence_says_go_or_why_not() -> None:
    assert agreement(0.8).sentence().startswith(f"go: {ENOUGH_TICKS} ticks of the human's motion, 96 % of it explained")
    assert agreement(-0.2).sentence().startswith(f"no-go: {ENOUGH_TICKS} ticks of the human's motion, -44 %")
    assert agreement(0.9, 20).sentence().startswith("no-go yet: 20 ticks")
    assert not agreement(0.9, 20).may_go
    assert not agreement(0.01).may_go
    assert Agreement(("lift", "grip"), LOWER, UPPER).sentence().startswith("no-go: no tick yet")


def test_the_worst_joint_is_named_by_its_share_of_the_range() -> None:
    beside = Agreement(("lift", "grip"), LOWER, UPPER)
    beside.add(np.array([0.1, 0.02]), np.array([0.0, 0.0]), np.array([0.5, 0.04]))
    np.testing.assert_allclose(beside.errors, [0.1, 0.02])
    assert "largest mean error 0.02 at grip" in beside.sentence()


def test_who_does_nothing_explains_nothing() -> None:
    beside = Agreement(("lift", "grip"), LOWER, UPPER)
    for _ in range(ENOUGH_TICKS):
        beside.add(np.array([0.5, 0.01]), np.zeros(2), np.array([0.0, 0.0003]))
    assert beside.ticks == 0
    assert beside.explained == 0.0
    assert not beside.may_go
