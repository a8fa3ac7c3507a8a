"""The gate over real DDS: mapping, limits, holding, e-stop, refusals."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lam_ros.contract import Action
from lam_ros.control.gate import Driver
from lam_ros.control.limits import MotionLimiter
from lam_ros.errors import LimitError
from lam_ros.nodes.base import ERROR, OK, WARN, ns_to_stamp, publishers_of, stamp_to_ns
from lam_ros.nodes.gate import GateNode
from lam_ros.nodes.middleware import RESTARTS
from lam_ros.nodes.qos import LATCHED, SENSOR, STREAM

STAMP = 1_700_000_000_000_000_000
TICK = 50_000_000


@pytest.fixture
def gate(graph, arm):
    node = graph.add(GateNode, robot="desk_arm")
    graph.until(lambda: arm.is_measured)
    return node


def request(robot, position, stamp_ns=STAMP, names=None):
    message = JointState(name=list(names or robot.joint_names), position=[float(p) for p in position])
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


def drive(graph, arm, publisher, message, count=1, measured_ns=STAMP):
    """Measure, then ask, ``count`` times; each once the gate has heard of the measurement."""
    sent = graph.listen(JointState, "lam/command")
    graph.until(lambda: graph.probe.count_subscribers("lam/command") > 0)

    def again():
        arm.publish_state(measured_ns)
        publisher.publish(message)
        graph.executor.spin_once(timeout_sec=0.01)
        return len(sent) >= count

    graph.until(again)
    return sent


def test_a_request_in_another_joint_order_reaches_the_right_joints(graph, arm, robot, gate):
    to_robot = graph.listen(JointTrajectory, "robot/command")
    policy = graph.talk(JointState, "lam/policy_command")
    wanted = np.array([0.01, -0.01, 0.005, 0.0, 0.0, 0.0, 0.001])
    backwards = request(robot, wanted[::-1], names=robot.joint_names[::-1])
    sent = drive(graph, arm, policy, backwards, count=100)  # the ramp of a new driver among them
    graph.until(lambda: len(to_robot) >= 100)
    assert to_robot[-1].joint_names == list(robot.joint_names)
    np.testing.assert_allclose(to_robot[-1].points[-1].positions, wanted, atol=1e-3)
    assert sent[-1].header.frame_id == "policy"
    assert sent[-1].header.stamp.sec == STAMP // 10**9


def test_a_jump_is_sent_as_a_ramp_within_limits(graph, arm, robot, gate):
    to_robot = graph.listen(JointTrajectory, "robot/command")
    policy = graph.talk(JointState, "lam/policy_command")
    drive(graph, arm, policy, request(robot, [1.0] + [0.0] * 6), count=20)
    waist = np.array([message.points[-1].positions[0] for message in to_robot])
    assert 0.0 < waist[0] < 0.05
    assert np.all(np.diff(waist) >= 0.0)
    # One step lasts at most the staleness; no joint may go further in it than its speed allows.
    assert np.diff(waist).max() <= robot.velocity_limits[0] * robot.gate.staleness_s + 1e-6


def test_a_controller_that_goes_where_it_is_told_at_once_gets_the_way_in_small_steps(graph, arm, robot, desk_arm_with):
    command = {"topic": "forward_position_controller/commands", "type": "multi_array"}
    gate = graph.add(GateNode, robot=desk_arm_with(command=command))
    to_robot = graph.listen(Float64MultiArray, "forward_position_controller/commands")
    policy = graph.talk(JointState, "lam/policy_command")
    sent = drive(graph, arm, policy, request(robot, [1.0] + [0.0] * 6), count=1)
    graph.until(lambda: gate._gate.rests and not gate._setpoints.is_under_way)
    graph.until(lambda: to_robot[-1].data[0] == sent[-1].position[0])
    assert len(to_robot) > len(sent)
    waist = np.array([message.data[0] for message in to_robot])
    assert np.all(np.diff(waist) >= 0.0)


def test_a_gate_that_stopped_itself_says_so_until_it_is_released(graph, arm, robot, gate, monkeypatch):
    policy = graph.talk(JointState, "lam/policy_command")
    drive(graph, arm, policy, request(robot, [0.1] + [0.0] * 6), count=5)

    def fail(*arguments):
        raise LimitError("a step would leave the limits of jerk; it is not sent.")

    monkeypatch.setattr(MotionLimiter, "_after", fail)

    def is_stopped():
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.2] + [0.0] * 6))
        return gate._orders.is_stopped

    graph.until(is_stopped)
    monkeypatch.undo()
    for _ in range(5):
        is_stopped()
        graph.executor.spin_once(timeout_sec=0.02)
    level, said = gate._status["emergency stop"]
    assert level == ERROR
    assert "limits of jerk; it is not sent. The gate has stopped; call lam/reset_estop" in said
    graph.ask(Trigger, "lam/reset_estop")
    assert gate._status["emergency stop"][0] == OK


def test_where_no_arm_can_be_is_told_though_nobody_asks(graph, arm, robot, gate):
    graph.until(lambda: arm.publish_state(STAMP, np.full(7, 57.3)) or gate._measured_ns is not None)
    level, said = gate._status["joint positions"]
    assert level == ERROR
    assert said.startswith("joint waist is measured at 57.3, far outside")


def test_it_brakes_and_holds_when_the_policy_stops(graph, arm, robot, gate):
    policy = graph.talk(JointState, "lam/policy_command")
    sent = drive(graph, arm, policy, request(robot, [1.0] + [0.0] * 6), count=20)
    graph.until(lambda: sent[-1].header.frame_id == "hold")
    graph.until(graph.said("gate", "holding"))
    graph.until(lambda: gate._gate._motion.rests)
    at_rest = gate._sent_count
    for _ in range(20):
        graph.executor.spin_once(timeout_sec=0.02)
    assert gate._sent_count == at_rest, "nothing is commanded once the arm stands"


def test_emergency_stop_over_topic_and_service_is_latched(graph, arm, robot, gate):
    policy = graph.talk(JointState, "lam/policy_command")
    sent = drive(graph, arm, policy, request(robot, [0.5] + [0.0] * 6), count=5)
    graph.talk(Bool, "lam/estop", LATCHED).publish(Bool(data=True))
    graph.until(graph.said("gate", "lam/reset_estop"))
    sent.clear()
    for _ in range(10):
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.5] + [0.0] * 6))
        graph.executor.spin_once(timeout_sec=0.02)
    assert all(message.header.frame_id == "hold" for message in sent)
    assert graph.ask(Trigger, "lam/reset_estop").success
    sent = drive(graph, arm, policy, request(robot, [0.5] + [0.0] * 6), count=3)
    assert sent[-1].header.frame_id == "policy"
    assert graph.ask(Trigger, "lam/estop_now").success
    assert gate._gate.orders.is_stopped


@pytest.mark.parametrize(("qos", "ways"), [(LATCHED, 3), (STREAM, 2), (SENSOR, 1)])
def test_an_emergency_stop_is_heard_with_any_qos_and_by_a_reliable_way_where_there_is_one(graph, gate, qos, ways):
    button = graph.talk(Bool, "lam/estop", qos)
    graph.until(lambda: button.get_subscription_count() == ways)
    button.publish(Bool(data=True))
    graph.until(lambda: gate._gate.orders.is_stopped)


def test_a_gate_that_is_configured_anew_stays_stopped(graph, gate):
    assert graph.ask(Trigger, "lam/estop_now").success
    for step in (gate.trigger_deactivate, gate.trigger_cleanup, gate.trigger_configure, gate.trigger_activate):
        assert step() == TransitionCallbackReturn.SUCCESS
    assert gate._gate.orders.is_stopped


def test_a_gate_that_had_to_begin_anew_waits_for_a_human(graph, arm, monkeypatch):
    monkeypatch.setenv(RESTARTS, "1")
    gate = graph.add(GateNode, robot="desk_arm")
    graph.until(graph.said("gate", "this node began anew and may have missed one; call lam/reset_estop"))
    assert gate._gate.orders.is_stopped
    assert graph.ask(Trigger, "lam/reset_estop").success
    assert not gate._gate.orders.is_stopped


def test_a_gate_that_is_deactivated_brings_the_arm_to_rest_first(graph, arm, robot, gate):
    policy = graph.talk(JointState, "lam/policy_command")
    sent = drive(graph, arm, policy, request(robot, [1.5] + [0.0] * 6), count=60)
    assert not gate._gate.rests
    assert gate.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert gate._gate.rests
    graph.until(lambda: sent[-1].position[0] == pytest.approx(gate._gate._motion.position[0]))
    steps = np.diff([message.position[0] for message in sent if message.header.frame_id == "hold"])
    assert len(steps) > 2
    assert np.all(steps >= 0.0)
    assert np.all(np.diff(steps) < 0.0), "it only slows down"


def test_it_says_when_somebody_else_commands_the_robot_too(graph, gate):
    rival = graph.probe.create_publisher(JointTrajectory, "robot/command", 10)
    graph.until(graph.said("gate", "1 more publish /robot/command; end them"))
    graph.probe.destroy_publisher(rival)
    graph.until(lambda: gate._status["rivals"] == (OK, "nobody else commands the robot"))


@pytest.mark.parametrize("off_s", [None, -60.0, -0.3, 60.0])
def test_the_clock_of_whoever_drives_does_not_shift_what_is_learned(graph, arm, robot, gate, off_s):
    """Offline a human's command belongs to the images before it, by its stamp."""
    teleop = graph.talk(JointState, "teleop/command")
    stamp_ns = 0 if off_s is None else time.time_ns() + round(off_s * 1e9)
    sent = drive(graph, arm, teleop, request(robot, [0.1] + [0.0] * 6, stamp_ns), count=3)
    stamp = sent[-1].header.stamp
    assert abs(stamp.sec + stamp.nanosec * 1e-9 - time.time()) < 0.25
    assert sent[-1].header.frame_id == "teleop"


def test_in_a_simulator_a_stamp_of_its_own_time_is_kept_and_one_of_another_clock_is_not(graph, arm, robot):
    graph.add(GateNode, robot="desk_arm", use_sim_time=True)
    graph.until(lambda: arm.is_measured)
    clock = graph.talk(Clock, "/clock")
    teleop = graph.talk(JointState, "teleop/command")
    now_ns = 100 * 10**9
    for stamp_ns, kept in ((now_ns - TICK, True), (now_ns + 10 * TICK, True), (time.time_ns(), False), (0, False)):
        clock.publish(Clock(clock=ns_to_stamp(now_ns)))
        (*_, last) = drive(graph, arm, teleop, request(robot, [0.1] + [0.0] * 6, stamp_ns), 3, measured_ns=now_ns)
        assert stamp_to_ns(last.header.stamp) == (stamp_ns if kept else now_ns)


def test_a_gate_that_is_activated_anew_waits_to_be_told_where_the_arm_is(graph, arm, robot, gate):
    policy = graph.talk(JointState, "lam/policy_command")
    drive(graph, arm, policy, request(robot, [0.5] + [0.0] * 6), count=5)
    assert gate.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert gate.trigger_activate() == TransitionCallbackReturn.SUCCESS
    sent = gate._sent_count
    gate.take(Action(STAMP, np.full(7, 0.03)))
    assert gate._sent_count == sent
    assert "no joint states have arrived yet" in gate._status["policy"][1]


def test_joint_states_tell_a_simulators_time_before_its_clock_does(graph, desk_arm_with):
    late = desk_arm_with(joint_states={"latency_s": 0.02})
    simulated = graph.add(GateNode, robot=late, use_sim_time=True)
    assert simulated._time_of(STAMP) == STAMP - 20_000_000
    clock = graph.talk(Clock, "/clock")
    clock.publish(Clock(clock=ns_to_stamp(STAMP)))
    graph.until(lambda: simulated.now_ns() == STAMP)
    assert simulated._time_of(STAMP - TICK) == STAMP, "what was measured long ago does not set time back"


def test_on_a_robot_a_stamp_from_the_future_does_not_move_time(gate):
    assert abs(gate._time_of(time.time_ns() + 60 * 10**9) - gate.now_ns()) < 10**9


def test_a_stamp_before_time_began_is_answered(graph, arm, robot, gate):
    policy = graph.talk(JointState, "lam/policy_command")
    began = -1_500_000_000
    sent = drive(graph, arm, policy, request(robot, [0.1] + [0.0] * 6, began), count=3, measured_ns=began)
    assert (sent[-1].header.stamp.sec, sent[-1].header.stamp.nanosec) == (-2, 500_000_000)


@pytest.mark.parametrize(
    ("names", "positions", "sentence"),
    [
        (None, [math.nan] + [0.0] * 6, "not finite for waist"),
        (["waist"], [0.0], "lacks shoulder"),
        (None, [0.0] * 5, "names 7 joints but carries 5 positions"),
    ],
)
def test_joint_states_that_cannot_be_trusted_move_nothing(graph, arm, robot, gate, names, positions, sentence):
    broken = JointState(name=list(names or robot.joint_names), position=positions)
    states = graph.talk(JointState, "joint_states")
    policy = graph.talk(JointState, "lam/policy_command")
    sent = graph.listen(JointState, "lam/command")
    for _ in range(10):
        states.publish(broken)
        policy.publish(request(robot, [0.03] * 7))
        graph.executor.spin_once(timeout_sec=0.02)
    graph.until(graph.said("gate", sentence))
    assert sent == []


def test_a_human_beats_the_policy(graph, arm, robot, gate):
    teleop = graph.talk(JointState, "teleop/command")
    policy = graph.talk(JointState, "lam/policy_command")
    drive(graph, arm, teleop, request(robot, [0.1] + [0.0] * 6), count=3)
    takeover = graph.talk(Bool, "lam/takeover", LATCHED)
    takeover.publish(Bool(data=True))
    graph.until(lambda: gate._gate.orders.takeover)
    sent = graph.listen(JointState, "lam/command")
    for _ in range(10):
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.5] + [0.0] * 6))
        graph.executor.spin_once(timeout_sec=0.02)
    assert "policy" not in {message.header.frame_id for message in sent}
    takeover.publish(Bool(data=False))
    graph.until(lambda: not gate._gate.orders.takeover)
    assert drive(graph, arm, policy, request(robot, [0.2] + [0.0] * 6))[-1].header.frame_id in ("policy", "hold")


def test_any_publisher_takes_over_and_where_it_has_ended_resume_lets_go(graph, arm, robot, gate):
    human = graph.probe.create_publisher(Bool, "lam/takeover", 10)  # volatile, as most publishers are
    graph.until(lambda: human.get_subscription_count() >= 2)
    human.publish(Bool(data=True))
    graph.until(lambda: gate._gate.orders.takeover)
    answer = graph.ask(Trigger, "lam/resume")
    assert not answer.success
    assert "Let go first" in answer.message
    graph.probe.destroy_publisher(human)
    graph.until(lambda: not gate.count_publishers("lam/takeover"))
    policy = graph.talk(JointState, "lam/policy_command")
    arm.publish_state(STAMP)
    policy.publish(request(robot, [0.03] * 7))
    graph.until(graph.said("gate", "where whoever said so has ended, or one of several has let go, call"))
    assert graph.ask(Trigger, "lam/resume").success
    assert drive(graph, arm, policy, request(robot, [0.2] + [0.0] * 6))[-1].header.frame_id in ("policy", "hold")


def test_a_gate_hears_people_before_it_is_configured_and_forgets_nothing_when_it_is_anew(graph, arm, robot):
    gate = graph.add(GateNode, activate=False, robot="desk_arm")
    button, human = graph.talk(Bool, "lam/estop", STREAM), graph.talk(Bool, "lam/takeover", STREAM)  # volatile
    button.publish(Bool(data=True))
    human.publish(Bool(data=True))
    graph.until(lambda: gate._orders.is_stopped and gate._orders.takeover)
    for step in (gate.trigger_configure, gate.trigger_activate):
        assert step() == TransitionCallbackReturn.SUCCESS
    graph.until(lambda: arm.is_measured)
    policy = graph.talk(JointState, "lam/policy_command")

    def refused_with(text):
        def is_refused():
            arm.publish_state(STAMP)
            policy.publish(request(robot, [0.03] * 7))
            return text in gate._status.get("policy", (OK, ""))[1]

        return is_refused

    graph.until(refused_with("the emergency stop is pressed"))
    assert graph.ask(Trigger, "lam/reset_estop").success
    graph.until(refused_with("a human is driving (lam/takeover"))
    for step in (gate.trigger_deactivate, gate.trigger_cleanup, gate.trigger_configure, gate.trigger_activate):
        assert step() == TransitionCallbackReturn.SUCCESS
    graph.until(lambda: arm.is_measured)
    graph.until(lambda: policy.get_subscription_count())
    for _ in range(10):
        refused_with("")()
        graph.executor.spin_once(timeout_sec=0.02)
    assert gate._sent_count == 0


def test_one_of_two_who_lets_go_does_not_speak_for_the_other(graph, arm, robot, gate):
    first, second = (graph.talk(Bool, "lam/takeover", LATCHED) for _ in range(2))
    graph.until(lambda: publishers_of(gate, "lam/takeover") == 2)
    first.publish(Bool(data=True))
    graph.until(lambda: gate._orders.takeover)
    second.publish(Bool(data=False))
    graph.until(lambda: gate._takeover.is_unclear)
    policy, sent = graph.talk(JointState, "lam/policy_command"), graph.listen(JointState, "lam/command")
    for _ in range(10):
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.5] + [0.0] * 6))
        graph.executor.spin_once(timeout_sec=0.02)
    assert sent == []
    assert graph.ask(Trigger, "lam/resume").success
    assert not gate._orders.takeover


def test_topics_under_other_names_are_watched_under_those(graph, arm, robot):
    names = ["-r", "lam/takeover:=/human", "-r", f"{robot.command.topic}:=/arm/command"]
    gate = graph.add(partial(GateNode, cli_args=["--ros-args", *names]), robot="desk_arm")
    graph.probe.create_publisher(JointTrajectory, "/arm/command", 10)
    graph.until(graph.said("gate", "1 more publish /arm/command; end them"))
    human = graph.talk(Bool, "/human", STREAM)
    human.publish(Bool(data=True))
    graph.until(lambda: gate._orders.takeover)
    assert not graph.ask(Trigger, "lam/resume").success


def test_what_is_long_past_moves_nothing(graph, arm, robot, gate):
    policy, sent = graph.talk(JointState, "lam/policy_command"), graph.listen(JointState, "lam/command")

    def is_said():
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.03] * 7, STAMP - 900_000_000))
        return graph.said("gate", "policy answers images 0.90 s older than the joint states, more than 0.50 s")()

    graph.until(is_said)
    assert sent == []


@pytest.mark.parametrize("is_ordered", [True, False])
def test_numbers_without_names_go_to_no_controller_that_orders_its_joints_otherwise(
    graph, arm, robot, desk_arm_with, controller, is_ordered
):
    joints = list(robot.joint_names)
    controller("forward_position_controller", joints=joints if is_ordered else sorted(joints))
    topic = "forward_position_controller/commands"
    to_robot = graph.listen(Float64MultiArray, topic)
    gate = graph.add(GateNode, robot=desk_arm_with(command={"topic": topic, "type": "multi_array"}))
    graph.until(lambda: gate._controller._client.service_is_ready())
    policy = graph.talk(JointState, "lam/policy_command")

    def ask():
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.01] * 7))

    if is_ordered:
        graph.until(lambda: ask() or to_robot)
    else:
        graph.until(lambda: ask() or graph.said("gate", "/forward_position_controller takes numbers for elbow, ")())
        assert not to_robot


@pytest.mark.parametrize("ends", ["close", "trigger_shutdown", "trigger_deactivate"])
def test_an_arm_is_at_rest_before_its_gate_ends(graph, arm, robot, gate, ends):
    policy = graph.talk(JointState, "lam/policy_command")
    drive(graph, arm, policy, request(robot, [2.0] + [0.0] * 6), count=8)
    assert not gate._gate.rests
    getattr(gate, ends)()
    assert gate._gate.rests
    assert gate._gate.driver is Driver.HOLD


def test_a_gate_that_is_not_active_moves_nothing_and_false_releases_no_stop(graph, arm, robot, gate):
    policy, sent = graph.talk(JointState, "lam/policy_command"), graph.listen(JointState, "lam/command")
    assert gate.trigger_deactivate() == TransitionCallbackReturn.SUCCESS

    def ask():
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.02] * 7))
        graph.executor.spin_once(timeout_sec=0.01)

    for _ in range(30):
        ask()
    gate.take(Action(np.full(7, 0.02, np.float32), STAMP))
    assert not sent
    assert gate.trigger_activate() == TransitionCallbackReturn.SUCCESS
    button = graph.talk(Bool, "lam/estop", STREAM)
    button.publish(Bool(data=True))
    graph.until(lambda: gate._orders.is_stopped)
    for _ in range(10):
        button.publish(Bool(data=False))
        ask()
    assert gate._orders.is_stopped
    assert not sent


def test_after_a_long_pause_the_policy_waits_until_somebody_says_go(graph, arm, robot, desk_arm_with):
    graph.add(GateNode, robot=desk_arm_with(gate={"longest_pause_s": 0.5}))
    graph.until(lambda: arm.is_measured)
    policy = graph.talk(JointState, "lam/policy_command")
    sent = drive(graph, arm, policy, request(robot, [0.2] + [0.0] * 6), count=5)
    end = time.monotonic() + 1.0
    graph.until(lambda: time.monotonic() > end)
    before = len(sent)

    def ask():
        arm.publish_state(STAMP)
        policy.publish(request(robot, [0.2] + [0.0] * 6))

    graph.until(lambda: ask() or graph.said("gate", "s; call lam/resume when nobody is in the arm's way")())
    assert len(sent) == before
    assert graph.ask(Trigger, "lam/resume").success
    graph.until(lambda: ask() or len(sent) > before)


def test_diagnostics_say_what_is_and_not_what_was(graph, arm, robot, gate):
    policy = graph.talk(JointState, "lam/policy_command")
    drive(graph, arm, policy, request(robot, [0.2] + [0.0] * 6), count=3)
    graph.until(lambda: gate._status["policy"] == (OK, "silent"))
    graph.until(graph.said("gate", "joint states: none for"))
    assert gate.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert gate._status["gate"] == (OK, "not active")
    assert gate.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert gate._status["gate"] == (OK, "nobody drives yet")


def test_a_policy_that_is_refused_beside_a_human_is_said_once(graph, arm, robot, gate):
    teleop, policy = graph.talk(JointState, "teleop/command"), graph.talk(JointState, "lam/policy_command")
    told = graph.listen(DiagnosticArray, "/diagnostics")
    began_s = time.monotonic()
    for _ in range(50):
        arm.publish_state(STAMP)
        teleop.publish(request(robot, [0.1] + [0.0] * 6))
        policy.publish(request(robot, [0.5] + [0.0] * 6))
        graph.executor.spin_once(timeout_sec=0.02)
        graph.executor.spin_once(timeout_sec=0.02)
    graph.until(lambda: gate._status.get("policy") == (WARN, "a human is driving."))
    assert gate._status["gate"] == (OK, "teleop drives")
    assert len(told) < 15 + 2 * (time.monotonic() - began_s), "one a second, and one a change"


def test_an_arm_that_brakes_for_ever_is_not_configured(graph, desk_arm_with):
    node = graph.add(GateNode, activate=False, robot=desk_arm_with(joints={"waist": {"acceleration": 0.2}}))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "from full speed this arm takes 12" in node.failure


def test_parameters_are_described_and_fixed(graph, gate):
    description = gate.describe_parameter("robot")
    assert "Robot YAML" in description.description
    assert description.read_only
    assert graph.probe.create_client(GetParameters, "gate/get_parameters")


def test_it_names_the_topics_that_nobody_is_at_the_other_end_of(graph, robot):
    graph.add(GateNode, robot="desk_arm")
    graph.until(graph.said("gate", "topics: nobody publishes /joint_states; nobody takes /robot/command"))
    graph.talk(JointState, robot.joint_states.topic)
    graph.until(graph.said("gate", "topics: nobody takes /robot/command"))
    graph.listen(JointTrajectory, robot.command.topic)
    graph.until(graph.said("gate", "topics: every topic has its other end"))
