"""The conductor waits for what the first tick needs."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from lam_ros.errors import BringUpError
from lam_ros.nodes import conductor as module
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.qos import LATCHED


def test_nodes_are_ready_once_joint_states_arrive_and_not_when_their_publisher_is_known(
    graph, arm, domain, monkeypatch
):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setattr(module, "READY_S", 3.0)
    graph.add(GateNode, robot="desk_arm")
    graph.listen(JointTrajectory, "robot/command")
    status = graph.probe.create_publisher(DiagnosticStatus, "simulation/status", LATCHED)
    status.publish(DiagnosticStatus(message="idle"))
    is_measured = False

    def live():
        if is_measured:
            arm.publish_state(0)
        graph.executor.spin_once(timeout_sec=0.01)

    with module.conducting(live) as conductor:
        with pytest.raises(BringUpError, match="gate: no joint state has arrived"):
            conductor.wait_until_ready(["gate"])
        monkeypatch.setattr(module, "READY_S", 60.0)
        is_measured = True
        conductor.wait_until_ready(["gate"])


def test_a_takeover_ends_with_whoever_said_so(graph, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    takeover = graph.probe.create_publisher(Bool, "lam/takeover", LATCHED)
    takeover.publish(Bool(data=True))
    with module.conducting(lambda: graph.executor.spin_once(timeout_sec=0.01)) as conductor:
        conductor._until(lambda: conductor.is_taken_over, 30.0, "the takeover")
        graph.probe.destroy_publisher(takeover)
        conductor._until(lambda: not conductor.is_taken_over, 30.0, "its end")
        assert conductor.was_taken_over
