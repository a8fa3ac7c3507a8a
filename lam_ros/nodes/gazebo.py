"""gazebo_node: the arm in Gazebo as a robot: robot/command to its joints, its task's objects, success and reset.

Cameras, joint states and /clock come over ros_gz_bridge by the table of ``lam_ros.simulation.gazebo``. What a task is,
is the embedded simulator's own: it shuffles the table, and judges what Gazebo shows.

    reset ─▶ arm home, objects placed ─▶ joint states and poses ─▶ mirrored ─▶ success, or the task's time is up
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from lam_ros.config import urdf_path
from lam_ros.contract import NANOSECONDS
from lam_ros.errors import ContractError, SimulationError
from lam_ros.nodes.base import ERROR, OK, WARN, PlainNode, stamp_to_ns
from lam_ros.nodes.joints import ROBOT_COMMAND_TYPES, command_positions, trajectory_message
from lam_ros.nodes.qos import COMMAND, LATCHED, SENSOR, STREAM
from lam_ros.nodes.stage import objects_message, status_message
from lam_ros.simulation.gazebo import pose_topic, velocity_topic, world_name
from lam_ros.simulation.ros2_control import TRAJECTORY_TOPIC
from lam_ros.simulation.simulation import MIMIC_FINGER, Simulation
from lam_ros.simulation.tasks import TASKS
from lam_ros.simulation.world import servo_gains
from lam_ros.urdf import moving_joints, read_urdf

HOME_WITHIN = 0.03  # rad or m
HOME_TIMEOUT_S = 10.0  # of simulated time
SERVICE_TIMEOUT_S = 3.0
FOLLOW_PERIOD_S = 0.02  # of simulated time; joint states come at each step of the physics
WAY_S = 0.03  # about what states and velocities take from Gazebo and back: part of the lag that a servo has
GAP_S = 0.2  # of simulated time without joint states: an arm that stood, or was put somewhere
CORRECTION = 1.0  # 1/s
TRIES = 3  # now and then Gazebo's transport loses the answer to a tool that has only just begun
Place = Callable[[str, np.ndarray, np.ndarray], None]


def gazebo_service(world: str, version: str) -> Place:
    """A function that puts a model of a running Gazebo somewhere, by its own command-line tool.

    The tool speaks every version's transport, and needs no message package that PyPI or a distribution may lack.
    """
    tool, messages = ("ign", "ignition.msgs") if version == "fortress" else ("gz", "gz.msgs")

    def place(model: str, position: np.ndarray, quaternion: np.ndarray) -> None:
        x, y, z = position
        w, i, j, k = quaternion
        request = (
            f'name: "{model}", position: {{x: {x:.6f}, y: {y:.6f}, z: {z:.6f}}}, '
            f"orientation: {{w: {w:.6f}, x: {i:.6f}, y: {j:.6f}, z: {k:.6f}}}"
        )
        command = [tool, "service", "-s", f"/world/{world}/set_pose", "--timeout", "2000", "--req", request]
        command += ["--reqtype", f"{messages}.Pose", "--reptype", f"{messages}.Boolean"]
        if shutil.which(tool) is None:
            raise SimulationError(f"there is no `{tool}`; install Gazebo, or set gz_version to the one that is there.")
        said = "no answer"
        for _ in range(TRIES):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SERVICE_TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired:
                continue
            if "data: true" in done.stdout:
                return
            said = (done.stderr + done.stdout).strip().rpartition("\n")[2] or said
        raise SimulationError(f"Gazebo did not move {model}: {said}. Is world {world} there?")

    return place


@dataclass(frozen=True)
class Drive:
    """A joint of Gazebo's arm.

    Attributes:
        place: of its target in the robot's positions.
        lag_s: how far it is behind a target that moves.
        limit: fastest, rad/s or m/s.
    """

    publisher: Any
    place: int
    lag_s: float
    limit: float


class GazeboNode(PlainNode):
    """See the module's docstring.

    Args:
        place: puts a model of the world at a position (3,) in m, with a quaternion (w, x, y, z); Gazebo's own service
            if not given.
    """

    def __init__(self, place: Place | None = None, **kwargs: Any) -> None:
        super().__init__("simulation", **kwargs)
        self.declare("task", "reach", f"Task on the table: {', '.join(TASKS)}.", read_only=True)
        self.declare("seed", 0, "Seed of the first episode; each reset counts up.", (0, 2**31 - 1))
        self.declare("gz_version", "harmonic", "harmonic (and later) or fortress.", read_only=True)
        self.declare(
            "ros2_control",
            False,
            "Whether ros2_control's joint_trajectory_controller moves the arm, not Gazebo's own.",
            read_only=True,
        )
        task = self.parameter("task")
        self._simulation = Simulation(self.robot, task, self.robot_file)
        self._place = place or gazebo_service(world_name(task), self.parameter("gz_version"))
        self._next_seed = int(self.parameter("seed"))
        self._seed = self._next_seed
        self._outcome = "idle"
        self._home: np.ndarray | None = None  # while the arm is on its way there
        self._heard_ns: int | None = None
        self._on_the_way_s = 0.0
        self._has_begun = False
        self._is_unasked = True  # whether the table is the one laid at the start
        self._trouble = ""
        self._last_objects_ns = 0
        self._placed = self._simulation.placed
        self._make_interfaces()
        self._publish_status()

    def _make_interfaces(self) -> None:
        self._target: np.ndarray | None = None  # (J,), that the joints follow
        self._followed_ns = 0
        self._references: dict[str, float] = {}  # where each joint should be by now
        if self.parameter("ros2_control"):
            self._drives, self._move = {}, self._move_by_trajectories()
        else:
            self._drives, self._move = self._make_drives(), self._set_target
        self._objects = self.create_publisher(MarkerArray, "simulation/objects", STREAM)
        self._status_publisher = self.create_publisher(DiagnosticStatus, "simulation/status", LATCHED)
        kind = ROBOT_COMMAND_TYPES[self.robot.command.type]
        self.create_subscription(kind, self.robot.command.topic, self._on_robot_command, COMMAND)
        self.create_subscription(JointState, self.robot.joint_states.topic, self._on_joint_states, SENSOR)
        for body in self._placed:
            self.create_subscription(
                PoseStamped, pose_topic(body), lambda message, body=body: self._on_pose(body, message), SENSOR
            )
        self.create_service(Trigger, "simulation/reset", self._on_reset)
        self.need_joint_states()
        self.need_publisher(self.robot.command.topic)

    def _make_drives(self) -> dict[str, Drive]:
        """By joint; the finger that mimics the other has no target of its own."""
        places = {name: place for place, name in enumerate(self.robot.joint_names)}
        if "gripper" in places:
            places[MIMIC_FINGER] = places["gripper"]
        limits = moving_joints(read_urdf(urdf_path(self.robot, self.robot_file)))
        joints = list(self.robot.joints.values())
        drives = {}
        for name, place in places.items():
            stiffness, damping = servo_gains(joints[place].unit)
            publisher = self.create_publisher(Float64, velocity_topic(name), COMMAND)
            lag_s = max(damping / stiffness - WAY_S, FOLLOW_PERIOD_S)
            drives[name] = Drive(publisher, place, lag_s, limits[name].velocity or 0.0)
        return drives

    def _set_target(self, positions: np.ndarray) -> None:
        self._target = positions

    def _follow(self, message: JointState) -> None:
        """Drive each joint as a servo of the embedded arm closes on its target.

        The velocity is that of a reference which does so, and a correction that is slow enough for states that come
        late: the measured position alone would make the arm swing on a busy machine.
        """
        stamp_ns = stamp_to_ns(message.header.stamp)
        passed_s = (stamp_ns - self._followed_ns) / NANOSECONDS
        if self._target is None or 0.0 <= passed_s < FOLLOW_PERIOD_S:
            return
        self._followed_ns = stamp_ns
        measured = dict(zip(message.name, message.position, strict=True))
        if not 0.0 <= passed_s <= GAP_S:
            self._references, passed_s = {}, FOLLOW_PERIOD_S
        for name, drive in self._drives.items():
            target = float(self._target[drive.place])
            here = float(measured.get(name, target))
            reference = self._references.get(name, here)
            velocity = (target - reference) * (1.0 - np.exp(-passed_s / drive.lag_s)) / passed_s
            velocity = min(max(velocity, -drive.limit), drive.limit)
            self._references[name] = reference + velocity * passed_s
            velocity += CORRECTION * (reference - here)
            drive.publisher.publish(Float64(data=min(max(velocity, -drive.limit), drive.limit)))

    def _stand(self) -> None:
        """Joints go on at the velocity they were last told: stop them before nobody looks."""
        for drive in self._drives.values():
            drive.publisher.publish(Float64(data=0.0))

    def _move_by_trajectories(self) -> Callable[[np.ndarray], None]:
        """Sends positions (J,) to ros2_control's trajectory controller."""
        publisher = self.create_publisher(JointTrajectory, TRAJECTORY_TOPIC, COMMAND)
        names, period_s = self.robot.joint_names, 1 / self.robot.policy.rate_hz  # when the next command comes
        return lambda positions: publisher.publish(trajectory_message(names, positions, period_s))

    # What comes in

    def _on_robot_command(self, message: Any) -> None:
        if self._home is not None:  # the table is being laid
            return
        try:
            self._move(command_positions(message, self.contract))
        except ContractError as error:
            self.note("robot command", ERROR, str(error))
            return
        self.note("robot command", OK, "commands fit the robot")

    def _on_pose(self, body: str, message: PoseStamped) -> None:
        place, turn = message.pose.position, message.pose.orientation
        position, quaternion = np.array([place.x, place.y, place.z]), np.array([turn.w, turn.x, turn.y, turn.z])
        if np.isfinite([*position, *quaternion]).all():
            self._placed[body] = position, quaternion

    def _on_joint_states(self, message: JointState) -> None:
        state = self.joint_positions(message)
        if state is None:
            self._stand()
            return
        stamp_ns = stamp_to_ns(message.header.stamp)
        passed_s = 0.0 if self._heard_ns is None else max(0.0, (stamp_ns - self._heard_ns) / NANOSECONDS)
        self._heard_ns = stamp_ns
        if not self._has_begun:
            self._begin()
        if self._home is not None:
            self._come_home(state, passed_s)
        elif self._outcome == "running":
            self._simulation.mirror(passed_s, state, self._placed)
            self._publish_objects(stamp_ns)
            if self._simulation.is_over:
                self._outcome = "success" if self._simulation.has_succeeded else "failure"
                self._publish_status()
        self._follow(message)

    # Episodes

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._is_unasked and self._outcome in ("idle", "running"):
            self._next_seed = self._seed  # the table laid at the start, which nobody had asked for, becomes the first
        self._is_unasked = False
        self._begin()
        response.success = self._home is not None
        response.message = str(self._seed) if response.success else self._trouble
        return response

    def _begin(self) -> None:
        """Send the arm home, and lay the table of the next episode."""
        self._has_begun = True
        self._seed = max(self._next_seed, int(self.parameter("seed")))
        self._simulation.reset(self._seed)
        self._outcome, self._home = "idle", None
        if self._lay_table():
            self._next_seed = self._seed + 1
            self._home, self._on_the_way_s = self._simulation.state, 0.0
        self._publish_status()

    def _lay_table(self) -> bool:
        self._stand()  # Gazebo may take seconds to answer
        try:
            for name, (position, quaternion) in self._simulation.placed.items():
                self._place(name, position, quaternion)
                self._placed[name] = position, quaternion
        except SimulationError as error:
            self._trouble = str(error)
            self.note("Gazebo", ERROR, self._trouble)
            return False
        self.note("Gazebo", OK, "objects lie where the task wants them")
        return True

    def _come_home(self, state: np.ndarray, passed_s: float) -> None:
        assert self._home is not None
        self._on_the_way_s += passed_s
        self._move(self._home)
        if np.abs(state - self._home).max() > HOME_WITHIN:
            if self._on_the_way_s > HOME_TIMEOUT_S:
                self.note(
                    "home", WARN, f"the arm is not home after {HOME_TIMEOUT_S:.0f} s; does Gazebo take its targets?"
                )
            return
        self.note("home", OK, "the arm is home")
        if self._lay_table():  # again: on its way the arm may have moved something; and again until Gazebo answers
            self._home, self._outcome = None, "running"
            self._heard_ns = None  # what Gazebo took to lay the table is not the episode's
            self._publish_status()

    # What goes out

    def _publish_objects(self, stamp_ns: int) -> None:
        if not 0 <= stamp_ns - self._last_objects_ns < NANOSECONDS / self.robot.policy.rate_hz:  # or time went back
            self._last_objects_ns = stamp_ns
            self._objects.publish(objects_message(self._simulation.objects, self._seed, stamp_ns))

    def _publish_status(self) -> None:
        elapsed_s = round(self._simulation.elapsed_s, 3)
        values = {"task": self._simulation.task.name, "seed": self._seed, "elapsed_s": elapsed_s}
        values |= {"unanswered": 0, "latencies_ms": ""}  # what only a simulator that waits for answers can tell
        self._status_publisher.publish(status_message(self._outcome, values))

    def close(self) -> None:
        self._stand()
        self._simulation.close()
