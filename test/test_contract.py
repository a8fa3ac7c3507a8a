"""The contract: what fits the robot passes, what does not is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract, absolute_topic, seconds_to_ns
from lam_ros.errors import ContractError

JOINTS = ("a", "b", "c")
CONTRACT = Contract(JOINTS, ("rad", "rad", "m"), ("eye", "hand"), ((8, 6), (4, 4)), 20.0)


def images() -> dict[str, np.ndarray]:
    return {"eye": np.zeros((6, 8, 3), np.uint8), "hand": np.zeros((4, 4, 3), np.uint8)}


def test_the_contract_is_that_of_the_robot(robot: RobotConfig) -> None:
    contract = Contract.of(robot)
    assert contract.joints == robot.joint_names
    assert contract.units == ("rad",) * 6 + ("m",)
    assert contract.image_sizes == ((96, 96), (96, 96))
    assert contract.rate_hz == 20.0


@pytest.mark.parametrize(
    ("joints", "units", "hands"),
    [
        (JOINTS, ("rad", "rad", "m"), [False, False, True]),
        (("rail", "elbow", "left_knuckle"), ("m", "rad", "rad"), [False, False, True]),
        (JOINTS, ("rad", "rad", "rad"), [False, False, False]),
    ],
    ids=["slides", "named", "none"],
)
def test_a_hand_is_known_by_name_before_it_is_by_sliding(
    joints: tuple[str, ...], units: tuple[str, ...], hands: list[bool]
) -> None:
    assert dataclasses.replace(CONTRACT, joints=joints, units=units).hands.tolist() == hands


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("joints", ("a", "c", "b"), r"joints = \[a, b, c\], this robot has \[a, c, b\]"),
        ("units", ("rad", "rad", "rad"), r"units = \[rad, rad, m\]"),
        ("cameras", ("hand", "eye"), r"cameras = \[eye, hand\], this robot has \[hand, eye\]"),
        ("image_sizes", ((8, 6), (4, 5)), r"image_sizes = \[8x6, 4x4\], this robot has \[8x6, 4x5\]"),
        ("rate_hz", 30.0, r"rate_hz = 20, this robot has 30"),
    ],
)
def test_another_robot_is_refused_by_field_with_the_cure(field: str, value: Any, shown: str) -> None:
    with pytest.raises(ContractError, match=shown + ".*use a checkpoint of this robot"):
        CONTRACT.check_same(dataclasses.replace(CONTRACT, **{field: value}))


def test_the_same_contract_passes() -> None:
    CONTRACT.check_same(dataclasses.replace(CONTRACT))


def test_images_and_states_that_fit_pass() -> None:
    for camera, image in images().items():
        CONTRACT.validate_image(camera, image)
    CONTRACT.validate_state(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 6, 3), np.uint8), "camera eye sent 6x8 uint8; the robot YAML says 8x6"),
        (np.zeros((6, 8, 3), np.float32), "camera eye sent 8x6 float32"),
        (np.zeros((6, 8), np.uint8), "camera eye sent 8x6"),
        (np.zeros(144, np.uint8), r"camera eye sent shape \(144,\)"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        CONTRACT.validate_image("eye", image)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_joint(bad: float) -> None:
    values = np.array([bad, 0.0, bad], np.float32)
    with pytest.raises(ContractError, match="the joint state is not finite for a, c"):
        CONTRACT.validate_state(values)
    with pytest.raises(ContractError, match="the action is not finite for a, c"):
        CONTRACT.validate_action(values)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), ()])
def test_a_vector_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match=r"\(3,\) was expected, one entry for each joint"):
        CONTRACT.validate_state(np.zeros(shape, np.float32))


def test_named_values_are_put_in_order_and_strangers_ignored() -> None:
    ordered = CONTRACT.in_order(["c", "x", "a", "b"], [3.0, 9.0, 1.0, 2.0], "joint_states")
    assert ordered.dtype == np.float32
    np.testing.assert_array_equal(ordered, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (["a", "b"], [1.0, 2.0], "joint_states lacks c; it has a, b. Check the joint names in the robot YAML"),
        ([], [], "joint_states lacks a, b, c; it has no joints"),
        (["a", "b", "c"], [1.0], "joint_states names 3 joints but carries 1 positions"),
        (["a", "b", "c", "b"], [1.0, 2.0, 3.0, 4.0], "joint_states names b twice"),
        (["c", "b", "a"], [1.0, np.nan, 3.0], "joint_states is not finite for b"),
        (["a", "b", "c"], [1.0, 1e300, 3.0], "joint_states is not finite for b"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_named_values_that_do_not_fit_are_refused(names: list[str], values: list[float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        CONTRACT.in_order(names, values, "joint_states")


@pytest.mark.parametrize(("seconds", "nanoseconds"), [(0.05, 50_000_000), (1e-9, 1), (-0.5, -500_000_000), (0, 0)])
def test_seconds_become_whole_nanoseconds(seconds: float, nanoseconds: int) -> None:
    assert seconds_to_ns(seconds) == nanoseconds


def test_topics_of_the_robot_file_may_be_absolute_topic() -> None:
    assert absolute_topic("/usb_cam/image", "left") == "/usb_cam/image"
    assert absolute_topic("camera/image", "/left/") == "/left/camera/image"
    assert absolute_topic("camera/image", "") == "/camera/image"
