"""The conductor waits for what the first tick needs."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from lam_ros.errors import BringUpError
from lam_ros.nodes import conductor as module
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.qos import LATCHED, STREAM
from lam_ros.nodes.stage import status_message


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


def test_commands_speak_with_the_nodes_of_their_namespace(graph, domain, monkeypatch):
    monkeypatch.setenv("LAM_ROS_NAMESPACE", "/left/")
    told = graph.probe.create_publisher(DiagnosticArray, "/diagnostics", 10)
    events = graph.listen(String, "/left/recorder/event", LATCHED)

    def live():
        for name, sent in (("/left/gate", "1"), ("/right/gate", "2"), ("/gate", "3")):
            told.publish(
                DiagnosticArray(status=[DiagnosticStatus(name=name, values=[KeyValue(key="sent", value=sent)])])
            )
        graph.executor.spin_once(timeout_sec=0.01)

    with module.conducting(live) as conductor:
        conductor.tell("next take")
        for _ in range(30):
            conductor.spin()
            assert conductor.figures("gate") in ({}, {"sent": "1"})
        assert conductor.figures("gate") == {"sent": "1"}
        graph.until(lambda: [event.data for event in events] == ["next take"])
    monkeypatch.setenv("LAM_ROS_NAMESPACE", "left arm")
    with pytest.raises(BringUpError, match="'left arm'; a namespace is letters"), module.conducting(live):
        pass


def test_a_slow_episode_may_take_its_time_and_one_that_stands_still_is_given_up(graph, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setattr(module, "STALLED_S", 1.0)
    status = graph.probe.create_publisher(DiagnosticStatus, "simulation/status", LATCHED)
    objects = graph.probe.create_publisher(MarkerArray, "simulation/objects", STREAM)
    values = {"seed": 7, "elapsed_s": 2.5, "unanswered": 0, "latencies_ms": ""}
    status.publish(status_message("running", values))
    left = 0  # how many times more the simulator says where its objects are

    def reset(_request, response):
        response.success, response.message = True, "7"
        return response

    graph.probe.create_service(Trigger, "simulation/reset", reset)

    def go_on():
        nonlocal left
        left -= 1
        if left >= 0:
            objects.publish(MarkerArray())
        if left == 0:
            status.publish(status_message("success", values))

    graph.probe.create_timer(0.25, go_on)
    with module.conducting(lambda: graph.executor.spin_once(timeout_sec=0.01)) as conductor:
        conductor._until(lambda: conductor._status is not None, 30.0, "the simulator")
        with pytest.raises(BringUpError, match="waited 1 s for the episode with seed 7 to go on or end"):
            conductor.run_episode()
        left = 12  # three times as long as one may stand still
        assert conductor.run_episode().result.success
