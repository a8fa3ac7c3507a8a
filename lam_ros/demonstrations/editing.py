"""Making new sealed episodes of old ones: cut, split, copied to another dataset. The old one is only ever set aside."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lam_ros.contract import NANOSECONDS
from lam_ros.demonstrations.episode import (
    Episode,
    EpisodeWriter,
    change_manifest,
    open_episode,
    read_topics,
    set_replaced,
    thresholds_of,
)
from lam_ros.errors import EpisodeError, LamError

Transform = Callable[[str, str, bytes], bytes | None]  # topic, type, message -> what to write instead, None for nothing


@dataclass(frozen=True)
class Span:
    """From when to when, in s since the first message of an episode; ``end_s`` None means its end."""

    start_s: float = 0.0
    end_s: float | None = None

    def __str__(self) -> str:
        return f"from {self.start_s:.2f} s to {'its end' if self.end_s is None else f'{self.end_s:.2f} s'}"


def rewrite(
    episode: Episode, dataset: Path, origin: str, span: Span | None = None, transform: Transform | None = None
) -> Episode:
    """Write the messages of an episode, or a part of it, as a new one.

    Messages that latecomers must hear (``/tf_static``, ``lam/takeover``) are kept from before the span too.

    Args:
        dataset: where the new episode goes.
        origin: one sentence for the manifest: what was done to which episode.
        transform: what to write instead of each message.

    Raises:
        EpisodeError: it cannot be read or written, or the span is empty; nothing is left behind then.
    """
    span = span or Span()
    topics = read_topics(episode.bag)
    manifest = episode.manifest
    thresholds = thresholds_of(episode.bag)
    writer = EpisodeWriter(dataset, manifest.robot, manifest.robot_digest, manifest.task, thresholds=thresholds)
    with writer.whole_or_nothing():
        for topic in topics.values():
            writer.add_topic(topic)
        latched = {name for name, topic in topics.items() if topic.transient_local}
        for name, msgtype, data, received_ns in _within(episode, span, latched):
            written = transform(name, msgtype, data) if transform else data
            if written is not None:
                writer.write(name, written, received_ns)
        if not writer.messages:
            raise EpisodeError(f"{episode.folder} has no message in the span {span}.")
        kept = writer.reports()
        for name, report in manifest.topics.items():
            if report.lost and name in kept:  # a part's share, rather too many than too few
                share = kept[name].count / report.count if report.count else 1.0
                writer.count_lost(name, math.ceil(report.lost * share))
        required = tuple(name for name, report in manifest.topics.items() if report.expected_hz and report.count)
        sealed = open_episode(writer.seal(manifest.outcome, required))
    return change_manifest(sealed, origin=origin, tags=manifest.tags, anonymised=manifest.anonymised)


def _within(episode: Episode, span: Span, latched: set[str]) -> Iterator[tuple[str, str, bytes, int]]:
    first_ns: int | None = None
    before: dict[str, tuple[str, str, bytes]] = {}
    for name, msgtype, data, received_ns in episode.messages():
        first_ns = received_ns if first_ns is None else first_ns
        start_ns = first_ns + round(span.start_s * NANOSECONDS)
        if received_ns < start_ns:
            if name in latched:
                before[name] = (name, msgtype, data)
            continue
        if span.end_s is not None and received_ns > first_ns + round(span.end_s * NANOSECONDS):
            return
        for held in before.values():
            yield (*held, start_ns)
        before.clear()
        yield name, msgtype, data, received_ns


def trim(episode: Episode, span: Span) -> Episode:
    """Cut an episode to a span; the whole one is set aside as ``….replaced``."""
    end = "its end" if span.end_s is None else f"{span.end_s:.2f} s"
    trimmed = rewrite(
        episode, episode.folder.parent, f"{episode.manifest.name}, from {span.start_s:.2f} s to {end}", span
    )
    set_replaced(episode.folder)
    return trimmed


def split(episode: Episode, at_s: Sequence[float]) -> list[Episode]:
    """Cut an episode into several, at some times (s); the whole one is set aside as ``….replaced``."""
    cuts = sorted(at_s)
    spans = [Span(start, end) for start, end in zip([0.0, *cuts], [*cuts, None], strict=True)]
    parts: list[Episode] = []
    try:
        for span in spans:
            parts.append(rewrite(episode, episode.folder.parent, f"{episode.manifest.name}, {span}", span))
    except LamError:
        for part in parts:  # else training would see them beside the whole
            shutil.rmtree(part.folder)
        raise
    set_replaced(episode.folder)
    return parts


def copy(episode: Episode, dataset: Path, transform: Transform | None = None) -> Episode:
    """Copy an episode into another dataset, numbered anew; see ``rewrite`` for ``transform``."""
    origin = f"copied from {episode.folder.parent.name}/{episode.manifest.name}"
    copied = rewrite(episode, dataset, origin, transform=transform)
    return change_manifest(copied, verdict=episode.manifest.verdict)


def check_one_robot(episodes: Sequence[Episode]) -> None:
    """Raises EpisodeError where episodes were recorded with different robots."""
    robots = sorted({episode.manifest.robot for episode in episodes})
    if len(robots) > 1:
        raise EpisodeError(f"the episodes are of different robots: {', '.join(robots)}; merge those of one robot.")


def tag(episode: Episode, add: Sequence[str] = (), remove: Sequence[str] = (), outcome: str = "") -> Episode:
    """Change an episode's tags and outcome."""
    tags = tuple(sorted({*episode.manifest.tags, *add} - set(remove)))
    changed = change_manifest(episode, tags=tags)
    return change_manifest(changed, outcome=outcome) if outcome else changed
