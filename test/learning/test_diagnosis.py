"""Policies with a low loss that do nothing are found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.errors import TrainingError
from lam_ros.learning.diagnosis import diagnose, predictions
from lam_ros.policy.configuration import PolicyConfig

QUESTIONS = ("move where", "the same way", "look", "every joint")


def demonstrations(count: int = 3) -> list[Demonstration]:
    """What is seen decides: pictures as bright as the episode's direction, in which every joint goes."""
    found = []
    for number in range(count):
        way = 0.05 * (1 if number % 2 == 0 else -1) * np.linspace(1.0, 0.5, 20, dtype=np.float32)
        state = np.cumsum(np.tile(way[:, None], (1, 7)), 0).astype(np.float32)
        images = np.full((20, 2, 4, 4, 3), 200 if number % 2 == 0 else 20, dtype=np.uint8)
        found.append(Demonstration(images, state, state + way[:, None], np.arange(20, dtype=np.int64)))
    return found


class Scripted:
    """A runtime that moves each joint by ``step`` towards what it sees, or always the same way."""

    name, features, config = "scripted", 1, PolicyConfig()

    def __init__(self, contract: Contract, step: float, looks: bool = True, stuck: int | None = None) -> None:
        self.contract, self._step, self._looks, self._stuck = contract, step, looks, stuck

    def perceive(self, camera: int, image: np.ndarray) -> np.ndarray:
        return np.array([image.mean()], dtype=np.float32)

    def step(self, features: np.ndarray, state: np.ndarray, hidden: Any) -> tuple[np.ndarray, Any]:
        tick = 0 if hidden is None else hidden
        sign = 1.0 if not self._looks or features.mean() > 100 else -1.0
        target = state + sign * self._step * (1.0 - 0.5 * tick / 19)
        if self._stuck is not None:
            target[self._stuck] = state[self._stuck]
        return target[None].astype(np.float32), tick + 1

    def attention(self, camera: int, image: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        ({"step": 0.05}, set()),
        ({"step": 0.004}, {"move where", "every joint"}),
        ({"step": 0.05, "looks": False}, {"the same way", "look"}),
        ({"step": -0.05}, {"the same way"}),
        ({"step": 0.05, "stuck": 2}, {"every joint"}),
    ],
)
def test_each_fault_is_found(robot: RobotConfig, policy: dict[str, Any], wrong: set[str]) -> None:
    findings = diagnose(Scripted(Contract.of(robot), **policy), demonstrations())
    found = {short for short, finding in zip(QUESTIONS, findings, strict=True) if not finding.is_fine}
    for short, finding in zip(QUESTIONS, findings, strict=True):
        assert short in finding.question
        assert finding.sentence
    assert found == wrong


def test_a_stuck_joint_is_named(robot: RobotConfig) -> None:
    finding = diagnose(Scripted(Contract.of(robot), 0.05, stuck=2), demonstrations())[-1]
    assert finding.sentence.startswith("nearly constant: elbow.")


def test_too_few_or_idle_demonstrations_are_refused(robot: RobotConfig) -> None:
    policy = Scripted(Contract.of(robot), 0.05)
    with pytest.raises(TrainingError, match="two are needed, to swap their pictures"):
        diagnose(policy, demonstrations(1))
    idle = [Demonstration(d.images, d.state, d.state, d.stamps_ns) for d in demonstrations()]
    with pytest.raises(TrainingError, match="no joint is ever moved"):
        diagnose(policy, idle)


class Counts(Scripted):
    """A runtime whose answer is how many ticks its memory goes back."""

    def step(self, features: np.ndarray, state: np.ndarray, hidden: Any) -> tuple[np.ndarray, Any]:
        ticks = (hidden or 0) + 1
        return np.full((1, 7), ticks, np.float32), ticks


def test_the_memory_begins_anew_where_a_human_takes_over(robot: RobotConfig) -> None:
    (one, *_) = demonstrations()
    human = np.arange(len(one)) >= 12
    answers = predictions(Counts(Contract.of(robot), 0.0), dataclasses.replace(one, human=human), one.images)[:, 0]
    assert answers.tolist() == [*range(1, 13), *range(1, 9)]
    assert predictions(Counts(Contract.of(robot), 0.0), one, one.images)[-1, 0] == len(one)
