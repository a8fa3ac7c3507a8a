"""What preflight says of each way in which a robot differs from its YAML."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.preflight import Heard, preflight

FRONT, WRIST, STATES = "camera/front/image_raw", "camera/wrist/image_raw", "joint_states"


@pytest.fixture
def heard(messages: Any) -> dict[str, Heard]:
    """Everything as desk_arm.yaml says."""
    frame = messages.image(time.time_ns(), np.zeros((96, 96, 3), np.uint8))
    states = messages.joint_state(time.time_ns(), [0.0] * 7)
    return {FRONT: Heard(20.0, frame), WRIST: Heard(20.0, frame), STATES: Heard(100.0, states)}


def sentences(robot: RobotConfig, heard: dict[str, Heard], **options: bool) -> list[tuple[bool, str]]:
    return [(finding.is_failure, finding.sentence) for finding in preflight(robot, heard, **options)]


def test_a_robot_like_its_yaml_has_no_findings(robot: RobotConfig, heard: dict[str, Heard]) -> None:
    assert sentences(robot, heard) == []


def test_a_topic_that_nobody_publishes(robot: RobotConfig, heard: dict[str, Heard]) -> None:
    del heard[WRIST]
    ((is_failure, sentence),) = sentences(robot, heard)
    assert is_failure
    assert sentence.startswith(f"nobody publishes {WRIST}; start its driver")


def test_a_topic_that_is_silent(robot: RobotConfig, heard: dict[str, Heard]) -> None:
    heard[FRONT] = Heard(0.0, b"")
    assert [s for _, s in sentences(robot, heard)] == [
        f"{FRONT} is silent: somebody publishes it, but nothing arrives; check the driver and QoS."
    ]
    assert sentences(robot, heard, has_rates=False) == []


@pytest.mark.parametrize(("rate", "is_failure"), [(17.0, False), (5.0, True)])
def test_a_topic_that_is_too_slow(robot: RobotConfig, heard: dict[str, Heard], rate: float, is_failure: bool) -> None:
    heard[FRONT] = Heard(rate, heard[FRONT].latest)
    expected = f"{FRONT} comes at {rate:.1f} Hz, the robot YAML says 20; set the driver's rate, or the YAML's."
    assert sentences(robot, heard) == [(is_failure, expected)]
    assert sentences(robot, heard, has_rates=False) == []


def test_a_camera_of_another_size(robot: RobotConfig, heard: dict[str, Heard], messages: Any) -> None:
    heard[WRIST] = Heard(20.0, messages.image(time.time_ns(), np.zeros((48, 64, 3), np.uint8)))
    ((is_failure, sentence),) = sentences(robot, heard)
    assert is_failure
    assert sentence.startswith("camera wrist sent 64x48 uint8; the robot YAML says 96x96")


def test_joint_states_that_lack_a_joint(robot: RobotConfig, heard: dict[str, Heard], messages: Any) -> None:
    messages.joints = [f"other_{i}" for i in range(7)]
    heard[STATES] = Heard(100.0, messages.joint_state(time.time_ns(), [0.0] * 7))
    ((is_failure, sentence),) = sentences(robot, heard)
    assert is_failure
    assert sentence.startswith("joint_states lacks waist, shoulder")


def test_joint_states_of_a_gripper_beside_the_arms(robot: RobotConfig, heard: dict[str, Heard], messages: Any) -> None:
    arms = heard[STATES].latest
    messages.joints = ["finger"]
    grippers = messages.joint_state(time.time_ns(), [0.0])
    heard[STATES] = Heard(100.0, grippers, (grippers, arms))
    assert sentences(robot, heard) == []


def test_messages_without_stamps(robot: RobotConfig, heard: dict[str, Heard], messages: Any) -> None:
    heard[STATES] = Heard(100.0, messages.joint_state(0, [0.0] * 7))
    assert sentences(robot, heard) == [
        (True, "joint_states has no header stamps; without the time of capture nothing can be aligned.")
    ]
