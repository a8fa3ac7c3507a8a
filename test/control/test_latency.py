"""Delays are found in what a camera would see of a moving joint."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.control.latency import components_of, excitation, find_delay
from lam_ros.errors import ConfigError


def filmed(positions: np.ndarray, noise: float = 2.0, seed: int = 0) -> np.ndarray:
    """A bright bar that moves over a textured wall, uint8 (T, 60, 80, 3)."""
    rng = np.random.default_rng(seed)
    wall = rng.integers(20, 120, (60, 80)).astype(float)
    columns = np.arange(80)
    film = []
    for position in positions:
        bar = 120 * np.exp(-(((columns - 40 - 150 * position) / 6) ** 2))
        film.append(np.clip(wall + bar + rng.normal(0, noise, wall.shape), 0, 255))
    return np.repeat(np.array(film, np.uint8)[..., None], 3, axis=3)


def test_the_path_stays_within_its_amplitude_and_begins_and_ends_at_rest() -> None:
    path = excitation(12.0, 100.0, 0.15)
    assert len(path) == 1200
    assert np.abs(path).max() <= 0.15
    assert np.abs(path).max() > 0.1
    assert path[0] == path[-1] == 0.0
    assert np.abs(np.diff(path)).max() * 100.0 < 1.0  # rad/s


@pytest.mark.parametrize("delay", [0.0, 0.033, 0.12, 0.3])
def test_a_cameras_delay_is_found_to_a_few_milliseconds(delay: float) -> None:
    times = np.arange(0, 12.0, 0.01)
    path = excitation(12.0, 100.0, 0.15)
    frames_s = np.arange(0.0, 12.0, 1 / 30) + np.random.default_rng(1).normal(0, 0.001, 360)
    film = filmed(np.interp(frames_s - delay, times, path))
    found = find_delay(times, path, frames_s, components_of(film))
    assert found.seconds == pytest.approx(delay, abs=0.004)
    assert found.explained > 0.9


def test_an_actuators_lag_is_found() -> None:
    times = np.arange(0, 12.0, 0.01)
    path = excitation(12.0, 100.0, 0.15)
    follows = np.interp(times - 0.05, times, path)
    assert find_delay(times, path, times, follows[:, None]).seconds == pytest.approx(0.05, abs=0.002)


def test_a_camera_that_does_not_see_the_joint_says_so() -> None:
    times, path = np.arange(0, 12.0, 0.01), excitation(12.0, 100.0, 0.15)
    frames_s = np.arange(0.0, 12.0, 1 / 30)
    with pytest.raises(ConfigError, match=r"the motion explains only \d+% of what is seen; choose a joint"):
        find_delay(times, path, frames_s, components_of(filmed(np.zeros(360))))
    with pytest.raises(ConfigError, match="nothing changes in what is seen"):
        find_delay(times, path, frames_s, np.zeros((360, 1)))


def test_too_few_frames_are_refused() -> None:
    times, path = np.arange(0, 12.0, 0.01), excitation(12.0, 100.0, 0.15)
    with pytest.raises(ConfigError, match="only 2 observations fall into the motion"):
        find_delay(times, path, np.array([3.0, 4.0]), np.zeros((2, 1)))
