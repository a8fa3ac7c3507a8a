"""The robot YAML as frozen dataclasses, read strictly: an unknown key is an error that lists the valid ones."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import yaml

from lam_ros.errors import ConfigError
from lam_ros.share import share_path

T = TypeVar("T")


def _latency(seconds: float) -> None:
    if not 0.0 <= seconds < 1.0:
        raise ConfigError(f"latency_s is {seconds}; it must be from 0 to 1 s.")


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise ConfigError(f"{name} is {value}; it must be above 0.")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value < 0:
            raise ConfigError(f"{name} is {value}; it must be 0 or above.")


FULL_ACCELERATION_S = 0.02
FOLLOWING_S = 0.25
LARGEST = 1e12  # number in a file: what is larger is a mistake, and may not even fit a float
OLDEST_S = 0.5  # of images, beyond their known latency: no command is made of older ones


@dataclass(frozen=True)
class JointConfig:
    """One driven joint. Limits are in its unit (rad or m), per s, s² and s³.

    Attributes:
        jerk: 0 means: full acceleration within ``FULL_ACCELERATION_S``.
        following_error: how far it may be from where it was sent; 0 means: what it travels in ``FOLLOWING_S`` at its
            velocity limit. A gripper that closes on things needs as much as their thickness.
    """

    unit: Literal["rad", "m"]
    position: tuple[float, float]
    velocity: float
    acceleration: float
    jerk: float = 0.0
    following_error: float = 0.0

    def __post_init__(self) -> None:
        lower, upper = self.position
        if not lower < upper:
            raise ConfigError(f"position is [{lower}, {upper}]; the lower limit must be below the upper one.")
        _positive(self, "velocity", "acceleration")
        _not_negative(self, "jerk", "following_error")


@dataclass(frozen=True)
class CameraConfig:
    """One camera: its image topic, size in pixels and rate in Hz.

    ``latency_s``: from the light on the sensor to the header's stamp; `lam calibrate latency` measures it.
    """

    topic: str
    width: int
    height: int
    rate_hz: float
    transport: Literal["raw", "compressed"] = "raw"
    frame_id: str = ""
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "width", "height", "rate_hz")
        _latency(self.latency_s)

    @property
    def message_type(self) -> str:
        return f"sensor_msgs/msg/{'Image' if self.transport == 'raw' else 'CompressedImage'}"

    @property
    def subscribed_topic(self) -> str:
        return self.topic if self.transport == "raw" else f"{self.topic}/compressed"


@dataclass(frozen=True)
class JointStatesConfig:
    """Where measured joint positions come from, and how old they may be (s) when a command is computed.

    ``latency_s``: from the measurement to the header's stamp.
    """

    topic: str = "joint_states"
    rate_hz: float = 100.0
    max_age_s: float = 0.1
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "rate_hz", "max_age_s")
        _latency(self.latency_s)


@dataclass(frozen=True)
class CommandConfig:
    """How commands leave for the robot's controller."""

    topic: str = "robot/command"
    type: Literal["joint_trajectory", "multi_array", "joint_state"] = "joint_trajectory"


@dataclass(frozen=True)
class PolicyTickConfig:
    """The policy's tick.

    Attributes:
        rate_hz: how often it ticks.
        max_image_skew_s: the largest age difference between the images of one tick.
        clock: the camera whose frames are the ticks, with the newest frames of the others not younger than it; empty:
            a tick is complete when every camera has delivered.
    """

    rate_hz: float = 20.0
    max_image_skew_s: float = 0.1
    clock: str = ""

    def __post_init__(self) -> None:
        _positive(self, "rate_hz", "max_image_skew_s")


FEWEST_PERIODS = 1.5  # of what it waits for, after which the gate takes it to be stale
UNBOUNDED = (-1e3, 1e3)


@dataclass(frozen=True)
class WorkspaceConfig:
    """Where the arm may be; the gate stops before it leaves. Needs the robot's URDF, and MuJoCo to read it.

    Attributes:
        x, y, z: from and to (m), of the tool in the frame of the arm's base.
        self_clearance_m: how near links may come to one another, neighbours aside; 0 looks at none.
        tool_frame: the URDF's link that must stay in the box.
    """

    x: tuple[float, float] = UNBOUNDED
    y: tuple[float, float] = UNBOUNDED
    z: tuple[float, float] = UNBOUNDED
    self_clearance_m: float = 0.0
    tool_frame: str = "tool_link"

    def __post_init__(self) -> None:
        _not_negative(self, "self_clearance_m")
        for axis in "xyz":
            lower, upper = getattr(self, axis)
            if not lower < upper:
                raise ConfigError(f"{axis} is [{lower}, {upper}]; the first must be below the second.")


@dataclass(frozen=True)
class GateConfig:
    """The gate.

    Attributes:
        rate_hz: how often it checks.
        staleness_s: after how long without a request, or without joint states, it brakes and holds.
        ramp_s: how long a new driver, or one after a pause, takes to come to full speed.
        after_teleop: what follows when a human lets go: ``policy``, which goes on by itself, or ``hold``, until
            somebody calls ``lam/resume``.
        longest_pause_s: a policy that falls silent for longer, or whose arm's joint states do, waits for
            ``lam/resume``: nobody expects an arm to move because a cable was plugged in again. 0 lets it go on by
            itself, and so does simulated time.
        workspace: where the arm may be; nowhere is forbidden if it is left out.
    """

    rate_hz: float = 100.0
    staleness_s: float = 0.15
    ramp_s: float = 0.3
    after_teleop: Literal["policy", "hold"] = "policy"
    longest_pause_s: float = 3.0
    workspace: WorkspaceConfig | None = None

    def __post_init__(self) -> None:
        _positive(self, "rate_hz", "staleness_s")
        _not_negative(self, "ramp_s", "longest_pause_s")


@dataclass(frozen=True)
class JoyAxis:
    """One axis of a gamepad or SpaceMouse, counted from 0; at full deflection the joint moves at this share of its
    velocity limit, backwards where it is negative."""

    axis: int
    scale: float = 0.5

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise ConfigError(f"axis is {self.axis}; axes are counted from 0.")
        if not 0.0 < abs(self.scale) <= 1.0:
            raise ConfigError(f"scale is {self.scale}; it must be from -1 to 1, and not 0.")


@dataclass(frozen=True)
class JoyConfig:
    """Driving by ``sensor_msgs/Joy``.

    Attributes:
        deadman: the button that must be held while somebody drives, counted from 0.
        axes: joint -> axis.
        dead_zone: deflections below this are none: sticks do not come back to 0.
        topic: of the messages.
    """

    deadman: int
    axes: dict[str, JoyAxis]
    dead_zone: float = 0.05
    topic: str = "joy"

    def __post_init__(self) -> None:
        if self.deadman < 0:
            raise ConfigError(f"deadman is {self.deadman}; buttons are counted from 0.")
        if not 0.0 <= self.dead_zone < 1.0:
            raise ConfigError(f"dead_zone is {self.dead_zone}; it must be from 0 to below 1.")


@dataclass(frozen=True)
class LeaderJoint:
    """Which joint of the leader arm moves one of the robot's: scale * its position + offset, in rad or m."""

    joint: str
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class LeaderConfig:
    """Driving by a leader arm: its ``sensor_msgs/JointState``, and the robot's joint -> the leader's."""

    joints: dict[str, LeaderJoint]
    topic: str = "leader/joint_states"


@dataclass(frozen=True)
class TwistConfig:
    """Driving the tool by ``geometry_msgs/TwistStamped``, as a SpaceMouse, VR and phone apps send it.

    Attributes:
        base_frame, tool_frame: links of the URDF. A twist is in the one that its header names, the base's if none.
        scale: what is sent times this is m/s and rad/s; apps that send -1 to 1 need 0.1 or so.
        linear, angular: the tool is never asked to be faster (m/s, rad/s).
        topic: of the messages.
    """

    base_frame: str = "base_link"
    tool_frame: str = "tool_link"
    scale: float = 1.0
    linear: float = 0.25
    angular: float = 1.0
    topic: str = "teleop/twist"

    def __post_init__(self) -> None:
        _positive(self, "scale", "linear", "angular")


@dataclass(frozen=True)
class TeleopConfig:
    """What a human drives the arm with. With a gamepad beside them, leader arm and twist drive while its ``deadman`` is
    held."""

    joy: JoyConfig | None = None
    leader: LeaderConfig | None = None
    twist: TwistConfig | None = None


@dataclass(frozen=True)
class VerdictConfig:
    """When an episode is WARN or FAIL. Rates are shares of the expected one, gaps are in expected periods.

    Attributes:
        warn_rate, fail_rate: a topic slower than this share of its rate.
        warn_gap, fail_gap: a pause longer than this many periods,
        warn_gap_s, fail_gap_s: and longer than this (s): a fast topic may miss a few periods without harm.
        warn_late_s: a topic that begins so much later than the take.
        warn_skew_s: a topic whose messages are so much older at their arrival than those of the quickest topic.
        warn_clock_s: header stamps so far in the future, or so far in the past, that the clocks must differ (s).
        warn_same: a camera of which more than this share of frames are the picture before.
        fail_lost: a share of lost messages above this; any loss at all is a WARN.
    """

    warn_rate: float = 0.9
    fail_rate: float = 0.5
    warn_gap: float = 3.0
    fail_gap: float = 10.0
    warn_gap_s: float = 0.1
    fail_gap_s: float = 0.3
    warn_late_s: float = 2.0
    warn_skew_s: float = 0.1
    warn_clock_s: float = 1.0
    warn_same: float = 0.5
    fail_lost: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, *(field.name for field in dataclasses.fields(self) if field.name != "fail_lost"))
        for smaller, larger in (("warn_gap", "fail_gap"), ("warn_gap_s", "fail_gap_s"), ("fail_rate", "warn_rate")):
            if getattr(self, smaller) > getattr(self, larger):
                raise ConfigError(
                    f"{smaller} is {getattr(self, smaller):g} and {larger} {getattr(self, larger):g}; "
                    "a warning must come before a failure."
                )


RECORDER_ACTIONS = ("start", "stop", "discard", "again", "mark_success", "mark_failure")


@dataclass(frozen=True)
class ButtonsConfig:
    """Episode control from a joystick: recorder action -> button number of the ``sensor_msgs/Joy`` on ``topic``.

    The same number for ``start`` and ``stop`` makes a button that does whichever can be done.
    """

    topic: str = "joy"
    actions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for action, button in self.actions.items():
            if action not in RECORDER_ACTIONS:
                raise ConfigError(f"actions names {action!r}; valid are {', '.join(RECORDER_ACTIONS)}.")
            if button < 0:
                raise ConfigError(f"actions.{action} is {button}; buttons are counted from 0.")


@dataclass(frozen=True)
class RecorderConfig:
    """The recorder: what it records beside the robot's own topics, and how it stores it.

    Attributes:
        topics: further topics of any type, by name or pattern (``/tf``, ``camera/*/camera_info``).
        keep_free_gb: how much of the disk (GB) no take may use. A take in progress is sealed before it would.
        compression: of chunks; ``auto`` is zstd unless the raw cameras together send more than ``FAST_BYTES_S``.
        chunk_mb: size of an MCAP chunk: what a reader loads at once, and what a crash may cost of a fast topic.
        flush_s: how often what has arrived is handed to the operating system: what a crash may cost of a slow topic.
        backlog_mb: received and not yet written; beyond it messages are lost, and counted.
        verdict: thresholds.
        buttons: episode control from a joystick.
    """

    topics: tuple[str, ...] = ("/tf", "/tf_static", "lam/shadow")
    keep_free_gb: float = 1.0
    compression: Literal["auto", "none", "zstd"] = "auto"
    chunk_mb: float = 1.0
    flush_s: float = 0.5
    backlog_mb: float = 512.0
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    buttons: ButtonsConfig = field(default_factory=ButtonsConfig)

    def __post_init__(self) -> None:
        _positive(self, "keep_free_gb", "chunk_mb", "flush_s", "backlog_mb")


FAST_BYTES_S = 50e6  # zstd takes a third of a core for 100 MB/s of camera frames; see benchmarks/README.md


@dataclass(frozen=True)
class RobotConfig:
    """Everything the nodes, the dataset and the trainer know of one robot; the order of joints and cameras counts."""

    name: str
    joints: dict[str, JointConfig]
    cameras: dict[str, CameraConfig]
    urdf: str = ""
    joint_states: JointStatesConfig = field(default_factory=JointStatesConfig)
    command: CommandConfig = field(default_factory=CommandConfig)
    policy: PolicyTickConfig = field(default_factory=PolicyTickConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    teleop: TeleopConfig = field(default_factory=TeleopConfig)
    recorder: RecorderConfig = field(default_factory=RecorderConfig)

    def __post_init__(self) -> None:
        for noun, entries in (("joints", self.joints), ("cameras", self.cameras)):
            if not entries:
                raise ConfigError(f"{noun} is empty; name at least one.")
        if self.policy.clock and self.policy.clock not in self.cameras:
            raise ConfigError(
                f"policy.clock is {self.policy.clock!r}, which is no camera; there are {', '.join(self.cameras)}."
            )
        for name, camera in self.cameras.items():
            if camera.rate_hz < self.policy.rate_hz * 0.99:
                raise ConfigError(
                    f"cameras.{name}.rate_hz is {camera.rate_hz:g}, below policy.rate_hz {self.policy.rate_hz:g}; "
                    "a tick needs a new frame of every camera: raise the one or lower the other."
                )
        for where, rate_hz in (("policy", self.policy.rate_hz), ("joint_states", self.joint_states.rate_hz)):
            if self.gate.staleness_s < FEWEST_PERIODS / rate_hz:
                raise ConfigError(
                    f"gate.staleness_s is {self.gate.staleness_s:g}, and {where}.rate_hz {rate_hz:g}: the gate would "
                    f"hold the arm between two; make it {math.ceil(100 * FEWEST_PERIODS / rate_hz) / 100:g} or more."
                )
        for where, moved in (("joy.axes", self.teleop.joy and self.teleop.joy.axes), ("leader.joints", self._led)):
            unknown = [name for name in moved or () if name not in self.joints]
            if unknown:
                raise ConfigError(f"teleop.{where} names {unknown[0]!r}; the joints are {', '.join(self.joints)}.")
        if self._led is not None and len(self._led) != len(self.joints):
            missing = [name for name in self.joints if name not in self._led]
            raise ConfigError(f"teleop.leader.joints lacks {', '.join(missing)}; a leader arm leads every joint.")
        for where, described in (("gate.workspace", self.gate.workspace), ("teleop.twist", self.teleop.twist)):
            if described is not None and not self.urdf:
                raise ConfigError(f"{where} needs the arm's shape: add `urdf: path/to/arm.urdf`.")

    @property
    def _led(self) -> dict[str, LeaderJoint] | None:
        return self.teleop.leader.joints if self.teleop.leader else None

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(self.joints)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(self.cameras)

    @property
    def position_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper joint limits, two float64 arrays of shape (J,) in rad or m."""
        lower, upper = np.array([joint.position for joint in self.joints.values()], dtype=np.float64).T
        return lower, upper

    @property
    def velocity_limits(self) -> np.ndarray:
        """float64 (J,) in rad/s or m/s."""
        return np.array([joint.velocity for joint in self.joints.values()], dtype=np.float64)

    @property
    def acceleration_limits(self) -> np.ndarray:
        """float64 (J,) in rad/s² or m/s²."""
        return np.array([joint.acceleration for joint in self.joints.values()], dtype=np.float64)

    @property
    def jerk_limits(self) -> np.ndarray:
        """float64 (J,) in rad/s³ or m/s³."""
        joints = self.joints.values()
        return np.array([joint.jerk or joint.acceleration / FULL_ACCELERATION_S for joint in joints])

    @property
    def following_errors(self) -> np.ndarray:
        """float64 (J,) in rad or m: how far measured may be from commanded."""
        joints = self.joints.values()
        return np.array([joint.following_error or joint.velocity * FOLLOWING_S for joint in joints])

    @property
    def oldest_image_s(self) -> float:
        """How much older than the joint states images may be that a command answers."""
        return OLDEST_S + max(camera.latency_s for camera in self.cameras.values())

    @property
    def compresses(self) -> bool:
        """Whether episodes are compressed: as the recorder's ``compression`` says."""
        raw = [c.width * c.height * 3 * c.rate_hz for c in self.cameras.values() if c.transport == "raw"]
        return self.recorder.compression == "zstd" or (self.recorder.compression == "auto" and sum(raw) <= FAST_BYTES_S)

    @property
    def digest(self) -> str:
        """16 hex digits that change when anything of the robot changes."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where} is {value!r}; valid are {', '.join(map(repr, choices))}.")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return _convert(inner, value, where)
    if origin is tuple:
        args = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}; a list was expected.")
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(value) != len(args):
            raise ConfigError(f"{where} has {len(value)} entries; {len(args)} were expected.")
        return tuple(_convert(arg, v, f"{where}[{i}]") for i, (arg, v) in enumerate(zip(args, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; a mapping of names was expected.")
        _, inner = typing.get_args(hint)
        return {str(name): _convert(inner, entry, f"{where}.{name}") for name, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast("type[Any]", hint), value, where)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and abs(value) > LARGEST:
        raise ConfigError(f"{where} is larger than {LARGEST:g}.")
    if hint is float and number:
        if not math.isfinite(value):
            raise ConfigError(f"{where} is {value}; a finite number was expected.")
        return float(value)
    if hint is int and number and float(value).is_integer():
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise ConfigError(f"{where} is {value!r}; {getattr(hint, '__name__', hint)} was expected.")


def from_mapping(cls: type[T], mapping: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from a mapping as YAML gives it.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range; the message names the key's path.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or 'the file'} is {mapping!r}; a mapping was expected.")
    fields = {f.name: f for f in dataclasses.fields(typing.cast("Any", cls)) if f.init}
    for key in mapping:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ConfigError(f"{prefix}{key} is not a known key{hint} Valid keys: {', '.join(fields)}.")
    missing = [
        name
        for name, f in fields.items()
        if name not in mapping and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where or 'the file'} lacks the key{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    hints = typing.get_type_hints(cls)
    values = {name: _convert(hints[name], value, f"{prefix}{name}") for name, value in mapping.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key overwrite an earlier one in silence; a robot's limits deserve better."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise ConfigError(f"line {key_node.start_mark.line + 1} has a key that is no plain word; write a name.")
            if key in seen:
                raise ConfigError(f"the key {key!r} stands twice (line {key_node.start_mark.line + 1}); keep one.")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Parse one YAML file; plain data only.

    Raises:
        ConfigError: the file cannot be read or is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Check the path and its permissions.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that there is not, nested without end
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _shipped_robot(name: str) -> Path:
    folder = share_path("config")
    shipped = {file.stem: file for file in sorted(folder.glob("*.yaml")) if "\njoints:" in file.read_text("utf-8")}
    if name not in shipped:
        raise ConfigError(f"there is no robot {name!r}; lam_ros ships {', '.join(shipped)}; or give a path.")
    return shipped[name]


def load_robot(path: str | Path) -> RobotConfig:
    """Read a robot YAML; a bare name such as ``desk_arm`` is looked up among the robots lam_ros ships.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    path = Path(path)
    if not path.suffix and not path.is_file():
        path = _shipped_robot(str(path))
    try:
        return from_mapping(RobotConfig, read_yaml(path))
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def urdf_path(robot: RobotConfig, robot_file: str | Path | None = None) -> Path:
    """The robot's URDF: absolute, beside its YAML, or among lam_ros' own files.

    Raises:
        ConfigError: the robot names none, or it is not there.
    """
    if not robot.urdf:
        raise ConfigError(f"robot {robot.name} names no urdf; add `urdf: path/to/arm.urdf` to its YAML.")
    given = Path(robot.urdf)
    beside = Path(robot_file).parent / given if robot_file is not None else given
    for candidate in (given, beside):
        if candidate.is_file():
            return candidate
    try:
        return share_path(robot.urdf)
    except ConfigError:
        raise ConfigError(
            f"robot {robot.name}: there is no urdf {robot.urdf}; give its path in the robot YAML."
        ) from None
