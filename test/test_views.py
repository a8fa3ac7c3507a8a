"""RViz's and Foxglove's views of a robot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lam_ros.config import RobotConfig, load_robot
from lam_ros.views import root_link, write_foxglove, write_rviz


@pytest.fixture
def robot() -> RobotConfig:
    return load_robot("desk_arm")


def topics(node: Any) -> set[str]:
    """Every value of a nested structure that is a topic's name."""
    if isinstance(node, dict):
        return set().union(*(topics(value) for value in node.values()), set())
    if isinstance(node, list):
        return set().union(*(topics(value) for value in node), set())
    return {node.split(".")[0]} if isinstance(node, str) and node.startswith("/") else set()


CAMERAS = {
    "/left/camera/front/image_raw",
    "/left/camera/wrist/image_raw",
    "/left/lam/explain/front",
    "/left/lam/explain/wrist",
}


def test_rviz_shows_the_arm_the_cameras_and_where_the_policy_looks(robot: RobotConfig, tmp_path: Path) -> None:
    config = yaml.safe_load(write_rviz(robot, tmp_path, "left").read_text())
    arms = {"/left/robot_description", "/left/commanded/robot_description"}
    assert topics(config) == CAMERAS | arms | {"/left/simulation/objects"}
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "base_link"


def test_foxglove_shows_joints_who_drives_and_diagnostics(robot: RobotConfig, tmp_path: Path) -> None:
    layout = json.loads(write_foxglove(robot, tmp_path, "left").read_text())
    assert topics(layout) == CAMERAS | {"/left/joint_states", "/left/lam/command", "/diagnostics"}
    plots = [name for name in layout["configById"] if name.startswith("Plot!")]
    assert plots == [f"Plot!{joint}" for joint in robot.joint_names]

    def leaves(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else [*leaves(node["first"]), *leaves(node["second"])]

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])  # each panel has its place, once


def test_the_root_is_nobodys_child() -> None:
    links = '<link name="hand"/><link name="base"/>'
    joint = '<joint name="j" type="fixed"><parent link="base"/><child link="hand"/></joint>'
    assert root_link(f"<robot name='r'>{links}{joint}</robot>") == "base"
