"""From image stamp to lam/command over real DDS, with two 640x480 raw cameras at 30 Hz.

    python benchmarks/latency.py [--seconds 20] [--json FILE]

Measured in one run, one after the other: bare transport of the frames to one subscriber; the networks alone, in
process; the three nodes composed in one process; the three nodes as three processes. The networks and the composed
nodes once with the checkpoint in torch, once exported to ONNX Runtime, once in 8 bits. What the gate adds: perception
and action composed without it, up to lam/policy_command, in turn with all three, --turns times. Cameras and joint
states come from a process of their own. Frames are counted: published, used, dropped on purpose, lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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

from lam_ros.bringup import NODES, Command, NodeSpec, Process, Supervisor, node_environment
from lam_ros.cli.console import isolated_ros
from lam_ros.config import load_robot
from lam_ros.contract import Contract
from lam_ros.nodes.main import keep_memory
from lam_ros.policy.checkpoint import CheckpointInfo, load_network, load_policy, save_checkpoint, save_exported
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.export import export_graphs, quantise
from lam_ros.policy.runtime import PolicyNetwork
from lam_ros.share import share_path

WIDTH, HEIGHT, RATE_HZ, JOINT_HZ = 640, 480, 30.0, 100.0
WARM_UP_S = 3.0
COMPOSED, SEPARATE, UNGATED = ("composed",), ("gate", "action", "perception"), ("ungated",)


def write_robot(folder: Path) -> Path:
    """The desk arm with two 640x480 cameras, and a policy that ticks with them."""
    described = yaml.safe_load(share_path("config/desk_arm.yaml").read_text())
    for camera in described["cameras"].values():
        camera.update(width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ)
    described["policy"]["rate_hz"] = RATE_HZ
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return path


def write_checkpoint(folder: Path, robot_file: Path) -> Path:
    """Random weights: latency does not depend on what they say."""
    robot = load_robot(robot_file)
    contract, config = Contract.of(robot), PolicyConfig()
    path = folder / "policy.safetensors"
    save_checkpoint(path, PolicyNetwork(config, contract), CheckpointInfo(contract, config, robot.name, "none", "none"))
    return path


def write_exported(folder: Path, checkpoint: Path) -> tuple[Path, Path]:
    """The same network, exported: in float32, and in int8."""
    network, info = load_network(checkpoint)
    paths = folder / "policy.onnx.safetensors", folder / "policy.int8.safetensors"
    graphs = export_graphs(network)
    save_exported(paths[0], graphs, info)
    width, height = network.config.image_size
    noise = np.random.default_rng(0).integers(0, 255, (8, height, width, 3), dtype=np.uint8)
    save_exported(paths[1], quantise(graphs, [noise] * len(network.perception.encoders)), info)
    return paths


def cameras_role(robot_file: str, seconds: float, joint_listeners: int) -> None:
    """Publish both cameras and the joint states until the time is up; print how many frames went out.

    Begins once both cameras are heard, and the joint states by as many as told: without them nobody commands.
    """
    import rclpy
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from sensor_msgs.msg import Image, JointState

    from lam_ros.nodes.base import make_executor, ns_to_stamp
    from lam_ros.nodes.images import image_message
    from lam_ros.nodes.joints import joint_message
    from lam_ros.nodes.qos import STREAM

    robot = load_robot(robot_file)
    rclpy.init(args=[])
    node = Node("cameras")
    frame = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    message = image_message(frame, 0, "camera")
    publishers = [node.create_publisher(Image, camera.topic, STREAM) for camera in robot.cameras.values()]
    joints = node.create_publisher(JointState, robot.joint_states.topic, STREAM)
    zeros = np.zeros(len(robot.joints))
    sent = 0

    def publish_frames() -> None:
        nonlocal sent
        stamp = ns_to_stamp(time.time_ns())  # one shutter for both cameras, as a trigger line gives it
        for publisher in publishers:
            message.header.stamp = stamp
            publisher.publish(message)
        sent += 1

    executor = make_executor()
    executor.add_node(node)
    while not all(publisher.get_subscription_count() for publisher in publishers) or (
        joints.get_subscription_count() < joint_listeners
    ):
        executor.spin_once(timeout_sec=0.05)  # what nobody can hear yet is not lost
    steady = Clock(clock_type=ClockType.STEADY_TIME)
    node.create_timer(1.0 / RATE_HZ, publish_frames, clock=steady)
    node.create_timer(
        1.0 / JOINT_HZ, lambda: joints.publish(joint_message(robot.joint_names, zeros, time.time_ns())), clock=steady
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    print(sent, flush=True)
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.try_shutdown()


def ungated_role(arguments: list[str]) -> None:
    """Perception and action in one process, as they are composed, and nobody to hand commands to."""
    import cv2

    from lam_ros.nodes.action import ActionNode
    from lam_ros.nodes.base import run
    from lam_ros.nodes.perception import PerceptionNode

    def connect(action: ActionNode, perception: PerceptionNode) -> None:
        perception.hand_over, action.is_fed = action.take, True

    keep_memory()
    cv2.setNumThreads(1)
    sys.exit(run([ActionNode, PerceptionNode], arguments, connect))


def start_cameras(robot_file: Path, seconds: float, joint_listeners: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", "cameras", "--robot", str(robot_file), "--seconds", str(seconds)]
    command += ["--joint-listeners", str(joint_listeners)]
    return subprocess.Popen(command, env=node_environment(), stdout=subprocess.PIPE, text=True)


class Listener:
    """Ages of the messages of some topics at their arrival, in ms; and what perception says of its frames."""

    def __init__(self, kind: Any, topics: list[str]) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.node import Node

        from lam_ros.nodes.base import make_executor, stamp_to_ns
        from lam_ros.nodes.qos import SENSOR

        self.ages_ms: list[float] = []
        self.figures: dict[str, str] = {}
        rclpy.init(args=[])
        self._node = Node("listener")
        self._executor = make_executor()
        self._executor.add_node(self._node)

        def arrived(message: Any) -> None:
            if message.header.frame_id != "hold":
                self.ages_ms.append((time.time_ns() - stamp_to_ns(message.header.stamp)) / 1e6)

        def diagnosed(message: Any) -> None:
            for status in message.status:
                if status.name == "/perception":
                    self.figures = {entry.key: entry.value for entry in status.values}

        for topic in topics:
            self._node.create_subscription(kind, topic, arrived, SENSOR)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", diagnosed, 10)

    def listen(self, until: Any) -> None:
        from rclpy.task import Future

        never: Any = Future(executor=self._executor)
        while until():
            self._executor.spin_until_future_complete(never, timeout_sec=0.1)  # as the nodes do; spin_once is slower

    def close(self) -> None:
        import rclpy

        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown()


def summary(ages_ms: list[float], published: int) -> dict[str, float]:
    settled = ages_ms[int(WARM_UP_S * RATE_HZ) :] or ages_ms
    return {
        "p50_ms": float(np.percentile(settled, 50)),
        "p99_ms": float(np.percentile(settled, 99)),
        "max_ms": float(np.max(settled)),
        "arrived": len(ages_ms),
        "shutters": published,
    }


def measure_transport(robot_file: Path, seconds: float) -> dict[str, float]:
    """Age of the frames of both cameras at a subscriber that does nothing else."""
    from sensor_msgs.msg import Image

    listener = Listener(Image, [camera.topic for camera in load_robot(robot_file).cameras.values()])
    cameras = start_cameras(robot_file, seconds)
    listener.listen(lambda: cameras.poll() is None)
    listener.close()
    assert cameras.stdout is not None
    return summary(listener.ages_ms, int(cameras.stdout.read()))


def measure_networks(robot_file: Path, checkpoint: Path, ticks: int = 300) -> dict[str, float]:
    """Scaling, CNN, LSTM and decoding of one tick, in process, one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    policy = load_policy(checkpoint, load_robot(robot_file))
    frame = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    images = dict.fromkeys(policy.contract.cameras, frame)
    state = np.zeros(len(policy.contract.joints), dtype=np.float32)
    costs = []
    for _ in range(ticks):
        start = time.perf_counter()
        policy.act_on(policy.perceive(images, 0), state)
        costs.append(1e3 * (time.perf_counter() - start))
    torch.set_num_threads(threads)
    settled = costs[20:]
    return {name: float(np.percentile(settled, share)) for name, share in (("p50_ms", 50), ("p99_ms", 99))}


def measure_nodes(robot_file: Path, checkpoint: Path, names: tuple[str, ...], seconds: float) -> dict[str, float]:
    """Age of the answered image at the arrival of lam/command; of lam/policy_command where there is no gate."""
    from sensor_msgs.msg import JointState

    parameters = {"robot": str(robot_file), "autostart": True}
    policy = {**parameters, "checkpoint": str(checkpoint)}
    processes = [Process(NODES[name], policy if name != "gate" else parameters) for name in names if name in NODES]
    if names == UNGATED:
        ros = Process(NODES["action"], policy).arguments()
        words = (sys.executable, __file__, "--role", "ungated", *ros[ros.index("--ros-args") :])
        processes.append(Command(NodeSpec("ungated", (), "perception and action, and no gate"), words=words))
    listener = Listener(JointState, ["lam/policy_command" if names == UNGATED else "lam/command"])
    environment = {**node_environment(), "OMP_NUM_THREADS": "1"}  # as every node sets for itself
    with Supervisor(lambda name, line: print(f"[{name}] {line}", file=sys.stderr), environment) as supervisor:
        supervisor.start(processes)
        ready = time.monotonic() + 120
        listener.listen(lambda: "features published" not in listener.figures and time.monotonic() < ready)
        cameras = start_cameras(robot_file, seconds, joint_listeners=1 if names == UNGATED else 2)  # action, gate
        listener.listen(lambda: cameras.poll() is None)
        after = time.monotonic() + 2.5  # the last diagnostics
        listener.listen(lambda: time.monotonic() < after)
        supervisor.check()
    listener.close()
    assert cameras.stdout is not None
    published = int(cameras.stdout.read())
    used, dropped = int(listener.figures["features published"]), int(listener.figures["frames dropped on purpose"])
    return {
        **summary(listener.ages_ms, published),
        "ticks_perceived": used,
        "frames_dropped_on_purpose": dropped,
        "frames_lost": 2 * published - 2 * used - dropped,
    }


def measure_gate(robot_file: Path, checkpoint: Path, seconds: float, turns: int) -> dict[str, dict[str, float]]:
    """Composed with the gate and without, in turn: of each the median over the turns, and what the gate adds."""
    rows: dict[tuple[str, ...], list[dict[str, float]]] = {UNGATED: [], COMPOSED: []}
    for _ in range(turns):
        for names, measured in rows.items():
            measured.append(measure_nodes(robot_file, checkpoint, names, seconds))
    without, with_gate = (
        {key: float(np.median([row[key] for row in measured])) for key in measured[0]} for measured in rows.values()
    )
    added = {key: with_gate[key] - without[key] for key in ("p50_ms", "p99_ms")}
    return {"composed without the gate": without, "composed, in turn with it": with_gate, "the gate adds": added}


def measure(seconds: float, turns: int, out: Path | None) -> None:
    with isolated_ros(), tempfile.TemporaryDirectory() as folder:
        os.environ.update(node_environment())
        keep_memory()  # as every node does: the bare cost of transport is measured with the same allocator
        robot_file = write_robot(Path(folder))
        checkpoint = write_checkpoint(Path(folder), robot_file)
        exported, eight_bits = write_exported(Path(folder), checkpoint)
        figures = {
            "transport alone": measure_transport(robot_file, seconds),
            "networks alone, torch": measure_networks(robot_file, checkpoint),
            "networks alone, ONNX Runtime": measure_networks(robot_file, exported),
            "networks alone, ONNX Runtime, int8": measure_networks(robot_file, eight_bits),
            "composed, torch": measure_nodes(robot_file, checkpoint, COMPOSED, seconds),
            "composed, ONNX Runtime": measure_nodes(robot_file, exported, COMPOSED, seconds),
            "composed, ONNX Runtime, int8": measure_nodes(robot_file, eight_bits, COMPOSED, seconds),
            "three processes, ONNX Runtime": measure_nodes(robot_file, exported, SEPARATE, seconds),
            **measure_gate(robot_file, exported, seconds, turns),
        }
    result = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "cameras": f"2 x {WIDTH}x{HEIGHT} rgb8 at {RATE_HZ:g} Hz",
        "figures": figures,
    }
    table = Table("what", "p50 ms", "p99 ms", "max ms", "lost frames", "commands", title="image stamp to lam/command")
    for name, row in figures.items():
        lost = row.get("frames_lost")
        table.add_row(
            name, f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row.get('max_ms', float('nan')):.1f}",
            *(("", "") if lost is None else (f"{lost:g}", f"{row['arrived']:g} of {row['shutters']:g}")),
        )  # fmt: skip
    Console().print(table)
    print(json.dumps(result, indent=2))
    if out:
        out.write_text(json.dumps(result, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--turns", type=int, default=3, help="how often what the gate adds is measured")
    parser.add_argument("--role", choices=["cameras", "ungated"], help=argparse.SUPPRESS)
    parser.add_argument("--robot", help=argparse.SUPPRESS)
    parser.add_argument("--joint-listeners", type=int, default=0, help=argparse.SUPPRESS)
    arguments, for_ros = parser.parse_known_args()
    if arguments.role == "cameras":
        cameras_role(arguments.robot, arguments.seconds, arguments.joint_listeners)
    elif arguments.role == "ungated":
        ungated_role(for_ros)
    elif for_ros:
        parser.error(f"unknown arguments: {' '.join(for_ros)}")
    else:
        measure(arguments.seconds, arguments.turns, arguments.json)


if __name__ == "__main__":
    main()
