"""The one node table, what `lam up` and the launch files start of it, and the supervisor that keeps them together."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import yaml

from lam_ros.config import load_robot, urdf_path
from lam_ros.errors import BringUpError
from lam_ros.share import share_path

if TYPE_CHECKING:
    from lam_ros.simulation.ros2_control import GazeboVersion

PR_SET_PDEATHSIG = 1
FOLLOW_PARENT = "LAM_ROS_FOLLOW_PARENT"  # the process that started a node, set by launch files for theirs
GRACE_S = 6.0  # for a node to stop by itself
SEALING_S = 600.0  # for the recorder: an episode of some GB is written to the disk, and read back
GPU_DEVICES = ("/dev/dri/renderD128", "/dev/nvidia0", "/dev/dxg")
# Without a GPU Mesa draws. It walks every texel under an anisotropic filter, which OGRE asks for: one picture of an arm
# that comes near the table took it up to minutes, in which Gazebo stood still.
SOFTWARE_RENDERING = {"MESA_EXTENSION_OVERRIDE": "-GL_EXT_texture_filter_anisotropic"}
NAMESPACE = "LAM_ROS_NAMESPACE"  # of the nodes, and of commands that speak with them, where nothing else is said
PARTITION = ("GZ_PARTITION", "IGN_PARTITION")  # Gazebos, bridges and tools with the same value hear each other
PLUGIN_PATHS = ("GZ_SIM_SYSTEM_PLUGIN_PATH", "IGN_GAZEBO_SYSTEM_PLUGIN_PATH")
CONTROLLERS_TIMEOUT_S = 60  # for Gazebo to run them
DEFAULT_TASK = "reach"  # of a simulator or an expert that is told none
BringUp = Literal["simulate", "record", "deploy", "gate"]
Simulator = Literal["embedded", "gazebo"]
LIFECYCLE_NODES = ("perception", "action", "gate", "recorder")
SECURED = (*LIFECYCLE_NODES, "composed", "teleop")  # nodes with an enclave of their name; the others are the robot


@dataclass(frozen=True)
class NodeSpec:
    """One kind of process: the nodes in it (modules of lam_ros.nodes) and what it is for.

    Attributes:
        package, program: whose executable it is, where it is not lam_ros' own.
        ends: whether it does its work and ends, well where its exit code is 0.
    """

    name: str
    parts: tuple[str, ...]
    summary: str
    package: str = "lam_ros"
    program: str = ""
    ends: bool = False

    @property
    def executable(self) -> str:
        """Its name for `ros2 run <package> …`."""
        return self.program or f"{self.name}_node"

    @property
    def is_lifecycle(self) -> bool:
        """Whether the process is one lifecycle node."""
        return self.name in LIFECYCLE_NODES

    @property
    def may_respawn(self) -> bool:
        """Whether it may come back by itself after it died: nothing that commands the robot, or drives by hand."""
        return self.is_lifecycle and self.name != "gate"

    @property
    def seals(self) -> bool:
        """Whether it needs its time to end, SEALING_S at most: what it has recorded is sealed first."""
        return self.name == "recorder"


NODES: dict[str, NodeSpec] = {
    spec.name: spec
    for spec in (
        NodeSpec("perception", ("perception",), "camera frames to CNN features"),
        NodeSpec("action", ("action",), "features and joint states to policy commands (LSTM)"),
        NodeSpec("gate", ("gate",), "limits, who may drive, watchdog; alone commands the robot"),
        NodeSpec("recorder", ("recorder",), "writes sealed episodes"),
        NodeSpec("teleop", ("teleop",), "keyboard, gamepad, leader arm, twist or scripted expert drives"),
        NodeSpec("simulation", ("simulation",), "the embedded simulator as a robot"),
        NodeSpec("gazebo", ("gazebo",), "the arm in Gazebo as a robot: its joints, its task, success and reset"),
        # The gate first: what guards the arm is there before what moves it.
        NodeSpec("composed", ("gate", "action", "perception"), "gate, action and perception in one process"),
    )
}


def enclave_arguments(node: NodeSpec) -> list[str]:
    """What tells a node which keys are its own, where ROS 2's security is on; `lam secure` makes them."""
    is_on = os.environ.get("ROS_SECURITY_ENABLE", "").lower() == "true"
    enclave = node.name if node.package == "lam_ros" and node.name in SECURED else "driver"
    return ["--enclave", f"/{enclave}"] if is_on else []


@dataclass(frozen=True)
class Process:
    """One process to start: a node of the table, its parameters, and what its program wants to be told beside.

    Attributes:
        environment: variables of its own.
    """

    node: NodeSpec
    parameters: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """Its command line. Strings are quoted as YAML wants them, so that no text is taken for a number."""
        pairs = [("-p", f"{name}:={json.dumps(value, ensure_ascii=False)}") for name, value in self.parameters.items()]
        options = [part for pair in pairs for part in pair]
        start = [sys.executable, "-m", "lam_ros.nodes", self.node.name]
        if self.node.package != "lam_ros":
            prefix = _prefix_of(self.node.package) or Path()
            start = [str(prefix / "lib" / self.node.package / self.node.executable)]
        return [*start, *self.words, "--ros-args", *options, *enclave_arguments(self.node)]

    def has_failed(self, code: int | None) -> bool:
        """Whether that exit code (None while it runs) is a process gone that should be there."""
        return code is not None and not (self.node.ends and code == 0)


@dataclass(frozen=True)
class Command(Process):
    """A program that is no ROS node."""

    def arguments(self) -> list[str]:
        return list(self.words)


@dataclass(frozen=True)
class GazeboOptions:
    """How Gazebo runs.

    Attributes:
        version: harmonic (and later), fortress, or auto: whichever is installed.
        headless: without a window; where there is no display there is none anyway.
        render_engine: of the cameras: ogre2, ogre, or auto: ogre2 where there is a GPU.
        world: an SDF of your own instead of the task's; it must hold the arm and the task's objects by their names.
        ros2_control: whether ros2_control's controllers move the arm, instead of Gazebo's own.
        namespace: the nodes' own; Gazebo's transport is divided by it too.
    """

    version: Literal["auto", "harmonic", "fortress"] = "auto"
    headless: bool = False
    render_engine: str = "auto"
    world: str = ""
    ros2_control: bool = False
    namespace: str = ""


@dataclass(frozen=True)
class Options:
    """What a user may choose when bringing up.

    Attributes:
        robot: YAML path or the name of a shipped robot.
        checkpoint: policy to perform, required for deploy; for record, one that predicts beside the human.
        task: of the simulator and the expert, reach if not given; on a robot what the recorder says is shown.
        dataset: folder of episodes; required for record.
        simulated: whether the embedded simulator is the robot.
        mode: the simulator's, realtime or lockstep.
        teleop: who demonstrates: expert, or none (run it yourself: a keyboard needs a terminal of its own).
        composed: perception, action and gate in one process.
        simulation: further parameters of the simulator.
        simulator: which one is the robot, where it is simulated.
        gazebo: how Gazebo runs, where it is the simulator.
        provider: what computes the policy: CPU, CUDA, or for an exported policy TensorRT.
    """

    robot: str
    checkpoint: str = ""
    task: str = ""
    dataset: str = ""
    simulated: bool = False
    mode: Literal["realtime", "lockstep"] = "realtime"
    teleop: Literal["expert", "none"] = "none"
    composed: bool = False
    simulation: Mapping[str, Any] = field(default_factory=dict)
    simulator: Simulator = "embedded"
    gazebo: GazeboOptions = GazeboOptions()
    provider: Literal["CPU", "CUDA", "TensorRT"] = "CPU"


def plan(what: BringUp, options: Options) -> list[Process]:
    """The processes of a bring-up, in the order to start them.

    simulate: simulator, gate, and the policy where a checkpoint is given, else whoever demonstrates.
    record: gate, recorder and whoever demonstrates, with the simulator if it is the robot; a checkpoint predicts beside
        them and commands nothing.
    deploy: gate, perception and action, a recorder where there is a dataset, with the simulator if it is the robot.
    gate: the gate alone, for whoever commands through it.

    Raises:
        BringUpError, ConfigError: something that the bring-up needs is missing.
    """
    load_robot(options.robot)  # fail here, in one sentence, rather than in each node
    simulated = options.simulated or what == "simulate"
    if options.simulator != "embedded" and not simulated:
        raise BringUpError(f"the simulator {options.simulator} is the robot only with --simulated; give that too.")
    if simulated and not options.task:
        options = replace(options, task=DEFAULT_TASK)
    common: dict[str, Any] = {"robot": options.robot, "use_sim_time": simulated}
    lifecycle = {**common, "autostart": True}
    processes: list[Process] = []
    if simulated and options.simulator == "gazebo":
        processes += gazebo_processes(options)
    elif simulated:
        parameters = {"robot": options.robot, "task": options.task, "mode": options.mode, **options.simulation}
        processes.append(Process(NODES["simulation"], parameters))
    performs = what == "deploy" or (what == "simulate" and bool(options.checkpoint))
    if performs and not options.checkpoint:
        raise BringUpError("deploy needs a policy: give --checkpoint FILE, which `lam train` writes.")
    if options.checkpoint and not Path(options.checkpoint).is_file():
        raise BringUpError(f"there is no checkpoint {options.checkpoint}; give the file that `lam train` wrote.")
    policy = {**lifecycle, "checkpoint": str(Path(options.checkpoint).resolve()), "provider": options.provider}
    if performs:
        if options.composed:
            processes.append(Process(NODES["composed"], policy))
        else:
            processes += [Process(NODES["gate"], lifecycle)]
            processes += [Process(NODES[name], policy) for name in ("action", "perception")]
    else:
        processes.append(Process(NODES["gate"], lifecycle))
    if what == "record" and not options.dataset:
        raise BringUpError("record needs a folder for the episodes: give --out DIR.")
    if what == "record" or (what == "deploy" and options.dataset):
        dataset = str(Path(options.dataset).resolve())
        processes.append(Process(NODES["recorder"], {**lifecycle, "dataset": dataset, "task": options.task}))
    if what == "record" and options.checkpoint:
        processes.append(Process(NODES["action"], {**policy, "shadow": True}))
        processes.append(Process(NODES["perception"], policy))
    if not performs and options.teleop != "none":
        shown = options.task or DEFAULT_TASK
        processes.append(Process(NODES["teleop"], {**common, "source": options.teleop, "task": shown}))
    return processes


def _prefix_of(package: str) -> Path | None:
    """Where a ROS package is installed."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix and (Path(prefix) / "share/ament_index/resource_index/packages" / package).is_file():
            return Path(prefix)
    return None


def _has_gpu() -> bool:
    return any(Path(device).exists() for device in GPU_DEVICES)


def _render_engine(given: GazeboOptions) -> str:
    """Of Gazebo's cameras; ogre2 asks for more than drivers without a GPU have. A world of your own names its own."""
    if given.render_engine != "auto":
        return given.render_engine
    return "ogre2" if given.world or _has_gpu() else "ogre"


def gazebo_processes(options: Options) -> list[Process]:
    """Gazebo with the task's world, the bridge to ROS, and the node that makes a robot of them.

    Raises:
        BringUpError: Gazebo or ros_gz_bridge is not installed, the robot cannot be commanded there, or its cameras have
            no display to draw on.
    """
    try:
        from lam_ros.simulation.gazebo import bridge_table, world_sdf
    except ModuleNotFoundError as error:
        raise BringUpError(
            f"the world is written from the embedded simulator's, and {sys.executable} finds no {error.name}: `pip "
            "install mujoco mink daqp`; if it is in a virtual environment, type `python3 $(which ros2) launch …` there."
        ) from None

    given, robot = options.gazebo, load_robot(options.robot)
    tools: dict[GazeboVersion, str] = {"harmonic": "gz", "fortress": "ign"}
    # Humble's own is Fortress, beside which Gazebo Classic's `gz` may lie, which knows nothing of all this.
    either = sorted(tools, reverse=os.environ.get("ROS_DISTRO") != "humble")
    wanted = either if given.version == "auto" else [given.version]
    version = next((name for name in wanted if shutil.which(tools[name])), None)
    if version is None:
        programs = " or ".join(f"`{tools[name]}`" for name in wanted)
        raise BringUpError(
            f"Gazebo is not here (no {programs} on the PATH): install it with `apt install ros-<distro>-ros-gz`, "
            "or take the embedded simulator."
        )
    if _prefix_of("ros_gz_bridge") is None:
        raise BringUpError("ros_gz_bridge is not installed: `apt install ros-<distro>-ros-gz-bridge`.")
    namespace = given.namespace.strip("/")
    if os.environ.get(NAMESPACE, "").strip("/") not in ("", namespace):
        raise BringUpError(
            f"Gazebo and its bridge stand outside of {NAMESPACE}; unset it, or `ros2 launch lam_ros gazebo.launch.py "
            "namespace:=...`."
        )
    has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    engine = _render_engine(given)
    if engine == "ogre" and not has_display:
        raise BringUpError(
            "Gazebo's render engine ogre draws on a display only, and there is none: `apt install xvfb`, and "
            "`xvfb-run -a` before the command; or, with a GPU, render_engine:=ogre2."
        )
    folder = Path(tempfile.mkdtemp(prefix="lam_ros_gazebo_"))
    world, table = folder / f"{options.task}.sdf", folder / "bridge.yaml"
    controllers = folder / "controllers.yaml" if given.ros2_control else None
    if given.world:
        world = Path(given.world)
        if not world.is_file():
            raise BringUpError(f"there is no world {world}; give the path of an SDF file.")
    else:
        sdf = world_sdf(robot, options.task, options.robot, version, engine, controllers, given.namespace)
        world.write_text(sdf)
    rows = bridge_table(robot, options.task, options.robot, given.ros2_control)
    table.write_text(yaml.safe_dump(rows, sort_keys=False))
    run = ("gz", "sim") if version == "harmonic" else ("ign", "gazebo")
    without_window = ("-s", "--headless-rendering") if engine == "ogre2" else ("-s",)
    command = (*run, "-r", *(without_window if given.headless or not has_display else ()), str(world))
    apart = dict.fromkeys(PARTITION, namespace) if namespace else {}
    around = {**apart, **(_plugin_path(version) if controllers else {})}
    if not (_has_gpu() or os.environ.keys() & SOFTWARE_RENDERING):
        around |= SOFTWARE_RENDERING
    seed = {name: value for name, value in options.simulation.items() if name == "seed"}
    how = {"gz_version": version, "ros2_control": given.ros2_control}
    parameters = {"robot": options.robot, "task": options.task, "use_sim_time": True, **how, **seed}
    bridge = NodeSpec("bridge", (), "topics between Gazebo and ROS", "ros_gz_bridge", "parameter_bridge")
    return [
        Command(NodeSpec("gz", (), "Gazebo itself"), words=command, environment=around),
        Process(bridge, {"config_file": str(table)}, environment=apart),
        *(control_processes(options, version, controllers) if controllers else ()),
        Process(NODES["gazebo"], parameters, environment=apart),
    ]


def _plugin_path(version: GazeboVersion) -> dict[str, str]:
    """Variables with which Gazebo finds ros2_control's plugin: older packages do not add themselves to them."""
    from lam_ros.simulation.ros2_control import PLUGINS

    prefix = _prefix_of(PLUGINS[version].package)
    return {name: os.pathsep.join(filter(None, (f"{prefix}/lib", os.environ.get(name)))) for name in PLUGIN_PATHS}


def control_processes(options: Options, version: GazeboVersion, parameters: Path) -> list[Process]:
    """What ros2_control needs beside Gazebo: the tagged URDF, and somebody to start the controllers.

    Args:
        parameters: file to write the controllers' parameters to.

    Raises:
        BringUpError: a package is not installed.
    """
    from lam_ros.simulation.ros2_control import (
        BROADCAST_TOPIC,
        CONTROLLERS,
        PLUGINS,
        controller_parameters,
        tagged_urdf,
    )

    needed = (PLUGINS[version].package, "controller_manager", "joint_trajectory_controller", "robot_state_publisher")
    missing = [package for package in needed if _prefix_of(package) is None]
    if missing:
        debian = " ".join(f"ros-<distro>-{package.replace('_', '-')}" for package in missing)
        raise BringUpError(f"ros2_control in Gazebo needs {', '.join(missing)}: `apt install {debian}`.")
    robot = load_robot(options.robot)
    parameters.write_text(yaml.safe_dump(controller_parameters(robot), sort_keys=False))
    described = tagged_urdf(robot, urdf_path(robot, options.robot), version)
    name = "robot_state_publisher"
    publisher = NodeSpec(name, (), "the arm's URDF and its tf", name, name)
    spawner = NodeSpec("spawner", (), "starts the controllers", "controller_manager", "spawner", ends=True)
    words = (*CONTROLLERS, "--controller-manager-timeout", str(CONTROLLERS_TIMEOUT_S))
    topic = f"{BROADCAST_TOPIC}:={robot.joint_states.topic}"  # so is the broadcaster's in the plugin
    return [
        Process(publisher, {"robot_description": described, "use_sim_time": True}, ("--ros-args", "-r", topic)),
        Process(spawner, {}, words),
    ]


def require_ros() -> None:
    """Raises BringUpError when rclpy cannot be imported."""
    try:
        import rclpy  # noqa: F401
    except ImportError:
        raise BringUpError(
            "ROS 2 is not here: source your installation (`source /opt/ros/<distro>/setup.bash`), "
            "or install the wheels with `pip install 'lam_ros[ros]'`."
        ) from None


def node_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of nodes: the Fast DDS profile for large images, unless one is set already."""
    environment = dict(os.environ if base is None else base)
    environment.pop("ROS_SECURITY_ENCLAVE_OVERRIDE", None)  # whose shell it is; a node has keys of its own
    chosen = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
    if not any(name in environment for name in chosen):
        older = environment.get("ROS_DISTRO") in ("humble", "iron")
        environment[chosen[1] if older else chosen[0]] = str(share_path("config/fastdds.xml"))
    environment.setdefault("PYTHONUNBUFFERED", "1")
    return environment


def follow_parent(launcher: int) -> None:
    """On Linux, SIGTERM for this process when its parent is gone: not even a SIGKILL of it leaves an orphan that drives
    an arm.

    Args:
        launcher: who started it, which may have ended before it came to ask.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher and _has_ended(launcher):  # a debugger may stand between
            os.kill(os.getpid(), signal.SIGTERM)


def _has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in ("Z", "X")


def _become_child(launcher: int) -> None:
    """A group of its own, so that Ctrl-C reaches `lam` alone, which stops its nodes in order. It hears an
    interrupt even where `lam` does not: a script's job in the background has SIGINT ignored, and that is inherited."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    follow_parent(launcher)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


class Supervisor:
    """Starts processes, prefixes their logs, notices when one dies, and stops them all.

    Args:
        log: told (node name, line) of everything they print.
        environment: of the processes; ``node_environment()`` if not given.
    """

    def __init__(self, log: Callable[[str, str], None], environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._environment = node_environment() if environment is None else dict(environment)
        self._running: dict[str, tuple[Process, subprocess.Popen[str]]] = {}
        self._last_lines: dict[str, str] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, processes: Iterable[Process]) -> None:
        for process in processes:
            self._start(process)

    def _start(self, process: Process) -> None:
        popen = subprocess.Popen(
            process.arguments(),
            env={**self._environment, **process.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=partial(_become_child, os.getpid()),
        )
        name = process.node.name
        self._running[name] = (process, popen)
        threading.Thread(target=self._read, args=(name, popen), daemon=True).start()

    def _read(self, name: str, popen: subprocess.Popen[str]) -> None:
        assert popen.stdout is not None
        for line in popen.stdout:
            text = line.rstrip()
            if text:
                self._last_lines[name] = text
                # A full disk or a quota must not end this: a node whose lines nobody reads stands still, also the gate.
                with contextlib.suppress(OSError, ValueError):
                    self._log(name, text)

    def pid(self, name: str) -> int:
        return self._running[name][1].pid

    @property
    def names(self) -> list[str]:
        return list(self._running)

    def check(self) -> None:
        """Raises BringUpError, naming the node and why, when a process has ended."""
        for process, code in self._dead():
            raise self._told(process, code)

    def _dead(self) -> Iterator[tuple[Process, int]]:
        for process, popen in list(self._running.values()):
            code = popen.poll()
            if code is not None and process.has_failed(code):
                yield process, code

    def _told(self, process: Process, code: int) -> BringUpError:
        time.sleep(0.1)  # its last line may still be on its way
        said = self._last_lines.get(process.node.name, "")
        return BringUpError(f"{process.node.name} {_how_it_ended(code)}" + (f": {said}" if said else "."))

    def revive(self) -> str | None:
        """Start one dead process again; a sentence about it, None when all live.

        Raises:
            BringUpError: what died is nothing that may come back by itself, as the gate.
        """
        for process, code in self._dead():
            if not process.node.may_respawn:
                raise self._told(process, code)
            self._start(process)
            return f"{process.node.name} {_how_it_ended(code)}; it is started again."
        return None

    def stop(self) -> None:
        """Interrupt all, what moves the arm first; then terminate, then kill whoever does not listen."""
        order = list(reversed(self._running.values()))
        sealing = [popen for process, popen in order if process.node.seals]
        others = [popen for process, popen in order if not process.node.seals]
        _tell([popen for _, popen in order], signal.SIGINT, 0.0)
        for group, grace_s in ((others, GRACE_S), (sealing, SEALING_S)):
            _wait(group, grace_s)
            _tell(group, signal.SIGTERM, GRACE_S)
            _tell(group, signal.SIGKILL, GRACE_S)
        for _, popen in order:  # what they had started themselves, as Gazebo its window
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
        self._running.clear()


def _tell(popens: Sequence[subprocess.Popen[str]], number: signal.Signals, grace_s: float) -> None:
    """Send those that still run a signal, and wait for them."""
    alive = [popen for popen in popens if popen.poll() is None]
    for popen in alive:
        popen.send_signal(number)
    _wait(alive, grace_s)


def _wait(popens: Sequence[subprocess.Popen[str]], grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    for popen in popens:
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(max(0.0, deadline - time.monotonic()))
