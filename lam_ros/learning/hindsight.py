"""What the end of a demonstration tells about its beginning: labels that cost nothing.

"Which way does this demonstration take?", "where does it end?", "where does the arm next touch something?" and "how
long will it take?" say in every frame where the object is. With relative targets the imitation loss hardly does: it is
nearly all small late movements. Absolute ones say much of it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

SLOW = 0.4  # share of the median speed: slower than this, the arm has arrived somewhere
WAY_SHARES = np.array([0.25, 0.5, 0.75])
TREMBLE = 0.01  # rad or m: a joint that moves less goes nowhere
MOVED_SHARE = 0.1  # of the whole way: the first halt comes later
GRIPPED_SHARE = 0.5  # of the way between the gripper's extremes: past it, the hand has changed
GRIPPER_MOVES = 0.2  # of the largest stroke in the joint's range: less is no grasp


@dataclass(frozen=True)
class Hindsight:
    """Labels of each of T ticks.

    Attributes:
        destination: float32 (T, J), joint positions at the end of the demonstration.
        contact: float32 (T, J), those at the next contact: where a hand next opens, closes, or the arm next halts.
        time_to_go: float32 (T,), ticks until the end.
        way: float32 (T, 3 * J), joint positions where a quarter, half and three quarters of the remaining way are done,
            however fast it goes.
    """

    destination: np.ndarray
    contact: np.ndarray
    time_to_go: np.ndarray
    way: np.ndarray


def look_back(
    state: np.ndarray, action: np.ndarray, grippers: np.ndarray, human: np.ndarray | None = None
) -> Hindsight:
    """The labels of one demonstration.

    Args:
        state, action: (T, J), measured and commanded joint positions.
        grippers: bool (J,), which joints are hands.
        human: (T,), who drove: then what one has begun ends where the other takes over, as a demonstration does.
    """
    cuts = np.empty(0, np.int64) if human is None else np.flatnonzero(np.diff(human.astype(np.int8))) + 1
    parts = [_of_stretch(*part, grippers) for part in zip(np.split(state, cuts), np.split(action, cuts), strict=True)]
    return Hindsight(
        **{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Hindsight)}
    )


def _of_stretch(state: np.ndarray, action: np.ndarray, grippers: np.ndarray) -> Hindsight:
    ticks = len(state)
    contacts = contact_ticks(state, action, grippers)
    following = contacts[np.searchsorted(contacts, np.arange(ticks))]
    return Hindsight(
        destination=np.repeat(state[-1:], ticks, axis=0),
        contact=state[following],
        time_to_go=np.arange(ticks - 1, -1, -1, dtype=np.float32),
        way=way_points(state),
    )


def way_points(state: np.ndarray) -> np.ndarray:
    """What ``Hindsight.way`` is, of states (T, J). Each joint's motion counts as a share of its range."""
    reach = np.maximum(np.ptp(state, axis=0), TREMBLE)
    gone = np.concatenate([[0.0], np.cumsum((np.abs(np.diff(state, axis=0)) / reach).max(1, initial=0.0))])
    wanted = gone[:, None] + WAY_SHARES * (gone[-1] - gone[:, None])
    ticks = np.minimum(np.searchsorted(gone, wanted), len(state) - 1)
    return state[ticks].reshape(len(state), -1)


def contact_ticks(state: np.ndarray, action: np.ndarray, grippers: np.ndarray) -> np.ndarray:
    """Ticks at which the arm probably touches something, in order; the last tick is always one.

    Args:
        state, action: (T, J).
        grippers: bool (J,).
    """
    ticks = len(state)
    found = {ticks - 1}
    for hand in action[:, grippers].T:
        low, high = hand.min(), hand.max()
        if high - low > GRIPPER_MOVES * max(abs(high), abs(low)):
            closed = hand < low + GRIPPED_SHARE * (high - low)
            found.update((np.flatnonzero(closed[1:] != closed[:-1]) + 1).tolist())
    if ticks > 2 and not grippers.all():
        speed = np.abs(np.diff(state[:, ~grippers], axis=0)).max(1)
        slow = speed < SLOW * np.median(speed)
        way = np.cumsum(speed)
        # A halt begins where the arm becomes slow; a hesitation before it has gone anywhere is none.
        halts = np.flatnonzero(slow[1:] & ~slow[:-1]) + 1
        found.update(halts[way[halts] > MOVED_SHARE * way[-1]].tolist())
    return np.array(sorted(found))
