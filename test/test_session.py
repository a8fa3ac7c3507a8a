"""A recording session: what keys and time do, with a recorder that only takes notes."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from lam_ros.cli import session as module
from lam_ros.cli.session import Pace, Session
from lam_ros.errors import BringUpError


class Recorder:
    """Counts takes as the recorder node would, and refuses what it would refuse."""

    def __init__(self, pace: Pace) -> None:
        self.done: list[str] = []
        self.told: list[str] = []
        self.kept = 0
        self.refusal = ""
        self.session = Session(pace, self.do, lambda: self.kept, self.told.append)

    def do(self, action: str) -> str:
        if self.refusal:
            raise BringUpError(self.refusal)
        self.done.append(action)
        self.kept += action == "stop"
        return f"{action} done"

    def wait(self, start_s: float, end_s: float) -> None:
        for tenth in range(round(10 * start_s), round(10 * end_s)):
            self.session.tick(tenth / 10)


@pytest.fixture
def by_hand() -> Recorder:
    return Recorder(Pace(episodes=3, countdown_s=3.0))


def test_a_take_is_announced_counted_down_and_kept(by_hand: Recorder) -> None:
    by_hand.wait(0, 1)
    assert by_hand.told == ["next take 1 of 3"]
    by_hand.session.press(" ", 1.0)
    by_hand.wait(1, 4)
    assert by_hand.told[1:] == ["countdown 3", "countdown 2", "countdown 1"]
    assert by_hand.done == []
    by_hand.wait(4, 9)
    assert by_hand.session.headline(9.0) == "[bold red]● recording[/] take 1 of 3, 5 s"
    by_hand.session.press("+", 9.0)
    by_hand.session.press("\r", 9.0)
    by_hand.wait(9, 10)
    assert by_hand.done == ["start", "mark_success", "stop"]
    assert by_hand.told[-1] == "next take 2 of 3"


def test_the_session_is_over_when_the_folder_holds_enough(by_hand: Recorder) -> None:
    for take in range(3):
        assert not by_hand.session.is_over
        by_hand.session.press(" ", 10.0 * take)
        by_hand.wait(10 * take, 10 * take + 5)
        by_hand.session.press("\r", 10.0 * take + 5)
    assert by_hand.session.is_over


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("\x7f", ["start", "discard"]),
        ("r", ["start", "discard", "start"]),
        ("\r", ["start", "stop"]),
        ("\rr", ["start", "stop", "again"]),
        ("\rrr", ["start", "stop"]),  # the second key stops the count-down
        ("-\r", ["start", "mark_failure", "stop"]),
        ("\r-", ["start", "stop", "mark_failure"]),
        ("q", ["start", "stop"]),
        ("x5", ["start"]),
    ],
)
def test_what_each_key_does_while_recording(by_hand: Recorder, keys: str, expected: list[str]) -> None:
    by_hand.session.press(" ", 0.0)
    by_hand.wait(0, 4)
    for key in keys:
        by_hand.session.press(key, 4.0)
    by_hand.wait(4, 9)
    assert by_hand.done == expected
    assert by_hand.session.is_over == (keys == "q")


def test_any_key_stops_the_count_down(by_hand: Recorder) -> None:
    by_hand.session.press(" ", 0.0)
    by_hand.wait(0, 2)
    by_hand.session.press("x", 2.0)
    by_hand.wait(2, 9)
    assert by_hand.done == []
    assert by_hand.session.said == "the count-down is stopped"


def test_a_refused_take_is_said_and_may_be_tried_again(by_hand: Recorder) -> None:
    by_hand.refusal = "nobody publishes /joint_states"
    by_hand.session.press(" ", 0.0)
    by_hand.wait(0, 4)
    assert by_hand.session.phase == "waiting"
    assert by_hand.session.said == "nobody publishes /joint_states"
    by_hand.refusal = ""
    by_hand.session.press(" ", 4.0)
    by_hand.wait(4, 9)
    assert by_hand.done == ["start"]


def test_hands_free_takes_begin_and_end_by_themselves() -> None:
    recorder = Recorder(Pace(episodes=2, countdown_s=1.0, take_s=5.0, reset_s=4.0))
    recorder.wait(0, 9.9)
    assert recorder.done == ["start"]
    recorder.wait(9.9, 20)
    assert not recorder.session.is_over
    assert recorder.done == ["start", "stop", "start"]
    recorder.wait(20, 22)
    assert recorder.done == ["start", "stop"] * 2
    assert recorder.session.is_over


def test_a_take_that_a_button_began_is_followed(by_hand: Recorder) -> None:
    by_hand.session.follow(True, 5.0)
    assert by_hand.session.phase == "recording"
    by_hand.session.press("\r", 8.0)
    assert by_hand.done == ["stop"]
    by_hand.session.follow(False, 8.1)
    assert by_hand.session.phase == "waiting"


def test_the_hook_runs_at_each_event_of_the_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["countdown 1", "recording episode_000000", "sealed episode_000000 PASS"]
    heard: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "Keys", lambda sentence: contextlib.nullcontext(SimpleNamespace(pressed=tuple)))
    monkeypatch.setattr(module, "_run_hook", lambda command, event: heard.append((*command, event)))

    class Graph:
        """The recorder says one thing at a time."""

        def __init__(self) -> None:
            self.events: list[str] = []

        def spin(self) -> None:
            self.events += said[len(self.events) :][:1]

        def figures(self, node: str) -> dict[str, str]:
            return {}

    recorder, graph = Recorder(Pace(episodes=1, countdown_s=0.0)), Graph()
    recorder.kept = 1
    monkeypatch.setattr(Session, "is_over", property(lambda self: len(heard) == len(said)))
    module._loop(recorder.session, graph, "wave", ["say"])
    assert heard == [("say", event) for event in said]
