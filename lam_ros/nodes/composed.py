"""Perception, action and gate in one process: no hand-over between processes on the way from frame to command."""

from __future__ import annotations

from lam_ros.nodes.action import ActionNode
from lam_ros.nodes.base import one_thread, run
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.perception import PerceptionNode


def main(args: list[str] | None = None) -> int:
    one_thread()
    # The gate first: what guards the arm is there before what moves it.
    return run([GateNode, ActionNode, PerceptionNode], args)


if __name__ == "__main__":
    raise SystemExit(main())
