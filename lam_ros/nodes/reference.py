"""The reference of the nodes, read off the nodes themselves: parameters, topics, services. Prints Markdown.

python -m lam_ros.nodes.reference > docs/nodes.md
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import rclpy
import yaml
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from lam_ros.bringup import NODES
from lam_ros.config import load_robot
from lam_ros.contract import Contract
from lam_ros.nodes.base import type_name
from lam_ros.nodes.teleop import RECORDER_KEYS
from lam_ros.share import share_path

ROBOT = "desk_arm"
TELEOP_SOURCES = ("expert", "joy", "leader", "twist")  # the keyboard's wants a terminal
OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")  # which every node has
SERVICES_OF_ROS = ("parameter", "_type_description", "_state", "transition")
GLOBAL_TOPICS = ("/diagnostics", "/clock", "/tf", "/tf_static")
TOPICS_OF_ROS = ("rosout", "parameter_events", "transition_event", "/clock")


def untrained_checkpoint(path: Path) -> Path:
    """A policy for the desk arm that has learned nothing."""
    from lam_ros.policy.checkpoint import CheckpointInfo, save_checkpoint
    from lam_ros.policy.configuration import PolicyConfig
    from lam_ros.policy.runtime import PolicyNetwork

    contract, config = Contract.of(load_robot(ROBOT)), PolicyConfig()
    info = CheckpointInfo(contract, config, ROBOT, "nothing", "none")
    save_checkpoint(path, PolicyNetwork(config, contract), info)
    return path


def robot_driven_by_all(path: Path) -> Path:
    """The desk arm with everything that a human may drive it with."""
    robot = load_robot(ROBOT)
    leader = {name: {"joint": name} for name in robot.joint_names}
    joy = {"deadman": 4, "axes": {robot.joint_names[0]: {"axis": 0}}}
    described = yaml.safe_load(share_path(f"config/{ROBOT}.yaml").read_text())
    path.write_text(yaml.safe_dump({**described, "teleop": {"joy": joy, "leader": {"joints": leader}, "twist": {}}}))
    return path


@contextlib.contextmanager
def configured(name: str, context: Context, folder: Path, **given: str) -> Iterator[Any]:
    """A node of the table, configured where it has a lifecycle, so that its topics and services are there."""
    given = {
        "robot": ROBOT,
        "checkpoint": str(folder / "policy.safetensors"),
        "dataset": str(folder / "demos"),
        **given,
    }
    kind = getattr(importlib.import_module(f"lam_ros.nodes.{name}"), f"{name.title()}Node")
    overrides = [Parameter(key, value=value) for key, value in given.items()]
    node = kind(context=context, parameter_overrides=overrides)
    try:
        if hasattr(node, "trigger_configure"):
            node.trigger_configure()
        yield node
    finally:
        node.close()
        node.destroy_node()


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""] if lines else []


def _default(value: Any) -> str:
    return f"`{value!r}`".replace("'", '"') if isinstance(value, str) else f"`{str(value).lower()}`"


def _range(descriptor: Any) -> str:
    for limits in (*descriptor.integer_range, *descriptor.floating_point_range):
        return f"{limits.from_value:g} to {limits.to_value:g}"
    return ""


def parameters(node: Any) -> list[tuple[str, ...]]:
    """Name, type, default, range, unit, whether it may change while the node runs, and what it is."""
    rows: list[tuple[str, ...]] = []
    for name, parameter in sorted(node.get_parameters_by_prefix("").items()):
        if name.startswith(OF_ROS):
            continue
        descriptor = node.describe_parameter(name)
        changes = "" if descriptor.read_only else "yes"
        kind = parameter.type_.name.lower()
        default = _default(node.defaults[name])
        unit = descriptor.additional_constraints.removeprefix("unit: ")
        rows.append((f"`{name}`", kind, default, _range(descriptor), unit, changes, descriptor.description))
    return rows


def _row(does: str, topic: str, kind: str) -> tuple[str, str, str]:
    return does, f"`{topic if topic in GLOBAL_TOPICS else topic.removeprefix('/')}`", kind


def _topics(endpoints: Iterable[Any], does: str) -> list[tuple[str, ...]]:
    rows = set()
    for endpoint in endpoints:
        topic = endpoint.topic_name
        if not topic.endswith(TOPICS_OF_ROS) or (topic == "/clock" and does == "publishes"):
            rows.add(_row(does, topic, type_name(endpoint.msg_type)))
    return sorted(rows)


def _ends(node: Any) -> list[tuple[str, ...]]:
    return _topics(node.subscriptions, "listens to") + _topics(node.publishers, "publishes") + _services(node)


def _recorded(recorder: Any) -> list[tuple[str, ...]]:
    """What the recorder hears once somebody publishes it."""
    wanted = recorder.recorded_topics()
    return [_row("records", entry.name, entry.msgtype or "whatever is published") for entry in wanted]


def _teleop_ends(context: Context, folder: Path) -> list[tuple[str, ...]]:
    """The teleop node's topics, with the source that has them where not all do."""
    robot = str(robot_driven_by_all(folder / "driven.yaml"))
    found: dict[tuple[str, ...], list[str]] = {}
    for source in TELEOP_SOURCES:
        with configured("teleop", context, folder, robot=robot, source=source) as node:
            for row in _ends(node):
                found.setdefault(row, []).append(source)
    rows = [
        row if len(sources) == len(TELEOP_SOURCES) else (f"{row[0]} ({', '.join(sources)})", *row[1:])
        for row, sources in found.items()
    ]
    calls = [_row("calls (keyboard)", f"recorder/{name}", "std_srvs/srv/Trigger") for name in RECORDER_KEYS.values()]
    return sorted(rows) + sorted(calls)


def _services(node: Any) -> list[tuple[str, ...]]:
    rows = []
    for service in node.services:
        name = service.srv_name.rpartition("/")[2]
        if not any(part in name for part in SERVICES_OF_ROS):
            rows.append(("serves", f"`{service.srv_name.lstrip('/')}`", type_name(service.srv_type)))
    return sorted(rows)


def describe() -> str:
    """The Markdown of all nodes of the table."""
    lines = [
        "# Nodes",
        "",
        "Written from the nodes themselves by `make reference`, for the desk arm: names of cameras, and topics that",
        "the robot YAML names, are that arm's. Relative names go into the node's namespace. `ros2 param describe` says",
        "the same.",
        "",
    ]
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        untrained_checkpoint(folder / "policy.safetensors")
        for spec in NODES.values():
            if len(spec.parts) > 1:
                lines += [f"## {spec.executable}", "", f"{spec.summary.capitalize()}: {', '.join(spec.parts)}.", ""]
                continue
            with configured(spec.name, context, folder) as node:
                kind = "A lifecycle node" if spec.is_lifecycle else "A node"
                lines += [f"## {spec.executable}", "", f"{kind}: {spec.summary}.", ""]
                head = ("parameter", "type", "default", "range", "unit", "changes while it runs", "what it is")
                lines += _table(head, parameters(node))
                ends = _recorded(node) + _ends(node) if spec.name == "recorder" else _ends(node)
            if spec.name == "teleop":
                ends = _teleop_ends(context, folder)
            lines += _table(("", "name", "type"), ends)
    rclpy.try_shutdown(context=context)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(describe(), end="")
