"""The command line: help that teaches, and errors of one sentence without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def lam(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lam_ros.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


LEARNING = ("train", "pretrain", "evaluate", "inspect", "export", "swap")


@pytest.mark.parametrize("command", ["up", "node", "record", *LEARNING, "demo", "episodes", "calibrate"])
def test_every_command_explains_itself(command: str) -> None:
    ended = lam(command, "--help")
    assert ended.returncode == 0
    assert "Usage" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("node", "juggle"), "there is no node 'juggle'; there are perception"),
        (("up", "deploy"), "deploy needs a policy: give --checkpoint FILE"),
        (("up", "record"), "give --out DIR"),
        (("record", "--out", "demos"), "say what is shown, in words: --task"),
        (("calibrate", "latency", "--joint", "tail", "--simulated"), "there is no joint 'tail'; the robot has waist"),
        (("up", "simulate", "--robot", "ur99"), "there is no robot 'ur99'; lam_ros ships desk_arm"),
        (("episodes", "list", "nowhere"), "nowhere is no folder of episodes"),
        (("train", "--data", "nowhere", "--out", "x.safetensors"), "nowhere is no folder of episodes"),
        (("evaluate", "--checkpoint", "nothing.safetensors"), "is not a readable checkpoint"),
        (("demo", "--task", "juggle"), "there is no task 'juggle'; the embedded simulator has reach"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ended = lam(*arguments)
    assert ended.returncode == 1
    said = " ".join((ended.stdout + ended.stderr).split())
    assert sentence in said
    assert "Traceback" not in said
