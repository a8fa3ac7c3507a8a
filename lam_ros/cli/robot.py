"""`lam robot …`: begin with an arm of your own, and look at it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lam_ros.cli.console import DEFAULT_ROBOT, Robot, console, friendly_errors, progress
from lam_ros.errors import ConfigError
from lam_ros.robot_init import Found, robot_yaml
from lam_ros.urdf import driven_joints, read_urdf

robot_app = typer.Typer(help="Your own robot: write its YAML, and views of it.", no_args_is_help=True)


@robot_app.command("init")
def init_command(
    urdf: Annotated[Path, typer.Option(help="The arm's URDF (expand a xacro first).")],
    out: Annotated[Path, typer.Option(help="The robot YAML to write.")] = Path("my_arm.yaml"),
    joint: Annotated[
        list[str] | None, typer.Option(help="Only these joints, in this order; all that move if not given.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long to listen for cameras; 0: do not.")] = 5.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the YAML.")] = False,
) -> None:
    """Write a robot YAML from a URDF and what is heard on the running graph: start driver and cameras before.

    What neither tells is guessed, and marked in the file: read it once, above all the limits.
    """
    from lam_ros.config import load_robot

    with friendly_errors():
        if out.exists() and not force:
            raise ConfigError(f"{out} is there already; give another --out, or --force to overwrite it.")
        names = joint or [driven.name for driven in driven_joints(read_urdf(urdf))]
        found = _heard(seconds, names) if seconds else Found()
        text = robot_yaml(urdf.resolve(), found, joint or ())
        with tempfile.TemporaryDirectory() as folder:  # what cannot be used is not left where the next run finds it
            (Path(folder) / out.name).write_text(text)
            robot = load_robot(Path(folder) / out.name)
        out.write_text(text)
        for remark in found.remarks:
            console.print(f"[yellow]{escape(remark)}[/]")
        console.print(escape(text))
        console.print(
            f"{out}: {len(robot.joints)} joints, {len(found.cameras)} cameras heard. Read it once, then "
            f"`lam record --robot {out} --out demos --task ...`."
        )


def _heard(seconds: float, joints: list[str]) -> Found:
    from lam_ros.bringup import require_ros

    require_ros()
    from lam_ros.nodes.discovery import look_around

    with progress() as display:
        bar = display.add_task("listening", total=100, note="")
        return look_around(seconds, joints, lambda done: display.update(bar, completed=100 * done))


@robot_app.command("layout")
def layout_command(
    robot: Robot = DEFAULT_ROBOT,
    out: Annotated[Path, typer.Option(help="Folder for lam.rviz and lam.foxglove.json.")] = Path(),
    namespace: Annotated[str, typer.Option(help="The robot's namespace.")] = "",
) -> None:
    """Write views for RViz and Foxglove: cameras, where the policy looks, joints, who drives, diagnostics."""
    from lam_ros.config import load_robot
    from lam_ros.views import write_foxglove, write_rviz

    with friendly_errors():
        described = load_robot(robot)
        out.mkdir(parents=True, exist_ok=True)
        rviz = write_rviz(described, out, namespace, robot)
        foxglove = write_foxglove(described, out, namespace)
        console.print(f"{rviz}: `rviz2 -d {rviz}`\n{foxglove}: import it in Foxglove (Layout, Import from file)")
