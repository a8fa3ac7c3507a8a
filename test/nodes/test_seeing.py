"""Frames that are looked at by other threads, or by who asks: each once, and none waits in line."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lam_ros.errors import ImageError
from lam_ros.nodes.seeing import Frame, Helpers, Seen

PATIENCE_S = 60


class Look:
    """Notes which threads looked; the first look takes until ``go``."""

    def __init__(self, waits: bool = False) -> None:
        self.threads: list[str] = []
        self.began, self.go = threading.Event(), threading.Event()
        self.seen = Seen(np.zeros((2, 2, 3), np.uint8), np.arange(3.0))
        if not waits:
            self.go.set()

    def __call__(self) -> Seen:
        self.threads.append(threading.current_thread().name)
        self.began.set()
        assert self.go.wait(PATIENCE_S)
        return self.seen


HERE = threading.current_thread().name


@pytest.fixture
def helpers():
    made = Helpers(1)
    yield made
    made.close()


def test_an_idle_helper_looks_at_a_frame_before_anybody_asks(helpers):
    look = Look()
    frame = Frame(look)
    helpers.begin(frame)
    assert look.began.wait(PATIENCE_S)
    assert frame.found() is look.seen
    assert len(look.threads) == 1
    assert look.threads != [HERE]


def test_a_busy_helper_is_given_no_more_and_an_idle_one_is_again(helpers):
    slow, left = Look(waits=True), Look()
    first, second = Frame(slow), Frame(left)
    helpers.begin(first)
    assert slow.began.wait(PATIENCE_S)
    helpers.begin(second)
    assert second.is_left
    assert second.found() is left.seen
    assert left.threads == [HERE]
    slow.go.set()
    assert first.found() is slow.seen
    assert helpers._idle.acquire(timeout=PATIENCE_S)  # it is idle a moment after its frame is seen
    helpers._idle.release()
    third = Frame(Look())
    helpers.begin(third)
    assert not third.is_left


def test_what_a_helper_could_not_begin_yet_is_looked_at_by_who_asks_and_once():
    slow, look = Look(waits=True), Look()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(slow)
        frame = Frame(look)
        frame.begin(pool)
        assert frame.found() is look.seen
        slow.go.set()
    assert look.threads == [HERE]


def test_a_frame_that_two_ticks_share_is_looked_at_once():
    look = Look()
    frame = Frame(look)
    assert frame.found() is frame.found()
    assert look.threads == [HERE]


def test_what_is_wrong_with_a_frame_is_told_to_who_asks(helpers):
    cut_short = ImageError("cut short")
    frame = Frame(lambda: cut_short)
    assert frame.error is None
    helpers.begin(frame)
    assert helpers._idle.acquire(timeout=PATIENCE_S)
    assert frame.error is cut_short, "before anybody asks"
    assert frame.found() is cut_short
    assert Frame(Look()).error is None


def test_nobody_helps_where_there_is_one_camera():
    helpers, frame = Helpers(0), Frame(Look())
    helpers.begin(frame)
    assert frame.is_left
    helpers.close()


def test_those_that_nobody_has_begun_come_first_and_all_keep_their_places(helpers):
    slow, own = Look(waits=True), Look()

    def look_then_let_go() -> Seen:
        slow.go.set()  # had the other been waited for first, nobody would
        return own()

    frames = {"front": Frame(slow), "wrist": Frame(look_then_let_go)}
    helpers.begin(frames["front"])
    assert slow.began.wait(PATIENCE_S)
    seen = helpers.see(frames)
    assert list(seen) == ["front", "wrist"]
    assert (seen["front"], seen["wrist"]) == (slow.seen, own.seen)


def test_who_asks_for_several_that_nobody_has_begun_is_helped(helpers):
    helped, own = Look(waits=True), Look()

    def look_once_helped() -> Seen:
        assert helped.began.wait(PATIENCE_S), "nobody helps"
        helped.go.set()
        return own()

    seen = helpers.see({"front": Frame(look_once_helped), "wrist": Frame(helped)})
    assert list(seen.values()) == [own.seen, helped.seen]
    assert own.threads == [HERE]
    assert helped.threads != [HERE]


def test_a_frame_that_was_seen_before_is_given_to_nobody(helpers):
    again, new = Look(), Look()
    shared = Frame(again)
    shared.found()
    assert not shared.is_left
    helpers.see({"front": Frame(new), "wrist": shared})
    assert (again.threads, new.threads) == ([HERE], [HERE])
