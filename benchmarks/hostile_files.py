"""Damaged and hostile files against every reader: only lam_ros's own errors, no hang, no memory blow-up.

    python benchmarks/hostile_files.py [--inputs 10000] [--seed 0] [--json FILE]

Each input is one whole file with random damage: cut short, bits flipped, pieces inserted or repeated, lengths replaced
by hostile ones. Readers: the recorded bag, its messages (a sound bag around damaged messages) through alignment, the
manifest, a checkpoint, a robot YAML.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lam_ros.config import RobotConfig, load_robot
from lam_ros.contract import Contract
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.cache import FOLDER, cached
from lam_ros.demonstrations.episode import MANIFEST, Episode, EpisodeWriter, Topic, open_episode, read_messages
from lam_ros.demonstrations.interop.lerobot import export_lerobot, import_lerobot
from lam_ros.demonstrations.interop.rosbag2 import import_bag
from lam_ros.demonstrations.messages import IMAGE, JOINT_STATE, image, joint_state
from lam_ros.demonstrations.repair import recover
from lam_ros.errors import EpisodeError, LamError
from lam_ros.policy.checkpoint import CheckpointInfo, load_policy, save_checkpoint, save_exported
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.export import export_graphs
from lam_ros.policy.runtime import PolicyNetwork
from lam_ros.share import share_path

SLOWEST_S = 20  # an input that takes longer counts as a hang
HOSTILE = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HOSTILE_LONG = (2**40, 2**62, 2**63 - 1, 2**64 - 1)


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three random damages."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not changed:
            break
        at = int(rng.integers(len(changed)))
        kind = rng.integers(6)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            changed[at : at + 4] = int(rng.choice(HOSTILE)).to_bytes(4, "little")
        elif kind == 3:
            changed[at : at + 8] = HOSTILE_LONG[rng.integers(len(HOSTILE_LONG))].to_bytes(8, "little")
        elif kind == 4:
            changed[at:at] = rng.bytes(int(rng.integers(1, 64)))
        else:
            end = at + int(rng.integers(1, 256))
            changed[at:end] = changed[:at][-256:]
    return bytes(changed)


def _messages(robot: RobotConfig) -> list[tuple[str, str, bytes, int]]:
    """(topic, type, serialized, ns) of a demonstration of four ticks."""
    made, still = [], np.zeros(len(robot.joints))
    for tick in range(4):
        stamp_ns = 10**9 + tick * 50_000_000
        state = joint_state(stamp_ns, robot.joint_names, still)
        command = joint_state(stamp_ns, robot.joint_names, still, "teleop")
        made.append(("/joint_states", JOINT_STATE, state, stamp_ns))
        for camera in robot.cameras.values():
            frame = image(stamp_ns, np.zeros((camera.height, camera.width, 3), np.uint8))
            made.append((f"/{camera.topic}", IMAGE, frame, stamp_ns))
        made.append(("/lam/command", JOINT_STATE, command, stamp_ns))
    return made


def _write(dataset: Path, robot: RobotConfig, messages: list[tuple[str, str, bytes, int]]) -> Episode:
    writer = EpisodeWriter(dataset, robot.name, robot.digest, "fuzz")
    for topic, msgtype in {topic: msgtype for topic, msgtype, _, _ in messages}.items():
        writer.add_topic(Topic(topic, msgtype))
    for topic, _, data, stamp_ns in messages:
        writer.write(topic, data, stamp_ns)
    return open_episode(writer.seal("success"))


class Targets:
    """One sound file for each reader, and a way to read a damaged copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._robot_file = share_path("config/desk_arm.yaml")
        self.robot = load_robot(self._robot_file)
        self._sound = _messages(self.robot)
        self._episode = _write(folder / "sound", self.robot, self._sound)
        contract, config = Contract.of(self.robot), PolicyConfig(hidden_size=8, chunk=1)
        self._checkpoint = folder / "sound.safetensors"
        info = CheckpointInfo(contract, config, self.robot.name, "fuzz", "none")
        save_checkpoint(self._checkpoint, PolicyNetwork(config, contract), info)
        self.readers: dict[str, Callable[[np.random.Generator], None]] = {
            "bag": self.bag,
            "messages": self.messages,
            "manifest": self.manifest,
            "checkpoint": self.checkpoint,
            "robot YAML": self.robot_yaml,
            "cache": self.cache,
            "rosbag2 folder": self.rosbag2_folder,
            "LeRobot dataset": self.lerobot_dataset,
            "repair": self.repair,
            "exported policy": self.exported_policy,
        }
        self._exported = folder / "exported.safetensors"
        save_exported(self._exported, export_graphs(PolicyNetwork(config, contract)), info)
        export_lerobot([self._episode], self.robot, folder / "lerobot")

    def _copy(self, source: Path, rng: np.random.Generator) -> Path:
        path = self.folder / f"damaged{source.suffix}"
        path.write_bytes(damage(source.read_bytes(), rng))
        return path

    def bag(self, rng: np.random.Generator) -> None:
        for _ in read_messages(self._copy(self._episode.bag, rng)):
            pass

    def messages(self, rng: np.random.Generator) -> None:
        hostile = list(self._sound)
        for _ in range(rng.integers(1, 4)):
            index = int(rng.integers(len(hostile)))
            topic, msgtype, data, stamp_ns = hostile[index]
            # Most of an image are pixels, which may have any value; what can hurt stands before and after them.
            hostile[index] = (topic, msgtype, damage(data[:96], rng) + data[96:], stamp_ns)
        with tempfile.TemporaryDirectory(dir=self.folder) as dataset:
            align(_write(Path(dataset), self.robot, hostile), self.robot, (96, 96), "lam/command")

    def manifest(self, rng: np.random.Generator) -> None:
        folder = self.folder / self._episode.folder.name
        folder.mkdir(exist_ok=True)
        (folder / MANIFEST).write_bytes(damage((self._episode.folder / MANIFEST).read_bytes(), rng))
        open_episode(folder).verify()

    def _damaged_folder(self, sound: Path, rng: np.random.Generator) -> Path:
        """A copy of a folder with one of its files damaged."""
        folder = self.folder / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        file.write_bytes(damage(file.read_bytes(), rng))
        return folder

    def cache(self, rng: np.random.Generator) -> None:
        cached(self._episode, self.robot, (96, 96), "lam/command", align)
        for file in (self._episode.folder.parent / FOLDER).glob("*/*.npy"):
            if rng.random() < 0.5:
                file.write_bytes(damage(file.read_bytes(), rng))
        again = cached(self._episode, self.robot, (96, 96), "lam/command", align)
        assert again.images.shape[0] == len(again)

    def rosbag2_folder(self, rng: np.random.Generator) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as dataset:
            damaged = self._damaged_folder(self._episode.folder, rng)
            import_bag(damaged, Path(dataset), self.robot, "fuzz", "lam/command").verify()

    def lerobot_dataset(self, rng: np.random.Generator) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as dataset:
            damaged = self._damaged_folder(self.folder / "lerobot", rng)
            for episode in import_lerobot(damaged, Path(dataset), self.robot):
                episode.verify()

    def checkpoint(self, rng: np.random.Generator) -> None:
        load_policy(self._copy(self._checkpoint, rng), self.robot)

    def repair(self, rng: np.random.Generator) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as dataset:
            partial = Path(dataset) / f"{self._episode.folder.name}.partial"
            partial.mkdir()
            (partial / self._episode.bag.name).write_bytes(damage(self._episode.bag.read_bytes(), rng))
            found = recover(partial)
            if not found.is_sealed:
                raise EpisodeError(found.sentence)
            episode = open_episode(found.folder)
            episode.verify()
            for _ in episode.messages():
                pass

    def exported_policy(self, rng: np.random.Generator) -> None:
        load_policy(self._copy(self._exported, rng), self.robot)

    def robot_yaml(self, rng: np.random.Generator) -> None:
        load_robot(self._copy(self._robot_file, rng))


@dataclass
class Result:
    """What the readers made of their inputs.

    Attributes:
        refused, read: inputs by reader, refused with a LamError or read as if nothing were wrong.
        faults: tracebacks of every other exception, hangs among them.
        slowest_s: the slowest input.
        grown_mb: how much the process's peak memory grew.
    """

    refused: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    grown_mb: float = 0.0


def _hang(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"an input took more than {SLOWEST_S} s")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def campaign(inputs: int, seed: int, progress: Callable[[range], Any] = lambda numbers: numbers) -> Result:
    """Give every reader its share of ``inputs`` damaged files, the same for the same seed."""
    result = Result()
    with tempfile.TemporaryDirectory() as folder:
        targets = Targets(Path(folder))
        names = list(targets.readers)
        before_mb = _peak_mb()
        previous = signal.signal(signal.SIGALRM, _hang)
        try:
            for number in progress(range(inputs)):
                name = names[number % len(names)]
                start = time.perf_counter()
                signal.alarm(SLOWEST_S)
                try:
                    targets.readers[name](np.random.default_rng([seed, number]))
                    result.read[name] += 1
                except LamError:
                    result.refused[name] += 1
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    result.faults.append(f"{name}, seed {seed}, input {number}:\n{traceback.format_exc()}")
                finally:
                    signal.alarm(0)
                result.slowest_s = max(result.slowest_s, time.perf_counter() - start)
        finally:
            signal.signal(signal.SIGALRM, previous)
        result.grown_mb = _peak_mb() - before_mb
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged files, over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    console = Console()
    result = campaign(arguments.inputs, arguments.seed, lambda numbers: track(numbers, "reading", console=console))
    table = Table("reader", "refused", "read", title=f"{arguments.inputs} damaged files, {len(result.faults)} faults")
    for name in sorted({*result.refused, *result.read}):
        table.add_row(name, str(result.refused[name]), str(result.read[name]))
    console.print(table)
    for fault in result.faults[:10]:
        console.print(fault, markup=False)
    figures = {
        "inputs": arguments.inputs,
        "faults": len(result.faults),
        "refused": dict(result.refused),
        "read": dict(result.read),
        "slowest_s": round(result.slowest_s, 3),
        "peak_memory_growth_mb": round(result.grown_mb, 1),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))
    raise SystemExit(bool(result.faults))


if __name__ == "__main__":
    main()
