"""What people look at a robot with: an RViz configuration and a Foxglove layout, made from the robot YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from lam_ros.config import RobotConfig, urdf_path
from lam_ros.contract import absolute_topic

RVIZ, FOXGLOVE = "lam.rviz", "lam.foxglove.json"
COMMANDED = "commanded"  # prefix of the frames of a second arm in RViz, which stands where the gate sends the first
Json = dict[str, Any]


def root_link(urdf: str) -> str:
    """The link of a URDF (its text) that is no joint's child."""
    model = ElementTree.fromstring(urdf)
    children = {child.get("link") for child in model.iterfind("joint/child")}
    return next(str(link.get("name")) for link in model.iterfind("link") if link.get("name") not in children)


def write_rviz(robot: RobotConfig, folder: Path, namespace: str = "", robot_file: str | Path | None = None) -> Path:
    """Write ``lam.rviz``: the arm, a paler one where the gate sends it, the task's objects, the cameras, and where the
    policy looks in them."""
    topic = {
        "Depth": 5,
        "Durability Policy": "Volatile",
        "History Policy": "Keep Last",
        "Reliability Policy": "Best Effort",
    }

    def display(kind: str, name: str, where: str, **more: object) -> Json:
        described = {**topic, "Value": absolute_topic(where, namespace)}
        return {"Class": f"rviz_default_plugins/{kind}", "Name": name, "Enabled": True, "Topic": described, **more}

    frame = "base_link"
    displays: list[Json] = [{"Class": "rviz_default_plugins/Grid", "Name": "Grid", "Enabled": True, "Cell Size": 0.1}]
    if robot.urdf:
        frame = root_link(urdf_path(robot, robot_file).read_text())
        source = {**topic, "Durability Policy": "Transient Local", "Reliability Policy": "Reliable"}
        arms: list[tuple[str, str, Json]] = [
            ("Arm", "robot_description", {}),
            ("Commanded", f"{COMMANDED}/robot_description", {"TF Prefix": COMMANDED, "Alpha": 0.4}),
        ]
        for name, where, more in arms:
            described = {**source, "Value": absolute_topic(where, namespace)}
            model = {"Class": "rviz_default_plugins/RobotModel", "Name": name, "Enabled": True, **more}
            displays.append({**model, "Description Source": "Topic", "Description Topic": described})
    displays.append(display("MarkerArray", "Objects", "simulation/objects"))
    for name, camera in robot.cameras.items():
        displays.append(display("Image", name, camera.subscribed_topic))
        # Computed only while someone looks at it.
        displays.append(display("Image", f"{name}: where the policy looks", f"lam/explain/{name}", Enabled=False))
    orbit = {"Class": "rviz_default_plugins/Orbit", "Distance": 1.2, "Pitch": 0.5, "Yaw": 0.8}
    config = {
        "Panels": [
            {"Class": "rviz_common/Displays", "Name": "Displays"},
            {"Class": "rviz_common/Time", "Name": "Time"},
        ],
        "Visualization Manager": {
            "Class": "",
            "Displays": displays,
            "Enabled": True,
            "Global Options": {"Fixed Frame": frame, "Frame Rate": 30},
            "Tools": [{"Class": "rviz_default_plugins/MoveCamera"}],
            "Views": {"Current": orbit},
        },
    }
    file = folder / RVIZ
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def _row(panels: list[str]) -> Any:
    """Panels side by side, as Foxglove's layout tree wants them."""
    if len(panels) == 1:
        return panels[0]
    return {"first": panels[0], "second": _row(panels[1:]), "direction": "row", "splitPercentage": 100 / len(panels)}


def _plot(paths: Iterable[tuple[str, str]]) -> Json:
    lines = [
        {"value": path, "label": label, "enabled": True, "timestampMethod": "headerStamp"} for path, label in paths
    ]
    return {"paths": lines, "xAxisVal": "timestamp", "isSynced": True, "showLegend": True, "legendDisplay": "floating"}


def write_foxglove(robot: RobotConfig, folder: Path, namespace: str = "") -> Path:
    """Write ``lam.foxglove.json``: cameras and where the policy looks, joints commanded and measured, who drives, what
    the nodes say of themselves."""

    def at(topic: str) -> str:
        return absolute_topic(topic, namespace)

    panels: dict[str, Json] = {}
    for name, camera in robot.cameras.items():
        panels[f"Image!{name}"] = {"imageMode": {"imageTopic": at(camera.subscribed_topic)}}
        panels[f"Image!{name}_explained"] = {"imageMode": {"imageTopic": at(f"lam/explain/{name}")}}
    pictures = list(panels)
    states, sent = at(robot.joint_states.topic), at("lam/command")
    for i, joint in enumerate(robot.joint_names):
        # A driver may publish more joints, or in another order; what the gate sent has the robot YAML's.
        measured = f"{states}.position[{i}]"
        panels[f"Plot!{joint}"] = _plot([(f"{sent}.position[{i}]", f"{joint} sent"), (measured, "measured")])
    plots = [panel for panel in panels if panel not in pictures]
    who = {"value": f"{sent}.header.frame_id", "label": "who drives", "timestampMethod": "headerStamp"}
    panels["StateTransitions!gate"] = {"paths": [who], "isSynced": True}
    panels["DiagnosticSummary!lam"] = {"topicToRender": "/diagnostics", "minLevel": 0, "sortByLevel": True}
    says = {"first": "StateTransitions!gate", "second": "DiagnosticSummary!lam", "direction": "column"}
    below = {"first": _row(plots), "second": says, "direction": "row", "splitPercentage": 70}
    layout = (
        {"first": _row(pictures), "second": below, "direction": "column", "splitPercentage": 45} if pictures else below
    )
    file = folder / FOXGLOVE
    file.write_text(
        json.dumps({"configById": panels, "globalVariables": {}, "userNodes": {}, "layout": layout}, indent=1)
    )
    return file
