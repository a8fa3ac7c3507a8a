"""`lam secure`: keys, so that only named nodes take part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lam_ros.cli.console import DEFAULT_ROBOT, Robot, console, friendly_errors
from lam_ros.config import load_robot

secure_app = typer.Typer()


@secure_app.command()
def secure(
    keystore: Annotated[Path, typer.Option(help="Folder of the keystore; one that is there gets new keys.")],
    robot: Robot = DEFAULT_ROBOT,
    namespace: Annotated[str, typer.Option(help="The robot's namespace.")] = "",
    domain: Annotated[
        int, typer.Option(min=-1, max=232, help="The ROS_DOMAIN_ID that the keys are good for; -1: any.")
    ] = -1,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt what is sent, not only sign it; pictures cost time.")
    ] = False,
) -> None:
    """Make an SROS2 keystore: an authority, and for each node a key and signed permissions.

    Then only the gate may command the robot, only teleop may drive by hand, only the operator may release the emergency
    stop, and whoever has no key does not take part. The middleware must have been built with DDS security (ROS 2's
    Debian packages are; the wheels of the extra `ros` are not). Keep KEYSTORE/private off the robot.
    """
    from lam_ros.security import make_keystore

    with friendly_errors():
        names = make_keystore(load_robot(robot), keystore, namespace, None if domain < 0 else domain, encrypt)
        lines = (
            f"{keystore}: {', '.join(names)}. In every terminal:",
            f"  export ROS_SECURITY_KEYSTORE={keystore.resolve()}",
            "  export ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce",
            "lam and ros2 launch give each node its enclave. Your own drivers, and yourself:",
            "  ros2 run PACKAGE DRIVER --ros-args --enclave /driver",
            "  export ROS_SECURITY_ENCLAVE_OVERRIDE=/operator     # where you call services, echo topics",
        )
        for line in lines:
            console.print(escape(line), soft_wrap=True)
