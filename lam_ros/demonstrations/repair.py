"""What a crash left: every message that can be read is sealed again, and what cannot be read is set aside.

episode_000012.partial ──▶ its bag closed in place, torn end and all ──▶ episode_000012, sealed, its verdict WARN
            └── nothing can be read ──▶ episode_000012.set_aside (reason.txt)

No copy is made: a disk that a recording has filled could not take one.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path

from lam_ros.demonstrations.closing import close_bag
from lam_ros.errors import EpisodeError

REASON = "reason.txt"


@dataclass(frozen=True)
class Recovered:
    """A leftover: where it is now, whether it is a sealed episode again, and a sentence for the user."""

    folder: Path
    is_sealed: bool
    sentence: str


def leftovers(dataset: Path, set_aside_too: bool = False) -> list[Path]:
    """Folders of recordings that were never sealed, without those that a recorder is writing at this moment."""
    kinds = ("partial", "set_aside") if set_aside_too else ("partial",)
    folders = sorted(folder for kind in kinds for folder in dataset.glob(f"episode_*.{kind}"))
    return [folder for folder in folders if not any(map(_is_being_written, folder.glob("*.mcap")))]


def recover(leftover: Path) -> Recovered:
    """Seal what can be read of a leftover as an episode of the same number.

    Where the disk does not even take the few kilobytes that are added, the leftover can be repaired once it does.

    Args:
        leftover: a folder ``episode_….partial`` or ``episode_….set_aside``.
    """
    try:
        partial = leftover.with_suffix(".partial")
        if leftover != partial:
            leftover.rename(partial)
            (partial / REASON).unlink(missing_ok=True)
        bag = next(partial.glob("*.mcap"), None)
        record = close_bag(bag) if bag else None
        if record is None:
            aside = partial.with_suffix(".set_aside")
            partial.rename(aside)
            reason = "recording ended before it was sealed, and no message can be read."
            (aside / REASON).write_text(f"{reason}\n")
            return Recovered(aside, False, reason)
        finding = f"recording ended before it was sealed; {record.messages} messages could be read."
        sealed = record.seal_closed("unmarked", findings=(finding,))
    except (OSError, EpisodeError) as error:
        sentence = f"not repaired yet: {error} Check its permissions and the disk, then run `lam episodes repair`."
        return Recovered(leftover, False, sentence)
    return Recovered(
        sealed, True, f"recording ended before it was sealed; its {record.messages} readable messages are sealed."
    )


def _is_being_written(bag: Path) -> bool:
    try:
        with bag.open("r+b") as file:  # over NFS, who only reads gets no exclusive lock
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # repairing it says why it cannot be written
        return False
    return False
