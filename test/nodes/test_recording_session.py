"""`lam record` on a robot, in a terminal: this test speaks for the robot's driver and for its operator."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
from sensor_msgs.msg import JointState

from lam_ros.demonstrations.episode import list_episodes
from lam_ros.nodes.joints import joint_message
from test.conftest import children_of, is_gone

RECORD = (sys.executable, "-m", "lam_ros.cli.main", "record", "--robot", "desk_arm", "--task", "wave")


def test_an_operator_records_two_takes_by_keys(graph, arm, robot, open_terminal, tmp_path):
    teleop = graph.probe.create_publisher(JointState, "teleop/command", 10)
    began, sent = time.monotonic(), 0
    command = [
        sys.executable,
        "-m",
        "lam_ros.cli.main",
        "record",
        "--robot",
        "desk_arm",
        "--task",
        "wave",
        "--episodes",
    ]
    terminal = open_terminal([*command, "2", "--out", str(tmp_path / "demos"), "--countdown", "1"])

    def robot_lives():
        """100 Hz joint states and 20 Hz frames, in real time."""
        nonlocal sent
        while sent < 100 * (time.monotonic() - began):
            arm.publish_state(time.time_ns())
            if sent % 5 == 0:
                for camera in robot.cameras:
                    arm.publish_frame(
                        camera, time.time_ns(), np.random.default_rng(sent).integers(0, 255, (96, 96, 3), np.uint8)
                    )
                teleop.publish(joint_message(robot.joint_names, np.zeros(7), time.time_ns()))
            sent += 1
        terminal.read()

    def shows(text):
        def look():
            robot_lives()
            return text in terminal.shown

        graph.until(look)

    shows("100 Hz, OK")
    shows("20 Hz, OK")
    shows("press space")
    for number in range(2):
        terminal.forget()
        terminal.type(" ")
        shows("take 1 of 2 begins" if number == 0 else "take 2 of 2 begins")
        shows("recording take")
        shows(", 2 s")
        terminal.type("+\r")
        shows(f"episode_00000{number}")
    graph.until(lambda: robot_lives() or terminal.process.poll() is not None)
    assert terminal.process.returncode == 0
    terminal.read()
    assert "holds 2 episodes" in " ".join(terminal.shown.split())
    episodes = list_episodes(tmp_path / "demos")
    assert [episode.manifest.outcome for episode in episodes] == ["success", "success"]
    for episode in episodes:
        # Of what the screen rounds to 2 s, less whatever a busy machine holds back.
        assert episode.manifest.topics["/joint_states"].count > 100
        assert episode.manifest.drivers["teleop"] > 10


def test_without_a_terminal_it_says_what_to_do(domain, tmp_path):
    ended = subprocess.run(
        [*RECORD, "--out", str(tmp_path / "demos")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "needs a terminal; without one: `lam up record`" in " ".join(ended.stdout.split())


def test_ctrl_c_leaves_no_node_behind(domain, open_terminal, tmp_path):
    terminal = open_terminal([*RECORD, "--out", str(tmp_path / "demos")])
    terminal.until_shows("nobody publishes")
    nodes = children_of(terminal.process.pid)
    assert len(nodes) == 2  # gate and recorder
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(timeout=60) == 130
    # By process and not by the graph, where a node lives on for 20 s when its one farewell was lost on a busy machine.
    assert all(map(is_gone, nodes))
