"""Closes a bag whose writer died: what is torn is cut off, and the index and footer that readers need are written.

magic header [chunk, message indexes]... metadata | torn bytes        as the crash left it
magic header [chunk, message indexes]... metadata | data end, summary, footer, magic
                                                  ^ the end of the last whole record

Until the footer is there, the same bag can be closed again: what is read ends at "data end". The format is that of
https://mcap.dev/spec.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Message,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
)
from mcap.stream_reader import StreamReader, breakup_chunk

from lam_ros.config import from_mapping
from lam_ros.demonstrations.episode import ABOUT, LARGEST_CHUNK, EpisodeRecord, Topic, thresholds_in

MAGIC = b"\x89MCAP0\r\n"


@dataclass
class _Found:
    """What the whole records of a bag say, and where the last of them ends."""

    end: int = 0
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    chunks: list[ChunkIndex] = field(default_factory=list)
    metadata: list[MetadataIndex] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    record: EpisodeRecord | None = None

    def take(self, record: Any, start: int, end: int, folder: Path) -> None:
        """Note one record of the bag's data, from byte ``start`` to ``end``; raises whatever damage makes of it."""
        if isinstance(record, Metadata):
            self.metadata.append(MetadataIndex(offset=start, length=end - start, name=record.name))
            if record.name == ABOUT and self.record is None:
                about = record.metadata
                known = about["robot"], about["robot_digest"], about["task"]
                self.record = EpisodeRecord(folder, *known, thresholds_in(about))
        elif isinstance(record, Chunk):
            if record.uncompressed_size > LARGEST_CHUNK:
                raise ValueError("no recording has chunks so large")
            parts = breakup_chunk(record, validate_crc=True)
            for part in parts:
                self._take_part(part)
            self.chunks.append(_index(record, start, end))
        elif isinstance(record, MessageIndex) and self.chunks:
            chunk = self.chunks[-1]
            chunk.message_index_offsets[record.channel_id] = start
            chunk.message_index_length += end - start
        elif isinstance(record, (Schema, Channel)):
            self._take_part(record)
        self.end = end

    def _take_part(self, part: Any) -> None:
        if isinstance(part, Schema):
            self.schemas[part.id] = part
        elif isinstance(part, Channel):
            topic = from_mapping(Topic, json.loads(part.metadata[ABOUT]))
            if part.id not in self.channels and self.record is not None:
                self.record.know(topic, part.id)
            self.channels[part.id] = part
        elif isinstance(part, Message) and self.record is not None:
            self.record.note(self.channels[part.channel_id].topic, part.data, part.log_time)
            self.counts[part.channel_id] = self.counts.get(part.channel_id, 0) + 1


def _index(chunk: Chunk, start: int, end: int) -> ChunkIndex:
    return ChunkIndex(
        chunk_length=end - start,
        chunk_start_offset=start,
        compression=chunk.compression,
        compressed_size=len(chunk.data),
        message_end_time=chunk.message_end_time,
        message_index_length=0,
        message_index_offsets={},
        message_start_time=chunk.message_start_time,
        uncompressed_size=chunk.uncompressed_size,
    )


def close_bag(bag: Path) -> EpisodeRecord | None:
    """Close a bag in place; what its messages were, or None where none can be read and the bag is left as it is.

    Raises:
        OSError: the disk does not take the index; the bag can still be closed later.
    """
    found = _read(bag)
    if found.record is None or not found.counts:
        return None
    with bag.open("r+b") as file:
        file.truncate(found.end)
        file.seek(found.end)
        file.write(_ending(found))
        file.flush()
        os.fsync(file.fileno())
    return found.record


def _read(bag: Path) -> _Found:
    found = _Found()
    with bag.open("rb") as file:
        counted = _Counted(file)
        records = iter(StreamReader(counted, emit_chunks=True).records)  # type: ignore[arg-type]
        start = len(MAGIC)
        while True:
            try:
                record = next(records, None)
                if record is None or isinstance(record, (DataEnd, Footer)):
                    return found
                found.take(record, start, counted.position, bag.parent)
            except Exception:  # damaged bytes may fail anywhere: in zstd, in struct, in mcap
                return found
            start = counted.position


class _Counted:
    """A file that knows how far it has been read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        return data


def _ending(found: _Found) -> bytes:
    """Everything after the last whole record."""
    data_end = RecordBuilder()
    DataEnd(data_section_crc=0).write(data_end)  # 0: none was computed
    head = data_end.end()
    summary_start = found.end + len(head)
    summary = RecordBuilder()
    statistics = Statistics(
        attachment_count=0,
        channel_count=len(found.channels),
        channel_message_counts=found.counts,
        chunk_count=len(found.chunks),
        message_count=sum(found.counts.values()),
        message_end_time=max(chunk.message_end_time for chunk in found.chunks),
        message_start_time=min(chunk.message_start_time for chunk in found.chunks),
        metadata_count=len(found.metadata),
        schema_count=len(found.schemas),
    )
    for record in (*found.schemas.values(), *found.channels.values(), statistics, *found.chunks, *found.metadata):
        record.write(summary)
    body = summary.end()
    crc = zlib.crc32(struct.pack("<BQQQ", Opcode.FOOTER, 20, summary_start, 0), zlib.crc32(body))
    foot = RecordBuilder()
    Footer(summary_start=summary_start, summary_offset_start=0, summary_crc=crc).write(foot)
    return head + body + foot.end() + MAGIC
