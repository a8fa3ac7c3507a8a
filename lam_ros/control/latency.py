"""Measuring delays: how long after the arm has moved does a camera, or the arm itself after a command, show it?

Both are found alike. A joint follows a smooth path x(t). What is observed, y(t), is some function of where the joint
was a while before, y(t) = f(x(t - delay)) + noise; the delay is the one for which a polynomial f explains most of y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lam_ros.errors import ConfigError

STEP_S = 0.001
DEGREE = 6  # of f: enough for how a picture's principal components change over a small motion
COMPONENTS = 3
CELLS = 24  # pictures are compared at so many cells a side
LEAST_EXPLAINED, LEAST_OBSERVATIONS = 0.5, 50


@dataclass(frozen=True)
class Delay:
    """A delay in s, and the share of what was observed that it explains (0 to 1)."""

    seconds: float
    explained: float


def excitation(seconds: float, rate_hz: float, amplitude: float) -> np.ndarray:
    """A smooth path (T,) that begins and ends at 0, within ±amplitude, and is like itself at no delay but 0.

    The sum of sines of incommensurate frequencies below 1 Hz, faded in and out over a second.
    """
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    frequencies, phases = np.array([0.23, 0.41, 0.67, 0.97]), np.array([0.0, 1.3, 2.9, 4.1])
    waves = np.sin(2 * np.pi * times[:, None] * frequencies + phases).sum(axis=1)
    fade = np.clip(np.minimum(times, times[-1] - times), 0.0, 1.0)
    path: np.ndarray = amplitude * waves / np.abs(waves).max() * fade * fade * (3 - 2 * fade)
    return path


def components_of(images: np.ndarray) -> np.ndarray:
    """What moves in a film, as (T, COMPONENTS): its principal components over time.

    Args:
        images: uint8 (T, H, W, 3).
    """
    count, height, width, _ = images.shape
    rows, columns = max(1, height // CELLS), max(1, width // CELLS)
    grey = images[:, : height // rows * rows, : width // columns * columns].mean(axis=3)
    cells = grey.reshape(count, height // rows, rows, width // columns, columns).mean(axis=(2, 4)).reshape(count, -1)
    left, scale, _ = np.linalg.svd(cells - cells.mean(axis=0), full_matrices=False)
    components: np.ndarray = left[:, :COMPONENTS] * scale[:COMPONENTS]
    return components


def find_delay(
    times_s: np.ndarray, positions: np.ndarray, seen_s: np.ndarray, seen: np.ndarray, longest_s: float = 0.5
) -> Delay:
    """The delay after which positions show in what is seen.

    Args:
        times_s, positions: (N,) the path of the joint, in s and rad or m.
        seen_s: (M,) when something was seen, by the same clock.
        seen: (M, K) what was seen.
        longest_s: delays from a tenth of this before to this after are tried.

    Raises:
        ConfigError: too little was seen, or nothing of it depends on the position.
    """
    inside = (seen_s > times_s[0] + longest_s) & (seen_s < times_s[-1] - longest_s)
    if inside.sum() < LEAST_OBSERVATIONS:
        raise ConfigError(
            f"only {inside.sum()} observations fall into the motion; check the topic's rate, or move longer."
        )
    seen_s, seen = seen_s[inside], seen[inside] - seen[inside].mean(axis=0)
    total = (seen**2).sum()
    if not total > 0:
        raise ConfigError("nothing changes in what is seen; check that the camera sees the joint that moves.")
    scale = np.abs(positions).max() or 1.0
    delays = np.arange(-longest_s / 10, longest_s, STEP_S)
    explained = np.array([_explained(np.interp(seen_s - d, times_s, positions) / scale, seen, total) for d in delays])
    best = int(explained.argmax())
    if explained[best] < LEAST_EXPLAINED:
        raise ConfigError(
            f"the motion explains only {explained[best]:.0%} of what is seen; choose a joint that moves much in the "
            "picture, a larger --amplitude, and let nothing else move."
        )
    return Delay(float(delays[best]), float(explained[best]))


def _explained(positions: np.ndarray, seen: np.ndarray, total: float) -> float:
    powers = positions[:, None] ** np.arange(DEGREE + 1)
    fitted = powers @ np.linalg.lstsq(powers, seen, rcond=None)[0]
    return float(1.0 - ((seen - fitted) ** 2).sum() / total)
