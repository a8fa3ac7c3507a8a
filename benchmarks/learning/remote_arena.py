"""Other projects' tasks as arenas of the grid: a process in an environment of its own answers over a pipe.

METAWORLD_PYTHON, OCBENCH_PYTHON and SO101_PYTHON name the Python of each; `arena_environments.sh` makes them.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from collections import deque
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


class Server:
    """A process of one family's environment. What it is asked it answers in order, so answers may be fetched later."""

    def __init__(self, family: str) -> None:
        variable = f"{family.upper()}_PYTHON"
        python = os.environ.get(variable)
        if not python:
            raise SystemExit(f"set {variable} to a Python that can import {family}; see arena_environments.sh.")
        process = subprocess.Popen(
            [python, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=other_environment()
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout
        self._asked: deque[int] = deque()  # arenas whose answers are on their way
        self._answers: dict[int, dict[str, Any]] = {}

    def ask(self, arena: int, what: str, **more: Any) -> None:
        """Ask an arena that owes no answer; the server works on it while this process goes on."""
        self._to.write(json.dumps({"arena": arena, "do": what, **more}).encode() + b"\n")
        self._to.flush()
        self._asked.append(arena)

    def answer(self, arena: int) -> dict[str, Any]:
        """What the arena was asked for; those that were asked before it are put by."""
        while arena not in self._answers:
            line = self._from.readline()
            if not line:
                raise RuntimeError("the server of these tasks ended before it had answered; see the lines above.")
            said: dict[str, Any] = json.loads(line)
            if "shape" in said:
                size = int(np.prod(said["shape"]))
                said["images"] = np.frombuffer(self._from.read(size), np.uint8).reshape(said["shape"])
            self._answers[self._asked.popleft()] = said
        return self._answers.pop(arena)


class RemoteArena:
    """One arena. Those of one family spread over ``processes`` servers, which work at the same time.

    Args:
        task: as ``arena_server.make_arena`` takes it.
    """

    processes: ClassVar[int] = 1
    _servers: ClassVar[dict[tuple[str, int], Server]] = {}
    _numbers = itertools.count()

    def __init__(self, task: str) -> None:
        self._number = next(self._numbers)
        family = task.split(":")[0]
        which = family, self._number % self.processes
        if which not in self._servers:
            self._servers[which] = Server(family)
        self._server = self._servers[which]
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

    def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        self._server.ask(self._number, what, **more)
        return self._server.answer(self._number)

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
        self._server.ask(self._number, "begin", seed=UNSEEN_SEED + seed)
        self._is_waiting = True

    def step(self, target: np.ndarray) -> None:
        self._server.ask(self._number, "step", target=target.tolist())
        self._is_waiting = True

    def _seen(self) -> dict[str, Any]:
        if self._is_waiting:
            self._said, self._is_waiting = self._server.answer(self._number), False
            self._path.append(self._said["state"])
        return self._said

    @property
    def is_over(self) -> bool:
        return bool(self._seen()["over"])

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        said = self._seen()
        return said["images"], np.array(said["state"], np.float32)

    def result(self) -> EpisodeResult:
        arm = np.array([unit != "share" for unit in self.contract.units])
        said = self._seen()
        jerk = rms_jerk(np.array(self._path)[:, arm], self.contract.rate_hz)
        return EpisodeResult(self._seed, said["succeeded"], said["seconds"], jerk=jerk)
