"""The workspace: the tool's box and the links' distance, on the desk arm's own URDF."""

from __future__ import annotations

import numpy as np
import pytest

from lam_ros.config import ConfigError, RobotConfig, WorkspaceConfig, from_mapping, urdf_path
from lam_ros.control.gate import Driver, Gate, Request, Rules, Trespass
from lam_ros.control.kinematics import Kinematics
from lam_ros.control.limits import MotionLimits
from lam_ros.control.workspace import Workspace

HOME = np.array([0.0, 0.0, 0.6, 0.0, 1.0, 0.0, 0.02])
FOLDED = np.array([0.0, 1.0, 1.9, 0.0, 2.1, 0.0, 0.02])
OUTSIDE = np.array([0.5, 0.0, 0.6, 0.0, 1.0, 0.0, 0.02])  # of the boxes below, in y
NOTHING = Trespass()


def workspace(robot: RobotConfig, **described: object) -> Workspace:
    return Workspace(from_mapping(WorkspaceConfig, described), urdf_path(robot), robot.joint_names)


def test_the_tool_is_where_kinematics_say(robot: RobotConfig) -> None:
    kinematics, rng = Kinematics(urdf_path(robot), robot.joint_names), np.random.default_rng(0)
    lower, upper = robot.position_limits
    for _ in range(50):
        position = rng.uniform(lower, upper)
        tool, _ = kinematics.tool_pose(position)
        described = {axis: [float(at) - 0.01, float(at) + 0.01] for axis, at in zip("xyz", tool, strict=True)}
        assert workspace(robot, **described).trespass(position).found == {}
        described["z"] = [float(tool[2]) + 0.02, float(tool[2]) + 0.03]
        found = workspace(robot, **described).trespass(position)
        assert found.depth_m("z") == pytest.approx(0.02, abs=1e-9)
        assert found.beyond(NOTHING).startswith(f"the tool would be at z {tool[2]:.3f} m, outside")


def test_links_that_meet_are_found_and_neighbours_are_not(robot: RobotConfig) -> None:
    judged = workspace(robot, self_clearance_m=0.02)
    assert judged.trespass(HOME).found == {}
    assert "would be 0.0" in judged.trespass(FOLDED).beyond(NOTHING)
    assert workspace(robot).trespass(FOLDED).found == {}, "no clearance asked for, none looked at"


def test_a_wider_clearance_is_met_sooner(robot: RobotConfig) -> None:
    near, wide = (workspace(robot, self_clearance_m=clearance) for clearance in (0.005, 0.06))
    shares = np.linspace(0.0, 1.0, 200)
    first = [next(s for s in shares if judged.trespass(HOME + s * (FOLDED - HOME)).found) for judged in (near, wide)]
    assert first[1] < first[0]


@pytest.mark.parametrize("clearance_m", [0.05, 0.06, 0.1])
def test_no_pair_of_links_is_let_go_by_a_wider_clearance(robot: RobotConfig, clearance_m: float) -> None:
    """Some are nearer than that as they are built; they must not touch for all that."""
    near, wide = (workspace(robot, self_clearance_m=clearance) for clearance in (0.005, clearance_m))
    rng, both = np.random.default_rng(0), 0
    for position in rng.uniform(*robot.position_limits, (1000, len(HOME))):
        touching = set(near.trespass(position).found)
        assert touching <= set(wide.trespass(position).found)
        both += "forearm_roll_link and gripper_link" in touching
    assert both > 10
    assert wide.trespass(HOME).found == {}, "nor does it hold the arm where it begins"


@pytest.mark.parametrize("place", [HOME, OUTSIDE, FOLDED])
def test_a_short_look_judges_as_a_long_one(robot: RobotConfig, place: np.ndarray) -> None:
    judged, rng = workspace(robot, z=[0.05, 0.5], self_clearance_m=0.03), np.random.default_rng(0)
    places = rng.uniform(*robot.position_limits, (300, len(HOME)))
    allowed = judged.trespass(place)
    outside = [bool(judged.trespass(place).beyond(allowed)) for place in places]
    assert [bool(judged.trespass(place, allowed).beyond(allowed)) for place in places] == outside
    assert 30 < sum(outside) < 270


def test_what_the_gate_remembers_of_its_last_look_changes_no_command(robot: RobotConfig) -> None:
    judged, rng = workspace(robot, z=[0.05, 0.5], self_clearance_m=0.01), np.random.default_rng(0)
    remembers, forgets = (Gate(Rules(MotionLimits.of(robot), 0.15, workspace=judged.trespass)) for _ in range(2))
    last = HOME
    for tick in range(200):
        now_ns = tick * 50_000_000
        if tick % 20 == 0:
            goal = rng.uniform(*robot.position_limits)
        forgets._rest = None
        for gate in (remembers, forgets):
            gate.measured(last, now_ns)
        one, other = (gate.request(Request(Driver.POLICY, goal, now_ns), now_ns) for gate in (remembers, forgets))
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.position, other.position)
        last = one.position
    assert remembers._rest is not None


@pytest.mark.parametrize("seed", range(3))
def test_the_gate_keeps_the_arm_in_its_box_whatever_is_asked(robot: RobotConfig, seed: int) -> None:
    judged, rng = workspace(robot, z=[0.05, 0.5], self_clearance_m=0.01), np.random.default_rng(seed)
    gate = Gate(Rules(MotionLimits.of(robot), 0.15, workspace=judged.trespass))
    lower, upper = robot.position_limits
    last, warned = HOME, 0
    for tick in range(400):
        now_ns = tick * 50_000_000
        if tick % 20 == 0:
            goal = rng.uniform(lower, upper)
        gate.measured(last, now_ns)
        sent = gate.request(Request(Driver.POLICY, goal, now_ns), now_ns)
        assert sent is not None
        last, warned = sent.position, warned + bool(gate.warning)
        assert not judged.trespass(last).beyond(NOTHING)
    assert warned > 20


@pytest.mark.parametrize("rule", ["z", "links"])
def test_an_arm_beside_its_box_is_held_to_every_other_rule(robot: RobotConfig, rule: str) -> None:
    """Found outside in y by more than what it is asked to break elsewhere."""
    judged = workspace(robot, y=[-0.02, 0.02], z=[0.05, 0.5], self_clearance_m=0.02)
    allowed = judged.trespass(OUTSIDE)
    assert allowed.depth_m("y") > 0.05
    assert set(allowed.found) == {"y"}
    gate = Gate(Rules(MotionLimits.of(robot), 0.15, workspace=judged.trespass))
    below = np.array([0.5, 0.9, 0.8, 0.0, 0.0, 0.0, 0.02])
    goal = below if rule == "z" else FOLDED + np.eye(7)[0] * 0.5
    broken = set(judged.trespass(goal).found) - {"y"}
    assert broken == {"z"} if rule == "z" else broken - {"z"}
    last, warned = OUTSIDE, ""
    for tick in range(100):
        now_ns = tick * 50_000_000
        gate.measured(last, now_ns)
        sent = gate.request(Request(Driver.POLICY, goal, now_ns), now_ns)
        assert sent is not None
        last, warned = sent.position, warned or gate.warning
        assert not judged.trespass(last).beyond(allowed)
    assert warned


def test_what_cannot_be_checked_is_refused(robot: RobotConfig) -> None:
    with pytest.raises(ConfigError, match=r"tool_frame is 'hand', which is no link of .*; it has "):
        workspace(robot, tool_frame="hand")
    with pytest.raises(ConfigError, match=r"has no joint waste"):
        Workspace(WorkspaceConfig(), urdf_path(robot), ("waste",))
    with pytest.raises(ConfigError, match=r"z is \[0.3, 0.1\]; the first must be below"):
        workspace(robot, z=[0.3, 0.1])
