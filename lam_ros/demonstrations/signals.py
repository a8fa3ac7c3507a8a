"""The joints of an episode over time, and what is odd about them: read without decoding a single picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.contract import NANOSECONDS, Contract
from lam_ros.demonstrations.episode import Episode
from lam_ros.demonstrations.topics import RecordedTopics
from lam_ros.demonstrations.wire import decode, stamp_ns_of
from lam_ros.errors import EpisodeError

IDLE_SPEED = 0.01  # of a joint's velocity limit: slower is standing still
IDLE_WINDOW_S = 0.2
CONSTANT_SHARE = 1e-3  # of a joint's range
JUMP = 1.5  # times what the velocity limit allows between two commands
SAME_SHARE = 0.005  # of the joints' ranges: two takes closer than this on the mean are one take, twice
RESAMPLED = 50
ODD_LENGTH = 3.0  # times shorter or longer than the median


@dataclass(frozen=True)
class Signals:
    """Joint positions and commands of an episode, each over its own time.

    Attributes:
        state_s, state: (N,) s since the first joint state, by header stamps; (N, J) rad or m.
        command_s, command: (M,), (M, J); those that the gate held are left out.
        start_ns: the stamp that is 0 s.
        begins_s: when the first joint state arrived, in s since the first message of the episode.
    """

    state_s: np.ndarray
    state: np.ndarray
    command_s: np.ndarray
    command: np.ndarray
    start_ns: int
    begins_s: float = 0.0

    @property
    def duration_s(self) -> float:
        return float(self.state_s[-1])


def read_signals(episode: Episode, robot: RobotConfig, command_topic: str = "lam/command") -> Signals:
    """Read joint states and commands.

    Raises:
        EpisodeError: there are no joint states, or the episode cannot be read.
        ContractError: they do not fit the robot.
    """
    contract = Contract.of(robot)
    states: list[tuple[int, np.ndarray]] = []
    commands: list[tuple[int, np.ndarray]] = []
    recorded = RecordedTopics.of(episode, robot, command_topic)
    topics = {recorded.states: states, recorded.commands: commands}
    first_ns = begins_ns = 0  # when the first message arrived, and the first joint state
    for topic, msgtype, data, received_ns in episode.messages():
        first_ns = first_ns or received_ns
        begins_ns = begins_ns if states else received_ns
        if topic.lstrip("/") in topics:
            message = decode(msgtype, data)
            if message.header.frame_id != "hold" and not contract.is_foreign(message.name):
                positions = contract.in_order(message.name, message.position, topic)
                topics[topic.lstrip("/")].append((stamp_ns_of(message), positions))
    if not states:
        raise EpisodeError(f"{episode.folder} holds no joint states; see `lam episodes show {episode.folder}`.")
    start_ns = min(stamp for stamp, _ in states)
    begins_s = (begins_ns - first_ns) / NANOSECONDS
    return Signals(*_columns(states, start_ns, contract), *_columns(commands, start_ns, contract), start_ns, begins_s)


def _columns(entries: list[tuple[int, np.ndarray]], start_ns: int, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    entries = sorted(entries, key=lambda entry: entry[0])
    seconds = (np.array([stamp for stamp, _ in entries], dtype=np.int64) - start_ns) / NANOSECONDS
    values = np.array([value for _, value in entries], dtype=np.float32).reshape(-1, len(contract.joints))
    return seconds, values


def motion(signals: Signals, robot: RobotConfig) -> tuple[float, float] | None:
    """From when to when (s) something moves; None where nothing does.

    A joint moves while its speed over ``IDLE_WINDOW_S`` is above ``IDLE_SPEED`` of its velocity limit.
    """
    moving = _moving(signals, robot)
    if not moving.any():
        return None
    times = np.arange(len(moving)) * IDLE_WINDOW_S
    return float(times[moving][0]), float(min(times[moving][-1] + IDLE_WINDOW_S, signals.duration_s))


def _moving(signals: Signals, robot: RobotConfig) -> np.ndarray:
    edges = np.arange(0.0, signals.duration_s + IDLE_WINDOW_S, IDLE_WINDOW_S)
    at_edges = np.stack([np.interp(edges, signals.state_s, joint) for joint in signals.state.T], axis=1)
    speed = np.abs(np.diff(at_edges, axis=0)) / IDLE_WINDOW_S
    return np.asarray((speed > IDLE_SPEED * robot.velocity_limits).any(axis=1))


def oddities(signals: Signals, robot: RobotConfig, expect: Sequence[str] = ()) -> list[str]:
    """A sentence for each thing that a policy should not learn from this take.

    Args:
        expect: joints that move in the other takes.
    """
    found = []
    moves = motion(signals, robot)
    if moves is None:
        return ["nothing moves."]
    begins, ends = moves
    idle_s = float((~_moving(signals, robot)).sum()) * IDLE_WINDOW_S
    for sentence, seconds in (
        (f"stands still for {begins:.1f} s at its beginning.", begins),
        (f"stands still for {signals.duration_s - ends:.1f} s at its end.", signals.duration_s - ends),
        (f"stands still for {idle_s:.1f} of {signals.duration_s:.1f} s in all.", 2.0 * idle_s - signals.duration_s),
    ):
        if seconds > 1.0:
            found.append(sentence)
    still = [name for name in expect if name not in moving_joints(signals, robot)]
    if still:
        found.append(f"{', '.join(still)} does not move, as in the other takes.")
    lower, upper = robot.position_limits
    beyond = np.asarray(((signals.state < lower - 0.01) | (signals.state > upper + 0.01)).any(axis=0))
    if beyond.any():
        names = ", ".join(name for name, is_beyond in zip(robot.joint_names, beyond, strict=True) if is_beyond)
        found.append(f"{names} is measured beyond the limits of the robot YAML.")
    if len(signals.command) > 1:
        steps, periods = np.abs(np.diff(signals.command, axis=0)), np.diff(signals.command_s)
        jumps = int((steps > JUMP * robot.velocity_limits * np.maximum(periods, 0.01)[:, None]).any(axis=1).sum())
        if jumps:
            found.append(f"its commands jump {jumps} times, by more than the joints can follow.")
    return found


def moving_joints(signals: Signals, robot: RobotConfig) -> list[str]:
    """The joints that move in a take."""
    lower, upper = robot.position_limits
    ranges = signals.state.max(axis=0) - signals.state.min(axis=0)
    return [
        name for name, share in zip(robot.joint_names, ranges / (upper - lower), strict=True) if share > CONSTANT_SHARE
    ]


def compare(takes: Mapping[str, Signals], robot: RobotConfig) -> dict[str, list[str]]:
    """What is odd about each take, also beside the others: its length, a still joint, or that it is there twice."""
    moving = {name: set(moving_joints(signals, robot)) for name, signals in takes.items()}
    usual = [joint for joint in robot.joint_names if sum(joint in m for m in moving.values()) > 0.8 * len(takes)]
    median_s = float(np.median([signals.duration_s for signals in takes.values()]))
    lower, upper = robot.position_limits
    paths: dict[str, np.ndarray] = {}
    found: dict[str, list[str]] = {}
    for name, signals in takes.items():
        found[name] = oddities(signals, robot, usual)
        if not median_s / ODD_LENGTH < signals.duration_s < median_s * ODD_LENGTH:
            found[name].append(f"takes {signals.duration_s:.1f} s, where {median_s:.1f} s are usual.")
        grid = np.linspace(0.0, signals.duration_s, RESAMPLED)
        path = np.stack([np.interp(grid, signals.state_s, joint) for joint in signals.state.T], axis=1)
        path = path / (upper - lower)
        for other, theirs in paths.items():
            if np.sqrt(((path - theirs) ** 2).mean()) < SAME_SHARE:
                found[name].append(f"moves as {other} does: the same take twice?")
                break
        paths[name] = path
    return found
