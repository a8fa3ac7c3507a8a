"""Perception and action over real DDS."""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool

from lam_ros.contract import Features
from lam_ros.images import pixels, rgb_from_image
from lam_ros.nodes.action import ActionNode
from lam_ros.nodes.base import OK, stamp_to_ns
from lam_ros.nodes.images import compressed_message, features_message
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.perception import PerceptionNode
from lam_ros.nodes.qos import LATCHED
from lam_ros.policy.checkpoint import digest, load_policy
from lam_ros.share import share_path

STAMP = 1_700_000_000_000_000_000
TICK = 50_000_000


@pytest.fixture
def perception(graph, arm, checkpoint):
    node = graph.add(PerceptionNode, robot="desk_arm", checkpoint=str(checkpoint))
    graph.until(lambda: arm.is_heard)
    return node


@pytest.fixture
def action(graph, arm, checkpoint):
    node = graph.add(ActionNode, robot="desk_arm", checkpoint=str(checkpoint))
    graph.until(lambda: arm.is_measured)
    return node


def test_features_carry_the_oldest_stamp_and_the_checkpoint(graph, arm, robot, checkpoint, perception):
    features = graph.listen(Image, "lam/features")
    graph.until(lambda: perception._features.get_subscription_count())
    rng = np.random.default_rng(0)
    frames = {camera: rng.integers(0, 255, (96, 96, 3), np.uint8) for camera in robot.cameras}
    arm.publish_frame("front", STAMP, frames["front"])
    arm.publish_frame("wrist", STAMP + 3_000_000, frames["wrist"])
    graph.until(lambda: features)
    assert stamp_to_ns(features[0].header.stamp) == STAMP
    assert features[0].header.frame_id == digest(checkpoint)
    expected = load_policy(checkpoint, robot).perceive(frames, 0).values
    np.testing.assert_allclose(pixels(features[0])[..., 0], expected, atol=1e-5)


def test_cameras_are_looked_at_side_by_side(graph, arm, robot, perception, monkeypatch):
    see, front_began, wrist_began = perception._policy.perceive_camera, threading.Event(), threading.Event()
    handed = []
    perception.hand_over = lambda features, digest: handed.append(features)

    def look(camera, image):
        if camera == "wrist":
            wrist_began.set()
        else:
            front_began.set()
            assert wrist_began.wait(60), "nobody looks at the wrist while the front is looked at"
        return see(camera, image)

    monkeypatch.setattr(perception._policy, "perceive_camera", look)
    frames = {camera: np.full((96, 96, 3), shade, np.uint8) for shade, camera in ((40, "front"), (90, "wrist"))}
    arm.publish_frame("front", STAMP, frames["front"])
    graph.until(front_began.is_set)  # while the wrist's is on its way
    arm.publish_frame("wrist", STAMP, frames["wrist"])
    graph.until(lambda: handed)
    expected = [see(camera, frames[camera]) for camera in robot.cameras]
    np.testing.assert_allclose(handed[0].values, expected, atol=1e-5)


def test_frames_dropped_on_purpose_are_counted(graph, arm, perception):
    features = graph.listen(Image, "lam/features")
    graph.until(lambda: perception._features.get_subscription_count())
    for tick in range(5):
        arm.publish_frame("front", STAMP + tick * TICK)
        # One after the other: of two that wait, only the newer is seen.
        graph.until(lambda tick=tick: perception._assembler._frames["front"] and perception._assembler.dropped == tick)
    arm.publish_frame("wrist", STAMP + 4 * TICK)
    graph.until(lambda: features)
    assert len(features) == 1
    assert perception._assembler.dropped == 4


def test_a_camera_of_another_size_is_refused(graph, arm, perception):
    features = graph.listen(Image, "lam/features")
    arm.publish_frame("front", STAMP, np.zeros((48, 64, 3), np.uint8))
    arm.publish_frame("wrist", STAMP)
    graph.until(graph.said("perception", "camera front sent 64x48"))
    assert features == []


def test_a_frame_that_cannot_be_read_is_told_though_the_other_camera_is_silent(graph, arm, perception):
    for tick in range(2):
        arm.publish_frame("front", STAMP + tick * TICK, np.zeros((48, 64, 3), np.uint8))
        graph.until(lambda tick=tick: perception._assembler._frames["front"] and perception._assembler.dropped == tick)
        assert perception._helpers._idle.acquire(timeout=60)  # it has looked at it
        perception._helpers._idle.release()
    assert perception._refused == 1
    graph.until(graph.said("perception", "camera front sent 64x48"))


def test_a_frame_that_cannot_be_read_costs_no_more_than_itself(graph, arm, perception):
    ticks = []
    perception.hand_over = lambda features, digest: ticks.append(features.stamp_ns)
    arm.publish_frame("front", STAMP)
    graph.until(lambda: perception._assembler._frames["front"])
    arm.publish_frame("wrist", STAMP, np.zeros((48, 64, 3), np.uint8))
    graph.until(lambda: perception._refused)
    assert ticks == []
    arm.publish_frame("wrist", STAMP + TICK // 2)  # sooner than the next tick would be due
    graph.until(lambda: ticks)
    assert ticks == [STAMP]


@pytest.mark.parametrize("is_swapped", [False, True])
def test_no_tick_is_made_of_frames_from_before_and_after(graph, arm, perception, checkpoint, is_swapped):
    ticks = []
    perception.hand_over = lambda features, digest: ticks.append(features.stamp_ns)
    arm.publish_frame("front", STAMP)
    graph.until(lambda: perception._assembler._frames["front"])
    if is_swapped:
        perception.adopt(perception._now)
    else:
        for step in (perception.trigger_deactivate, perception.trigger_activate):
            assert step() == TransitionCallbackReturn.SUCCESS
    arm.publish_frame("wrist", STAMP)
    graph.until(lambda: perception._assembler._frames["wrist"] or ticks)
    assert ticks == []
    arm.publish_frame("front", STAMP)
    graph.until(lambda: ticks)
    assert ticks == [STAMP]


def test_features_that_are_not_finite_are_not_handed_on(graph, arm, robot, perception, monkeypatch):
    handed: list[Any] = []
    perception.hand_over = lambda *given: handed.append(given)
    monkeypatch.setattr(perception._policy, "perceive_camera", lambda camera, image: np.full(192, np.nan, np.float32))
    for camera in robot.cameras:
        arm.publish_frame(camera, STAMP)
    graph.until(graph.said("perception", "values that are not finite; train the checkpoint again"))
    assert handed == []


def test_a_silent_camera_is_named_until_it_is_heard(graph, arm, perception, paced):
    stamps = itertools.count(STAMP, TICK)

    @paced
    def see(*cameras):
        stamp = next(stamps)
        for camera in cameras:
            arm.publish_frame(camera, stamp)

    is_named = graph.said("perception", "nothing arrives from /camera/wrist/image_raw, though it is published")
    graph.until(lambda: see("front") or is_named())
    graph.until(lambda: see("front", "wrist") or perception._status["cameras"][0] == OK)


def test_an_encoding_nobody_can_read_names_the_package_to_install(graph, arm, robot, perception):
    publisher = graph.talk(Image, robot.cameras["front"].topic)
    odd = Image(encoding="bayer_rggb8", height=96, width=96, step=96, data=bytes(96 * 96))
    odd.header.stamp.sec = STAMP // 10**9
    publisher.publish(odd)
    arm.publish_frame("wrist", STAMP)
    graph.until(graph.said("perception", "cv_bridge"))


def test_where_it_looks_is_computed_only_while_someone_subscribes(graph, arm, perception):
    features = graph.listen(Image, "lam/features")
    graph.until(lambda: perception._features.get_subscription_count())
    calls = []
    perception._policy.attention = lambda camera, image: calls.append(camera) or np.zeros((96, 96), np.float32)
    for camera in ("front", "wrist"):
        arm.publish_frame(camera, STAMP)
    graph.until(lambda: features)
    assert calls == []
    explained = graph.listen(Image, "lam/explain/front")
    graph.until(lambda: perception._explanations["front"].get_subscription_count())
    stamps = itertools.count(STAMP + TICK, TICK)

    def next_tick():  # sensor topics are best effort: on a busy machine a frame may be lost
        stamp = next(stamps)
        for camera in ("front", "wrist"):
            arm.publish_frame(camera, stamp)
        return explained

    graph.until(next_tick)
    assert set(calls) == {"front"}
    assert rgb_from_image(explained[0]).shape == (96, 96, 3)


def test_compressed_cameras(graph, desk_arm_with, checkpoint, robot):
    compressed = desk_arm_with(cameras={camera: {"transport": "compressed"} for camera in robot.cameras})
    graph.add(PerceptionNode, robot=compressed, checkpoint=str(checkpoint))
    features = graph.listen(Image, "lam/features")
    frame = np.full((96, 96, 3), (200, 40, 40), np.uint8)
    for camera in robot.cameras.values():
        graph.talk(CompressedImage, f"{camera.topic}/compressed").publish(compressed_message(frame, STAMP, ""))
    graph.until(lambda: features)
    smooth = cv2.imdecode(np.frombuffer(compressed_message(frame, 0, "").data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    expected = load_policy(checkpoint, robot).perceive({c: smooth.copy() for c in robot.cameras}, 0).values
    np.testing.assert_allclose(pixels(features[0])[..., 0], expected, atol=1e-4)


def test_a_checkpoint_of_another_robot_is_not_configured(graph, tmp_path, checkpoint):
    described = yaml.safe_load(share_path("config/desk_arm.yaml").read_text())
    described["joints"]["hip"] = described["joints"].pop("waist")
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(described, sort_keys=False))
    for kind in (PerceptionNode, ActionNode):
        node = graph.add(kind, activate=False, robot=str(file), checkpoint=str(checkpoint))
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "joints = [waist" in node.failure
        graph.until(graph.said(node.get_name(), "this robot has"))


def test_a_typo_in_the_robot_yaml_is_one_sentence(graph, tmp_path, checkpoint):
    file = tmp_path / "typo.yaml"
    file.write_text(share_path("config/desk_arm.yaml").read_text().replace("max_age_s", "max_aeg_s"))
    node = graph.add(PerceptionNode, activate=False, robot=str(file), checkpoint=str(checkpoint))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "joint_states.max_aeg_s is not a known key; did you mean 'max_age_s'?" in node.failure


def feed(graph, arm, action, stamp_ns, values, position=None):
    """One joint state and one set of features; the features only once the state is there."""
    arm.publish_state(stamp_ns, position)
    graph.until(lambda: action._history._stamps and action._history._stamps[-1] == stamp_ns)
    action._probe_features.publish(features_message(values, stamp_ns, action._digest))


@pytest.fixture
def commands(graph, action):
    action._probe_features = graph.talk(Image, "lam/features")
    received = graph.listen(JointState, "lam/policy_command")
    graph.until(lambda: action._commands.get_subscription_count())
    return received


def test_an_action_answers_each_features_message_with_its_stamp(graph, arm, robot, checkpoint, action, commands):
    rng = np.random.default_rng(1)
    shape = (2, 192)
    policy = load_policy(checkpoint, robot)
    position = np.linspace(-0.2, 0.3, 7)
    position[-1] = 0.01
    for tick in range(3):
        values = rng.normal(size=shape).astype(np.float32)
        stamp = STAMP + tick * TICK
        feed(graph, arm, action, stamp, values, position)
        graph.until(lambda tick=tick: len(commands) == tick + 1)
        expected = policy.act_on(Features(stamp, values), position.astype(np.float32)).target
        np.testing.assert_allclose(commands[-1].position, expected, atol=1e-5)
        assert stamp_to_ns(commands[-1].header.stamp) == stamp


def test_the_memory_is_reset_by_a_pause_and_by_a_takeover(graph, arm, action, commands):
    values = np.ones((2, 192), np.float32)
    first = action._resets
    feed(graph, arm, action, STAMP, values)
    feed(graph, arm, action, STAMP + TICK, values)
    graph.until(lambda: len(commands) == 2)
    assert action._resets == first
    feed(graph, arm, action, STAMP + 40 * TICK, values)
    graph.until(lambda: len(commands) == 3)
    assert action._resets == first + 1
    np.testing.assert_allclose(commands[2].position, commands[0].position, atol=1e-6)
    takeover = graph.talk(Bool, "lam/takeover", LATCHED)
    for driving in (True, False):
        takeover.publish(Bool(data=driving))
        graph.until(lambda driving=driving: action._takeover.is_on is driving)
    assert action._resets == first + 2


@pytest.mark.parametrize(("ticks", "is_another"), [(0, False), (1, False), (4, False), (5, True), (-1, True)])
def test_an_episode_ends_where_features_pause_for_five_ticks_or_go_back(
    graph, arm, action, commands, ticks, is_another
):
    values = np.ones((2, 192), np.float32)
    for tick in range(2):
        feed(graph, arm, action, STAMP + tick * TICK, values)
    graph.until(lambda: len(commands) == 2)
    resets = action._resets
    action.take(Features(STAMP + (1 + ticks) * TICK, values), action._digest)
    assert action._resets - resets == is_another


def test_an_action_node_that_is_not_active_commands_nothing_and_begins_anew(graph, arm, robot, checkpoint, action):
    policy = load_policy(checkpoint, robot)
    handed: list[Any] = []
    action.hand_over = handed.append
    values = np.ones((2, 192), np.float32)

    def answer(tick):
        arm.publish_state(STAMP + tick * TICK)
        graph.until(lambda: action._history._stamps and action._history._stamps[-1] == STAMP + tick * TICK)
        action.take(Features(STAMP + tick * TICK, values), action._digest)

    answer(0)
    assert len(handed) == 1
    assert action.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    answer(1)
    assert len(handed) == 1
    assert action.trigger_activate() == TransitionCallbackReturn.SUCCESS
    answer(1)
    expected = policy.act_on(Features(STAMP + TICK, values), np.zeros(7, np.float32)).target
    np.testing.assert_allclose(handed[1].target, expected, atol=1e-5)


def test_a_human_who_lets_go_leaves_none_of_the_old_plan(graph, action, monkeypatch):
    planned = []
    monkeypatch.setattr(action._policy, "replan", lambda: planned.append("anew"))
    takeover = graph.talk(Bool, "lam/takeover", LATCHED)
    for driving, count in ((True, 0), (False, 1)):
        takeover.publish(Bool(data=driving))
        graph.until(lambda driving=driving: action._takeover.is_on is driving)
        assert len(planned) == count


def test_while_a_human_drives_the_memory_is_warmed_and_nothing_commanded(
    graph, arm, robot, checkpoint, action, commands
):
    values = np.ones((2, 192), np.float32)
    shadows = graph.listen(JointState, "lam/shadow")
    graph.until(lambda: graph.probe.count_publishers("lam/shadow") and action._shadow.get_subscription_count())
    takeover = graph.talk(Bool, "lam/takeover", LATCHED)
    takeover.publish(Bool(data=True))
    graph.until(lambda: action._takeover.is_on)
    policy = load_policy(checkpoint, robot)
    for tick in range(3):
        feed(graph, arm, action, STAMP + tick * TICK, values)
        graph.until(lambda tick=tick: len(shadows) == tick + 1)
        expected = policy.act_on(Features(STAMP + tick * TICK, values), np.zeros(7, np.float32))
        np.testing.assert_allclose(shadows[-1].position, expected.target, atol=1e-5)
    assert commands == []
    takeover.publish(Bool(data=False))
    graph.until(lambda: not action._takeover.is_on)
    policy.replan()
    feed(graph, arm, action, STAMP + 3 * TICK, values)
    graph.until(lambda: commands)
    expected = policy.act_on(Features(STAMP + 3 * TICK, values), np.zeros(7, np.float32))
    np.testing.assert_allclose(commands[0].position, expected.target, atol=1e-5)


def test_a_human_whose_teleoperation_has_ended_is_the_gates_concern(graph, arm, action, commands):
    takeover = graph.probe.create_publisher(Bool, "lam/takeover", LATCHED)
    takeover.publish(Bool(data=True))
    graph.until(lambda: action._takeover.is_on)
    graph.probe.destroy_publisher(takeover)
    graph.until(lambda: not action.count_publishers("lam/takeover"))
    feed(graph, arm, action, STAMP, np.ones((2, 192), np.float32))
    graph.until(lambda: commands)


def test_in_shadow_the_policy_is_compared_with_the_human_and_moves_nothing(graph, arm, robot, action, commands):
    action.set_parameters([Parameter("shadow", value=True)])
    values, moved = np.ones((2, 192), np.float32), np.full(7, 0.1)
    shadows = graph.listen(JointState, "lam/shadow")
    graph.until(lambda: action._shadow.get_subscription_count())
    sent = graph.talk(JointState, "lam/command")
    for tick in range(4):
        feed(graph, arm, action, STAMP + tick * TICK, values)
        graph.until(lambda tick=tick: len(shadows) == tick + 1)
        for driver in ("policy", "teleop"):  # only a human's commands are compared
            sent.publish(joint_message(robot.joint_names, moved * (driver == "teleop"), STAMP + tick * TICK, driver))
        graph.until(lambda tick=tick: len(action._human) == tick + 1)
    assert commands == []
    assert action._agreement.ticks == 3, "a tick is judged once it is over"
    errors = [np.abs(np.array(message.position) - moved) for message in shadows[:3]]
    np.testing.assert_allclose(action._agreement.errors, np.mean(errors, axis=0), atol=1e-5)
    graph.until(graph.said("action", "no-go yet: 3 ticks of the human's motion"))


def test_perception_of_another_checkpoint_is_not_listened_to(graph, arm, action, commands):
    arm.publish_state(STAMP)
    graph.until(lambda: action._history._stamps)
    action._probe_features.publish(features_message(np.ones((2, 192), np.float32), STAMP, "0123456789abcdef"))
    graph.until(graph.said("action", "give both the same file"))
    assert commands == []


@pytest.mark.parametrize("bad", ["nan", "missing", "old"])
def test_no_command_without_a_trustworthy_state(graph, arm, robot, action, commands, bad):
    states = graph.talk(JointState, "joint_states")
    if bad == "old":
        arm.publish_state(STAMP - 10 * TICK)
        graph.until(lambda: action._history._stamps)
        sentence = "older than the images"
    else:
        broken = JointState(name=list(robot.joint_names), position=[0.0] * 7)
        if bad == "nan":
            broken.position[2] = math.nan
        else:
            broken.name, broken.position = broken.name[1:], broken.position[1:]
        states.publish(broken)
        sentence = "not finite for elbow" if bad == "nan" else "lacks waist"
    action._probe_features.publish(features_message(np.ones((2, 192), np.float32), STAMP, action._digest))
    graph.until(graph.said("action", sentence))
    graph.until(graph.said("action", "joint state"))
    assert commands == []


def test_two_ticks_of_a_clock_with_one_stamp_are_one_episode(graph, arm, action, commands):
    values = np.ones((2, 192), np.float32)
    feed(graph, arm, action, STAMP, values)
    resets = action._resets
    action._probe_features.publish(features_message(values, STAMP, action._digest))
    graph.until(lambda: len(commands) == 2)
    assert action._resets == resets


def test_images_that_are_long_past_command_nothing(graph, arm, action, commands):
    for tick in range(13):
        arm.publish_state(STAMP + tick * TICK)
        graph.until(lambda tick=tick: len(action._history._stamps) == tick + 1)
    action._probe_features.publish(features_message(np.ones((2, 192), np.float32), STAMP, action._digest))
    graph.until(graph.said("action", "the images are 0.6 s older than the joint states"))
    assert commands == []


def test_anothers_joints_on_the_topic_are_passed_over(graph, arm, action, commands):
    feed(graph, arm, action, STAMP, np.ones((2, 192), np.float32))
    graph.until(lambda: commands)
    gripper = graph.talk(JointState, "joint_states")
    graph.until(lambda: gripper.get_subscription_count())
    gripper.publish(JointState(name=["finger"], position=[0.0]))
    feed(graph, arm, action, STAMP + TICK, np.ones((2, 192), np.float32))
    graph.until(lambda: len(commands) == 2)
    assert action._status["joint states"][0] == OK
