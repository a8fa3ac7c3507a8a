"""Everything that can stop, stopped while the arm moves: how soon the gate holds it, over real DDS, round after round.

    python benchmarks/stops.py [--rounds 20] [--cases kill_action …] [--out FILE]

Gate, action and perception are processes of their own; this process is the robot: cameras, joint states that follow the
commands, and a watch on what is commanded. A round lets the arm move, stops one thing, and looks for 1.2 s.

- driven: from the event to the last command of whoever drove (the promise: gate.staleness_s and 100 ms)
- rest: from the event to the last command that moved the arm
- step: the largest step between two commands, as a share of what the velocity limits allow in their time and one tick
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import tell
from rich.progress import track
from rich.table import Table

from lam_ros.bringup import Options, Supervisor, node_environment, plan
from lam_ros.cli.console import isolated_ros
from lam_ros.config import load_robot
from lam_ros.contract import Contract
from lam_ros.policy.checkpoint import CheckpointInfo, save_checkpoint
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.runtime import PolicyNetwork

AHEAD_RAD = 0.03  # the policy, or teleoperation, asks for so much more of the waist than measured
BEGIN_RAD = -2.0
LOOK_S = 1.2
CASES = (
    *("kill_action", "kill_perception", "kill_teleop", "freeze_action", "freeze_perception"),
    *("unplug_camera", "stop_states", "estop", "pause_clock"),
)


def write_checkpoint(folder: Path) -> Path:
    """A policy that turns the waist, whatever it sees."""
    robot = load_robot("desk_arm")
    contract, config = Contract.of(robot), PolicyConfig(chunk=1, targets="relative")
    network = PolicyNetwork(config, contract)
    with torch.no_grad():
        network.action.head.linear.weight.zero_()
        network.action.head.linear.bias.zero_()
        network.action.head.linear.bias[0] = AHEAD_RAD / float(network.normaliser.target_scale[0, 0])
    path = folder / "policy.safetensors"
    save_checkpoint(path, network, CheckpointInfo(contract, config, robot.name, "turn", "none"))
    return path


def teleop_role() -> None:
    """A human at the controls: always a little ahead of where the arm is."""
    import rclpy
    from rclpy.node import Node
    from sensor_msgs.msg import JointState

    from lam_ros.nodes.joints import joint_message
    from lam_ros.nodes.qos import COMMAND, SENSOR

    robot = load_robot("desk_arm")
    rclpy.init(args=[])
    node = Node("human")
    commands = node.create_publisher(JointState, "teleop/command", COMMAND)

    def ahead(message: Any) -> None:
        position = np.array(message.position)
        position[0] += AHEAD_RAD
        commands.publish(joint_message(robot.joint_names, position, time.time_ns()))

    node.create_subscription(JointState, robot.joint_states.topic, ahead, SENSOR)
    rclpy.spin(node)


class RobotStandIn:
    """Publishes what a robot does, and notes what it is told."""

    def __init__(self, simulated_time: bool) -> None:
        import rclpy
        from rclpy.clock import Clock, ClockType
        from rclpy.node import Node
        from rosgraph_msgs.msg import Clock as ClockMessage
        from sensor_msgs.msg import Image, JointState
        from std_msgs.msg import Bool
        from std_srvs.srv import Trigger

        from lam_ros.nodes.base import make_executor
        from lam_ros.nodes.images import image_message
        from lam_ros.nodes.qos import SENSOR, STREAM

        self.robot = load_robot("desk_arm")
        rclpy.init(args=[])
        self.node = Node("robot_stand_in")
        self._executor = make_executor()
        self._executor.add_node(self.node)
        self._simulated_time = simulated_time
        self.position = np.zeros(len(self.robot.joints))
        self.commands: list[tuple[float, str, np.ndarray]] = []  # when, by whom, joint positions
        self.unplugged = self.silent = self.paused = False
        self._time_ns = time.time_ns()
        self._joints = self.node.create_publisher(JointState, self.robot.joint_states.topic, STREAM)
        self._cameras = [self.node.create_publisher(Image, c.topic, STREAM) for c in self.robot.cameras.values()]
        self._clock = self.node.create_publisher(ClockMessage, "/clock", STREAM)
        self.estop = self.node.create_publisher(Bool, "lam/estop", STREAM)
        self.reset = self.node.create_client(Trigger, "lam/reset_estop")
        self._image = image_message(np.zeros((96, 96, 3), np.uint8), 0, "camera")
        self.node.create_subscription(JointState, "lam/command", self._on_command, SENSOR)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.node.create_timer(0.01, self._publish_states, clock=steady)
        self.node.create_timer(0.05, self._publish_frames, clock=steady)

    def _now_ns(self) -> int:
        return self._time_ns if self._simulated_time else time.time_ns()

    def _on_command(self, message: Any) -> None:
        position = np.array(message.position)
        self.commands.append((time.monotonic(), message.header.frame_id, position))
        self.position = position

    def _publish_states(self) -> None:
        from rosgraph_msgs.msg import Clock as ClockMessage

        from lam_ros.nodes.base import ns_to_stamp
        from lam_ros.nodes.joints import joint_message

        if self._simulated_time and not self.paused:
            self._time_ns += 10_000_000
            self._clock.publish(ClockMessage(clock=ns_to_stamp(self._time_ns)))
        if not self.silent:
            self._joints.publish(joint_message(self.robot.joint_names, self.position, self._now_ns()))

    def _publish_frames(self) -> None:
        from lam_ros.nodes.base import ns_to_stamp

        self._image.header.stamp = ns_to_stamp(self._now_ns())
        for camera in self._cameras[self.unplugged :]:
            camera.publish(self._image)

    def spin(self, until: Callable[[], bool], timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > end:
                raise RuntimeError("the arm did not do what this case waits for")
            self._executor.spin_once(timeout_sec=0.005)

    def look(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.spin(lambda: time.monotonic() > end)

    def is_driven_by(self, driver: str) -> bool:
        """Whether the arm has moved by that driver's commands for the last while."""
        recent = [c for c in self.commands[-12:] if c[1] == driver]
        return len(recent) == 12 and recent[-1][2][0] - recent[0][2][0] > 0.02

    def release(self) -> None:
        from std_srvs.srv import Trigger

        future = self.reset.call_async(Trigger.Request())
        self.spin(future.done)

    def close(self) -> None:
        import rclpy

        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown()


def judge(commands: list[tuple[float, str, np.ndarray]], event_s: float, velocity: np.ndarray) -> dict[str, float]:
    """What a round shows; times in ms from the event."""
    driven = [at for at, driver, _ in commands if driver != "hold"]
    moving, steps = [event_s], [0.0]
    for (before_s, _, before), (at, _, after) in itertools.pairwise(commands):
        way = np.abs(after - before)
        if way.max() > 1e-6:
            moving.append(at)
        steps.append(float(np.max(way / (velocity * (max(at - before_s, 0.0) + 0.05)))))
    return {
        "driven_ms": 1e3 * max(0.0, max(driven) - event_s),
        "rest_ms": 1e3 * max(0.0, max(moving) - event_s),
        "step": max(steps),
    }


@contextlib.contextmanager
def show_on_failure(said: Iterable[str]) -> Iterator[None]:
    """Print what the nodes said last where a case does not go as it should."""
    try:
        yield
    except RuntimeError:
        print(*said, sep="\n", file=sys.stderr)
        raise


def one_case(case: str, rounds: int, checkpoint: Path) -> list[dict[str, float]]:
    simulated_time = case == "pause_clock"
    stand_in = RobotStandIn(simulated_time)
    velocity = stand_in.robot.velocity_limits
    found = []
    processes = plan("deploy", Options("desk_arm", checkpoint=str(checkpoint)))
    if simulated_time:
        processes = [type(p)(p.node, {**p.parameters, "use_sim_time": True}) for p in processes]
    human: subprocess.Popen[bytes] | None = None
    said: deque[str] = deque(maxlen=20)
    with show_on_failure(said), Supervisor(lambda name, line: said.append(f"{name}: {line}")) as supervisor:
        supervisor.start(processes)
        for _ in range(rounds):
            if case == "kill_teleop":
                human = subprocess.Popen([sys.executable, __file__, "--role", "teleop"], env=node_environment())
            stand_in.position = np.where(np.arange(len(stand_in.position)) == 0, BEGIN_RAD, stand_in.position)
            stand_in.commands.clear()
            driver = "teleop" if case == "kill_teleop" else "policy"
            stand_in.spin(lambda driver=driver: stand_in.is_driven_by(driver))
            verb, _, what = case.partition("_")
            event_s = time.monotonic()
            if case == "kill_teleop":
                assert human is not None
                human.kill()
                human.wait()
            elif verb == "kill":
                os.kill(supervisor.pid(what), signal.SIGKILL)
            elif verb == "freeze":
                os.kill(supervisor.pid(what), signal.SIGSTOP)
            elif case == "estop":
                from std_msgs.msg import Bool

                stand_in.estop.publish(Bool(data=True))
            stand_in.unplugged = case == "unplug_camera"
            stand_in.silent, stand_in.paused = case == "stop_states", case == "pause_clock"
            # A human who lets go leaves the arm to the policy here; its own commands are what must end.
            stand_in.look(LOOK_S)
            commands = stand_in.commands
            if case == "kill_teleop":
                first = next((i for i, c in enumerate(commands) if c[0] > event_s and c[1] == "policy"), None)
                commands = commands[:first]
            found.append(judge(commands, event_s, velocity))
            stand_in.unplugged = stand_in.silent = stand_in.paused = False
            if verb == "kill" and case != "kill_teleop":
                supervisor.revive()
            elif verb == "freeze":
                os.kill(supervisor.pid(what), signal.SIGCONT)
            # The next round begins far back: nobody may drive meanwhile, and the gate begins anew after the pause.
            stand_in.silent = True
            stand_in.look(0.5)
            stand_in.silent = False
            stand_in.release()
        with contextlib.suppress(ProcessLookupError):
            if human is not None:
                human.kill()
    stand_in.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--role", choices=["teleop"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        teleop_role()
        return
    figures: dict[str, Any] = {"staleness_ms": 1e3 * load_robot("desk_arm").gate.staleness_s}
    table = Table("stopped", "rounds", "driven ms, median", "at most", "rest ms, median", "at most", "largest step")
    with isolated_ros(), tempfile.TemporaryDirectory() as folder:
        os.environ.update(node_environment())  # with 512 KB of shared memory, killed subscribers end in silence
        checkpoint = write_checkpoint(Path(folder))
        for case in track(arguments.cases, "cases"):
            rounds = one_case(case, arguments.rounds, checkpoint)
            columns = {key: [r[key] for r in rounds] for key in rounds[0]}
            figures[case] = columns
            row = [f(columns[key]) for key in ("driven_ms", "rest_ms") for f in (np.median, max)]
            table.add_row(case, str(len(rounds)), *(f"{v:.0f}" for v in row), f"{max(columns['step']):.2f}")
    tell(table, figures, arguments.out)


if __name__ == "__main__":
    main()
