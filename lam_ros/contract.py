"""What flows between the parts: names, shapes, dtypes and units, and the checks that they hold.

J joints, C cameras, D features a camera, all in the order of the robot YAML. SI units; stamps are int nanoseconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.errors import ContractError

NANOSECONDS = 1_000_000_000
HAND = re.compile("gripper|finger|jaw|knuckle", re.IGNORECASE)  # in the names of joints that grip


def absolute_topic(topic: str, namespace: str = "") -> str:
    """A topic of the robot YAML as it is called from outside of the nodes' namespace, and in a bag."""
    if topic.startswith("/"):
        return topic
    return "/" + "/".join(part for part in (namespace.strip("/"), topic) if part)


def seconds_to_ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def _check_vector(name: str, value: np.ndarray, joints: Sequence[str]) -> None:
    if value.shape != (len(joints),):
        raise ContractError(f"{name} has shape {value.shape}; ({len(joints)},) was expected, one entry for each joint.")
    bad = ~np.isfinite(value)
    if bad.any():
        names = ", ".join(joint for joint, is_bad in zip(joints, bad, strict=True) if is_bad)
        raise ContractError(f"{name} is not finite for {names}; it is refused. Check the source of these values.")


@dataclass(frozen=True)
class Observation:
    """What the policy sees at one tick.

    Attributes:
        stamp_ns: stamp of the oldest image.
        images: camera name -> uint8 (H, W, 3), RGB.
        state: float32 (J,), measured joint positions in rad or m.
    """

    stamp_ns: int
    images: Mapping[str, np.ndarray]
    state: np.ndarray


@dataclass(frozen=True)
class Features:
    """float32 (C, D), one row a camera, stamped with the oldest image in it."""

    stamp_ns: int
    values: np.ndarray


@dataclass(frozen=True)
class Action:
    """Joint position targets: float32 (J,), in rad or m."""

    stamp_ns: int
    target: np.ndarray


@dataclass(frozen=True)
class Contract:
    """The part of a robot that a checkpoint depends on."""

    joints: tuple[str, ...]
    units: tuple[str, ...]
    cameras: tuple[str, ...]
    image_sizes: tuple[tuple[int, int], ...]  # (width, height) in pixels
    rate_hz: float

    @classmethod
    def of(cls, robot: RobotConfig) -> Contract:
        return cls(
            joints=robot.joint_names,
            units=tuple(joint.unit for joint in robot.joints.values()),
            cameras=robot.camera_names,
            image_sizes=tuple((camera.width, camera.height) for camera in robot.cameras.values()),
            rate_hz=robot.policy.rate_hz,
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is some robot's: with joints and cameras, each of which is described, and a rate."""
        joints, cameras = len(self.joints), len(self.cameras)
        described = len(self.units) == joints and len(self.image_sizes) == cameras
        return bool(joints and cameras and described and self.rate_hz > 0)

    @property
    def hands(self) -> np.ndarray:
        """Which joints open and close a hand: bool (J,). By their names; where none tells, those that slide."""
        named = np.array([bool(HAND.search(joint)) for joint in self.joints])
        return named if named.any() else np.array([unit == "m" for unit in self.units])

    def check_same(self, robot: Contract) -> None:
        """Compare with the contract of the robot at hand.

        Raises:
            ContractError: names the first field that differs, both values, and the cure.
        """
        for field in ("joints", "units", "cameras", "image_sizes", "rate_hz"):
            mine, theirs = getattr(self, field), getattr(robot, field)
            if mine != theirs:
                raise ContractError(
                    f"the checkpoint was trained with {field} = {_show(mine)}, this robot has {_show(theirs)}; "
                    "use a checkpoint of this robot, or the robot YAML it was trained with."
                )

    def validate_image(self, camera: str, image: np.ndarray) -> None:
        """Raises ContractError unless ``image`` is uint8 (H, W, 3) of that camera's size."""
        width, height = self.image_sizes[self.cameras.index(camera)]
        if image.dtype != np.uint8 or image.shape != (height, width, 3):
            found = f"{image.shape[1]}x{image.shape[0]}" if image.ndim >= 2 else f"shape {image.shape}"
            raise ContractError(
                f"camera {camera} sent {found} {image.dtype}; the robot YAML says {width}x{height} uint8 RGB. "
                "Set the driver's size, or the camera's width and height in the robot YAML (and train again)."
            )

    def validate_state(self, state: np.ndarray) -> None:
        """Raises ContractError unless ``state`` is finite and of shape (J,)."""
        _check_vector("the joint state", state, self.joints)

    def validate_action(self, target: np.ndarray) -> None:
        """Raises ContractError unless ``target`` is finite and of shape (J,)."""
        _check_vector("the action", target, self.joints)

    def is_foreign(self, names: Sequence[str]) -> bool:
        """Whether a message names joints, and not all of the robot's: a gripper's or a base's on the same topic."""
        return bool(names) and not set(self.joints) <= set(names)

    def in_order(self, names: Sequence[str], values: Sequence[float], source: str) -> np.ndarray:
        """Put named joint values into the robot's order; joints it does not name are ignored.

        Returns:
            float32 (J,).

        Raises:
            ContractError: a joint is missing, named twice or not finite, or the lengths differ.
        """
        if len(names) != len(values):
            raise ContractError(f"{source} names {len(names)} joints but carries {len(values)} positions.")
        if tuple(names) != self.joints:
            index = {name: i for i, name in enumerate(names)}
            if len(index) != len(names):
                twice = sorted(name for name, times in Counter(names).items() if times > 1)
                raise ContractError(f"{source} names {_first(twice)} twice; each joint may stand once.")
            missing = [joint for joint in self.joints if joint not in index]
            if missing:
                raise ContractError(
                    f"{source} lacks {', '.join(missing)}; it has {_first(names) or 'no joints'}. "
                    "Check the joint names in the robot YAML and at the source; all of them come in one message."
                )
            values = [values[index[joint]] for joint in self.joints]
        ordered = np.asarray(values, dtype=np.float32)
        _check_vector(source, ordered, self.joints)
        return ordered


def _first(names: Sequence[str], most: int = 20) -> str:
    """Names in a sentence, which stays readable however many a message brings."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{v[0]}x{v[1]}" if isinstance(v, tuple) else str(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
