"""Idle time, still joints, jumps and double takes are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.signals import Signals, compare, motion, oddities, read_signals
from lam_ros.errors import EpisodeError

Wave = Callable[..., Signals]


@pytest.fixture
def wave(robot: RobotConfig) -> Wave:
    """A take in which all joints swing, after and before some idle seconds."""

    def build(idle_s: float = 0.0, moves_s: float = 4.0, rest_s: float = 0.0, phase: float = 0.0) -> Signals:
        times = np.arange(0.0, idle_s + moves_s + rest_s, 0.01)
        inside = np.clip(times - idle_s, 0.0, moves_s)
        lower, upper = robot.position_limits
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        swing = 0.2 * (np.cos(2 * np.pi * inside / moves_s + phase) - np.cos(phase))
        state = (middle + half * swing[:, None]).astype(np.float32)
        return Signals(times, state, times, state.copy(), 0)

    return build


def test_a_lively_take_has_nothing_odd(wave: Wave, robot: RobotConfig) -> None:
    assert oddities(wave(), robot, robot.joint_names) == []


@pytest.mark.parametrize(("idle", "rest"), [(0.0, 0.0), (2.0, 0.0), (0.0, 3.0), (1.4, 2.6)])
def test_the_span_of_motion_is_found(wave: Wave, robot: RobotConfig, idle: float, rest: float) -> None:
    begins, ends = motion(wave(idle, 4.0, rest), robot)  # type: ignore[misc]
    assert begins == pytest.approx(idle, abs=0.41)
    assert ends == pytest.approx(idle + 4.0, abs=0.41)


def test_idle_time_is_told(wave: Wave, robot: RobotConfig) -> None:
    said = oddities(wave(2.0, 2.0, 3.0), robot)
    assert said[0].startswith("stands still for 2.")
    assert "at its beginning" in said[0]
    assert "at its end" in said[1]
    assert "of 7.0 s in all" in said[2]


def test_nothing_moves(wave: Wave, robot: RobotConfig) -> None:
    still = dataclasses.replace(wave(), state=np.zeros_like(wave().state))
    assert motion(still, robot) is None
    assert oddities(still, robot) == ["nothing moves."]


def test_a_joint_that_stays_still_in_one_take_only(wave: Wave, robot: RobotConfig) -> None:
    state = wave().state.copy()
    state[:, 2] = 0.1
    takes = {f"episode_{i}": wave(phase=0.3 * i) for i in range(9)}
    takes["broken"] = dataclasses.replace(wave(phase=3.0), state=state)
    found = compare(takes, robot)
    assert found.pop("broken") == ["elbow does not move, as in the other takes."]
    assert not any(found.values())


def test_jumping_commands(wave: Wave, robot: RobotConfig) -> None:
    command = wave().command.copy()
    command[200:, 0] += 0.5
    assert oddities(dataclasses.replace(wave(), command=command), robot) == [
        "its commands jump 1 times, by more than the joints can follow."
    ]


def test_a_state_beyond_the_limits(wave: Wave, robot: RobotConfig) -> None:
    state = wave().state.copy()
    state[300, 1] = 5.0
    assert "shoulder is measured beyond the limits of the robot YAML." in oddities(
        dataclasses.replace(wave(), state=state), robot
    )


def test_the_same_take_twice_and_one_of_odd_length(wave: Wave, robot: RobotConfig) -> None:
    takes = {"a": wave(), "b": wave(phase=1.0), "c": wave(), "d": wave(moves_s=20.0, phase=2.0)}
    found = compare(takes, robot)
    assert found == {
        "a": [],
        "b": [],
        "c": ["moves as a does: the same take twice?"],
        "d": ["takes 20.0 s, where 4.0 s are usual."],
    }


def test_signals_are_read_without_holds(recording: Any, robot: RobotConfig) -> None:
    recording.usual(4)
    recording.command(1010, -1.0, "hold")
    signals = read_signals(recording.sealed(), robot)
    assert signals.state.shape == (20, 7)
    assert signals.command.shape == (4, 7)
    np.testing.assert_allclose(signals.command_s, 0.005 + 0.05 * np.arange(4))
    assert signals.start_ns == 1_000_000_000


def test_an_episode_without_joint_states(recording: Any, robot: RobotConfig) -> None:
    recording.command(5, 1.0)
    with pytest.raises(EpisodeError, match="holds no joint states"):
        read_signals(recording.sealed(), robot)
