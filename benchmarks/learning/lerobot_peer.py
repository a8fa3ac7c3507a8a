"""LeRobot's policies as methods of the grid: a process in LeRobot's own environment trains and answers over a pipe.

LEROBOT_PYTHON names that environment's Python; `lerobot_environment.sh` makes one.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from methods import Budget, Limits, Method
from remote_arena import other_environment

from lam_ros.demonstrations.dataset import Dataset

SERVER = Path(__file__).with_name("lerobot_server.py")


def write_arrays(dataset: Dataset, file: Path) -> None:
    """Demonstrations as what the scripts in LeRobot's environment read."""
    np.savez(
        file,
        images=np.concatenate([d.images for d in dataset.demonstrations]),
        state=np.concatenate([d.state for d in dataset.demonstrations]),
        action=np.concatenate([d.action for d in dataset.demonstrations]),
        lengths=np.array([len(d) for d in dataset.demonstrations]),
        cameras=np.array(dataset.contract.cameras),
        rate_hz=np.array(dataset.contract.rate_hz),
    )


class LeRobotPeer(Method):
    """ACT or the diffusion policy."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._python = os.environ.get("LEROBOT_PYTHON", "")
        if not self._python:
            raise SystemExit(
                "set LEROBOT_PYTHON to a Python that can import LeRobot; lerobot_environment.sh makes one."
            )

    def train(self, dataset: Dataset, limits: Limits, budget: Budget, seed: int) -> None:
        self._limits = limits
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "demonstrations.npz"
            write_arrays(dataset, file)
            command = [self._python, str(SERVER), "serve", self._kind, str(file)]
            command += [str(budget.cpu_seconds), str(budget.steps), str(seed)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=other_environment()
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._requests, self._answers = self._process.stdin, self._process.stdout
            said = self._answers.readline()
        if not said:
            raise RuntimeError(f"LeRobot's {self._kind} ended while training; see the lines above.")
        trained = json.loads(said)
        self.steps, self.cpu_seconds = trained["steps"], trained["cpu_seconds"]

    def reset(self, episodes: int) -> None:
        self._requests.write(b"R" + struct.pack("<i", episodes))

    def act(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        self._requests.write(b"A" + images.tobytes() + np.asarray(state, np.float32).tobytes())
        self._requests.flush()
        target = np.frombuffer(self._answers.read(4 * state.size), np.float32).reshape(state.shape)
        return np.clip(target, *self._limits).astype(np.float32)
