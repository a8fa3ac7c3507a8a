"""Keys from a terminal, one by one, also over SSH."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType

from lam_ros.errors import ConfigError


class Keys:
    """Reads what is typed without waiting for Enter; gives the terminal back as it was.

    Args:
        purpose: what the keys are for, and what to do where there is no terminal; used in the error.

    Raises:
        ConfigError: standard input is no terminal.
    """

    def __init__(self, purpose: str) -> None:
        if not sys.stdin.isatty():
            raise ConfigError(purpose)
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)

    def pressed(self) -> str:
        """The keys since the last call; Enter is a carriage return on every terminal."""
        ready, _, _ = select.select([sys.stdin], [], [], 0.0)
        return os.read(sys.stdin.fileno(), 64).decode("utf-8", "ignore").replace("\n", "\r") if ready else ""

    def close(self) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def __enter__(self) -> Keys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
