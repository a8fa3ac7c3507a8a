"""Entry points. Imports and construction happen inside the try, so that Ctrl-C in a slow start leaves no traceback."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from typing import Any

from lam_ros.bringup import FOLLOW_PARENT, NODES, follow_parent

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEEP_BYTES, LARGEST_REUSED_BYTES = 256 << 20, 32 << 20  # glibc takes no more than 32 MB for the second


def keep_memory() -> None:
    """Let glibc reuse the memory of one frame for the next. By default each message of more than 128 KB is mapped, page
    by page, and given back: 2 ms of the way from a pair of 640x480 frames to their command."""
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED_BYTES)


def _hand_over(gate: Any, action: Any, perception: Any) -> None:
    """In one process, what is on its way to the robot goes from hand to hand; it is published all the same."""
    perception.hand_over, action.is_fed = action.take, True
    action.hand_over, gate.is_fed = gate.take, True


def start(name: str, args: list[str] | None = None) -> int:
    """Run one process of the node table; the exit code."""
    # The control path wants one thread: two contend with the cameras, and once took 700 ms for one ResNet18.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    keep_memory()
    if os.environ.get(FOLLOW_PARENT, "").isdecimal():
        follow_parent(int(os.environ[FOLLOW_PARENT]))
    try:
        from lam_ros.nodes.base import run

        parts = NODES[name].parts
        factories = [getattr(importlib.import_module(f"lam_ros.nodes.{part}"), f"{part.title()}Node") for part in parts]
        import cv2

        cv2.setNumThreads(1)
        return run(factories, args, _hand_over if name == "composed" else lambda *nodes: None)
    except KeyboardInterrupt:
        return 0


def perception() -> int:
    return start("perception")


def action() -> int:
    return start("action")


def gate() -> int:
    return start("gate")


def recorder() -> int:
    return start("recorder")


def teleop() -> int:
    return start("teleop")


def simulation() -> int:
    return start("simulation")


def gazebo() -> int:
    return start("gazebo")


def composed() -> int:
    return start("composed")
