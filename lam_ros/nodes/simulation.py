"""simulation_node: the embedded simulator as a robot: cameras, joint states and /clock out, robot/command in.

In ``realtime`` it keeps pace with the wall clock. In ``lockstep`` it runs as fast as the machine allows and loses
nothing: after the frames of a tick it waits until the gate has answered that very tick, and only then lets time pass.

    reset ─▶ publish joint states, objects, frames of tick t ─▶ wait for lam/command stamped t ─▶ a period of physics ─┐
                 ▲                                                                                                    │
                 └───────────────── until success, or the task's time is up ◀─────────────────────────────────────────┘
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from lam_ros.contract import seconds_to_ns
from lam_ros.errors import ContractError, SimulationError
from lam_ros.nodes.base import ERROR, OK, PlainNode, ns_to_stamp, publishers_of, stamp_to_ns
from lam_ros.nodes.images import compressed_message, image_message
from lam_ros.nodes.joints import ROBOT_COMMAND_TYPES, command_positions, joint_message
from lam_ros.nodes.qos import COMMAND, LATCHED, STREAM
from lam_ros.nodes.stage import objects_message, status_message
from lam_ros.simulation.simulation import Simulation
from lam_ros.simulation.tasks import TASKS

# Simulated time without frames, in which an episode's nodes end what they did and begin anew, is the longest of:
BETWEEN_EPISODES_S = 0.5
BETWEEN_EPISODES_TICKS = 10.0  # the action node resets the LSTM after 4.5
BETWEEN_EPISODES_STALENESS = 2.5  # the gate takes an arm for standing after 2
SETTLING_STEPS = 3  # joint states of the arm in its new place, heard by everyone before its first frame
MAX_CATCH_UP_S = 0.1
LOOK_S = 0.5  # for a robot in this ROS domain, before anything is published that could set it moving


class SimulationNode(PlainNode):
    """See the module's docstring."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("simulation", **kwargs)
        self.declare("task", "reach", f"Task on the table: {', '.join(TASKS)}.", read_only=True)
        self.declare("mode", "realtime", "realtime, or lockstep: as fast as the machine allows.", read_only=True)
        self.declare("seed", 0, "Seed of the first episode; each reset counts up.", (0, 2**31 - 1))
        self.declare("disturbance", 0.0, "Servo error to correct while demonstrating.", (0.0, 0.2), unit="rad")
        waits = "Wall time after which lockstep goes on without an answer."
        self.declare("answer_timeout_s", 2.0, waits, (0.05, 60.0), unit="s")
        self.declare("black_camera", "", "Publish black frames for this camera, or for `all`: does the policy look?")
        self._mode = self.parameter("mode")
        if self._mode not in ("realtime", "lockstep"):
            raise SimulationError(f"mode is {self._mode!r}; valid are realtime and lockstep.")
        self._simulation = Simulation(self.robot, self.parameter("task"), self.robot_file)
        self._simulation.skip(time.time())  # stamps stay apart from those of earlier runs
        self._joint_step_s = 1.0 / self.robot.joint_states.rate_hz
        self._pause_s = max(
            BETWEEN_EPISODES_S,
            BETWEEN_EPISODES_TICKS / self.robot.policy.rate_hz,
            BETWEEN_EPISODES_STALENESS * self.robot.gate.staleness_s,
        )
        self._next_seed = int(self.parameter("seed"))
        self._seed = self._next_seed
        self._target: np.ndarray | None = None
        self._outcome = "idle"
        self._tick_ns: int | None = None  # of the tick that waits for its answer
        self._tick_wall_s = 0.0
        self._settling = 0
        self._answer: np.ndarray | None = None  # what the gate says it sent in answer
        self._unanswered = 0
        self._latencies_ms: list[float] = []
        self._make_interfaces()
        self._publish_status()
        self._begins_s = time.monotonic() + LOOK_S
        self._has_begun = False
        self.create_timer(self._joint_step_s, self._on_timer, clock=self._steady)

    def _make_interfaces(self) -> None:
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
        self._joints = self.create_publisher(JointState, self.robot.joint_states.topic, STREAM)
        self._frames = {
            name: (
                self.create_publisher(Image, camera.topic, STREAM),
                self.create_publisher(CompressedImage, f"{camera.topic}/compressed", STREAM),
            )
            for name, camera in self.robot.cameras.items()
        }
        self._objects = self.create_publisher(MarkerArray, "simulation/objects", STREAM)
        self._status_publisher = self.create_publisher(DiagnosticStatus, "simulation/status", LATCHED)
        self.create_subscription(
            ROBOT_COMMAND_TYPES[self.robot.command.type], self.robot.command.topic, self._on_robot_command, COMMAND
        )
        self.create_subscription(JointState, "lam/command", self._on_sent, STREAM)
        self.create_service(Trigger, "simulation/reset", self._on_reset)
        self.need_publisher(self.robot.command.topic)
        self.figure("camera subscribers", self._least_camera_subscribers)
        self.figure("unanswered ticks", lambda: self._unanswered)

    def _least_camera_subscribers(self) -> int:
        return min(sum(p.get_subscription_count() for p in publishers) for publishers in self._frames.values())

    # What comes in

    def _on_robot_command(self, message: Any) -> None:
        try:
            self._target = command_positions(message, self.contract)
        except ContractError as error:
            self.note("robot command", ERROR, str(error))
            return
        self.note("robot command", OK, "commands fit the robot")
        self._go_on()

    def _on_sent(self, message: JointState) -> None:
        answers = message.header.frame_id != "hold" and stamp_to_ns(message.header.stamp) == self._tick_ns
        if self._mode != "lockstep" or not answers:
            return
        try:
            self._answer = self.contract.in_order(message.name, message.position, "lam/command")
        except ContractError as error:
            self.note("lam/command", ERROR, str(error))
            return
        self._latencies_ms.append(1e3 * (time.perf_counter() - self._tick_wall_s))
        self._go_on()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._next_seed = max(self._next_seed, int(self.parameter("seed")))
        self._begin()
        response.success, response.message = True, str(self._seed)
        return response

    def _on_timer(self) -> None:
        if not self._is_alone() or time.monotonic() < self._begins_s:
            return
        if self._mode == "lockstep":
            self._pulse()
        elif self._has_begun:
            self._keep_pace()
        else:
            self._publish_clock()  # before any joint state: nobody is to count time from 0 to now
            self._begin()
            self._wall_s, self._since_frame_s = time.monotonic(), 0.0
        self._has_begun = True

    def _is_alone(self) -> bool:
        """Whether no other arm is in this ROS domain, which would be driven too; else this node gives up."""
        if publishers_of(self, self.robot.joint_states.topic) > 1:
            self.gave_up = (
                f"somebody else publishes {self._joints.topic_name}: a robot, or another simulator, is in this ROS "
                "domain, and would be driven too. End it, or `export ROS_DOMAIN_ID=` another number for the simulation."
            )
        return not self.gave_up

    # Episodes

    def _begin(self) -> None:
        simulation = self._simulation
        steps = round(self._pause_s / self._joint_step_s)
        # The clock in one leap, and first: a watchdog that woke up within the pause would brake the old arm, and the
        # new one would go on from where that was sent last.
        self._publish_clock(steps * seconds_to_ns(self._joint_step_s))
        for _ in range(steps):
            simulation.skip(self._joint_step_s)
            self._publish_joints()
        self._seed = self._next_seed
        self._next_seed += 1
        simulation.reset(self._seed, self.parameter("disturbance"))
        self._target, self._tick_ns = None, None
        self._latencies_ms, self._unanswered = [], 0
        self._outcome = "running"
        self._publish_status()
        self._settling = SETTLING_STEPS

    def _rest(self) -> None:
        self._simulation.skip(self._joint_step_s)
        self._publish_clock()
        self._publish_joints()

    def _advance(self) -> None:
        self._simulation.advance(self._joint_step_s, self._target)
        self._publish_clock()
        self._publish_joints()

    def _end_if_over(self) -> bool:
        if self._outcome == "running" and self._simulation.is_over:
            self._outcome = "success" if self._simulation.has_succeeded else "failure"
            self._publish_status()
        return self._outcome != "running"

    # Lockstep

    def _publish_tick(self) -> None:
        self._answer = None
        self._tick_ns = self._simulation.now_ns
        self._publish_objects()
        rendered = {name: self._frame(name) for name in self.robot.cameras}
        self._tick_wall_s = time.perf_counter()
        for name, frame in rendered.items():
            self._publish_frame(name, frame)

    def _go_on(self) -> None:
        """Let time pass once the answer to this tick has arrived as the robot's command too: they are two topics."""
        if self._tick_ns is None or self._answer is None or self._target is None:
            return
        if np.array_equal(self._target, self._answer):
            self._pass_period()

    def _pulse(self) -> None:
        if self._outcome != "running":  # as any robot at rest; those who come late must find it
            self._rest()
        elif self._settling:
            self._rest()
            self._settling -= 1
            if not self._settling:
                self._publish_tick()
        waited_s = time.perf_counter() - self._tick_wall_s
        if self._tick_ns is not None and waited_s > self.parameter("answer_timeout_s"):
            self._unanswered += 1
            missing = "lam/command" if self._answer is None else f"the same on {self.robot.command.topic}"
            self.get_logger().warning(f"no {missing} for the tick {waited_s:.1f} s ago; time goes on without it")
            self._pass_period()

    def _pass_period(self) -> None:
        self._tick_ns = None
        for _ in range(round(self.robot.joint_states.rate_hz / self.robot.policy.rate_hz)):
            self._advance()
        if not self._end_if_over():
            self._publish_tick()

    # Real time

    def _keep_pace(self) -> None:
        now_s = time.monotonic()
        self._wall_s = max(self._wall_s, now_s - MAX_CATCH_UP_S)  # a stalled machine is not caught up with at any cost
        while self._wall_s <= now_s:
            self._wall_s += self._joint_step_s
            self._advance()
            self._since_frame_s += self._joint_step_s
        fastest = max(camera.rate_hz for camera in self.robot.cameras.values())
        if self._since_frame_s >= 1.0 / fastest - 1e-6:
            self._since_frame_s = 0.0
            self._publish_objects()
            for name in self.robot.cameras:
                self._publish_frame(name, self._frame(name))
        self._end_if_over()

    # What goes out

    def _publish_clock(self, ahead_ns: int = 0) -> None:
        self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(self._simulation.now_ns + ahead_ns)))

    def _publish_joints(self) -> None:
        simulation = self._simulation
        stamp_ns = simulation.now_ns + seconds_to_ns(self.robot.joint_states.latency_s)
        message = joint_message(self.contract.joints, simulation.state, stamp_ns)
        message.velocity = simulation.velocity.astype(float).tolist()
        self._joints.publish(message)

    def _frame(self, camera: str) -> np.ndarray | None:
        if not any(publisher.get_subscription_count() for publisher in self._frames[camera]):
            return None
        frame = self._simulation.render(camera)
        return np.zeros_like(frame) if self.parameter("black_camera") in (camera, "all") else frame

    def _publish_frame(self, camera: str, frame: np.ndarray | None) -> None:
        if frame is None:
            return
        raw, compressed = self._frames[camera]
        described = self.robot.cameras[camera]
        # As a real camera stamps: so much later than the light fell in.
        frame_id, stamp_ns = described.frame_id, self._simulation.now_ns + seconds_to_ns(described.latency_s)
        if raw.get_subscription_count():
            raw.publish(image_message(frame, stamp_ns, frame_id))
        if compressed.get_subscription_count():
            compressed.publish(compressed_message(frame, stamp_ns, frame_id))

    def _publish_objects(self) -> None:
        self._objects.publish(objects_message(self._simulation.objects, self._seed, self._simulation.now_ns))

    def _publish_status(self) -> None:
        values = {
            "task": self._simulation.task.name,
            "seed": self._seed,
            "elapsed_s": round(self._simulation.elapsed_s, 3),
            "unanswered": self._unanswered,
            "latencies_ms": " ".join(f"{value:.2f}" for value in self._latencies_ms),
        }
        self._status_publisher.publish(status_message(self._outcome, values))

    def close(self) -> None:
        self._simulation.close()
