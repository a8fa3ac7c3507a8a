"""The core is ordinary Python: without rclpy and the message packages, everything but the nodes imports."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import importlib, pkgutil, sys

ROS = ("rclpy", "rcl_interfaces", "rosidl_", "rosgraph_", "rosbag2", "builtin_interfaces", "launch", "ament_",
       "cv_bridge", "lifecycle_", "tf2_")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top.startswith(ROS) or top.endswith(("_msgs", "_srvs")):
            raise ModuleNotFoundError(f"{name} is ROS, which the core must not need", name=name)

sys.meta_path.insert(0, Blocker())
for blocked in ("rclpy", "sensor_msgs.msg", "std_srvs", "launch"):
    try:
        importlib.import_module(blocked)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{blocked} was not blocked")

import lam_ros
apart = ("lam_ros.nodes", "lam_ros.launching")
names = [module.name for module in pkgutil.walk_packages(lam_ros.__path__, "lam_ros.", onerror=lambda _: None)]
core = [name for name in names if not name.startswith(apart) and not name.endswith("__main__")]
for name in core:
    importlib.import_module(name)
print(*core)
"""


def test_the_core_imports_without_ros() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    imported = done.stdout.split()
    for module in ("policy.policy", "control.gate", "demonstrations.episode", "learning.training", "cli.main"):
        assert f"lam_ros.{module}" in imported


def test_the_command_line_comes_up_without_torch() -> None:
    check = "import sys, lam_ros.cli.main; sys.exit(any(name in sys.modules for name in ('torch', 'mujoco', 'rclpy')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
