"""How much room the disk has for demonstrations: asked before a take, and while one is recorded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lam_ros.demonstrations.episode import sealed_folders

GIGABYTE = 10**9
RECENT_TAKES = 20  # the size of the next take is the mean of so many


@dataclass(frozen=True)
class Room:
    """Room for demonstrations.

    Attributes:
        free_bytes: what the disk has free.
        usable_bytes: what of it may be recorded; 0 or less means none.
        takes: how many more takes of the usual size fit, None before the first take.
    """

    free_bytes: int
    usable_bytes: int
    takes: int | None

    def __str__(self) -> str:
        if self.takes is None:
            return f"{self.free_bytes / GIGABYTE:.1f} GB free"
        return f"{self.free_bytes / GIGABYTE:.1f} GB free, room for about {self.takes} more takes"


def room_for_takes(dataset: Path, keep_free_bytes: int) -> Room:
    """The room on the disk of ``dataset``, which need not exist yet, when ``keep_free_bytes`` must stay free."""
    existing = next(folder for folder in (dataset, *dataset.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    usable = free - keep_free_bytes
    takes = sealed_folders(dataset)[-RECENT_TAKES:]
    sizes = [sum(file.stat().st_size for file in take.iterdir()) for take in takes]
    usual = sum(sizes) / len(sizes) if sizes else 0.0
    return Room(free, usable, max(0, int(usable / usual)) if usual else None)
