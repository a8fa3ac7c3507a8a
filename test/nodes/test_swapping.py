"""Checkpoints that are changed while the nodes run: no tick missed, none answered by halves, and back again."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading

import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from lam_ros.errors import CheckpointError
from lam_ros.nodes import policy
from lam_ros.nodes.action import ActionNode
from lam_ros.nodes.base import ERROR, stamp_to_ns
from lam_ros.nodes.perception import PerceptionNode
from lam_ros.policy.checkpoint import digest, load_network, load_policy, save_exported
from lam_ros.policy.export import export_graphs

STAMP = 1_700_000_000_000_000_000
TICK = 50_000_000


@pytest.fixture
def other(turning_policy):
    """A policy that turns the waist the other way."""
    return turning_policy(-0.3, 1e-3)


@pytest.fixture
def loop(graph, arm, robot, checkpoint):
    """Perception and action that run, and a function that lets them answer the next tick; the waist's target."""
    perception = graph.add(PerceptionNode, robot="desk_arm", checkpoint=str(checkpoint))
    action = graph.add(ActionNode, robot="desk_arm", checkpoint=str(checkpoint))
    commands = graph.listen(JointState, "lam/policy_command")
    graph.until(lambda: arm.is_heard and arm.is_measured and action._commands.get_subscription_count())
    graph.until(lambda: perception._features.get_subscription_count())
    stamps = itertools.count(STAMP, TICK)

    def tick(is_answered=True):
        stamp = next(stamps)
        arm.publish_state(stamp)
        graph.until(lambda: action._history._stamps and action._history._stamps[-1] == stamp)
        for camera in robot.cameras:
            arm.publish_frame(camera, stamp)
        if not is_answered:
            return None
        graph.until(lambda: commands and stamp_to_ns(commands[-1].header.stamp) == stamp)
        return commands[-1].position[0]

    return perception, action, tick, commands


def give(graph, node, file):
    """Set the parameter as anybody may, over ROS; the reason where it is refused."""
    client = graph.probe.create_client(SetParameters, f"{node.get_name()}/set_parameters")
    graph.until(client.service_is_ready)
    request = SetParameters.Request(parameters=[Parameter("checkpoint", value=str(file)).to_parameter_msg()])
    future = client.call_async(request)
    graph.until(future.done)
    (result,) = future.result().results
    return result.reason


def test_a_policy_is_swapped_and_rolled_back_without_a_missed_tick(graph, loop, other, checkpoint):
    perception, action, tick, commands = loop
    assert tick() > 0.1
    assert give(graph, action, other) == ""
    graph.until(lambda: digest(other) in [loaded.digest for loaded in action._ready])
    assert tick() > 0.1, "perception still sees with the first one"
    assert give(graph, perception, other) == ""
    graph.until(lambda: perception._digest == digest(other))
    resets = action._resets
    assert tick() < -0.1
    assert action._resets == resets + 1, "its memory begins with it"
    assert tick() < -0.1
    assert action._resets == resets + 1
    answer = graph.ask(Trigger, "lam/rollback")
    assert answer.success, answer.message
    assert str(checkpoint) in answer.message
    assert tick() > 0.1
    assert perception.parameter("checkpoint") == str(checkpoint)
    assert graph.ask(Trigger, "lam/rollback").success
    assert tick() < -0.1
    assert len(commands) == 6, "each tick was answered once"


def test_lam_swap_gives_both_nodes_the_checkpoint(graph, loop, other, checkpoint):
    perception, action, tick, _ = loop
    tick()
    for arguments, file in ((("--checkpoint", str(other)), other), (("--back",), checkpoint)):
        command = [sys.executable, "-m", "lam_ros.cli.main", "swap", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        graph.until(lambda process=process: process.poll() is not None)
        assert process.returncode == 0, process.stdout.read()
        assert perception._digest == digest(file)
        assert (tick() > 0.1) == (file == checkpoint)
        assert action._digest == digest(file)


def test_an_exported_policy_takes_over_from_its_checkpoint(graph, loop, checkpoint, tmp_path):
    perception, action, tick, _ = loop
    before = tick()
    network, info = load_network(checkpoint)
    exported = tmp_path / "policy.onnx.safetensors"
    save_exported(exported, export_graphs(network), info)
    for node in (action, perception):
        assert give(graph, node, exported) == ""
        graph.until(lambda node=node: node._loading is None)
    assert tick() == pytest.approx(before, abs=1e-3)
    graph.until(graph.said("perception", "onnxruntime, CPU"))


def test_a_checkpoint_that_does_not_fit_changes_nothing(graph, loop, tmp_path):
    perception, _, tick, _ = loop
    assert "is not a readable checkpoint" in give(graph, perception, tmp_path / "none.safetensors")
    assert perception.parameter("checkpoint").endswith("policy_0.2_0.001.safetensors")
    assert tick() > 0.1


def test_a_checkpoint_with_damaged_weights_is_told_and_the_old_one_goes_on(graph, loop, other, checkpoint):
    perception, _, tick, _ = loop
    sound = other.read_bytes()
    data = bytearray(sound)
    data[-4096:] = b"\xff" * 4096  # NaN: what only loading finds
    other.write_bytes(data)
    assert give(graph, perception, other) == ""
    graph.until(graph.said("perception", "not finite; train it again. The one before goes on."))
    assert perception.parameter("checkpoint") == str(checkpoint), "and what runs is what the parameter says"
    assert tick() > 0.1
    assert give(graph, perception, checkpoint) == ""
    assert perception._status["checkpoint"][0] != ERROR
    command = [sys.executable, "-m", "lam_ros.cli.main", "swap", "--checkpoint", str(other)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    graph.until(lambda: process.poll() is not None, seconds=50)  # sooner than it would wait
    said = " ".join(process.stdout.read().split())
    assert process.returncode == 1
    assert "action cannot load it" in said
    assert "not finite; train it again" in said
    other.write_bytes(sound)  # as a GPU may have room later
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    graph.until(lambda: process.poll() is not None)
    assert process.returncode == 0, process.stdout.read()
    assert tick() < -0.1


def test_action_alone_waits_for_perception_and_perception_alone_is_refused(graph, loop, other):
    perception, action, tick, commands = loop
    tick()
    assert give(graph, perception, other) == ""
    graph.until(lambda: perception._digest == digest(other))
    answered = len(commands)
    tick(is_answered=False)
    graph.until(graph.said("action", "give both the same file"))
    assert len(commands) == answered
    assert give(graph, action, other) == ""
    graph.until(lambda: digest(other) in [loaded.digest for loaded in action._ready])
    assert tick() < -0.1


def test_a_rollback_is_answered_though_no_frame_came_since_two_swaps(graph, loop, other, turning_policy):
    perception, action, tick, _ = loop
    assert tick() > 0.1
    third = turning_policy(0.4, 1e-3)
    for file in (other, third):
        for node in (action, perception):
            assert give(graph, node, file) == ""
            graph.until(lambda node=node: node._loading is None)
    assert graph.ask(Trigger, "lam/rollback").success
    assert perception._digest == digest(other)
    assert tick() < -0.1


def test_a_file_that_is_written_while_it_is_read_is_refused(robot, other, checkpoint, monkeypatch):
    def load_then_write(path, *given):
        loaded = load_policy(path, *given)
        checkpoint.write_bytes(other.read_bytes())
        return loaded

    monkeypatch.setattr(policy, "load_policy", load_then_write)
    with pytest.raises(CheckpointError, match="was written while it was read; give it again"):
        policy.load(str(checkpoint), robot, "CPU", 1)


def test_there_is_nothing_to_roll_back_to_at_first(graph, loop):
    answer = graph.ask(Trigger, "lam/rollback")
    assert not answer.success
    assert "nothing to go back to" in answer.message


def test_a_file_that_was_trained_again_is_loaded_again_and_rolled_back_from(graph, loop, other, checkpoint):
    perception, action, tick, _ = loop
    first = digest(checkpoint)
    assert tick() > 0.1
    assert give(graph, perception, checkpoint) == ""
    assert perception._loading is None, "it runs already"
    checkpoint.write_bytes(other.read_bytes())
    for node in (action, perception):
        assert give(graph, node, checkpoint) == ""
        graph.until(lambda node=node: node._loading is None)
    assert perception._digest == digest(other)
    assert tick() < -0.1
    assert graph.ask(Trigger, "lam/rollback").success
    assert perception._loading is None, "what the file holds now is not loaded"
    assert perception._digest == first
    assert tick() > 0.1


def test_a_load_that_fails_in_any_way_blocks_no_later_one(graph, loop, other, monkeypatch):
    perception, _, tick, _ = loop
    with monkeypatch.context() as broken:
        broken.setattr(perception, "_load", lambda file: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")))
        assert give(graph, perception, other) == ""
        graph.until(graph.said("perception", "CUDA out of memory. The one before goes on."))
    assert tick() > 0.1
    assert give(graph, perception, other) == ""
    graph.until(lambda: perception._digest == digest(other))


def test_a_rollback_is_answered_though_action_was_given_a_third_policy(graph, loop, other, checkpoint, turning_policy):
    perception, action, tick, _ = loop
    third = turning_policy(0.6, 1e-3)
    for node in (action, perception):
        assert give(graph, node, other) == ""
        graph.until(lambda node=node: node._loading is None)
    assert tick() < -0.1
    assert give(graph, action, third) == ""  # and perception was not, since somebody thought better of it
    graph.until(lambda: action._loading is None)
    assert graph.ask(Trigger, "lam/rollback").success
    assert tick() > 0.1
    assert {node.parameter("checkpoint") for node in (action, perception)} == {str(checkpoint)}


def test_what_is_still_loading_is_not_taken_up_after_a_rollback(graph, loop, other, checkpoint, monkeypatch):
    perception, _, _, _ = loop
    for file in (other, checkpoint):
        assert give(graph, perception, file) == ""
        graph.until(lambda file=file: perception._digest == digest(file))
    go, load = threading.Event(), perception._load
    monkeypatch.setattr(perception, "_load", lambda file: go.wait(30) and load(file))
    assert give(graph, perception, other) == ""
    assert graph.ask(Trigger, "lam/rollback").success  # from the second to the first, which is `other`
    adopted = []
    monkeypatch.setattr(perception, "adopt", adopted.append)
    go.set()
    graph.until(lambda: perception._loading is None)
    assert adopted == []
