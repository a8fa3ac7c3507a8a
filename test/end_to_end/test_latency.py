"""`lam calibrate latency` finds the delay that the simulated camera was given."""

from __future__ import annotations

import re
import subprocess
import sys


def test_a_late_camera_is_found(domain, desk_arm_with, tmp_path):
    late = desk_arm_with(cameras={"front": {"latency_s": 0.08}})
    command = [sys.executable, "-m", "lam_ros.cli.main", "calibrate", "latency", "--joint", "waist", "--simulated"]
    ended = subprocess.run(
        [*command, "--robot", late, "--seconds", "9"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = {name: int(ms) for name, ms in re.findall(r"camera (\w+) +│ +(-?\d+) ms", ended.stdout)}
    assert found.keys() == {"front", "wrist"}, ended.stdout
    assert abs(found["front"] - found["wrist"] - 80) <= 15, ended.stdout  # what rendering costs, both have
    assert "cameras.front.latency_s: 0.0" in ended.stdout
