"""Alignment: which images, state and command belong to one tick. The same code serves the live nodes and training.

A tick is complete when every camera has delivered a frame since the last tick, and a policy period has passed:

    front   |----x--------x--------x        x: a frame
    wrist   |------x--------x--------x
    ticks          t0       t1       t2     each stamped with its oldest image (here the front one)

With a clock camera (``policy.clock``) each of its frames is a tick, with the newest frames of the others that are not
younger:

    front   |----x--------x--------x        the clock
    wrist   |--x---x---x---x---x---x
    ticks        t0       t1       t2       wrist's frames: the last at or before each x of front

Stamps are times of capture: header stamps less the sensor's latency in the robot YAML. The state of a tick is
interpolated between the measurements before and after its stamp; live, where none has come after yet, it is the newest
before. The action of a tick, for training, is the first command that answers what could be seen: at or after the tick,
and before the next.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lam_ros.config import JointStatesConfig, RobotConfig
from lam_ros.contract import Contract, seconds_to_ns
from lam_ros.demonstrations.cache import cached
from lam_ros.demonstrations.dataset import Dataset, Demonstration, digest_of
from lam_ros.demonstrations.episode import Episode
from lam_ros.demonstrations.topics import RecordedTopics
from lam_ros.demonstrations.wire import decode, stamp_ns_of
from lam_ros.errors import ContractError, EpisodeError, ImageError
from lam_ros.images import read_frame, scale_image

CLOCKED_FRAMES = 8  # of each camera are kept beside a clock


@dataclass(frozen=True)
class Tick:
    """The images of one tick: camera -> whatever was pushed (an array or a message).

    Attributes:
        stamp_ns: of the oldest image.
        clock_ns: of the clock camera's; without one, of the oldest. Two ticks of a clock may share their oldest image.
    """

    stamp_ns: int
    images: Mapping[str, Any]
    clock_ns: int


class TickAssembler:
    """Puts frames together into ticks. The newest frame of a camera wins; older ones are dropped and counted.

    Args:
        robot: its cameras and their latencies, policy rate, clock camera, and largest image skew.
    """

    def __init__(self, robot: RobotConfig) -> None:
        self._cameras = robot.camera_names
        self._latency_ns = {name: seconds_to_ns(camera.latency_s) for name, camera in robot.cameras.items()}
        self._clock = robot.policy.clock
        # Frames jitter: a period counts as over when most of it is.
        self._period_ns = seconds_to_ns(0.75 / robot.policy.rate_hz)
        self._skew_ns = seconds_to_ns(robot.policy.max_image_skew_s)
        self._frames: dict[str, deque[tuple[int, Any]]] = self._none()
        self._last_tick_ns: int | None = None
        self._before: tuple[dict[str, deque[tuple[int, Any]]], int | None] = {}, None  # the last tick was given
        self.dropped = 0

    def _none(self) -> dict[str, deque[tuple[int, Any]]]:
        # Beside a clock, some frames of the others may be younger than it when it arrives.
        return {name: deque(maxlen=CLOCKED_FRAMES if self._clock else 1) for name in self._cameras}

    def is_due(self, camera: str, stamp_ns: int) -> bool:
        """Whether a frame with this header stamp may be part of a tick, or comes sooner than the policy ticks."""
        captured_ns = stamp_ns - self._latency_ns[camera]
        if self._last_tick_ns is not None and captured_ns < self._last_tick_ns - self._skew_ns - self._period_ns:
            self._last_tick_ns = None  # time went back: another run of a simulator or a bag
            self._frames = self._none()
        if self._last_tick_ns is None or (self._clock and camera != self._clock):
            return True
        return captured_ns - self._last_tick_ns >= self._period_ns

    def push(self, camera: str, stamp_ns: int, image: Any) -> Tick | None:
        """Add one frame with its header stamp; the tick that it completes, if it does.

        Raises:
            ContractError: the frames at hand are too far apart in time to be one observation; the older are dropped.
        """
        if not self.is_due(camera, stamp_ns):
            self.dropped += 1
            return None
        frames = self._frames[camera]
        self.dropped += len(frames) == frames.maxlen
        frames.append((stamp_ns - self._latency_ns[camera], image))
        is_complete = camera == self._clock if self._clock else all(self._frames.values())
        return self._complete() if is_complete else None

    def without(self, images: Collection[Any]) -> Tick | None:
        """The tick that there is instead of the one just given: these of its images cannot be read, and count as if
        they had never come.

        Raises:
            ContractError: as ``push``.
        """
        frames, self._last_tick_ns = self._before
        self._frames = {
            name: deque((kept for kept in held if not any(kept[1] is image for image in images)), held.maxlen)
            for name, held in frames.items()
        }
        decides = [self._clock] if self._clock else self._cameras
        is_over = any(len(self._frames[name]) < len(frames[name]) for name in decides)
        return None if is_over else self._complete()

    def _complete(self) -> Tick | None:
        self._before = {name: frames.copy() for name, frames in self._frames.items()}, self._last_tick_ns
        if self._clock:
            return self._tick_of_clock()
        return self._tick({name: frames[-1] for name, frames in self._frames.items()})

    def _tick_of_clock(self) -> Tick | None:
        (clock_ns, _) = self._frames[self._clock][-1]
        chosen = {}
        for name, frames in self._frames.items():
            while len(frames) > 1 and frames[1][0] <= clock_ns:
                frames.popleft()
            if not frames or frames[0][0] > clock_ns:
                self.dropped += 1
                return None
            chosen[name] = frames[0]
        return self._tick(chosen)

    def _tick(self, chosen: dict[str, tuple[int, Any]]) -> Tick:
        stamps = {name: stamp for name, (stamp, _) in chosen.items()}
        oldest, newest = min(stamps.values()), max(stamps.values())
        if newest - oldest > self._skew_ns:
            late = [name for name, stamp in stamps.items() if newest - stamp > self._skew_ns]
            for name in late:
                self._frames[name].popleft()
                self.dropped += 1
            raise ContractError(
                f"camera {', '.join(late)} is {(newest - oldest) / 1e6:.0f} ms behind the others; at most "
                f"{self._skew_ns / 1e6:.0f} ms make one observation. Check its clock and rate."
            )
        if not self._clock:
            self._frames = self._none()
        self._last_tick_ns = stamps[self._clock] if self._clock else oldest
        return Tick(oldest, {name: chosen[name][1] for name in self._cameras}, self._last_tick_ns)


class StateHistory:
    """Measured joint positions of the last while, to find the state at a tick.

    Args:
        joint_states: how old a state may be, and its latency.
        keep: how many to remember.
    """

    def __init__(self, joint_states: JointStatesConfig, keep: int = 400) -> None:
        self._max_age_ns = seconds_to_ns(joint_states.max_age_s)
        self._latency_ns = seconds_to_ns(joint_states.latency_s)
        self._keep = keep
        self._stamps: list[int] = []
        self._states: list[np.ndarray] = []

    def push(self, stamp_ns: int, state: np.ndarray) -> None:
        """Add a state (J,) with its header stamp; stamps that go back start a new history."""
        measured_ns = stamp_ns - self._latency_ns
        if self._stamps and measured_ns < self._stamps[-1]:
            self._stamps.clear()
            self._states.clear()
        self._stamps.append(measured_ns)
        self._states.append(state)
        if len(self._stamps) > self._keep:
            del self._stamps[0], self._states[0]

    @property
    def newest_ns(self) -> int | None:
        """When the newest was measured."""
        return self._stamps[-1] if self._stamps else None

    def at(self, stamp_ns: int) -> np.ndarray:
        """The state (J,) at a time: as measured then, else between the measurements around it, else the newest before.

        Raises:
            ContractError: there is none that is young enough.
        """
        index = bisect.bisect_right(self._stamps, stamp_ns) - 1
        if index < 0:
            raise ContractError(
                "no joint state is as old as the images; check that joint states arrive, and the clocks."
            )
        before_ns, before = self._stamps[index], self._states[index]
        if before_ns < stamp_ns and index + 1 < len(self._stamps):
            after_ns, after = self._stamps[index + 1], self._states[index + 1]
            if after_ns - before_ns <= self._max_age_ns:
                share = (stamp_ns - before_ns) / (after_ns - before_ns)
                interpolated: np.ndarray = (before + share * (after - before)).astype(before.dtype)
                return interpolated
        age_ns = stamp_ns - before_ns
        if age_ns > self._max_age_ns:
            raise ContractError(
                f"the newest joint state is {age_ns / 1e6:.0f} ms older than the images, more than "
                f"{self._max_age_ns / 1e6:.0f} ms (joint_states.max_age_s); check the robot driver and the clocks."
            )
        return before


@dataclass(frozen=True)
class _Commands:
    stamps: Sequence[int]
    targets: Sequence[np.ndarray]
    drivers: Sequence[str]

    def answering(self, stamp_ns: int, next_stamp_ns: int) -> tuple[np.ndarray | None, str]:
        """The target in force, and who drove; none before the first."""
        index = bisect.bisect_left(self.stamps, stamp_ns)
        if index == len(self.stamps) or self.stamps[index] >= next_stamp_ns:
            index -= 1
        return (self.targets[index], self.drivers[index]) if index >= 0 else (None, "")


def align(episode: Episode, robot: RobotConfig, image_size: tuple[int, int], command_topic: str) -> Demonstration:
    """Turn an episode into arrays at the policy's ticks.

    Args:
        image_size: (width, height) that images are scaled to.
        command_topic: whose commands are the actions, as recorded (``lam/command`` in the robot's namespace); empty
            where none are needed, as in a film: the state is then the action.

    Raises:
        EpisodeError: the episode lacks what the robot YAML names, or cannot be read.
        ContractError: a message does not fit the robot.
    """
    contract = Contract.of(robot)
    topics = RecordedTopics.of(episode, robot, command_topic)
    cameras = topics.cameras
    latest_ns = seconds_to_ns(max(camera.latency_s for camera in robot.cameras.values()))
    frames: list[tuple[int, str, np.ndarray]] = []
    states: list[tuple[int, np.ndarray]] = []
    commands: list[tuple[int, str, np.ndarray]] = []
    others: Any = None  # a message of joints that are not this robot's
    try:
        for topic, msgtype, data, _ in episode.messages():
            name = topic.lstrip("/")
            if name in cameras:
                stamp_ns, image = read_frame(msgtype, data)
                contract.validate_image(cameras[name], image)
                frames.append((stamp_ns, cameras[name], scale_image(image, image_size)))
            elif name == topics.states:
                message = decode(msgtype, data)
                if contract.is_foreign(message.name):
                    others = message
                else:
                    states.append((stamp_ns_of(message), contract.in_order(message.name, message.position, topic)))
            elif name == topics.commands:
                message = decode(msgtype, data)
                driver, stamp_ns = message.header.frame_id, stamp_ns_of(message)
                # A policy's command has the stamp of the images that it answers. A human's has its own time: it belongs
                # to the images that would have reached a policy by then.
                answers_ns = stamp_ns if driver == "policy" else stamp_ns - latest_ns
                commands.append((answers_ns, driver, contract.in_order(message.name, message.position, topic)))
        if others and not states:
            contract.in_order(others.name, others.position, robot.joint_states.topic)  # says what it lacks
    except (ContractError, ImageError) as error:
        raise ContractError(f"{episode.folder}: {error}") from None
    for noun, found in (("images", frames), ("joint states", states), ("commands", commands)):
        if not found and (noun != "commands" or command_topic):
            raise EpisodeError(f"{episode.folder} holds no {noun}; see `lam episodes list` for its topics.")
    silent = [camera for camera in contract.cameras if not any(name == camera for _, name, _ in frames)]
    if silent:
        raise EpisodeError(
            f"{episode.folder} holds no images of {', '.join(silent)}, which the robot YAML names; leave out "
            "the camera there, or this episode."
        )
    history = StateHistory(robot.joint_states, keep=len(states))
    for stamp, state in sorted(states, key=lambda entry: entry[0]):
        history.push(stamp, state)
    ticks = _ticks(robot, frames)
    moments: dict[int, deque[int]] = {}
    for tick in ticks:
        moments.setdefault(tick.stamp_ns, deque()).append(tick.clock_ns)

    def answered(stamp_ns: int, driver: str) -> int:
        """The moment of the tick that a command answers: a policy's has the stamp of that tick's oldest image."""
        asked = moments.get(stamp_ns)
        return asked.popleft() if driver == "policy" and asked else stamp_ns

    commands = [(answered(stamp_ns, driver), driver, target) for stamp_ns, driver, target in commands]
    driven = [c for c in commands if c[1] != "hold"] or commands
    stamps, drivers, targets = zip(*sorted(driven, key=lambda c: c[0]), strict=True) if driven else ((), (), ())
    in_force = _Commands(stamps, targets, drivers)
    rows, refusal = [], ""
    for tick, following in zip(ticks, [*ticks[1:], None][: len(ticks)], strict=True):
        end = following.clock_ns if following else tick.clock_ns + seconds_to_ns(1.0 / robot.policy.rate_hz)
        try:
            state = history.at(tick.stamp_ns)
        except ContractError as error:  # live, this tick would have been refused and counted just so
            refusal = f" The last tick's reason: {error}"
            continue
        action, driver = in_force.answering(tick.clock_ns, end) if command_topic else (state, "")
        if action is not None:
            images = np.stack([tick.images[camera] for camera in contract.cameras])
            rows.append((images, state, action, tick.stamp_ns, driver != "policy"))
    if not rows:
        raise EpisodeError(
            f"{episode.folder} has no tick with every camera, a joint state and a command; see `lam episodes list`."
            + refusal
        )
    images, state, actions, stamps, human = zip(*rows, strict=True)
    stamps_ns = np.array(stamps, dtype=np.int64)
    return Demonstration(np.stack(images), np.stack(state), np.stack(actions), stamps_ns, np.array(human))


def _ticks(robot: RobotConfig, frames: list[tuple[int, str, np.ndarray]]) -> list[Tick]:
    """The ticks of frames in the order in which they arrived, as live."""
    assembler = TickAssembler(robot)
    ticks = []
    for stamp, camera, image in frames:
        try:
            tick = assembler.push(camera, stamp, image)
        except ContractError:  # live, this tick would have been refused and counted just so
            continue
        if tick is not None:
            ticks.append(tick)
    return ticks


def usable(episodes: Sequence[Episode], robot: RobotConfig) -> list[Episode]:
    """The episodes that are to be learned from.

    Raises:
        EpisodeError: there are none, or they were recorded with another robot.
    """
    if not episodes:
        raise EpisodeError("there are no episodes; record some with `lam record`, or check the folder.")
    chosen = [episode for episode in episodes if episode.is_usable]
    if not chosen:
        raise EpisodeError(f"none of {len(episodes)} episodes is usable; see `lam episodes list` for their verdicts.")
    for episode in chosen:
        # Not the digest: narrower limits or another rate make no demonstration worse, and joints, topics and sizes are
        # checked where they are read.
        if episode.manifest.robot != robot.name:
            raise EpisodeError(
                f"{episode.folder} was recorded with the robot {episode.manifest.robot}, not {robot.name}; "
                "train with the robot YAML it was recorded with."
            )
    return chosen


def load_dataset(
    episodes: list[Episode],
    robot: RobotConfig,
    image_size: tuple[int, int],
    command_topic: str = "lam/command",
    report: Any = lambda done, total: None,
    films: bool = False,
) -> Dataset:
    """Align the successful and unmarked episodes whose verdict is not FAIL.

    Args:
        films: all episodes instead, without their commands.

    Raises:
        EpisodeError: none of them can be used, or they were recorded with another robot.
    """
    chosen = list(episodes) if films else usable(episodes, robot)
    if not chosen:
        raise EpisodeError("there are no episodes; record some with `lam record`.")
    command_topic = "" if films else command_topic
    demonstrations = []
    for done, episode in enumerate(chosen, 1):
        demonstrations.append(cached(episode, robot, image_size, command_topic, align))
        report(done, len(chosen))
    hashes = sorted(hash_ for episode in chosen for hash_ in episode.manifest.sha256.values())
    digest = digest_of([*hashes, robot.digest, str(image_size)])
    return Dataset(Contract.of(robot), chosen[0].manifest.task, robot.name, demonstrations, digest)
