"""An arm as MuJoCo reads it from its URDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from lam_ros.errors import ConfigError


def model_of_urdf(urdf: Path) -> mujoco.MjSpec:
    """Parse a URDF with every link kept as a body of its own and its visual shapes kept.

    Raises:
        ConfigError: MuJoCo cannot read the file.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(urdf))
    except ValueError as error:
        raise ConfigError(f"{urdf} is not a URDF that can be used: {error}") from None
    spec.compiler.fusestatic = False
    spec.compiler.discardvisual = False
    return spec


def joint_numbers(model: mujoco.MjModel, joints: Sequence[str], urdf: Path) -> np.ndarray:
    """Where the model has these joints, int (J,).

    Raises:
        ConfigError: the URDF lacks one.
    """
    known = {model.joint(i).name: i for i in range(model.njnt)}
    missing = [joint for joint in joints if joint not in known]
    if missing:
        raise ConfigError(f"{urdf} has no joint {', '.join(missing)}; it has {', '.join(sorted(known))}.")
    return np.array([known[joint] for joint in joints])


def link_number(model: mujoco.MjModel, link: str, urdf: Path) -> int:
    """Where the model has this link.

    Raises:
        ConfigError: the URDF lacks it.
    """
    known = {model.body(i).name: i for i in range(model.nbody)}
    if link not in known:
        raise ConfigError(f"tool_frame is {link!r}, which is no link of {urdf}; it has {', '.join(known)}.")
    return known[link]
