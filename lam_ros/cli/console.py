"""What the commands share: one console, progress bars, errors without tracebacks, an isolated ROS domain."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lam_ros.bringup import NAMESPACE, PARTITION
from lam_ros.errors import BringUpError, EpisodeError, LamError

T = TypeVar("T")
console = Console()
Robot = Annotated[str, typer.Option(help="Robot YAML, or the name of a robot that lam_ros ships.")]
DEFAULT_ROBOT = "desk_arm"
DOMAIN = "LAM_ROS_DOMAIN_ID"  # the ROS domain of simulations that a command starts
DOMAINS = range(101, 50, -1)  # whose ports Linux gives to nobody else; robots are mostly found in lower ones
SimulatorName = Annotated[
    Literal["embedded", "gazebo"], typer.Option("--simulator", help="Which simulator; gazebo must be installed.")
]


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A progress display for long work."""
    columns = (
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as display:
        yield display


def track(items: Sequence[T], description: str) -> Iterator[T]:
    """The items, one after the other, behind a progress bar."""
    with progress() as display:
        bar = display.add_task(description, total=len(items), note="")
        for item in items:
            yield item
            display.advance(bar)


@contextlib.contextmanager
def friendly_errors(after_ctrl_c: str = "run the same command again to go on") -> Iterator[None]:
    """A LamError becomes one sentence and exit code 1; Ctrl-C becomes exit code 130."""
    try:
        yield
    except LamError as error:
        console.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            console.print("[bold red]error[/] the disk is full; free some space, then run the same command again.")
            raise SystemExit(1) from None
        if error.filename is None:  # not of a file: a fault of ours, whose place must be seen
            raise
        console.print(f"[bold red]error[/] {escape(f'{error.filename}: {error.strerror}')}.", soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        console.print(f"interrupted; {after_ctrl_c}.")
        raise SystemExit(130) from None


@contextlib.contextmanager
def needs_interop() -> Iterator[None]:
    """A package of another tool's format that is missing becomes one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise EpisodeError(f"{error.name} is not installed; `pip install 'lam_ros[interop]'`.") from None


@contextlib.contextmanager
def isolated_ros() -> Iterator[None]:
    """Keep simulated traffic on this machine and away from robots and other simulators: localhost only, in a domain
    and a partition of Gazebo's transport that are this process' own.

    Not in the user's ROS_DOMAIN_ID: a real arm may listen there. LAM_ROS_DOMAIN_ID asks for another, to look on.
    """
    before = dict(os.environ)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_LOCALHOST_ONLY"] = "1" if os.environ.get("ROS_DISTRO") in ("humble", "iron") else "0"
    os.environ.pop(NAMESPACE, None)
    for name in PARTITION:
        os.environ.setdefault(name, f"lam_{os.getpid()}")
    try:
        with _own_domain() as number:
            os.environ["ROS_DOMAIN_ID"] = os.environ.get(DOMAIN) or str(number)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _own_domain() -> Iterator[int]:
    """A ROS domain that no other command of lam_ros on this machine uses meanwhile."""
    for number in (n for n in DOMAINS if str(n) != os.environ.get("ROS_DOMAIN_ID")):
        with contextlib.ExitStack() as held:
            try:
                file = held.enter_context((Path(tempfile.gettempdir()) / f"lam_ros_domain_{number}").open("w"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # taken, perhaps by another user
                continue
            yield number
            return
    raise BringUpError(f"{len(DOMAINS)} simulations run here already; end one.")


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[Callable[[str, str], None]]:
    """A log function for a Supervisor that appends to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:

        def log(name: str, line: str) -> None:
            file.write(f"[{name}] {line}\n")
            file.flush()

        yield log


def print_log(name: str, line: str) -> None:
    """A log function for a Supervisor that prints with a prefix."""
    console.print(f"[cyan]{name:>10}[/] {escape(line)}", highlight=False, soft_wrap=True)


class TrainingBars:
    """Progress bars for reading episodes and for the two stages of training."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._bars: dict[str, TaskID] = {}

    def _bar(self, name: str, total: int) -> TaskID:
        if name not in self._bars:
            self._bars[name] = self._display.add_task(name, total=total, note="")
        return self._bars[name]

    def loaded(self, done: int, total: int) -> None:
        self._display.update(self._bar("reading episodes", total), completed=done)

    def step(self, stage: str, done: int, total: int, loss: float) -> None:
        self._display.update(self._bar(f"training {stage}", total), completed=done, note=f"loss {loss:.3f}")
