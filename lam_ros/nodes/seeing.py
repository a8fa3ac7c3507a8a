"""Looks at a tick's first frames on threads of their own, while its last frame is still on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lam_ros.errors import LamError


@dataclass(frozen=True)
class Seen:
    """A camera's frame, uint8 (H, W, 3) RGB, and its features (D,)."""

    image: np.ndarray
    features: np.ndarray


# What looking at a frame gives: why it cannot be read is a value, since a helper has nobody to raise it to.
Found = Seen | LamError


class Frame:
    """A camera's frame that is looked at once: by a helper that has begun, else by who asks for it.

    Args:
        look: how.
    """

    def __init__(self, look: Callable[[], Found]) -> None:
        self._look = look
        self._begun: Future[Found] | None = None
        self._found: Found | None = None

    @property
    def is_left(self) -> bool:
        """Whether nobody has begun to look at it."""
        return self._begun is None and self._found is None

    @property
    def error(self) -> LamError | None:
        """Why it cannot be read, if that is known by now."""
        if self._found is None and self._begun is not None and self._begun.done():
            self._found = self._begun.result()
        return self._found if isinstance(self._found, LamError) else None

    def begin(self, helpers: ThreadPoolExecutor) -> Future[Found]:
        self._begun = helpers.submit(self._look)
        return self._begun

    def found(self) -> Found:
        """What is seen on it, or why it cannot be read."""
        if self._found is None:  # two ticks of a clock may share a frame
            if self._begun is None or self._begun.cancel():  # a helper that could not run yet gives it back
                self._found = self._look()
            else:
                self._found = self._begun.result()
        return self._found


class Helpers:
    """Threads that begin to look at frames. One that is busy is given no more, so that none wait where frames come
    faster than they can be looked at: of those the newest counts, and the assembler keeps only that.

    Args:
        count: of threads; none for a single camera, whose frame completes its tick.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(max(1, count), "cnn")
        self._idle = threading.Semaphore(count)

    def begin(self, frame: Frame) -> None:
        """Have a frame looked at, if a thread is idle."""
        if self._idle.acquire(blocking=False):
            frame.begin(self._pool).add_done_callback(lambda ended: self._idle.release())

    def see(self, frames: Mapping[str, Frame]) -> dict[str, Found]:
        """Each camera's: who asks looks at one that nobody has begun, while the helpers look at the others."""
        left = [frame for frame in frames.values() if frame.is_left]
        for frame in left[1:]:
            self.begin(frame)
        for frame in left:
            if frame.is_left:
                frame.found()
        return {camera: frame.found() for camera, frame in frames.items()}

    def close(self) -> None:
        self._pool.shutdown()
