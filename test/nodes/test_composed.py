"""Gate, action and perception in one process: handed over once, published all the same."""

from __future__ import annotations

from sensor_msgs.msg import Image, JointState

from lam_ros.nodes.action import ActionNode
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.main import _hand_over
from lam_ros.nodes.perception import PerceptionNode

STAMP = 1_700_000_000_000_000_000
TICK = 50_000_000


def test_each_tick_is_answered_once_and_everything_is_still_published(
    graph, arm, robot, checkpoint, desk_arm_with, paced
):
    # One thread serves all: on a busy machine a tick outlasts 0.1 s.
    gate = graph.add(GateNode, robot=desk_arm_with(gate={"staleness_s": 10.0}))
    action = graph.add(ActionNode, robot="desk_arm", checkpoint=str(checkpoint))
    perception = graph.add(PerceptionNode, robot="desk_arm", checkpoint=str(checkpoint))
    _hand_over(gate, action, perception)
    features = graph.listen(Image, "lam/features")
    wishes = graph.listen(JointState, "lam/policy_command")
    sent = graph.listen(JointState, "lam/command")
    graph.until(lambda: arm.is_heard and arm.is_measured)
    publishers = (perception._features, action._commands, gate._sent)
    # The probe's subscription and, for two of them, the next node's own.
    graph.until(lambda: all(publisher.get_subscription_count() for publisher in publishers))
    measure = paced(arm.publish_state)
    for tick in range(3):
        stamp = STAMP + tick * TICK

        def is_answered(stamp=stamp, tick=tick):
            measure(stamp)  # as a robot does all the time
            answered = any(m.header.stamp.nanosec == stamp % 10**9 for m in sent)
            return len(features) == len(wishes) == tick + 1 and answered

        arm.publish_state(stamp)
        graph.until(lambda stamp=stamp: action._history._stamps and action._history._stamps[-1] == stamp)
        for camera in robot.cameras:
            arm.publish_frame(camera, stamp)
        graph.until(is_answered)
    assert action._published == 3
    assert gate._refused_count == 0
    assert [m.header.stamp.nanosec for m in sent if m.header.frame_id == "policy"] == [0, TICK, 2 * TICK]
