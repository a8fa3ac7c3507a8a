"""`lam doctor`: what would keep a robot from being taught or from moving, and what to type about it. Without ROS;
``nodes/doctor.py`` listens to the running graph."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lam_ros.config import RobotConfig, load_robot
from lam_ros.control.limits import MotionLimits
from lam_ros.demonstrations.storage import GIGABYTE, room_for_takes
from lam_ros.errors import LamError
from lam_ros.policy.checkpoint import load_policy, read_info
from lam_ros.policy.probe import unanswering_joints

Level = Literal["ok", "warning", "failure"]
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_MEMORY = 128 << 20  # Docker gives 64 MB, which a few 640x480 frames of several subscribers fill
GOVERNORS = "sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
NVIDIA = "dev/nvidia[0-9]*"
THREADS = "OMP_NUM_THREADS"
UNUSUAL = 4.0  # spreads from the mean of the demonstrations: as good as never seen
CLEARLY = 10.0  # grey levels of 255 by which colours must be nearer the other way round


@dataclass(frozen=True)
class Scene:
    """What is measured now, as far as it is.

    Attributes:
        state: where the arm is (J,).
        colours: mean red, green and blue (0 to 255) of each camera.
    """

    state: np.ndarray | None = None
    colours: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: was found.
        why: it matters; empty where all is well.
        cure: what to type or do.
    """

    level: Level
    what: str
    why: str = ""
    cure: str = ""


def look_at_robot(robot_file: str) -> tuple[RobotConfig | None, list[Finding]]:
    """The robot YAML against itself and the URDF; no robot where it cannot be used."""
    try:
        robot = load_robot(robot_file)
        limits = MotionLimits.of(robot, robot_file)
    except LamError as error:
        why = "no node starts with a robot YAML that cannot be used."
        return None, [Finding("failure", str(error), why, "correct the file that is named")]
    urdf = "the URDF fits the YAML" if robot.urdf else "no URDF"
    findings = [Finding("ok", f"{robot.name}: {len(robot.joints)} joints, {len(robot.cameras)} cameras, {urdf}")]
    if not robot.urdf:
        findings.append(
            Finding(
                "warning",
                f"{robot_file} names no URDF",
                "its limits are not compared with the arm's, there is no workspace and no twist, and viewers show "
                "no arm.",
                "`urdf: my_arm.urdf` in the robot YAML; `xacro` writes the driver's description into one file",
            )
        )
    lower, upper = robot.position_limits
    for i, name in enumerate(robot.joint_names):
        asked, allowed = (lower[i], upper[i], robot.velocity_limits[i]), (limits.lower[i], limits.upper[i])
        if (asked[0], asked[1]) != allowed or asked[2] > limits.velocity[i]:
            findings.append(
                Finding(
                    "warning",
                    f"joint {name}: the robot YAML allows {asked[0]:g} to {asked[1]:g} at {asked[2]:g} a second, the "
                    f"URDF {allowed[0]:g} to {allowed[1]:g} at {limits.velocity[i]:g}",
                    "the gate takes the narrower; a policy that was shown more will stop short.",
                    f"set joints.{name} in {robot_file} to what the arm can do",
                )
            )
    return robot, findings


def look_at_machine(folder: Path, keep_free_gb: float = 1.0, root: Path = Path("/")) -> list[Finding]:
    """Processor, threads, GPU, memory and disk.

    Args:
        folder: where demonstrations shall go.
        keep_free_gb: of its disk that the recorder leaves alone.
        root: of the file system.
    """
    return [*_processor(root), *_threads(), *_gpu(root), *_shared_memory(root), *_disk(folder, keep_free_gb)]


def _processor(root: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    busy = os.getloadavg()[0]
    if busy > cores:
        yield Finding(
            "warning",
            f"{busy:.1f} processes wait for {cores} cores",
            "commands come late when nodes wait for a core.",
            "top: end what is not needed, or give nodes a core of their own (`taskset`)",
        )
    else:
        yield Finding("ok", f"{cores} cores, {busy:.1f} of them busy")
    slow = sorted({file.read_text().strip() for file in root.glob(GOVERNORS)} & {"powersave", "conservative"})
    if slow:
        yield Finding(
            "warning",
            f"the processor's governor is {slow[0]}",
            "it clocks down between ticks, and each tick starts slowly.",
            "sudo cpupower frequency-set -g performance",
        )


def _threads() -> Iterator[Finding]:
    threads = os.environ.get(THREADS, "1")
    if threads != "1":
        yield Finding(
            "warning",
            f"{THREADS} is {threads}",
            "several threads of one network contend with the cameras for cores; nodes take one where nothing is set.",
            f"unset {THREADS}",
        )


def _gpu(root: Path) -> Iterator[Finding]:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        yield Finding("ok", f"GPU {device.name}, {device.total_memory / GIGABYTE:.0f} GB")
    elif any(root.glob(NVIDIA)):
        yield Finding(
            "warning",
            f"there is an NVIDIA GPU, and torch {torch.__version__} cannot use it",
            "training takes many times as long.",
            "pip install torch, without +cpu; or nothing, if you train elsewhere: nodes run well on the processor",
        )
    else:
        yield Finding("ok", "no GPU: policies run and train on the processor")


def _shared_memory(root: Path) -> Iterator[Finding]:
    shared = root / SHARED_MEMORY.relative_to("/")
    if shared.is_dir() and shutil.disk_usage(shared).free < LEAST_SHARED_MEMORY:
        yield Finding(
            "warning",
            f"/dev/shm has {shutil.disk_usage(shared).free >> 20} MB free",
            "the middleware hands images over in it, and loses them when it is full.",
            "in Docker: --shm-size=1g, or --ipc=host; else remove leftovers of killed nodes, /dev/shm/fast*",
        )


def _disk(folder: Path, keep_free_gb: float) -> Iterator[Finding]:
    room = room_for_takes(folder, round(keep_free_gb * GIGABYTE))
    if room.usable_bytes > 0:
        yield Finding("ok", f"{folder}: {room}")
    else:
        yield Finding(
            "failure",
            f"{folder}: {room}",
            f"the recorder leaves the last {keep_free_gb:g} GB alone (recorder.keep_free_gb), and starts no take.",
            "free some space, or record elsewhere (--out)",
        )


def look_at_checkpoint(file: Path, robot: RobotConfig, scene: Scene = Scene()) -> list[Finding]:
    """A policy: does it fit the robot, does it answer to what it sees, has it seen such colours, and where the arm is?

    Args:
        scene: what is measured now.
    """
    state = scene.state
    try:
        runtime, info = load_policy(file, robot).runtime, read_info(file)
    except LamError as error:
        why = "action and perception refuse it, and nothing moves."
        return [Finding("failure", str(error), why, "lam train, or give the robot YAML it was trained for")]
    findings = [Finding("ok", f"{file} fits {robot.name} ({runtime.name})")]
    dead = unanswering_joints(runtime, robot)
    if dead:
        findings.append(
            Finding(
                "failure" if len(dead) == len(robot.joints) else "warning",
                f"the policy answers the same for {', '.join(dead)}, whatever it is shown",
                "it has not learned these joints: they stood still when it was shown, or it was trained too little.",
                f"lam inspect --checkpoint {file} --data DEMONSTRATIONS",
            )
        )
    if state is not None and runtime.known_states is not None:
        known = runtime.known_states
        away = np.abs(state - known[0]) / known[1]
        findings += [
            Finding(
                "warning",
                f"joint {name} is at {state[i]:.3f}; the demonstrations were at {known[0][i]:.3f}, give or take "
                f"{known[1][i]:.3f}",
                "a policy does not know what to do where it was never shown anything.",
                "bring the arm to where demonstrations begin, or record some that begin here",
            )
            for i, name in enumerate(robot.joint_names)
            if away[i] > UNUSUAL
        ]
    both = info.colours.keys() & scene.colours.keys()
    swapped = sorted(name for name in both if _are_swapped(scene.colours[name], info.colours[name]))
    if swapped:
        findings.append(
            Finding(
                "warning",
                f"camera {', '.join(swapped)}: with red and blue exchanged the picture is nearer to the demonstrations",
                "a policy that was shown a red cube does not find a blue one.",
                "compare in rqt_image_view; a driver that says rgb8 and sends BGR must be told to say bgr8",
            )
        )
    return findings


def _are_swapped(seen: tuple[float, ...], shown: tuple[float, ...]) -> bool:
    """Whether colours (red, green, blue) are clearly nearer to those of the demonstrations once red and blue change
    places; how bright either is does not count."""
    here, there = (np.subtract(colour, np.mean(colour)) for colour in (seen, shown))
    return bool(np.abs(here - there).max() > np.abs(here[::-1] - there).max() + CLEARLY)
