"""`lam teleop …`: look at what a human drives the arm with."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lam_ros.cli.console import DEFAULT_ROBOT, Robot, console, friendly_errors
from lam_ros.errors import BringUpError

REFRESH_S = 0.1

teleop_app = typer.Typer(help="Teleoperation: what arrives, and what it would do.", no_args_is_help=True)


@teleop_app.callback()
def teleop() -> None:
    """Teleoperation: what arrives, and what it would do. (To drive: `lam node teleop`.)"""


@teleop_app.command("check")
def check_command(
    source: Annotated[Literal["joy", "leader", "twist"], typer.Argument(help="As the robot YAML describes it.")],
    robot: Robot = DEFAULT_ROBOT,
    seconds: Annotated[float, typer.Option(min=0, help="How long to look; 0: until Ctrl-C.")] = 0.0,
) -> None:
    """Show live what a gamepad, a leader arm or a twist sends and where it would send the joints. Nothing moves.

    Joint for joint: where the arm is measured (without joint states: the middle of its range), and where it would be
    sent. Exit code 1 where nothing has arrived at all.
    """
    from lam_ros.bringup import require_ros

    with friendly_errors():
        require_ros()
        from lam_ros.nodes.base import spinning
        from lam_ros.nodes.teleop_check import TeleopCheck

        with spinning(TeleopCheck, 0.02, robot=robot, source=source) as (node, spin):
            began = drawn = time.monotonic()
            try:
                with Live(_screen(node), console=console, auto_refresh=False) as live:
                    while not seconds or time.monotonic() - began < seconds:
                        spin()
                        if time.monotonic() - drawn > REFRESH_S:
                            drawn = time.monotonic()
                            live.update(_screen(node), refresh=True)
                    live.update(_screen(node), refresh=True)
            except KeyboardInterrupt:
                pass
            if not node.raw:
                raise BringUpError(
                    f"nothing came; is the driver of {source} running, and is its topic the robot YAML's? "
                    "`ros2 topic list` shows those there are."
                )


def _screen(node: Any) -> Group:
    table = Table("joint", "measured" if node.is_measured else "taken to be at", "would be sent to", "further by")
    target = node.target
    for i, joint in enumerate(node.robot.joint_names):
        sent = ("", "") if target is None else (f"{target[i]:+.4f}", f"{target[i] - node.measured[i]:+.4f}")
        table.add_row(joint, f"{node.measured[i]:+.4f}", *sent)
    drives = "[green]drives[/]" if target is not None else "[yellow]does not drive[/]"
    lines = [f"{escape(topic)}: {escape(text)}" for topic, text in node.raw.items()]
    lines += [f"[yellow]{escape(text)}[/]" for text in node.complaints()]
    return Group(table, drives, *lines)
