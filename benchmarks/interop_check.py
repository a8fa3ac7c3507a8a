"""Interchange checked against the real packages: LeRobot in an environment of its own, rosbags in this one.

    python benchmarks/interop_check.py [--lerobot-python PYTHON] [--json FILE]

Without --lerobot-python an environment is made in a temporary folder with `pip install lerobot[dataset]` (6 GB with its
CUDA build of torch, Python 3.12). Checked are: that LeRobot reads what is exported, to the frame, the action and the
picture; that what LeRobot writes is imported, to the same; that rosbags opens sealed episodes; and that bags which
rosbags writes, MCAP and sqlite3, are imported whole.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LEROBOT = "lerobot[dataset]==0.6.1"
FPS, TICKS, SIZE = 20, (40, 25, 33), 96
HALF_FRAME_S = 0.5 / FPS


def signals(ticks: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth states and actions (T, 7), and pictures uint8 (T, 2, 96, 96, 3) that differ from tick to tick."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, 7)
    state = (0.3 * np.sin(0.1 * np.arange(ticks)[:, None] + phase)).astype(np.float32)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    shades = [(x + 2 * y + 5 * t + 40 * c) % 256 for t in range(ticks) for c in range(2)]
    blurred = [np.abs(shade - 128) * 2 % 256 for shade in shades]
    pictures = np.stack(blurred).reshape(ticks, 2, SIZE, SIZE, 1).repeat(3, axis=4).astype(np.uint8)
    return state, (state + 0.05).astype(np.float32), pictures


def role_read(folder: str, out: str) -> None:
    """In LeRobot's environment: read every item of a dataset into an .npz."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/check", root=folder, video_backend="pyav")
    items = [dataset[i] for i in range(len(dataset))]
    cameras = [np.stack([np.asarray(item[key]) for item in items]) for key in dataset.meta.video_keys]
    np.savez(
        out,
        state=np.stack([np.asarray(item["observation.state"]) for item in items]),
        action=np.stack([np.asarray(item["action"]) for item in items]),
        timestamp=np.array([float(item["timestamp"]) for item in items]),
        episode=np.array([int(item["episode_index"]) for item in items]),
        images=np.stack(cameras, axis=1),
        tasks=np.array(sorted({item["task"] for item in items})),
    )


def role_write(folder: str, out: str) -> None:
    """In LeRobot's environment: write a dataset with LeRobot's own API."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    joints = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper"]
    vector = {"dtype": "float32", "shape": (7,), "names": [f"{joint}.pos" for joint in joints]}
    camera = {"dtype": "video", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector}
    features |= {f"observation.images.{name}": camera for name in ("front", "wrist")}
    dataset = LeRobotDataset.create("local/check", fps=FPS, features=features, root=folder, use_videos=True)
    for episode, ticks in enumerate(TICKS):
        state, action, pictures = signals(ticks, episode)
        for tick in range(ticks):
            frame = {"observation.state": state[tick], "action": action[tick], "task": "wave"}
            frame |= {f"observation.images.{name}": pictures[tick, i] for i, name in enumerate(("front", "wrist"))}
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def in_lerobot(python: Path, role: str, folder: Path, out: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("_ROS", "LD_", "PYTHON"))}
    command = [str(python), __file__, "--role", role, "--folder", str(folder), "--out", str(out)]
    subprocess.run(command, check=True, env={**clean, "HF_DATASETS_CACHE": str(out.parent / "cache")})


def record(dataset: Path) -> list[Any]:
    """Episodes of the desk arm with the signals above, states at 100 Hz."""
    from lam_ros.config import load_robot
    from lam_ros.demonstrations.episode import EpisodeWriter, Topic, open_episode
    from lam_ros.demonstrations.messages import IMAGE, JOINT_STATE, image, joint_state

    robot = load_robot("desk_arm")
    episodes = []
    for episode, ticks in enumerate(TICKS):
        state, action, pictures = signals(ticks, episode)
        writer = EpisodeWriter.of(robot, dataset, "wave")
        for camera in robot.cameras.values():
            writer.add_topic(Topic(f"/{camera.topic}", IMAGE, camera.rate_hz))
        writer.add_topic(Topic("/joint_states", JOINT_STATE, 100.0))
        writer.add_topic(Topic("/lam/command", JOINT_STATE))
        for tick in range(ticks):
            stamp_ns = 10**9 + tick * 10**9 // FPS
            for step in range(5):
                between = np.array([np.interp(tick + step / 5, np.arange(ticks), joint) for joint in state.T])
                at_ns = stamp_ns + step * 10**7
                writer.write("/joint_states", joint_state(at_ns, robot.joint_names, between), at_ns)
            for number, camera in enumerate(robot.cameras.values()):
                writer.write(f"/{camera.topic}", image(stamp_ns, pictures[tick, number]), stamp_ns)
            command = joint_state(stamp_ns, robot.joint_names, action[tick], "teleop")
            writer.write("/lam/command", command, stamp_ns)
        episodes.append(open_episode(writer.seal("success")))
    return episodes


def compare(read: Any, ticks: tuple[int, ...]) -> dict[str, float]:
    """Largest differences from the signals."""
    expected = [signals(count, episode) for episode, count in enumerate(ticks)]
    state, action, pictures = (np.concatenate([one[i] for one in expected]) for i in range(3))
    times = np.concatenate([np.arange(count) / FPS for count in ticks])
    images = read["images"]
    if images.dtype != np.uint8:  # LeRobot's are channels first, 0 to 1
        images = np.moveaxis(images, 2, -1) * 255.0
    error = np.abs(images.astype(np.float64) - pictures)
    return {
        "frames": len(read["state"]),
        "frames expected": len(state),
        "state": float(np.abs(read["state"] - state).max()),
        "action": float(np.abs(read["action"] - action).max()),
        "time s": float(np.abs(read["timestamp"] - times).max()),
        "image, mean of 255": float(error.mean()),
        "image, worst frame's mean": float(error.mean(axis=(1, 2, 3, 4)).max()),
    }


def is_good(figures: dict[str, float]) -> bool:
    same = figures["frames"] == figures["frames expected"]
    close = figures["action"] <= 1e-6 and figures["state"] <= 1e-6 and figures["time s"] < HALF_FRAME_S
    return same and close and figures["image, worst frame's mean"] < 8.0


def check_lerobot(python: Path, folder: Path, episodes: list[Any]) -> dict[str, dict[str, float]]:
    from lam_ros.config import load_robot
    from lam_ros.demonstrations.alignment import align
    from lam_ros.demonstrations.interop.lerobot import export_lerobot, import_lerobot

    robot = load_robot("desk_arm")
    export_lerobot(episodes, robot, folder / "exported")
    in_lerobot(python, "read", folder / "exported", folder / "read.npz")
    found = {"exported, read by lerobot": compare(np.load(folder / "read.npz"), TICKS)}
    in_lerobot(python, "write", folder / "theirs", folder / "unused")
    for name, source in (("written by lerobot, imported", "theirs"), ("exported, imported again", "exported")):
        made = import_lerobot(folder / source, folder / f"{source}_imported", robot)
        aligned = [align(episode, robot, (SIZE, SIZE), "lam/command") for episode in made]
        read = {
            "state": np.concatenate([one.state for one in aligned]),
            "action": np.concatenate([one.action for one in aligned]),
            "images": np.concatenate([one.images for one in aligned]),
            "timestamp": np.concatenate([(one.stamps_ns - one.stamps_ns[0]) / 1e9 for one in aligned]),
        }
        found[name] = compare(read, TICKS)
    return found


def check_rosbags(folder: Path, episodes: list[Any]) -> dict[str, dict[str, float]]:
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import StoragePlugin, Writer

    from lam_ros.config import load_robot
    from lam_ros.demonstrations.interop.rosbag2 import import_bag

    robot, found = load_robot("desk_arm"), {}
    for storage in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        bag = folder / f"bag_{storage.name.lower()}"
        with AnyReader([episodes[0].folder]) as reader, Writer(bag, version=9, storage_plugin=storage) as writer:
            channels = {}
            for connection in reader.connections:
                topic = "/teleop/command" if connection.topic == "/lam/command" else connection.topic
                channels[connection.topic] = writer.add_connection(
                    topic, connection.msgtype, typestore=reader.typestore
                )
            count = 0
            for connection, stamp, data in reader.messages():
                reader.deserialize(data, connection.msgtype)
                writer.write(channels[connection.topic], stamp, data)
                count += 1
        made = import_bag(bag, folder / "from_bags", robot, "wave", "teleop/command")
        same = [d for t, _, d, _ in made.messages() if t == "/camera/front/image_raw"] == [
            d for t, _, d, _ in episodes[0].messages() if t == "/camera/front/image_raw"
        ]
        imported = sum(report.count for topic, report in made.manifest.topics.items() if topic != "/lam/command")
        found[f"rosbags {storage.name}"] = {"messages": count, "imported": imported, "same bytes": float(same)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", type=Path, help="a Python that can import lerobot")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--role", choices=["read", "write"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        {"read": role_read, "write": role_write}[arguments.role](arguments.folder, arguments.out)
        return
    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = arguments.lerobot_python
        if python is None:
            subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
            python = folder / "venv/bin/python"
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", LEROBOT], check=True)
        episodes = record(folder / "recorded")
        lerobot = check_lerobot(python, folder, episodes)
        rosbags = check_rosbags(folder, episodes)
    for title, figures in (("LeRobot", lerobot), ("rosbags", rosbags)):
        table = Table("what", *next(iter(figures.values())), title=title)
        for what, row in figures.items():
            table.add_row(what, *(f"{value:.3g}" for value in row.values()))
        Console().print(table)
    print(json.dumps({**lerobot, **rosbags}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({**lerobot, **rosbags}, indent=2))
    whole = all(row["messages"] == row["imported"] and row["same bytes"] for row in rosbags.values())
    raise SystemExit(int(not (whole and all(map(is_good, lerobot.values())))))


if __name__ == "__main__":
    main()
