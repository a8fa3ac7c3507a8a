"""The recorder over real DDS: sealed episodes, refusals, and that the live and the recorded view are the same."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from lam_ros.demonstrations.alignment import TickAssembler, align
from lam_ros.demonstrations.episode import EpisodeWriter, list_episodes, open_episode
from lam_ros.images import rgb_from_image
from lam_ros.nodes import recorder as module
from lam_ros.nodes.joints import joint_message
from lam_ros.nodes.recorder import RecorderNode

STAMP = 1_700_000_000_000_000_000
STATE, TICK = 10_000_000, 50_000_000


@pytest.fixture
def dataset(tmp_path):
    return tmp_path / "demos"


@pytest.fixture
def recorder(graph, arm, dataset):
    return graph.add(RecorderNode, robot="desk_arm", dataset=str(dataset), task="wave")


@pytest.fixture
def commands(graph, recorder, arm):
    publisher = graph.probe.create_publisher(JointState, "lam/command", 10)
    graph.until(lambda: publisher.get_subscription_count() and arm.is_heard and arm.is_measured)
    return publisher


def play(graph, arm, robot, commands, ticks):
    """A short demonstration: 5 states, a frame of each camera and a command a tick. Gives back how much was sent."""
    rng = np.random.default_rng(3)
    for tick in range(ticks):
        for step in range(5):
            arm.publish_state(STAMP + tick * TICK + step * STATE, np.full(7, 0.01 * tick))
            graph.executor.spin_once(timeout_sec=0.002)
        for camera in robot.cameras:
            arm.publish_frame(camera, STAMP + tick * TICK, rng.integers(0, 255, (96, 96, 3), np.uint8))
        commands.publish(joint_message(robot.joint_names, np.full(7, 0.02 * tick), STAMP + tick * TICK, "teleop"))
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


def test_live_and_recorded_observations_are_the_same_bits(graph, arm, robot, recorder, commands, dataset):
    live, assembler = [], TickAssembler(robot)

    def on_frame(camera, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        tick = assembler.push(camera, stamp, rgb_from_image(message).copy())
        if tick is not None:
            live.append(tick)

    for name, camera in robot.cameras.items():
        graph.probe.create_subscription(Image, camera.topic, lambda m, name=name: on_frame(name, m), 100)
    graph.until(lambda: all(graph.probe.count_subscribers(c.topic) == 2 for c in robot.cameras.values()))
    graph.ask(Trigger, "recorder/start")
    play(graph, arm, robot, commands, ticks=12)
    graph.until(lambda: written(recorder) == 12 * 8 and len(live) == 12)
    folder = graph.ask(Trigger, "recorder/stop").message
    from pathlib import Path

    demonstration = align(open_episode(Path(folder)), robot, (96, 96), "lam/command")
    assert demonstration.stamps_ns.tolist() == [tick.stamp_ns for tick in live]
    for index, camera in enumerate(robot.cameras):
        np.testing.assert_array_equal(demonstration.images[:, index], np.stack([t.images[camera] for t in live]))
    np.testing.assert_allclose(demonstration.action[:, 0], 0.02 * np.arange(12), atol=1e-6)


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
    graph.add(RecorderNode, robot="desk_arm", dataset=str(dataset), task="wave")
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


def test_a_backlog_that_is_full_loses_by_count_and_says_so(graph, arm, robot, recorder, commands, dataset, monkeypatch):
    monkeypatch.setattr(module, "BACKLOG_BYTES", 60_000)  # two frames of 27 kB, and some joint states
    go_on, write = threading.Event(), EpisodeWriter.write
    monkeypatch.setattr(EpisodeWriter, "write", lambda *arguments: go_on.wait(20) and write(*arguments))
    assert graph.ask(Trigger, "recorder/start").success
    play(graph, arm, robot, commands, ticks=10)
    graph.until(graph.said("recorder", "the disk is too slow; messages of /camera/"))

    def all_arrived():
        lost = sum(channel.meter.lost for channel in recorder._writer._channels.values())
        return lost + recorder._queue.qsize() + 1 == 80  # one is in the hands of the writer

    graph.until(all_arrived)
    go_on.set()
    graph.until(lambda: recorder._backlog_bytes == 0)
    assert graph.ask(Trigger, "recorder/stop").success
    (episode,) = list_episodes(dataset)
    cameras = [episode.manifest.topics[f"/{camera.topic}"] for camera in robot.cameras.values()]
    assert 2 <= sum(report.count for report in cameras) <= 3
    assert sum(report.count + report.lost for report in cameras) == 20
    assert episode.manifest.verdict.grade == "FAIL"
