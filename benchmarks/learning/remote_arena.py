"""Other projects' tasks as arenas of the grid: a process in an environment of its own answers over a pipe.

METAWORLD_PYTHON, OCBENCH_PYTHON and SO101_PYTHON name the Python of each; `arena_environments.sh` makes them.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.learning.evaluation import EpisodeResult
from lam_ros.learning.rollouts import rms_jerk
from lam_ros.learning.seeds import UNSEEN_SEED

SERVER = Path(__file__).with_name("arena_server.py")


def other_environment() -> dict[str, str]:
    """This process's environment without what would lead another Python to this one's libraries."""
    return {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONPATH")}


class RemoteArena:
    """One arena; all of one family in this process share a server.

    Args:
        task: as ``arena_server.make_arena`` takes it.
    """

    _servers: ClassVar[dict[str, subprocess.Popen[bytes]]] = {}
    _numbers = itertools.count()

    def __init__(self, task: str) -> None:
        self._number = next(self._numbers)
        self._server = self._started(task.split(":")[0])
        said = self._ask("make", task=task)
        count = len(said["cameras"])
        self.contract = Contract(
            joints=tuple(said["joints"]),
            units=tuple(said["units"]),
            cameras=tuple(said["cameras"]),
            image_sizes=((said["side"], said["side"]),) * count,
            rate_hz=said["rate_hz"],
        )
        self.limits = np.array(said["low"], np.float32), np.array(said["high"], np.float32)

    @classmethod
    def _started(cls, family: str) -> subprocess.Popen[bytes]:
        if family not in cls._servers:
            variable = f"{family.upper()}_PYTHON"
            python = os.environ.get(variable)
            if not python:
                raise SystemExit(f"set {variable} to a Python that can import {family}; see arena_environments.sh.")
            cls._servers[family] = subprocess.Popen(
                [python, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=other_environment()
            )
        return cls._servers[family]

    def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"arena": self._number, "do": what, **more}).encode() + b"\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of these tasks ended while it was asked to {what}; see the lines above.")
        said: dict[str, Any] = json.loads(line)
        if "shape" in said:
            size = int(np.prod(said["shape"]))
            said["images"] = np.frombuffer(self._server.stdout.read(size), np.uint8).reshape(said["shape"])
        return said

    def demonstrate(self, seed: int) -> Demonstration | None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "shown.npz"
            if not self._ask("demonstrate", seed=seed, file=str(file))["shown"]:
                return None
            with np.load(file, allow_pickle=False) as kept:
                shown = {name: kept[name] for name in kept.files}
        ticks = len(shown["state"])
        return Demonstration(**shown, stamps_ns=(np.arange(ticks) * 1e9 / self.contract.rate_hz).astype(np.int64))

    def begin(self, seed: int) -> None:
        self._seed, self._path = seed, []
        self._see(self._ask("begin", seed=UNSEEN_SEED + seed))

    def _see(self, said: dict[str, Any]) -> None:
        self._said = said
        self._path.append(said["state"])

    @property
    def is_over(self) -> bool:
        return bool(self._said["over"])

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        return self._said["images"], np.array(self._said["state"], np.float32)

    def step(self, target: np.ndarray) -> None:
        self._see(self._ask("step", target=target.tolist()))

    def result(self) -> EpisodeResult:
        arm = np.array([unit != "share" for unit in self.contract.units])
        jerk = rms_jerk(np.array(self._path)[:, arm], self.contract.rate_hz)
        return EpisodeResult(self._seed, self._said["succeeded"], self._said["seconds"], jerk=jerk)
