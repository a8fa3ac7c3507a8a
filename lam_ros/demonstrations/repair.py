"""What a crash left: every message that can be read is sealed again, and what cannot be read is set aside.

episode_000012.partial ──▶ .set_aside (reason.txt) ──▶ a new .partial ──▶ episode_000012, sealed, its verdict WARN
                                    ▲ stays here when nothing can be read, or the disk does not take the copy
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader

from lam_ros.config import from_mapping
from lam_ros.demonstrations.episode import ABOUT, EpisodeWriter, Topic
from lam_ros.errors import EpisodeError


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
    """Seal what can be read of a leftover as an episode of the same number; the leftover goes once that is done.

    Args:
        leftover: a folder ``episode_….partial`` or ``episode_….set_aside``.

    Raises:
        EpisodeError: the folder cannot be renamed.
    """
    aside = leftover.with_suffix(".set_aside")
    try:
        if leftover.suffix == ".partial" and aside.exists():
            shutil.rmtree(leftover)  # a repair that was itself interrupted: the original is the one set aside
        elif leftover != aside:
            leftover.rename(aside)
        sealed, messages = _seal_again(aside)
    except EpisodeError as error:
        (aside / "reason.txt").write_text(f"{error}\n")
        return Recovered(aside, False, str(error))
    except OSError as error:
        raise EpisodeError(f"{leftover} cannot be repaired: {error}. Check its permissions and the disk.") from None
    shutil.rmtree(aside)
    return Recovered(
        sealed, True, f"recording ended before it was sealed; its {messages} readable messages are sealed."
    )


def _seal_again(aside: Path) -> tuple[Path, int]:
    """The sealed folder and the count of its messages.

    Raises:
        EpisodeError: nothing can be read, or the copy cannot be written; no copy is left then.
    """
    bag = next(aside.glob("*.mcap"), None)
    writer: EpisodeWriter | None = None
    try:
        for about, topic, message in _readable(bag) if bag else ():
            if writer is None:
                writer = EpisodeWriter(aside.parent, about["robot"], about["robot_digest"], about["task"], aside.stem)
            writer.add_topic(topic)
            writer.write(topic.name, message.data, message.log_time)
        if writer is None:
            raise EpisodeError("recording ended before it was sealed, and no message can be read.")
        messages = writer.messages
        finding = f"recording ended before it was sealed; {messages} messages could be read."
        return writer.seal("unmarked", findings=(finding,)), messages
    except EpisodeError:
        if writer is not None:
            writer.discard()
        raise


def _readable(bag: Path) -> Iterator[tuple[dict[str, str], Topic, Message]]:
    """(about the recording, topic, message) of a bag, up to the first damage."""
    about: dict[str, str] | None = None
    topics: dict[int, Topic] = {}
    with bag.open("rb") as file:
        records = iter(StreamReader(file, validate_crcs=True).records)
        while True:
            try:
                record: Any = next(records, None)
                if isinstance(record, Metadata) and record.name == ABOUT:
                    about = {key: record.metadata[key] for key in ("robot", "robot_digest", "task")}
                elif isinstance(record, Channel):
                    topics[record.id] = from_mapping(Topic, json.loads(record.metadata[ABOUT]))
            except Exception:  # damaged bytes may fail anywhere: in zstd, in struct, in mcap
                return
            if record is None:
                return
            if isinstance(record, Message) and about is not None and record.channel_id in topics:
                yield about, topics[record.channel_id], record


def _is_being_written(bag: Path) -> bool:
    with bag.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
