"""Whose turn it is, what is kept of it, and what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lam_ros.cli.trial import _one
from lam_ros.errors import TrainingError
from lam_ros.learning.trials import Ending, Ledger, Turn, order


def test_each_block_has_every_policy_once_in_an_order_of_its_own() -> None:
    turns = order(3, 50, seed=1)
    blocks = [tuple(turns[i : i + 3]) for i in range(0, 150, 3)]
    assert all(sorted(block) == [0, 1, 2] for block in blocks)
    assert len(set(blocks)) == 6
    assert turns == order(3, 50, seed=1)
    assert turns != order(3, 50, seed=2)
    assert turns[:30] == order(3, 10, seed=1), "more trials go on where fewer ended"


def turn(number: int, policy: str, ending: Ending) -> Turn:
    return Turn(number, policy, ending, 2.0 + number, f"episode_{number:06}")


def test_only_a_success_is_one_and_outcomes_are_paired_by_block(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl", ["a", "b"], 0)
    for number, (policy, ending) in enumerate(
        [("b", "success"), ("a", "success"), ("a", "takeover"), ("b", "success"), ("a", "time"), ("b", "failure")]
    ):
        ledger.add(turn(number, policy, ending))  # type: ignore[arg-type]
    assert (ledger.evaluation("a").successes, ledger.evaluation("b").successes) == (1, 2)
    assert [result.seed for result in ledger.evaluation("b").results] == [0, 1, 2]
    difference = ledger.difference("a", "b")
    assert difference is not None
    assert difference.rate == pytest.approx(-1 / 3)
    assert (difference.only_first, difference.only_second) == (0, 1)


def test_an_interrupted_comparison_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    assert Ledger(file, ["a", "b"], 0).difference("a", "b") is None
    Ledger(file, ["a", "b"], 0).add(turn(0, "b", "success"))
    assert Ledger(file, ["a", "b"], 0).turns == [turn(0, "b", "success")]
    for policies, seed in ((["a", "c"], 0), (["a", "b"], 1)):
        with pytest.raises(TrainingError, match="compares other checkpoints, or in another order"):
            Ledger(file, policies, seed)
    whole = file.read_text()
    for torn in ('{"numb', whole.splitlines()[1]):  # as a power cut leaves it: that trial is done again
        file.write_text(whole + torn)
        assert Ledger(file, ["a", "b"], 0).turns == [turn(0, "b", "success")]
        assert file.read_text() == whole
    file.write_text('{"poli')
    assert Ledger(file, ["a", "b"], 0).turns == []
    assert file.read_text() == whole.splitlines(keepends=True)[0]
    file.write_text('{"policies": ["a", "b"], "seed": 0}\n{"numb\n')
    with pytest.raises(TrainingError, match="is no record of trials"):
        Ledger(file, ["a", "b"], 0)


def test_the_word_that_lets_the_policy_go_on_comes_last_before_it_does() -> None:
    """It holds for seconds, which loading a policy and beginning a take may need."""
    said: list[str] = []

    def call(service: str) -> str:
        said.append(service)
        return "episode_000001"

    conductor: Any = SimpleNamespace(
        call=call,
        change_state=lambda node, transition: said.append(f"{node} {transition}"),
        spin=lambda: None,
        events=["marked episode_000001 success"],
        is_taken_over=False,
    )
    keys: Any = SimpleNamespace(pressed=lambda: "")
    _one(conductor, keys, 0, "abc", seconds=0.01)
    assert said[:3] == ["recorder/start", "lam/resume", "action activate"]
    assert said[3] == "action deactivate"
