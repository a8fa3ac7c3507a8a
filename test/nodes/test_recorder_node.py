"""The recorder over real DDS: sealed episodes, refusals, and that the live and the recorded view are the same."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lam_ros.config import load_robot
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.episode import EpisodeWriter, list_episodes, open_episode
from lam_ros.nodes.action import ActionNode
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.perception import PerceptionNode
from lam_ros.nodes.recorder import RecorderNode

STATE, TICK = 10_000_000, 50_000_000


@pytest.fixture
def dataset(tmp_path):
    return tmp_path / "demos"


@pytest.fixture
def recorder(graph, arm, dataset):
    return graph.add(RecorderNode, robot="desk_arm", dataset=str(dataset), task="wave", preflight=False)


@pytest.fixture
def commands(graph, recorder, arm):
    publisher = graph.probe.create_publisher(JointState, "lam/command", 10)
    graph.until(lambda: publisher.get_subscription_count() and arm.is_heard and arm.is_measured)
    graph.until(lambda: not recorder.missing_topics())
    return publisher


def play(graph, arm, robot, commands, ticks):
    """A short demonstration: 5 states, a frame of each camera and a command a tick. Gives back how much was sent."""
    # Played faster than it is stamped: half way it is the time that it is.
    rng, start = np.random.default_rng(3), time.time_ns() - ticks * TICK // 2
    for tick in range(ticks):
        for step in range(5):
            arm.publish_state(start + tick * TICK + step * STATE, np.full(7, 0.01 * tick))
            graph.executor.spin_once(timeout_sec=0.002)
        for camera in robot.cameras:
            arm.publish_frame(camera, start + tick * TICK, rng.integers(0, 255, (96, 96, 3), np.uint8))
        commands.publish(joint_message(robot.joint_names, np.full(7, 0.02 * tick), start + tick * TICK, "teleop"))
        graph.executor.spin_once(timeout_sec=0.01)
    return {"/joint_states": 5 * ticks, "/camera/front/image_raw": ticks, "/lam/command": ticks}


def written(recorder):
    return recorder._writer.messages if recorder._writer else 0


def test_what_was_published_is_what_was_sealed(graph, arm, robot, recorder, commands, dataset):
    assert graph.ask(Trigger, "recorder/start").success
    sent = play(graph, arm, robot, commands, ticks=30)
    graph.until(lambda: written(recorder) == 30 * 8)
    assert graph.ask(Trigger, "recorder/mark_success").success
    answer = graph.ask(Trigger, "recorder/stop")
    assert answer.success, answer.message
    (episode,) = list_episodes(dataset)
    assert str(episode.folder) == answer.message
    episode.verify()
    manifest = episode.manifest
    assert {topic: manifest.topics[topic].count for topic in sent} == sent
    assert (manifest.task, manifest.outcome, manifest.drivers) == ("wave", "success", {"teleop": 30})
    assert manifest.verdict.grade == "PASS", manifest.verdict.findings
    assert not list(dataset.glob("*.partial"))


@pytest.mark.parametrize("clock", ["", "wrist"])
def test_live_and_recorded_observations_are_the_same_bits(
    graph, arm, robot, commands, recorder, checkpoint, desk_arm_with, clock
):
    """One recording, aligned offline, and played through the live nodes."""
    graph.ask(Trigger, "recorder/start")
    play(graph, arm, robot, commands, ticks=12)
    graph.until(lambda: written(recorder) == 12 * 8)
    episode = open_episode(Path(graph.ask(Trigger, "recorder/stop").message))
    robot_file = desk_arm_with(policy={"clock": clock})
    offline = align(episode, load_robot(robot_file), (96, 96), "lam/command")

    perception = graph.add(PerceptionNode, robot=robot_file, checkpoint=str(checkpoint))
    action = graph.add(ActionNode, robot=robot_file, checkpoint=str(checkpoint))
    images, states = [], []
    publish, act_on = perception._publish, action._policy.act_on

    def seen(tick):
        images.append(np.stack([view.image for view in tick.images.values()]))
        publish(tick)

    def acted(features, state):
        states.append((features.stamp_ns, state))
        return act_on(features, state)

    perception._publish, action._policy.act_on = seen, acted
    # One message after the other, as they arrived: the executor has no order between topics.
    live = {robot.joint_states.topic: action, **{camera.topic: perception for camera in robot.cameras.values()}}
    graph.until(lambda: perception._features.get_subscription_count())
    for topic, _, data, _ in episode.messages():
        node = live.get(topic.lstrip("/"))
        if node is perception:
            camera = next(name for name, camera in robot.cameras.items() if camera.topic == topic.lstrip("/"))
            expected = len(images)
            node._on_frame(camera, data)
            if len(images) > expected:
                graph.until(lambda: len(states) == len(images))
        elif node is action:
            node._on_joint_states(deserialize_message(data, JointState))
    assert offline.stamps_ns.tolist() == [stamp for stamp, _ in states]
    assert len(states) == 12
    np.testing.assert_array_equal(offline.images, np.stack(images))
    np.testing.assert_array_equal(offline.state, np.stack([state for _, state in states]))


def test_no_take_starts_while_a_topic_is_missing(graph, recorder):
    answer = graph.ask(Trigger, "recorder/start")
    assert not answer.success
    assert "nobody publishes" in answer.message
    assert "/lam/command" in answer.message


def test_a_discarded_take_leaves_nothing_and_its_number_is_free(graph, arm, robot, recorder, commands, dataset):
    graph.ask(Trigger, "recorder/start")
    play(graph, arm, robot, commands, ticks=3)
    assert graph.ask(Trigger, "recorder/discard").success
    assert list(dataset.iterdir()) == []
    again = graph.ask(Trigger, "recorder/stop")
    assert not again.success
    assert "recorder/start first" in again.message


def test_deactivating_in_the_middle_of_a_take_seals_it(graph, arm, robot, recorder, commands, dataset):
    graph.ask(Trigger, "recorder/start")
    play(graph, arm, robot, commands, ticks=10)
    graph.until(lambda: written(recorder) == 80)
    recorder.trigger_deactivate()
    assert len(list_episodes(dataset)) == 1


def test_what_a_crash_left_is_set_aside_with_a_reason(graph, dataset):
    partial = dataset / "episode_000004.partial"
    partial.mkdir(parents=True)
    (partial / "episode_000004_0.mcap").write_bytes(b"torn")
    graph.add(RecorderNode, robot="desk_arm", dataset=str(dataset), task="wave", preflight=False)
    aside = dataset / "episode_000004.set_aside"
    assert "before it was sealed" in (aside / "reason.txt").read_text()
    assert (aside / "episode_000004_0.mcap").read_bytes() == b"torn"


def test_a_take_is_sealed_before_the_disk_is_full_and_no_other_begins(
    graph, arm, robot, recorder, commands, dataset, monkeypatch
):
    assert graph.ask(Trigger, "recorder/start").success
    play(graph, arm, robot, commands, ticks=5)
    graph.until(lambda: written(recorder) == 5 * 8)
    usage = shutil.disk_usage(dataset)._replace(free=999_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    graph.until(graph.said("recorder", "1.0 GB free, room for about 0 more takes; recorder.keep_free_gb is 1"))
    (episode,) = list_episodes(dataset)
    episode.verify()
    assert episode.manifest.topics["/joint_states"].count == 25
    assert not graph.ask(Trigger, "recorder/stop").success
    answer = graph.ask(Trigger, "recorder/start")
    assert not answer.success
    assert "no take starts" in answer.message
    monkeypatch.undo()
    assert graph.ask(Trigger, "recorder/start").success


@pytest.fixture
def held_back(recorder):
    """What a slow disk waits for; whatever happens, the recorder may end afterwards."""
    go_on = threading.Event()
    yield go_on
    go_on.set()


def test_a_backlog_that_is_full_loses_by_count_and_says_so(
    graph, arm, robot, recorder, commands, dataset, monkeypatch, held_back
):
    monkeypatch.setattr(recorder._intake, "_backlog_limit", 60_000)  # two frames of 27 kB, and some joint states
    go_on, write = held_back, EpisodeWriter.write
    monkeypatch.setattr(EpisodeWriter, "write", lambda *arguments: go_on.wait(20) and write(*arguments))
    assert graph.ask(Trigger, "recorder/start").success
    play(graph, arm, robot, commands, ticks=10)
    graph.until(
        graph.said("recorder", "/camera/front/image_raw waits for the disk, which is too slow; 9 messages are lost")
    )

    def all_arrived():
        lost = sum(channel.meter.lost for channel in recorder._writer._channels.values())
        return lost + recorder._intake._queue.qsize() + 1 == 80  # one is in the hands of the writer

    graph.until(all_arrived)
    go_on.set()
    graph.until(lambda: recorder._intake.backlog_bytes == 0)
    assert graph.ask(Trigger, "recorder/stop").success
    (episode,) = list_episodes(dataset)
    cameras = [episode.manifest.topics[f"/{camera.topic}"] for camera in robot.cameras.values()]
    assert 2 <= sum(report.count for report in cameras) <= 3
    assert sum(report.count + report.lost for report in cameras) == 20
    assert episode.manifest.verdict.grade == "FAIL"


def record_take(graph, arm, robot, commands, recorder, service="recorder/start"):
    """One short take; the folder it was sealed in."""
    answer = graph.ask(Trigger, service)
    assert answer.success, answer.message
    play(graph, arm, robot, commands, ticks=5)
    graph.until(lambda: written(recorder) == 5 * 8)
    answer = graph.ask(Trigger, "recorder/stop")
    assert answer.success, answer.message
    return Path(answer.message)


def test_a_take_recorded_again_replaces_the_last_one_once_it_is_sealed(graph, arm, robot, recorder, commands, dataset):
    first = record_take(graph, arm, robot, commands, recorder)
    answer = graph.ask(Trigger, "recorder/again")
    assert answer.message == "episode_000001, instead of episode_000000"
    assert [episode.folder for episode in list_episodes(dataset)] == [first]
    answer = graph.ask(Trigger, "recorder/again")  # this one failed too
    assert answer.message == "episode_000001, instead of episode_000000"
    assert graph.ask(Trigger, "recorder/discard").success
    assert [episode.folder for episode in list_episodes(dataset)] == [first]
    again = record_take(graph, arm, robot, commands, recorder, "recorder/again")
    assert [episode.folder for episode in list_episodes(dataset)] == [again]
    assert (dataset / "episode_000000.replaced" / "episode.json").is_file()


def test_a_take_may_be_marked_while_it_is_recorded_or_after(graph, arm, robot, recorder, commands):
    answer = graph.ask(Trigger, "recorder/mark_success")
    assert not answer.success
    assert "nothing has been recorded yet" in answer.message
    folder = record_take(graph, arm, robot, commands, recorder)
    assert open_episode(folder).manifest.outcome == "unmarked"
    assert graph.ask(Trigger, "recorder/mark_failure").message == "episode_000000 is a failure"
    episode = open_episode(folder)
    assert episode.manifest.outcome == "failure"
    episode.verify()


def test_joystick_buttons_control_takes(graph, arm, robot, dataset, desk_arm_with):
    path = desk_arm_with(recorder={"buttons": {"actions": {"start": 7, "stop": 7, "discard": 6}}})
    recorder = graph.add(RecorderNode, robot=path, dataset=str(dataset), task="wave", preflight=False)
    commands = graph.probe.create_publisher(JointState, "lam/command", 10)
    joystick = graph.talk(Joy, "joy")
    events = graph.listen(String, "recorder/event")
    graph.until(lambda: commands.get_subscription_count() and arm.is_heard and arm.is_measured)

    def press(button):
        joystick.publish(Joy(buttons=[int(number == button) for number in range(10)]))
        joystick.publish(Joy(buttons=[int(number == button) for number in range(10)]))  # held down: no second press
        joystick.publish(Joy(buttons=[0] * 10))

    def heard(text):
        return lambda: any(event.data.startswith(text) for event in events)

    press(7)
    graph.until(heard("recording episode_000000"))
    play(graph, arm, robot, commands, ticks=5)
    graph.until(lambda: written(recorder) == 5 * 8)
    press(7)
    graph.until(heard("sealed episode_000000 PASS"))
    press(7)
    graph.until(heard("recording episode_000001"))
    press(6)
    graph.until(heard("discarded episode_000001"))
    assert [episode.manifest.name for episode in list_episodes(dataset)] == ["episode_000000"]


def test_the_first_take_waits_until_preflight_is_content(graph, arm, robot, dataset):
    graph.add(RecorderNode, robot="desk_arm", dataset=str(dataset), task="wave")
    commands = graph.probe.create_publisher(JointState, "lam/command", 10)
    graph.until(lambda: commands.get_subscription_count() and arm.is_heard and arm.is_measured)
    answer = graph.ask(Trigger, "recorder/start")
    assert not answer.success
    assert "camera/front/image_raw is silent" in answer.message
    assert "joint_states is silent" in answer.message

    def stream(seconds):
        began, sent = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            while sent < 100 * now:
                arm.publish_state(time.time_ns())
                if sent % 5 == 0:
                    for camera in robot.cameras:
                        arm.publish_frame(camera, time.time_ns())
                sent += 1
            graph.executor.spin_once(timeout_sec=0.002)

    def passes():
        stream(2.5)
        return graph.ask(Trigger, "recorder/preflight").success

    graph.until(passes)
    assert graph.ask(Trigger, "recorder/start").success


def test_a_live_verdict_tells_what_goes_wrong_while_it_can_be_mended(graph, arm, robot, recorder, commands):
    assert graph.ask(Trigger, "recorder/start").success
    play(graph, arm, robot, commands, ticks=5)
    graph.until(graph.said("recorder", "verdict: FAIL"))
