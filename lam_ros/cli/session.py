"""A recording session on a robot: takes announced, counted down, kept, marked and recorded again, by keys or by time.

waiting ──space, or hands-free the pause is over──▶ counting down ──▶ recording ──enter, or the time is up──▶ waiting
   ▲                                                    │ any key                 │ backspace
   └────────────────────────────────────────────────────┴─────────────────────────┘
"""

from __future__ import annotations

import math
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lam_ros.bringup import Options, Supervisor, node_environment, plan, require_ros
from lam_ros.cli.console import console, log_to
from lam_ros.control.terminal import Keys
from lam_ros.demonstrations.episode import sealed_folders
from lam_ros.errors import BringUpError, ConfigError

KEYS = "space start   enter keep   backspace discard   r again   + success   - failure   q end"
NO_TERMINAL = "recording is controlled by keys and needs a terminal; without one: `lam up record`, and the services."
REFRESH_S = 0.25
COLOURS = {"OK": "green", "SLOW": "yellow", "STALLED": "red", "silent": "red"}


@dataclass(frozen=True)
class Pace:
    """How a session goes.

    Attributes:
        episodes: how many sealed episodes the folder shall hold at its end.
        countdown_s: before each take.
        take_s: length of a take; 0 means until Enter. Above 0 the session is hands-free: the next take starts by
            itself ``reset_s`` after the last.
        reset_s: to put the scene in order again.
    """

    episodes: int
    countdown_s: float = 3.0
    take_s: float = 0.0
    reset_s: float = 8.0


class Session:
    """What happens when keys are pressed and time passes. Knows neither ROS nor the terminal.

    Args:
        do: carries out an action of the recorder (start, stop, discard, again, mark_success, mark_failure) and gives
            back its sentence; raises BringUpError where the recorder refuses.
        count: how many sealed episodes there are.
        tell: hears each event: "next take 3 of 50", "countdown 3", …
    """

    def __init__(
        self, pace: Pace, do: Callable[[str], str], count: Callable[[], int], tell: Callable[[str], None]
    ) -> None:
        self._pace, self._do, self._count, self._tell = pace, do, count, tell
        self.phase: Literal["waiting", "counting", "recording"] = "waiting"
        self.said = ""
        self._since_s = 0.0
        self._counted = 0
        self._begins_with = "start"
        self._is_asked_to_end = False
        self._is_announced = False

    @property
    def kept(self) -> int:
        return self._count()

    @property
    def is_over(self) -> bool:
        return self._is_asked_to_end or (self.phase == "waiting" and self.kept >= self._pace.episodes)

    def press(self, key: str, now_s: float) -> None:
        """React to a key."""
        if self.phase == "counting":
            self._enter("waiting", now_s)
            self.said = "the count-down is stopped"
        elif key == "q":
            self._is_asked_to_end = True
            if self.phase == "recording":
                self._attempt("stop")
        elif key in "+-":
            self._attempt("mark_success" if key == "+" else "mark_failure")
        elif self.phase == "waiting" and key in " r":
            self._begins_with = "start" if key == " " else "again"
            self._enter("counting", now_s)
        elif self.phase == "recording" and key == "r":
            self._attempt("discard")  # and begin as this one began: a take that replaces another still does
            self._enter("counting", now_s)
        elif self.phase == "recording" and key in "\r\x7f\b":
            self._attempt("stop" if key == "\r" else "discard")
            self._enter("waiting", now_s)

    def tick(self, now_s: float) -> None:
        """Let time pass."""
        elapsed_s = now_s - self._since_s
        if self.phase == "waiting":
            if not self._is_announced and not self.is_over:
                self._is_announced = True
                self._since_s = now_s
                self._tell(f"next take {self.kept + 1} of {self._pace.episodes}")
            elif self._pace.take_s and elapsed_s >= self._pace.reset_s:
                self._begins_with = "start"
                self._enter("counting", now_s)
        elif self.phase == "counting":
            left = math.ceil(self._pace.countdown_s - elapsed_s)
            if left <= 0:
                begun = self._attempt(self._begins_with)
                self._enter("recording" if begun else "waiting", now_s)
            elif left != self._counted:
                self._counted = left
                self._tell(f"countdown {left}")
        elif self._pace.take_s and elapsed_s >= self._pace.take_s:
            self._attempt("stop")
            self._enter("waiting", now_s)

    def follow(self, is_recording: bool, now_s: float) -> None:
        """Take note of a take that somebody else began or ended: a joystick's button, a service, a full disk."""
        if is_recording != (self.phase == "recording"):
            self._enter("recording" if is_recording else "waiting", now_s)

    def headline(self, now_s: float) -> str:
        """One line about what goes on."""
        take = f"take {self.kept + 1} of {self._pace.episodes}"
        if self.phase == "recording":
            return f"[bold red]● recording[/] {take}, {now_s - self._since_s:.0f} s"
        if self.phase == "counting":
            return f"[bold yellow]{self._counted}[/] {take} begins"
        if self._pace.take_s:
            return f"next: {take} in {max(0.0, self._pace.reset_s - now_s + self._since_s):.0f} s"
        return f"next: {take}; press space"

    def _enter(self, phase: Literal["waiting", "counting", "recording"], now_s: float) -> None:
        self.phase, self._since_s, self._counted = phase, now_s, 0
        self._is_announced = False

    def _attempt(self, action: str) -> bool:
        try:
            self.said = self._do(action)
        except BringUpError as error:
            self.said = str(error)
            return False
        return True


def run_session(robot: str, task: str, dataset: Path, pace: Pace, hook: str) -> int:
    """Bring up gate and recorder, and record until the folder holds enough episodes or the user ends it.

    Returns:
        How many episodes the folder holds then.

    Raises:
        BringUpError, ConfigError: something that recording needs is missing.
    """
    require_ros()
    processes = plan("record", Options(robot, task=task, dataset=str(dataset)))
    try:
        command = shlex.split(hook)
    except ValueError as error:
        raise ConfigError(f"--hook {hook}: {error}; close it.") from None
    with (
        log_to(dataset / "record.log") as log,
        Supervisor(log, node_environment()) as supervisor,
    ):
        from lam_ros.nodes.conductor import conducting

        supervisor.start(processes)
        with conducting(supervisor.check) as conductor:

            def tell(event: str) -> None:
                conductor.tell(event)
                console.bell()

            session = Session(
                pace, lambda action: conductor.call(f"recorder/{action}"), lambda: len(sealed_folders(dataset)), tell
            )
            _loop(session, conductor, task, command)
            return session.kept


def _loop(session: Session, conductor: Any, task: str, hook: Sequence[str]) -> None:
    heard = 0
    with Keys(NO_TERMINAL) as keys, Live(console=console, auto_refresh=False) as live:
        drawn_s = 0.0
        while not session.is_over:
            conductor.spin()
            now_s = time.monotonic()
            for event in conductor.events[heard:]:
                if event.startswith(("recording", "sealed", "discarded")):
                    session.follow(event.startswith("recording"), now_s)
                if hook:
                    _run_hook(hook, event)
            heard = len(conductor.events)
            for key in keys.pressed():
                session.press(key, now_s)
            session.tick(now_s)
            if now_s - drawn_s > REFRESH_S:
                drawn_s = now_s
                live.update(_screen(session, task, conductor.figures("recorder"), now_s), refresh=True)


def _screen(session: Session, task: str, figures: Mapping[str, str], now_s: float) -> Group:
    topics = Table("topic", "rate", title=escape(task))
    for name, health in figures.items():
        if name.startswith("topic "):
            state = health.rpartition(" ")[2]
            colour = COLOURS.get(state, "default")
            topics.add_row(escape(name[len("topic ") :]), f"[{colour}]{escape(health)}[/]")
    lines = [session.headline(now_s), escape(session.said), escape(figures.get("verdict", ""))]
    missing = figures.get("missing topics", "the recorder is starting")
    lines += [f"[yellow]{escape(missing)}[/]"] if missing else []
    return Group(topics, *(line for line in lines if line), f"[dim]{figures.get('room', '')}   {KEYS}[/]")


def _run_hook(command: Sequence[str], event: str) -> None:
    try:
        subprocess.Popen([*command, event], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except OSError as error:
        raise ConfigError(f"--hook {command[0]} cannot be run: {error}. Check the command.") from None
