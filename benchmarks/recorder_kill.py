"""kill -9 at random instants of recording: no sealed episode is harmed, and an open take loses at most a second.

    python benchmarks/recorder_kill.py [--kills 50] [--seed 0] [--json FILE]

Two 640x480 raw cameras at 30 Hz, joint states and commands are published throughout. In each round a recorder starts
(and repairs what the last round left), begins a take, and is killed at a random instant: while recording, or in two
rounds of five while it seals. Every episode that was ever sealed is verified after each round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from latency import HEIGHT, JOINT_HZ, RATE_HZ, WIDTH, write_robot
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lam_ros.bringup import NODES, Process, node_environment
from lam_ros.cli.console import isolated_ros
from lam_ros.config import load_robot
from lam_ros.demonstrations.episode import list_episodes
from lam_ros.demonstrations.repair import leftovers, recover
from lam_ros.errors import LamError

LONGEST_S = 4.0  # of a take before the kill


def robot_role(robot_file: str) -> None:
    """Publish cameras, joint states and commands until the process is ended."""
    import rclpy
    from rclpy.node import Node
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image, JointState

    from lam_ros.nodes.base import make_executor
    from lam_ros.nodes.images import image_message
    from lam_ros.nodes.joints import joint_message
    from lam_ros.nodes.qos import STREAM

    robot = load_robot(robot_file)
    rclpy.init(args=[])
    node = Node("robot")
    frame = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    cameras = [node.create_publisher(Image, camera.topic, STREAM) for camera in robot.cameras.values()]
    joints = node.create_publisher(JointState, robot.joint_states.topic, STREAM)
    commands = node.create_publisher(JointState, "lam/command", STREAM)
    zeros = np.zeros(len(robot.joints))

    def publish_frames() -> None:
        message = serialize_message(image_message(frame, time.time_ns(), "camera"))
        for camera in cameras:
            camera.publish(message)
        commands.publish(joint_message(robot.joint_names, zeros, time.time_ns(), "teleop"))

    node.create_timer(1.0 / RATE_HZ, publish_frames)
    node.create_timer(1.0 / JOINT_HZ, lambda: joints.publish(joint_message(robot.joint_names, zeros, time.time_ns())))
    executor = make_executor()
    executor.add_node(node)
    while rclpy.ok():
        executor.spin_once(timeout_sec=0.1)


class Client:
    """Calls the recorder's services; a killed recorder's stay discovered for a while, so calls are repeated."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.node import Node
        from rclpy.signals import SignalHandlerOptions
        from std_srvs.srv import Trigger

        from lam_ros.nodes.base import make_executor

        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("client")
        self._executor = make_executor()
        self._executor.add_node(self._node)
        self._request = Trigger.Request
        self._clients = {name: self._node.create_client(Trigger, f"recorder/{name}") for name in ("start", "stop")}

    def start(self) -> None:
        """Until a take is recorded."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            future = self._clients["start"].call_async(self._request())
            self._executor.spin_until_future_complete(future, timeout_sec=1.0)
            if future.done() and (future.result().success or "is being recorded" in future.result().message):
                return
        raise TimeoutError("the recorder did not start a take in 60 s")

    def stop(self) -> None:
        """Ask for the seal, without waiting for it."""
        self._clients["stop"].call_async(self._request())

    def close(self) -> None:
        import rclpy

        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown()


def one_round(client: Client, recorder: subprocess.Popen[bytes], rng: np.random.Generator) -> tuple[str, int]:
    """Record, and kill; in which phase, and when (ns of the wall clock)."""
    client.start()
    time.sleep(rng.uniform(0.0, LONGEST_S))
    phase = "recording" if rng.random() < 0.6 else "sealing"
    if phase == "sealing":
        client.stop()
        time.sleep(rng.uniform(0.0, 0.3))
    killed_ns = time.time_ns()
    recorder.send_signal(signal.SIGKILL)
    recorder.wait()
    return phase, killed_ns


def kill(kills: int, seed: int, json_file: Path | None) -> int:
    """The whole campaign; 0 if no sealed episode was harmed."""
    rng, console = np.random.default_rng(seed), Console()
    phases: dict[str, int] = {}
    losses_s: list[float] = []
    harmed: list[str] = []
    unreadable = sealed_before_kill = 0
    with tempfile.TemporaryDirectory() as folder:
        robot_file, dataset = write_robot(Path(folder)), Path(folder) / "demonstrations"
        command = [sys.executable, __file__, "--role", "robot", "--robot", str(robot_file)]
        robot = subprocess.Popen(command)
        parameters = {"robot": str(robot_file), "autostart": True, "dataset": str(dataset), "preflight": False}
        log = (Path(folder) / "recorder.log").open("wb")
        client = Client()
        try:
            for _ in track(range(kills), "killing", console=console):
                recorder = subprocess.Popen(Process(NODES["recorder"], parameters).arguments(), stdout=log, stderr=log)
                phase, killed_ns = one_round(client, recorder, rng)
                phases[phase] = phases.get(phase, 0) + 1
                found = [recover(leftover) for leftover in leftovers(dataset)]
                unreadable += sum(not leftover.is_sealed for leftover in found)
                sealed_before_kill += not found
                episodes = list_episodes(dataset)
                for episode in episodes:
                    try:
                        episode.verify()
                    except LamError as error:
                        harmed.append(str(error))
                if phase == "recording" and found and found[-1].is_sealed:
                    last_ns = max(received for _, _, _, received in episodes[-1].messages())
                    losses_s.append((killed_ns - last_ns) / 1e9)
                for episode in episodes[:-2]:  # 50 takes of raw images would fill the disk
                    shutil.rmtree(episode.folder)
        finally:
            client.close()
            robot.kill()
            robot.wait()
    figures = {
        "kills": kills,
        "phases": phases,
        "sealed episodes harmed": len(harmed),
        "leftovers that could not be read": unreadable,
        "already sealed when killed": sealed_before_kill,
        "lost of an open take, s": {
            "p50": round(float(np.median(losses_s)), 3), "max": round(float(np.max(losses_s)), 3)
        },
    }  # fmt: skip
    table = Table("figure", "value", title=f"{kills} times kill -9")
    for name, value in figures.items():
        table.add_row(name, str(value))
    console.print(table)
    print(json.dumps(figures, indent=2))
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2))
    return int(bool(harmed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--role", choices=["robot"], help=argparse.SUPPRESS)
    parser.add_argument("--robot", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        robot_role(arguments.robot)
        return
    with isolated_ros():
        os.environ.update(node_environment())
        raise SystemExit(kill(arguments.kills, arguments.seed, arguments.json))


if __name__ == "__main__":
    main()
