"""calibration_node, which moves a joint and watches."""

from __future__ import annotations

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from lam_ros.control.latency import excitation
from lam_ros.errors import BringUpError
from lam_ros.nodes import calibration
from lam_ros.nodes.base import ns_to_stamp
from lam_ros.nodes.calibration import COMMAND_HZ, CalibrationNode

STAMP = 1_700_000_000_000_000_000
AMPLITUDE, SECONDS = 0.1, 1.0


@pytest.fixture
def node(graph):
    """Under simulated time, which has not come yet."""
    return graph.add(
        lambda **given: CalibrationNode("waist", AMPLITUDE, SECONDS, **given), robot="desk_arm", use_sim_time=True
    )


def test_the_path_begins_when_time_does(graph, arm, node):
    """Joint states may come before the first /clock, which then leaps from 0 to now: that is no time to drive in."""
    commands = graph.listen(JointState, "teleop/command")
    clock = graph.talk(Clock, "/clock")
    ticks = 0

    def spin():
        nonlocal ticks
        ticks += 1
        arm.publish_state(STAMP)
        if ticks > 20:
            clock.publish(Clock(clock=ns_to_stamp(STAMP + ticks * 10_000_000)))
        for _ in range(10):  # as many as come of it: a message for each who hears it
            graph.executor.spin_once(timeout_sec=0.001)

    node.drive(spin, lambda progress: None)
    graph.until(lambda: len(commands) > 0.5 * SECONDS * COMMAND_HZ)
    waist = np.array([message.position[0] for message in commands])
    farthest = np.abs(excitation(SECONDS, COMMAND_HZ, AMPLITUDE)).max()
    assert np.abs(waist).max() > 0.9 * farthest
    assert np.abs(np.diff(waist)).max() < 0.5 * farthest, "a path, not a leap"


@pytest.mark.parametrize(("measured", "silent"), [(False, "joint_states"), (True, "/clock")])
def test_what_is_silent_is_named_before_anything_moves(graph, arm, node, measured, silent, monkeypatch):
    monkeypatch.setattr(calibration, "SILENCE_S", 0.5)
    commands = graph.listen(JointState, "teleop/command")

    def spin():
        if measured:
            arm.publish_state(STAMP)
        graph.executor.spin_once(timeout_sec=0.02)

    with pytest.raises(BringUpError, match=f"{silent} is silent"):
        node.drive(spin, lambda progress: None)
    assert commands == []
