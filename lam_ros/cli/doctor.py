"""`lam doctor`: what keeps this robot from being taught, and what to type."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lam_ros.bringup import node_environment, require_ros
from lam_ros.cli.console import DEFAULT_ROBOT, Robot, console, friendly_errors, progress
from lam_ros.config import RecorderConfig
from lam_ros.errors import BringUpError

if TYPE_CHECKING:
    from lam_ros.doctor import Finding, Scene

MARKS = {"ok": "[green]✔[/]", "warning": "[yellow]▲[/]", "failure": "[red]✘[/]"}

doctor_app = typer.Typer()


@doctor_app.command()
def doctor(
    robot: Robot = DEFAULT_ROBOT,
    checkpoint: Annotated[Path | None, typer.Option(help="A policy to look at, too.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that demonstrations shall go to.")] = Path(),
    seconds: Annotated[float, typer.Option(min=0, help="How long to listen to the graph; 0: not at all.")] = 6.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Look for what would keep this robot from being taught or from moving, and say what to type about it.

    Start your driver and cameras before. It looks at the robot YAML and the URDF, the machine, the policy, and what is
    heard: topics, types, rates, QoS, clocks, pictures, who commands the arm; and it measures whether images of your
    cameras' size and rate get from one process to another here. It commands nothing. Exit code 1 where something fails.
    """
    from lam_ros.doctor import Scene, look_at_checkpoint, look_at_machine, look_at_robot

    with friendly_errors():
        described, findings = look_at_robot(robot)
        recorder = RecorderConfig() if described is None else described.recorder
        findings += look_at_machine(out, recorder.keep_free_gb)
        scene = Scene()
        if described is not None and seconds:
            heard, scene = _heard(robot, seconds)
            findings += heard
        if described is not None and checkpoint is not None:
            findings += look_at_checkpoint(checkpoint, described, scene)
        if as_json:
            print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        else:
            for finding in findings:
                console.print(f"{MARKS[finding.level]} {escape(finding.what)}")
                for word, text in (("why", finding.why), ("do", finding.cure)):
                    if text:
                        console.print(f"    [dim]{word}[/]  {escape(text)}")
            worst = [finding.level for finding in findings]
            console.print(f"{worst.count('failure')} failures, {worst.count('warning')} warnings")
        if any(finding.level == "failure" for finding in findings):
            raise SystemExit(1)


def _heard(robot: str, seconds: float) -> tuple[list[Finding], Scene]:
    from lam_ros.doctor import Finding, Scene

    try:
        require_ros()
    except BringUpError as error:
        why = "without ROS 2 nothing can be heard, and no node starts."
        return [Finding("failure", str(error), why, "see Install in the README")], Scene()
    os.environ.update(node_environment())
    from lam_ros.nodes.doctor import listen

    with progress() as display:
        bar = display.add_task("listening", total=100, note="")
        return listen(robot, seconds, lambda done: display.update(bar, completed=100 * done))
