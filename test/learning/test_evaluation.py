"""Evaluation and its interval."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.learning.evaluation import EpisodeResult, Evaluation, first_ended, paired_difference, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        (81, 263, 0.2553, 0.3662),  # the four examples of Newcombe 1998, Statistics in Medicine 17, 857
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0000),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilsons_interval_has_its_published_values(successes: int, trials: int, lower: float, upper: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((lower, upper), abs=6e-5)


def test_without_trials_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_interval_solves_the_score_equation() -> None:
    for bound in wilson_interval(37, 50):
        assert abs(37 / 50 - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / 50))


def evaluation(*seconds: float) -> Evaluation:
    """Successes after these times, and one failure."""
    results = [EpisodeResult(seed, True, time) for seed, time in enumerate(seconds)]
    return Evaluation((*results, EpisodeResult(99, False, 60.0)))


def test_an_evaluation_counts() -> None:
    counted = evaluation(3.0, 1.0, 2.0)
    assert (counted.episodes, counted.successes) == (4, 3)
    assert counted.wilson == wilson_interval(3, 4)


@pytest.mark.parametrize(("seconds", "median"), [((3.0, 1.0, 2.0), 2.0), ((4.0, 1.0, 2.0, 8.0), 3.0), ((), None)])
def test_the_time_to_success_is_the_median(seconds: tuple[float, ...], median: float | None) -> None:
    assert evaluation(*seconds).seconds_to_success == median


def outcomes(*successes: int) -> Evaluation:
    return Evaluation(tuple(EpisodeResult(seed, bool(success), 1.0) for seed, success in enumerate(successes)))


def table(both: int, one: int, other: int, neither: int) -> tuple[Evaluation, Evaluation]:
    pairs = [(1, 1)] * both + [(1, 0)] * one + [(0, 1)] * other + [(0, 0)] * neither
    return outcomes(*(pair[0] for pair in pairs)), outcomes(*(pair[1] for pair in pairs))


def test_a_difference_is_that_of_the_rates() -> None:
    difference = paired_difference(*table(30, 12, 3, 5))
    assert difference.rate == pytest.approx(9 / 50)
    assert (difference.only_first, difference.only_second) == (12, 3)
    low, high = difference.interval
    assert low < 9 / 50 < high
    back = paired_difference(*reversed(table(30, 12, 3, 5)))
    assert back.interval == pytest.approx((-high, -low))


def test_without_correlation_it_is_newcombes_unpaired_interval() -> None:
    """Method 10 of the unpaired case (Newcombe 1998): square-and-add of Wilson's intervals."""
    first, second = table(20, 20, 5, 5)  # as if drawn apart: 20 * 5 = 20 * 5
    (l1, u1), (l2, u2) = first.wilson, second.wilson
    expected = (0.3 - np.hypot(0.8 - l1, u2 - 0.5), 0.3 + np.hypot(u1 - 0.8, 0.5 - l2))
    assert paired_difference(first, second).interval == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "excess"),
    [
        ((40, 10, 5, 45), 40 * 45 - 10 * 5 - 100 / 2),  # outcomes go together: less the continuity correction
        ((26, 25, 24, 25), 0.0),  # less than the correction
        ((5, 45, 40, 10), 5 * 10 - 45 * 40),  # against each other: as it is
    ],
)
def test_the_correlation_is_corrected_as_newcombe_does(counts: tuple[int, int, int, int], excess: float) -> None:
    both, one, other, neither = counts
    n = both + one + other + neither
    p1, p2 = (both + one) / n, (both + other) / n
    (low1, high1), (low2, high2) = wilson_interval(both + one, n), wilson_interval(both + other, n)
    phi = excess / ((both + one) * (other + neither) * (both + other) * (one + neither)) ** 0.5
    down = ((p1 - low1) ** 2 - 2 * phi * (p1 - low1) * (high2 - p2) + (high2 - p2) ** 2) ** 0.5
    up = ((high1 - p1) ** 2 - 2 * phi * (high1 - p1) * (p2 - low2) + (p2 - low2) ** 2) ** 0.5
    expected = (p1 - p2 - down, p1 - p2 + up)
    assert paired_difference(*table(*counts)).interval == pytest.approx(expected)


def test_pairing_narrows_the_interval() -> None:
    together, apart = paired_difference(*table(25, 4, 1, 20)), paired_difference(*table(15, 14, 11, 10))
    assert together.rate == pytest.approx(apart.rate)
    assert together.interval[0] > apart.interval[0]
    assert together.interval[1] < apart.interval[1]


def test_equal_outcomes_differ_by_nothing() -> None:
    low, high = paired_difference(*table(30, 0, 0, 20)).interval
    assert low <= 0.0 <= high
    assert high - low < 0.1


def test_only_common_seeds_are_compared() -> None:
    first = outcomes(1, 1, 0)
    second = Evaluation((EpisodeResult(1, False, 1.0), EpisodeResult(7, True, 1.0)))
    assert paired_difference(first, second).rate == 1.0
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference(first, Evaluation(second.results[1:]))


def test_of_what_was_cut_short_only_what_has_no_gap_before_it_counts() -> None:
    results = [EpisodeResult(seed, seed % 2 == 0, 1.0) for seed in (12, 10, 11, 14)]
    first = first_ended(results, range(10, 20))
    assert [result.seed for result in first.results] == [10, 11, 12]
    assert first_ended(results[:1], range(10, 20)).episodes == 0
