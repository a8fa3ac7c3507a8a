"""Entry points. Imports and construction happen inside the try, so that Ctrl-C in a slow start leaves no traceback."""

from __future__ import annotations

import importlib
import os

from lam_ros.bringup import NODES


def start(name: str, args: list[str] | None = None) -> int:
    """Run one process of the node table; the exit code."""
    # The control path wants one thread: two contend with the cameras, and once took 700 ms for one ResNet18.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        from lam_ros.nodes.base import run

        parts = NODES[name].parts
        factories = [getattr(importlib.import_module(f"lam_ros.nodes.{part}"), f"{part.title()}Node") for part in parts]
        import cv2

        cv2.setNumThreads(1)
        return run(factories, args)
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


def composed() -> int:
    return start("composed")
