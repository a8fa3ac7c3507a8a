"""lam_ros: teach a robot arm by showing it. Only `lam_ros.nodes` needs ROS 2; everything else is ordinary Python."""

import os
import sys

if sys.platform == "linux":  # where others draw, MuJoCo knows the only way by itself
    os.environ.setdefault("MUJOCO_GL", "egl")  # draws without a display; MuJoCo reads it when it is imported

__version__ = "0.1.0"
