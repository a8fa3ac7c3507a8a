"""Where the arm may be: its tool in a box, its links apart from one another, by forward kinematics of the URDF."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from lam_ros.config import WorkspaceConfig
from lam_ros.control.arm_model import joint_numbers, link_number, model_of_urdf
from lam_ros.control.gate import Trespass

AXES = "xyz"
APART = """<mujoco><worldbody>
  <body><freejoint/><geom type="sphere" size="0.1" margin="0.1"/></body>
  <body pos="0.35 0 0"><freejoint/><geom type="sphere" size="0.1" margin="0.1"/></body>
</worldbody></mujoco>"""  # within both margins, and beyond each
TOUCHING_M = 1e-4
BUILT_SHARE = 0.5  # of their distance at zero is as near as links may come, whatever clearance is asked for


@functools.cache
def margins_add() -> bool:
    """Whether this MuJoCo looks for contacts within both margins of a pair (3.12 does), or the larger one (3.4)."""
    model = mujoco.MjModel.from_xml_string(APART)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_collision(model, data)
    return bool(data.ncon)


class Workspace:
    """Judges poses of one arm.

    Args:
        described: the box and the clearance.
        urdf: the arm.
        joints: the robot's joints, in order; other joints of the URDF stay where the model has them, or mimic.

    Raises:
        ConfigError: the URDF lacks the tool's link or a joint, or cannot be read.
    """

    def __init__(self, described: WorkspaceConfig, urdf: Path, joints: Sequence[str]) -> None:
        self._described = described
        spec = model_of_urdf(urdf)
        clearance_m = described.self_clearance_m
        self._use(spec.compile(), joints, urdf, within_m=clearance_m / BUILT_SHARE)
        self._tool = link_number(self._model, described.tool_frame, urdf)
        self._box = described.x, described.y, described.z
        # Links that touch where they are built to are no trespass; those that are built near are kept from touching.
        self._place(self._middle())
        built_m = self._close_pairs()
        self._clearance_m = {pair: min(clearance_m, BUILT_SHARE * apart_m) for pair, apart_m in built_m.items()}
        for (first, second), distance_m in built_m.items():
            if distance_m < TOUCHING_M:
                spec.add_exclude(bodyname1=self._model.body(first).name, bodyname2=self._model.body(second).name)
        self._use(spec.compile(), joints, urdf, within_m=clearance_m)

    def _use(self, model: mujoco.MjModel, joints: Sequence[str], urdf: Path, within_m: float) -> None:
        """Look at this model: contacts are links, no neighbours, closer than that."""
        self._model, self._data = model, mujoco.MjData(model)
        self._numbers = joint_numbers(model, joints, urdf)
        self._address = model.jnt_qposadr[self._numbers]
        self._qpos, self._xpos = self._data.qpos, self._data.xpos  # each look at the data makes new views
        self._within_m = within_m
        model.geom_margin[:] = within_m / (2 if margins_add() else 1)
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        model.geom_contype[:] = model.geom_conaffinity[:] = np.where(solid & (within_m > 0), 1, 0)

    def _middle(self) -> np.ndarray:
        """Zero, or as near to it as the joints go (J,)."""
        limited = self._model.jnt_limited[self._numbers].astype(bool)
        lower, upper = self._model.jnt_range[self._numbers].T
        return np.clip(0.0, np.where(limited, lower, -np.inf), np.where(limited, upper, np.inf))

    def _place(self, position: np.ndarray) -> None:
        self._qpos[self._address] = position
        mujoco.mj_kinematics(self._model, self._data)

    def _close_pairs(self) -> dict[tuple[int, int], float]:
        """Pairs of bodies within that distance, with theirs in m."""
        mujoco.mj_collision(self._model, self._data)
        if not self._data.ncon:
            return {}
        contacts = self._data.contact
        nearest: dict[tuple[int, int], float] = {}
        bodies = np.sort(self._model.geom_bodyid[contacts.geom], axis=1).tolist()
        for (first, second), distance_m in zip(bodies, contacts.dist.tolist(), strict=True):
            if distance_m < self._within_m:
                nearest[first, second] = min(distance_m, nearest.get((first, second), np.inf))
        return nearest

    def trespass(self, position: np.ndarray, allowed: Trespass | None = None) -> Trespass:
        """What joint positions (J,) break: a side of the box, the clearance of two links.

        Args:
            allowed: links are not looked at where the tool is out by more than that: it takes most of the time.
        """
        self._place(position)
        found = {}
        # Plain numbers: for three of them NumPy takes ten times as long.
        for axis, at, (lower, upper) in zip(AXES, self._xpos[self._tool].tolist(), self._box, strict=True):
            beyond_m = max(lower - at, at - upper)
            if beyond_m > 0.0:
                found[axis] = beyond_m, f"the tool would be at {axis} {at:.3f} m, outside {lower:g} to {upper:g}"
        clearance_m = self._described.self_clearance_m
        if clearance_m and (allowed is None or not Trespass(found).beyond(allowed)):
            for (first, second), distance_m in self._close_pairs().items():
                nearer_m = self._clearance_m.get((first, second), clearance_m) - distance_m
                if nearer_m > 0.0:
                    pair = f"{self._model.body(first).name} and {self._model.body(second).name}"
                    found[pair] = nearer_m, f"{pair} would be {max(distance_m, 0.0):.3f} m apart"
        return Trespass(found)
