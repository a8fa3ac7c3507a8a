"""What the doctor finds in files and on the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lam_ros import doctor
from lam_ros.config import RobotConfig
from lam_ros.doctor import Finding, Scene, look_at_checkpoint, look_at_machine, look_at_robot
from lam_ros.policy.checkpoint import load_network, save_checkpoint


def told(findings: list[Finding], level: str) -> str:
    """All findings of a level; each that is not well says why it matters and what to do."""
    for finding in findings:
        assert (finding.level == "ok") == (not finding.why) == (not finding.cure)
    return " ".join(finding.what for finding in findings if finding.level == level)


def test_a_shipped_robot_is_well() -> None:
    robot, findings = look_at_robot("desk_arm")
    assert robot is not None
    assert "desk_arm: 7 joints, 2 cameras" in told(findings, "ok")
    assert not told(findings, "warning") + told(findings, "failure")


def test_an_arm_without_a_urdf_is_told_what_it_goes_without() -> None:
    robot, findings = look_at_robot("so101")
    assert robot is not None
    assert "so101: 6 joints, 2 cameras, no URDF" in told(findings, "ok")
    assert "so101 names no URDF" in told(findings, "warning")


def test_a_yaml_wider_than_the_urdf_is_told_by_joint(desk_arm_with: Callable[..., str]) -> None:
    robot, findings = look_at_robot(desk_arm_with(joints={"elbow": {"position": [-1.4, 9.0]}}))
    assert robot is not None
    assert "joint elbow: the robot YAML allows -1.4 to 9" in told(findings, "warning")
    assert told(findings, "warning").count("joint ") == 1


def test_a_yaml_that_cannot_be_used_is_a_failure() -> None:
    robot, findings = look_at_robot("no_such_arm")
    assert robot is None
    assert "no_such_arm" in told(findings, "failure")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("quiet")
def test_a_processor_that_clocks_down_is_told(tmp_path: Path) -> None:
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    findings = look_at_machine(tmp_path, root=tmp_path)
    assert "governor is powersave" in told(findings, "warning")
    governor.write_text("performance\n")
    assert not told(look_at_machine(tmp_path, root=tmp_path), "warning")


@pytest.mark.usefixtures("quiet")
def test_many_threads_and_a_gpu_that_torch_cannot_use_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    assert "no GPU" in told(look_at_machine(tmp_path, root=tmp_path), "ok")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    findings = look_at_machine(tmp_path, root=tmp_path)
    assert "OMP_NUM_THREADS is 8" in told(findings, "warning")
    assert "there is an NVIDIA GPU, and torch" in told(findings, "warning")


def test_a_busy_machine_a_small_dev_shm_and_a_full_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    (tmp_path / "dev/shm").mkdir(parents=True)
    usage = type("Usage", (), {"free": 60 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    findings = look_at_machine(tmp_path, root=tmp_path)
    assert "99.0 processes wait for" in told(findings, "warning")
    assert "/dev/shm has 60 MB free" in told(findings, "warning")
    assert "0.1 GB free" in told(findings, "failure")
    assert "0.1 GB free" in told(look_at_machine(tmp_path, 0.05, tmp_path), "ok")


def test_a_policy_that_answers_is_well(checkpoint: Path, robot: RobotConfig) -> None:
    assert f"{checkpoint} fits desk_arm" in told(look_at_checkpoint(checkpoint, robot), "ok")


@pytest.fixture
def checkpoint(turning_policy: Callable[[float, float], Path]) -> Path:
    return turning_policy(0.2, 1e-3)


def damaged(checkpoint: Path, change: Callable[[torch.nn.Module], None]) -> Path:
    network, info = load_network(checkpoint)
    with torch.no_grad():
        change(network)
    save_checkpoint(checkpoint, network, info)
    return checkpoint


def test_a_policy_that_always_says_the_same_is_told(checkpoint: Path, robot: RobotConfig) -> None:
    def silence(network: torch.nn.Module) -> None:
        for weights in network.action.parameters():
            weights.zero_()

    findings = look_at_checkpoint(damaged(checkpoint, silence), robot)
    assert "answers the same for waist, shoulder, elbow" in told(findings, "failure")


def test_an_arm_where_no_demonstration_was_is_told(checkpoint: Path, robot: RobotConfig) -> None:
    def learn_of_zero(network: torch.nn.Module) -> None:
        network.normaliser.state_mean.zero_()
        network.normaliser.state_std.fill_(0.1)

    file = damaged(checkpoint, learn_of_zero)
    away = np.zeros(7, np.float32)
    assert not told(look_at_checkpoint(file, robot, Scene(away)), "warning").count("joint")
    away[2] = 1.0
    warned = told(look_at_checkpoint(file, robot, Scene(away)), "warning")
    assert "joint elbow is at 1.000; the demonstrations were at 0.000, give or take 0.100" in warned


def test_another_robots_policy_is_a_failure(checkpoint: Path, robot: RobotConfig) -> None:
    other = dataclasses.replace(robot, joints=dict(list(robot.joints.items())[:6]))
    assert "joints" in told(look_at_checkpoint(checkpoint, other), "failure")
    assert told(look_at_checkpoint(checkpoint.with_name("gone"), robot), "failure")


@pytest.mark.parametrize(
    ("seen", "told_so"),
    [
        ((60.0, 100.0, 140.0), True),
        ((90.0, 60.0, 20.0), False),
        ((100.0, 100.0, 100.0), False),
        ((99.0, 100.0, 103.0), False),
    ],
)
def test_colours_the_wrong_way_round_are_told(
    checkpoint: Path, robot: RobotConfig, seen: tuple[float, float, float], told_so: bool
) -> None:
    network, info = load_network(checkpoint)
    save_checkpoint(checkpoint, network, dataclasses.replace(info, colours={"wrist": (140.0, 100.0, 60.0)}))
    findings = look_at_checkpoint(checkpoint, robot, Scene(colours={"front": seen, "wrist": seen}))
    assert ("camera wrist: with red and blue exchanged" in told(findings, "warning")) == told_so
    assert "front" not in told(findings, "warning")
