"""Fixtures that the tests of the core share."""

from __future__ import annotations

import itertools
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.policy.checkpoint import CheckpointInfo, save_checkpoint
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.runtime import PolicyNetwork
from lam_ros.share import share_path

# Networks this small gain nothing from threads, and beside anything else threads wait for each other for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

Demonstrate = Callable[..., list[Demonstration]]


@pytest.fixture
def robot() -> RobotConfig:
    return load_robot("desk_arm")


@pytest.fixture
def desk_arm_with(tmp_path: Path) -> Callable[..., str]:
    """Writes a YAML of the desk arm with other entries, however deep: ``desk_arm_with(gate={"ramp_s": 0.2})``."""

    def laid_over(described: dict[str, Any], entries: dict[str, Any]) -> dict[str, Any]:
        deeper = {
            name: laid_over(described.get(name) or {}, entry) if isinstance(entry, dict) else entry
            for name, entry in entries.items()
        }
        return described | deeper

    def write(**sections: dict[str, Any]) -> str:
        described = yaml.safe_load(share_path("config/desk_arm.yaml").read_text())
        file = tmp_path / "arm.yaml"
        file.write_text(yaml.safe_dump(laid_over(described, sections), sort_keys=False))
        return str(file)

    return write


@pytest.fixture
def arithmetics(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precision of each of Lightning's trainers from here on."""
    import lightning  # a second that other tests need not wait for

    used, trainer = [], lightning.Trainer

    def noted(**given: Any) -> Any:
        used.append(given["precision"])
        return trainer(**given)

    monkeypatch.setattr(lightning, "Trainer", noted)
    return used


@pytest.fixture
def demonstrate(robot: RobotConfig) -> Demonstrate:
    """Builds ``count`` small random demonstrations of the robot."""

    def build(count: int, ticks: int = 12, size: tuple[int, int] = (24, 24), seed: int = 0) -> list[Demonstration]:
        rng = np.random.default_rng(seed)
        cameras, joints = len(robot.cameras), len(robot.joints)

        def one() -> Demonstration:
            state = rng.normal(0.0, 0.3, (ticks, joints)).astype(np.float32)
            return Demonstration(
                images=rng.integers(0, 256, (ticks, cameras, size[1], size[0], 3), dtype=np.uint8),
                state=state,
                action=state + rng.normal(0.0, 0.05, state.shape).astype(np.float32),
                stamps_ns=np.arange(ticks, dtype=np.int64) * 50_000_000,
            )

        return [one() for _ in range(count)]

    return build


@pytest.fixture
def turning_policy(tmp_path: Path, robot: RobotConfig) -> Callable[[float, float], Path]:
    """Writes a checkpoint that asks for ``offset`` rad more of the waist than measured, and for nothing else.

    ``keep`` is what is left of the head's random weights: the share of the answer that depends on what is seen.
    """

    def build(offset: float, keep: float) -> Path:
        torch.manual_seed(0)
        contract, config = Contract.of(robot), PolicyConfig(chunk=1, targets="relative")
        network = PolicyNetwork(config, contract)
        with torch.no_grad():
            network.action.head.linear.weight.mul_(keep)
            network.action.head.linear.bias.zero_()
            network.action.head.linear.bias[0] = offset
        path = tmp_path / f"policy_{offset:g}_{keep:g}.safetensors"
        save_checkpoint(path, network, CheckpointInfo(contract, config, robot.name, "turn", "none"))
        return path

    return build


_domains = itertools.count(os.getpid())


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A DDS domain that no other test uses, on this machine alone."""
    number = 1 + next(_domains) % 100
    for name in ("ROS_DOMAIN_ID", "LAM_ROS_DOMAIN_ID"):
        monkeypatch.setenv(name, str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
        os.close(slave)
        self._output = ""

    @property
    def shown(self) -> str:
        """What the process has written since ``forget``, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._output)

    def forget(self) -> None:
        self._output = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self) -> None:
        while select.select([self._master], [], [], 0.0)[0]:
            try:
                self._output += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # the other end is gone
                return

    def until_shows(self, text: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            select.select([self._master], [], [], 0.1)
            self.read()


@pytest.fixture
def open_terminal() -> Iterator[Callable[[list[str]], Terminal]]:
    """Runs a command in a terminal; it is killed at the end of the test."""
    made: list[Terminal] = []

    def build(command: list[str]) -> Terminal:
        made.append(Terminal(command))
        return made[-1]

    yield build
    for terminal in made:
        terminal.process.kill()
        terminal.process.wait()
