"""The recorder under load: what is lost, what it costs, and how fast bags are written.

    python benchmarks/recorder.py [--seconds 60] [--load 1 2] [--writers-only] [--json FILE]

Live: four 640x480 raw cameras at 30 Hz and joint states at 500 Hz (111 MB/s), times the load, from a process of their
own; the recorder node with its settings in the robot YAML. Published, written and lost messages must add up, topic by
topic. Writers: the same frames into an episode, with each compression, and into a bag of the `rosbags` package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from lam_ros.bringup import NODES, Process, node_environment
from lam_ros.cli.console import isolated_ros
from lam_ros.config import load_robot
from lam_ros.demonstrations.episode import EpisodeWriter, Storage, Topic, open_episode
from lam_ros.share import share_path

WIDTH, HEIGHT, CAMERAS, RATE_HZ, JOINT_HZ, COMMAND_HZ = 640, 480, 4, 30.0, 500.0, 30.0
SETTLE_S = 3.0  # for what is on its way through the middleware
FRAMES = 8  # different pictures of each camera
WRITTEN = 600  # frames in the comparison of writers
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def write_robot(folder: Path, load: float, **recorder: Any) -> Path:
    """The desk arm with four cameras, at ``load`` times the usual rates."""
    described = yaml.safe_load(share_path("config/desk_arm.yaml").read_text())
    described["cameras"] = {
        f"camera_{i}": {"topic": f"camera_{i}/image_raw", "width": WIDTH, "height": HEIGHT, "rate_hz": RATE_HZ * load}
        for i in range(CAMERAS)
    }
    described["joint_states"]["rate_hz"] = JOINT_HZ * load
    described["recorder"].update(recorder)
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return path


def pictures() -> list[np.ndarray]:
    """Frames as a camera sends them: smooth shapes with sensor noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([128 + 80 * np.sin(x / 60 + y / 90), 128 + 60 * np.cos(y / 50), 128 + x / 8], axis=-1)
    return [np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8) for _ in range(FRAMES)]


def robot_role(robot_file: str, load: float, seconds: float) -> None:
    """Wait for a line on stdin, publish for some seconds, print how many messages went out on each topic."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image, JointState

    from lam_ros.nodes.images import image_message
    from lam_ros.nodes.joints import joint_message

    robot = load_robot(robot_file)
    rclpy.init(args=[])
    node = Node("robot")
    sensor = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    cameras = [node.create_publisher(Image, camera.topic, sensor) for camera in robot.cameras.values()]
    joints = node.create_publisher(JointState, robot.joint_states.topic, 100)
    commands = node.create_publisher(JointState, "lam/command", 100)
    frames = [bytearray(serialize_message(image_message(picture, 0, "camera"))) for picture in pictures()]
    zeros = np.zeros(len(robot.joints))
    sent = dict.fromkeys([f"/{c.topic}" for c in robot.cameras.values()] + ["/joint_states", "/lam/command"], 0)
    print("ready", flush=True)
    sys.stdin.readline()

    def send_frame(number: int) -> None:
        frame, now_ns = frames[number % FRAMES], time.time_ns()
        frame[4:8] = (now_ns // 10**9).to_bytes(4, "little")
        frame[8:12] = (now_ns % 10**9).to_bytes(4, "little")
        camera = cameras[number % CAMERAS]
        camera.publish(bytes(frame))
        sent[camera.topic_name] += 1

    def send_joints(number: int) -> None:
        joints.publish(joint_message(robot.joint_names, zeros, time.time_ns()))
        sent["/joint_states"] += 1

    def send_command(number: int) -> None:
        commands.publish(joint_message(robot.joint_names, zeros, time.time_ns(), "teleop"))
        sent["/lam/command"] += 1

    streams = ((send_frame, CAMERAS * RATE_HZ * load), (send_joints, JOINT_HZ * load), (send_command, COMMAND_HZ))
    done = [0] * len(streams)
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        due = [int(elapsed * rate) for _, rate in streams]
        for index, (send, _) in enumerate(streams):
            if done[index] < due[index]:
                send(done[index])
                done[index] += 1
        if done == due:
            time.sleep(0.0005)
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - start}), flush=True)
    sys.stdin.readline()
    node.destroy_node()
    rclpy.try_shutdown()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def record_live(load: float, seconds: float, settings: dict[str, Any]) -> dict[str, Any]:
    """One take of ``seconds`` at ``load``."""
    from lam_ros.nodes.conductor import conducting

    with tempfile.TemporaryDirectory() as folder:
        robot_file, dataset = write_robot(Path(folder), load, **settings), Path(folder) / "demonstrations"
        command = [sys.executable, __file__, "--role", "robot", "--robot", str(robot_file)]
        robot = subprocess.Popen(
            [*command, "--load", str(load), "--seconds", str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        parameters = {
            "robot": str(robot_file),
            "autostart": True,
            "dataset": str(dataset),
            "task": "benchmark",
            "preflight": False,
        }
        recorder = subprocess.Popen(Process(NODES["recorder"], parameters).arguments(), stderr=subprocess.DEVNULL)
        assert robot.stdin is not None
        assert robot.stdout is not None
        try:
            robot.stdout.readline()
            with conducting(lambda: None) as conductor:
                time.sleep(SETTLE_S)
                conductor.call("recorder/start")
                time.sleep(SETTLE_S)
                cpu, robot_cpu = cpu_seconds(recorder.pid), cpu_seconds(robot.pid)
                robot.stdin.write("go\n")
                robot.stdin.flush()
                published = json.loads(robot.stdout.readline())
                used, robot_used = cpu_seconds(recorder.pid) - cpu, cpu_seconds(robot.pid) - robot_cpu
                time.sleep(SETTLE_S)
                began = time.monotonic()
                conductor.call("recorder/stop")
                sealing_s = time.monotonic() - began
                robot.communicate("done\n")
        finally:
            robot.kill()
            recorder.send_signal(2)
            recorder.wait()
        manifest = open_episode(dataset / "episode_000000").manifest
        size = sum(file.stat().st_size for file in (dataset / "episode_000000").iterdir())
        topics = {
            name: {"published": sent, "written": manifest.topics[name].count, "lost": manifest.topics[name].lost}
            for name, sent in published["sent"].items()
        }
    frames = sum(sent for name, sent in published["sent"].items() if name.startswith("/camera"))
    return {
        "load": load,
        "seconds": round(published["seconds"], 1),
        "published MB/s": round(frames * WIDTH * HEIGHT * 3 / published["seconds"] / 1e6, 1),
        "topics": topics,
        "lost": sum(topic["lost"] for topic in topics.values()),
        "adds up": all(topic["published"] == topic["written"] + topic["lost"] for topic in topics.values()),
        "recorder, share of a core": round(used / published["seconds"], 2),
        "publisher, share of a core": round(robot_used / published["seconds"], 2),
        "sealing, s": round(sealing_s, 1),
        "GB on disk": round(size / 1e9, 2),
    }


def write_all(writer_name: str, folder: Path, frames: list[bytes], count: int) -> tuple[float, int]:
    """Write so many frames; (CPU seconds of this process, bytes on disk)."""
    topic = Topic("/camera/image_raw", "sensor_msgs/msg/Image", RATE_HZ)
    began = time.process_time()
    if writer_name.startswith("episode"):
        writer = EpisodeWriter(folder, "robot", "", "", storage=Storage(compress=writer_name.endswith("zstd")))
        writer.add_topic(topic)
        for number in range(count):
            writer.write(topic.name, frames[number % FRAMES], number)
        used = time.process_time() - began
        writer.seal("success")
    else:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS2_JAZZY)
        plugin = StoragePlugin.SQLITE3 if writer_name.endswith("sqlite3") else StoragePlugin.MCAP
        with Writer(folder / "bag", version=9, storage_plugin=plugin) as bag:
            connection = bag.add_connection(topic.name, topic.msgtype, typestore=store)
            for number in range(count):
                bag.write(connection, number, frames[number % FRAMES])
        used = time.process_time() - began
    return used, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def compare_writers(count: int) -> dict[str, dict[str, float]]:
    """MB written a second of CPU, and the size on disk, of our writer and of rosbags'."""
    from lam_ros.demonstrations.messages import image

    frames = [image(10**9, picture) for picture in pictures()]
    found = {}
    for name in ("episode, not compressed", "episode, zstd", "rosbags, mcap", "rosbags, sqlite3"):
        with tempfile.TemporaryDirectory() as folder:
            used, size = write_all(name, Path(folder), frames, count)
        total = count * len(frames[0])
        found[name] = {"MB/s of CPU": round(total / used / 1e6), "size": round(size / total, 2)}
    return found


def show(results: list[dict[str, Any]], writers: dict[str, dict[str, float]]) -> None:
    console = Console()
    for result in results:
        table = Table("topic", "published", "written", "lost", title=f"{result['published MB/s']} MB/s of frames")
        for topic, counts in result["topics"].items():
            table.add_row(topic, *(str(counts[name]) for name in ("published", "written", "lost")))
        console.print(table)
        figures = {name: value for name, value in result.items() if name != "topics"}
        console.print(", ".join(f"{name} {value}" for name, value in figures.items()))
    table = Table("writer", "MB/s of CPU", "size on disk", title="640x480 frames, smooth shapes with noise")
    for name, row in writers.items():
        table.add_row(name, *map(str, row.values()))
    console.print(table)
    print(json.dumps({"live": results, "writers": writers}, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--load", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--set", nargs="*", default=[], help="settings of the recorder, key=value")
    parser.add_argument("--writers-only", action="store_true", help="without ROS: how fast bags are written")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--role", choices=["robot"], help=argparse.SUPPRESS)
    parser.add_argument("--robot", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        robot_role(arguments.robot, arguments.load[0], arguments.seconds)
        return
    settings = {key: yaml.safe_load(value) for key, value in (entry.split("=", 1) for entry in arguments.set)}
    with isolated_ros():
        os.environ.update(node_environment())
        loads = [] if arguments.writers_only else arguments.load
        results = [record_live(load, arguments.seconds, settings) for load in loads]
    writers = compare_writers(WRITTEN)
    show(results, writers)
    if arguments.json:
        arguments.json.write_text(json.dumps({"live": results, "writers": writers}, indent=2))


if __name__ == "__main__":
    main()
