"""What the doctor hears on a running graph, over real DDS."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from sensor_msgs.msg import Image
from trajectory_msgs.msg import JointTrajectory

from lam_ros.nodes.doctor import DoctorNode
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.images import image_message


@pytest.fixture
def doctor(graph):
    return graph.add(DoctorNode, robot="desk_arm")


def told(node, level):
    return " ".join(finding.what for finding in node.findings() if finding.level == level)


def test_a_robot_that_delivers_is_well_and_frames_cross_processes(graph, arm, robot, doctor, paced):
    graph.probe.create_subscription(JointTrajectory, robot.command.topic, lambda message: None, 10)

    @paced
    def deliver():
        now = time.time_ns()
        for _ in range(4):
            arm.publish_state(now)
        for camera in robot.cameras:
            arm.publish_frame(camera, now, np.full((96, 96, 3), (200, 0, 10), np.uint8))

    def is_well():
        deliver()
        return "every topic delivers" in told(doctor, "ok")

    graph.until(is_well)
    graph.until(lambda: deliver() or doctor.transport.has_enough)
    graph.until(lambda: doctor.scene().state is not None)
    assert doctor.scene().colours == {"front": (200.0, 0.0, 10.0), "wrist": (200.0, 0.0, 10.0)}
    shares = [measured.share for measured in doctor.transport.measured()]
    assert len(shares) == 2
    assert all(0.5 < share <= 1.0 for share in shares)
    assert "camera front: 96 x 96, rgb8" in told(doctor, "ok")
    assert "takes" not in told(doctor, "warning")
    # The arm of this test publishes from this process, which has no profile.
    assert re.search(r"camera wrist: probe hands frames of 28 KB over in \d+ KB of sh", told(doctor, "warning"))


def test_a_controller_of_other_joints_or_that_begins_from_the_measured_state_is_told(
    graph, robot, desk_arm_with, controller
):
    controller("arm_controller", joints=["waist"], interpolate_from_desired_state=False)
    more = {"joints": [*robot.joint_names, "lift"], "open_loop_control": False}
    controller("strict_controller", interpolate_from_desired_state=True, **more)
    controller("lenient_controller", interpolate_from_desired_state=True, allow_partial_joints_goal=True, **more)

    def doctor(name):
        return graph.add(DoctorNode, robot=desk_arm_with(command={"topic": f"{name}/joint_trajectory"}))

    node = doctor("arm_controller")
    graph.until(lambda: "/arm_controller begins each motion where the arm is measured" in told(node, "warning"))
    graph.until(lambda: "/arm_controller does not drive shoulder, elbow" in told(node, "failure"))
    node = doctor("strict_controller")
    graph.until(lambda: "/strict_controller drives lift too, and refuses commands" in told(node, "failure"))
    node = doctor("lenient_controller")
    graph.until(lambda: node._controller._asked_s and not node._controller._awaited)
    assert "lenient_controller" not in told(node, "failure")
    assert "begins each motion" not in told(node, "warning")


def test_what_is_missing_stale_or_commands_beside_the_gate_is_told(graph, arm, robot, doctor, paced):
    assert "nobody publishes camera/front/image_raw" in told(doctor, "failure")
    assert "nobody takes /robot/command" in told(doctor, "warning")
    graph.probe.create_publisher(JointTrajectory, robot.command.topic, 10)
    measure = paced(arm.publish_state)

    def is_told():
        measure(time.time_ns() - 5 * 10**9)
        failures = told(doctor, "failure")
        return "probe publishes on /robot/command too" in failures and "joint_states is stamped 5.0 s ago" in failures

    graph.until(is_told)


def test_two_gates_are_told(graph, arm, robot, doctor):
    for _ in range(2):
        graph.add(GateNode, activate=False, robot="desk_arm").trigger_configure()
    graph.until(lambda: "gate publishes on /robot/command too" in told(doctor, "failure"))


def test_a_picture_of_another_size_is_told(graph, doctor, paced):
    front = graph.talk(Image, "camera/front/image_raw")

    show = paced(lambda: front.publish(image_message(np.zeros((48, 64, 3), np.uint8), time.time_ns(), "front")))

    def is_told():
        show()
        return "camera front: 64 x 48, rgb8" in told(doctor, "ok") and "96" in told(doctor, "failure")

    graph.until(is_told)


def test_the_command_gives_json_and_fails_where_something_does(domain, tmp_path):
    lam = [sys.executable, "-m", "lam_ros.cli.main", "doctor", "--json", "--seconds", "0.5", "--out", str(tmp_path)]
    ended = subprocess.run(lam, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    findings = json.loads(ended.stdout[ended.stdout.index("[\n") :])
    assert any("nobody publishes joint_states" in finding["what"] for finding in findings)
    assert all(finding["cure"] for finding in findings if finding["level"] != "ok")
