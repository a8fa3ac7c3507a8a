"""The intake: any type, described; every loss counted; what latecomers must hear."""

from __future__ import annotations

import threading

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Path as NavPath
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.typesys import get_types_from_msg, get_typestore
from rosbags.typesys.stores import Stores
from sensor_msgs.msg import BatteryState, CameraInfo, JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from lam_ros.demonstrations.episode import EpisodeWriter, open_episode
from lam_ros.demonstrations.wire import definition
from lam_ros.errors import ConfigError
from lam_ros.nodes.base import PlainNode, type_name
from lam_ros.nodes.intake import Intake, Wanted, definition_of, message_class
from lam_ros.nodes.qos import LATCHED

KINDS = (
    BatteryState,
    CameraInfo,
    DiagnosticArray,
    Float64MultiArray,
    JointState,
    JointTrajectory,
    MarkerArray,
    NavPath,
    PointCloud2,
    TransformStamped,
)


@pytest.mark.parametrize("kind", KINDS, ids=type_name)
def test_a_definition_made_from_the_class_is_that_of_the_file(kind):
    """The same fields of the same types give the same hash, constants and comments aside."""
    known, text = definition(type_name(kind))
    assert known
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition_of(kind), type_name(kind)))
    assert store.hash_rihs01(type_name(kind)) == text


@pytest.mark.parametrize("msgtype", ["nobody_msgs/msg/Nothing", "std_msgs/msg/Nothing", "nonsense"])
def test_a_type_that_is_not_installed_is_refused(msgtype):
    with pytest.raises(ConfigError, match=rf"{msgtype} is not installed here"):
        message_class(msgtype)


@pytest.fixture
def intake(graph):
    made = []

    def make(*wanted, backlog=1 << 20):
        owner = graph.add(Owner, robot="desk_arm")
        made.append(Intake(owner, [Wanted(name) for name in wanted], backlog))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Owner(PlainNode):
    def __init__(self, **kwargs):
        super().__init__("owner", **kwargs)


def matched(graph, intake, count):
    def look():
        intake.match()
        return len(intake.streams) == count

    graph.until(look)
    graph.until(lambda: all(map(intake.hears, list(intake.streams))))


def connected(graph, intake, topic, qos=10, **limits):
    """A publisher, and an intake that hears it."""
    publisher = graph.probe.create_publisher(String, topic, qos)
    receiver = intake(topic, **limits)
    matched(graph, receiver, 1)
    graph.until(publisher.get_subscription_count)
    return publisher, receiver


def test_topics_come_by_pattern_of_any_type_and_late(graph, intake, tmp_path):
    first = graph.probe.create_publisher(String, "/sensors/a", 10)
    receiver = intake("/sensors/*")
    matched(graph, receiver, 1)
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    receiver.begin(writer)
    second = graph.probe.create_publisher(BatteryState, "/sensors/b", 10)
    graph.probe.create_publisher(BatteryState, "/elsewhere", 10)
    matched(graph, receiver, 2)
    graph.until(lambda: first.get_subscription_count() and second.get_subscription_count())
    first.publish(String(data="one"))
    second.publish(BatteryState(voltage=12.5))
    graph.until(lambda: writer.messages == 2)
    receiver.end()
    episode = open_episode(writer.seal("success"))
    assert {(topic, kind) for topic, kind, _, _ in episode.messages()} == {
        ("/sensors/a", "std_msgs/msg/String"),
        ("/sensors/b", "sensor_msgs/msg/BatteryState"),
    }


def test_what_has_arrived_when_a_take_ends_is_in_it(graph, intake, tmp_path, monkeypatch):
    """On a machine so busy that the intake comes to take it only later."""
    publisher, receiver = connected(graph, intake, "/burst", qos=100)
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    receiver.begin(writer)
    monkeypatch.setattr("lam_ros.nodes.intake.REST_S", 0.5)
    publisher.publish(String(data="first"))
    graph.until(lambda: writer.messages)
    for _ in range(99):
        publisher.publish(String(data="while the intake rests"))
    receiver.end()
    assert writer.messages == 100
    writer.discard()


def test_a_message_that_comes_as_a_take_ends_is_not_given_to_the_next(graph, intake, tmp_path, monkeypatch):
    publisher, receiver = connected(graph, intake, "/late")
    first = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    receiver.begin(first)

    def ends_meanwhile(topic, messages):
        """Just before the message is handed over."""
        if ending.ident is None:
            ending.start()
            ending.join(5.0)

    ending = threading.Thread(target=receiver.end)
    monkeypatch.setattr("lam_ros.nodes.intake.CATCH_UP_S", 0.0)
    monkeypatch.setattr(receiver, "_missed", lambda stream, info: 1)
    monkeypatch.setattr(first, "count_lost", ends_meanwhile)
    publisher.publish(String(data="late"))
    graph.until(lambda: receiver._writer is None and not ending.is_alive())
    first.discard()
    second = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    receiver.begin(second)
    publisher.publish(String(data="in time"))
    graph.until(lambda: second.messages)
    receiver.end()
    assert second.messages == 1


def test_every_message_that_was_published_is_written_or_counted_as_lost(graph, intake, tmp_path):
    """A best-effort publisher outruns a reader that is not allowed to read."""
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher, receiver = connected(graph, intake, "/fast", qos, backlog=100_000)
    publisher.publish(String(data="0"))
    graph.until(lambda: receiver.streams["/fast"].latest)
    writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
    receiver.begin(writer)
    with receiver._lock:  # nobody takes anything meanwhile
        for _ in range(3000):
            publisher.publish(String(data="x" * 1000))
    graph.until(lambda: writer.messages + writer.reports()["/fast"].lost >= 3000)
    receiver.end()
    report = open_episode(writer.seal("success")).manifest.topics["/fast"]
    assert report.count + report.lost == 3000
    assert report.lost > 0


def test_what_latecomers_must_hear_is_in_every_take(graph, intake, tmp_path):
    publisher = graph.probe.create_publisher(String, "/latched", LATCHED)
    publisher.publish(String(data="here since yesterday"))
    receiver = intake("/latched")
    matched(graph, receiver, 1)
    graph.until(lambda: receiver.streams["/latched"].latest)
    for _ in range(2):
        writer = EpisodeWriter(tmp_path, "desk_arm", "digest", "wave")
        receiver.begin(writer)
        receiver.end()
        ((topic, _, data, _),) = open_episode(writer.seal("success")).messages()
        assert (topic, b"here since yesterday" in data) == ("/latched", True)


def test_a_publisher_and_a_reader_that_can_never_meet_are_named(graph, intake):
    graph.probe.create_publisher(String, "/shy", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    graph.probe.create_subscription(
        String, "/shy", lambda message: None, QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    )
    receiver = intake("/shy")
    matched(graph, receiver, 1)
    (sentence,) = graph.until(receiver.incompatible)
    assert sentence.startswith("probe cannot hear probe on /shy:")


def test_a_topic_of_another_type_than_the_yaml_means_is_refused(graph, intake):
    graph.probe.create_publisher(String, "/joint_states", 10)
    receiver = intake()
    receiver._wanted["/joint_states"] = Wanted("/joint_states", "sensor_msgs/msg/JointState")

    def refused():
        receiver.match()
        return receiver.refused

    graph.until(refused)
    assert receiver.refused["/joint_states"] == (
        "/joint_states is not recorded: /joint_states has the type std_msgs/msg/String; "
        "the robot YAML means sensor_msgs/msg/JointState."
    )
