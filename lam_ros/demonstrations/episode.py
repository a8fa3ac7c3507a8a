"""Sealed episodes: written in `.partial`, closed, verified, and only then renamed. Nothing is deleted in silence.

<dataset>/episode_000012/  episode_000012_0.mcap   the messages as they came off the wire
                           metadata.yaml           for `ros2 bag` and Foxglove
                           episode.json            the manifest
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import yaml
import zstandard
from mcap.reader import make_reader
from mcap.records import Channel, Message
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from lam_ros.config import RobotConfig, VerdictConfig, from_mapping
from lam_ros.demonstrations.verdict import TopicMeter, TopicReport, Verdict, judge, report_all
from lam_ros.demonstrations.wire import begins_with_header, definition, header_frame_id, header_stamp_ns
from lam_ros.errors import ConfigError, EpisodeError

SCHEMA = "lam_ros.episode/1"
MANIFEST = "episode.json"
ABOUT = "lam_ros"  # the bag's metadata record that says what is recorded: without it no crash could be repaired
PICTURE_BYTES = 1 << 16  # so many bytes of an image tell whether it is the picture before
_NAME = re.compile(r"episode_(\d{6,})")
LARGEST_CHUNK = 256 << 20  # bytes, unpacked
_CHUNK_SIZE_AT, _ZSTD_HEADER = 1 + 8 + 8 + 8, 18  # where a chunk says its size; the longest header of what it packs
Outcome = Literal["success", "failure", "unmarked"]


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors: not everybody who reads metadata.yaml knows them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class Manifest:
    """episode.json: what an episode is and how well it was recorded.

    Attributes:
        schema: version of this file's format.
        name: the episode's folder.
        task: what was demonstrated, in words.
        outcome: success, failure or unmarked.
        robot, robot_digest: the robot YAML it was recorded with.
        drivers: messages on ``lam/command`` by who drove (teleop, policy, hold).
        topics: what arrived on each.
        verdict: PASS, WARN or FAIL, with sentences.
        sha256: file name -> hash.
        origin: what was done to which episode, where this one was made of another.
        tags: the user's own words.
        anonymised: how people were made unrecognisable; empty where they were not.
    """

    schema: str
    name: str
    task: str
    outcome: Outcome
    robot: str
    robot_digest: str
    drivers: dict[str, int]
    topics: dict[str, TopicReport]
    verdict: Verdict
    sha256: dict[str, str]
    origin: str = ""
    tags: tuple[str, ...] = ()
    anonymised: str = ""


@dataclass(frozen=True)
class Topic:
    """One recorded topic.

    Attributes:
        msgtype: as ``sensor_msgs/msg/Image``.
        expected_hz: its rate, None where nothing is expected.
        reliable, transient_local, depth: the publisher's QoS.
        definition, type_hash: of a type that is not standard; those of standard types are known.
    """

    name: str
    msgtype: str
    expected_hz: float | None = None
    reliable: bool = True
    transient_local: bool = False
    depth: int = 10
    definition: str = ""
    type_hash: str = ""

    @property
    def described(self) -> tuple[str, str]:
        """The text of the message definition and its RIHS01 hash; empty where nobody knows them."""
        text, type_hash = definition(self.msgtype)
        return text or self.definition, type_hash or self.type_hash

    def qos_yaml(self) -> str:
        forever = {"sec": 9223372036, "nsec": 854775807}
        profile = {
            "history": 1,  # keep last
            "depth": self.depth,
            "reliability": 1 if self.reliable else 2,
            "durability": 1 if self.transient_local else 2,
            "deadline": forever,
            "lifespan": forever,
            "liveliness": 1,  # automatic
            "liveliness_lease_duration": forever,
            "avoid_ros_namespace_conventions": False,
        }
        return yaml.dump([profile], Dumper=_PlainDumper, sort_keys=False)


@dataclass(frozen=True)
class Storage:
    """How an episode is stored: compressed or not, the size of a chunk, and how often it is flushed (s).

    What is not flushed is lost when the recorder is killed.
    """

    compress: bool = True
    chunk_bytes: int = 1 << 20
    flush_s: float = 0.5


@dataclass
class _Channel:
    topic: Topic
    id: int
    meter: TopicMeter
    is_stamped: bool
    is_image: bool
    sequence: int = field(default=0)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _picture(data: bytes) -> int:
    """A hash of the picture in a serialized image, without its header."""
    odd_stride = len(data) // PICTURE_BYTES | 1  # an even one would see every row alike
    return zlib.crc32(data[64::odd_stride])


def sha256_of(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def _json(manifest: Manifest) -> str:
    return json.dumps(dataclasses.asdict(manifest), indent=2)


def next_episode_name(dataset: Path) -> str:
    """The name after the highest number on disk, whether sealed, set aside or in progress."""
    numbers = [int(m.group(1)) for entry in dataset.glob("episode_*") if (m := _NAME.match(entry.name))]
    return f"episode_{max(numbers, default=-1) + 1:06d}"


def is_sealed_name(name: str) -> bool:
    """Whether a folder of this name holds a sealed episode: not one that is being written, or was replaced."""
    return bool(_NAME.fullmatch(name))


def _number(name: str) -> int:
    """The number in a sealed episode's name."""
    return int(name.split("_")[1])


def sealed_folders(dataset: Path) -> list[Path]:
    """The folders of sealed episodes, by number; none where there is no dataset yet."""
    folders = [entry for entry in dataset.glob("episode_*") if is_sealed_name(entry.name) and entry.is_dir()]
    return sorted(folders, key=lambda folder: _number(folder.name))


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.hasher.update(data)
        return data


class EpisodeRecord:
    """What is known of an episode while its bag is written or repaired, and how it is sealed.

    Args:
        folder: its ``.partial`` folder, named after the episode.
        robot, robot_digest: name and digest of the robot YAML.
        task: what is demonstrated, in words.
        thresholds: of the verdict.
    """

    def __init__(
        self, folder: Path, robot: str, robot_digest: str, task: str, thresholds: VerdictConfig | None = None
    ) -> None:
        self.folder = folder
        self.name = folder.stem
        self._robot, self._robot_digest, self._task = robot, robot_digest, task
        self._thresholds = thresholds
        self._channels: dict[str, _Channel] = {}
        self._drivers: dict[str, int] = {}
        self._start_ns: int | None = None
        self._end_ns = 0

    @property
    def bag(self) -> Path:
        return self.folder / f"{self.name}_0.mcap"

    def know(self, topic: Topic, channel: int) -> None:
        """Note a topic and its channel in the bag."""
        text, _ = topic.described
        is_image = topic.msgtype in ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
        meter = TopicMeter(topic.expected_hz)
        self._channels[topic.name] = _Channel(topic, channel, meter, begins_with_header(text), is_image)

    def note(self, topic: str, data: bytes, received_ns: int) -> None:
        """Note a serialized message that the bag holds."""
        channel = self._channels[topic]
        stamp = header_stamp_ns(data) if channel.is_stamped else 0
        channel.meter.add(stamp, received_ns, _picture(data) if channel.is_image else None)
        if topic.endswith("lam/command"):
            driver = header_frame_id(data)
            self._drivers[driver] = self._drivers.get(driver, 0) + 1
        self._start_ns = received_ns if self._start_ns is None else self._start_ns
        self._end_ns = max(self._end_ns, received_ns)

    def count_lost(self, topic: str, messages: int) -> None:
        """Note messages of a topic that were lost before they could be written."""
        self._channels[topic].meter.lost += messages

    def reports(self, now_ns: int | None = None) -> dict[str, TopicReport]:
        """What has been written so far, topic by topic; ``now_ns`` by the clock of arrivals."""
        return report_all({name: channel.meter for name, channel in dict(self._channels).items()}, now_ns)

    @property
    def messages(self) -> int:
        return sum(channel.meter.count for channel in self._channels.values())

    def seal_closed(
        self,
        outcome: Outcome,
        required: tuple[str, ...] = (),
        findings: tuple[str, ...] = (),
        ended_ns: int | None = None,
    ) -> Path:
        """Reopen and verify the closed bag, write metadata and manifest, and rename; see ``EpisodeWriter.seal``."""
        try:
            bag_hash = self._read_back(self.bag)
            (self.folder / "metadata.yaml").write_text(self._metadata(self.bag.name))
            reports = self.reports(ended_ns)
            manifest = Manifest(
                SCHEMA,
                self.name,
                self._task,
                outcome,
                self._robot,
                self._robot_digest,
                self._drivers,
                reports,
                judge(reports, required, findings, self._thresholds),
                {self.bag.name: bag_hash, "metadata.yaml": sha256_of(self.folder / "metadata.yaml")},
            )
            (self.folder / MANIFEST).write_text(_json(manifest))
            for file in self.folder.iterdir():
                _fsync(file)
            _fsync(self.folder)
            sealed = self.folder.with_suffix("")
            self.folder.rename(sealed)
            _fsync(sealed.parent)
        except OSError as error:
            raise EpisodeError(f"{self.folder} could not be sealed: {error}. It is kept as it is.") from None
        return sealed

    def _read_back(self, bag: Path) -> str:
        """The bag's SHA-256, read once more from its first byte to its last; raises EpisodeError where it is wrong."""
        read: dict[str, int] = {}
        topics: dict[int, str] = {}
        with bag.open("rb") as file:
            hashing = _Hashing(file)
            try:
                for record in StreamReader(hashing, validate_crcs=True).records:  # type: ignore[arg-type]
                    if isinstance(record, Channel):
                        topics[record.id] = record.topic
                    elif isinstance(record, Message):
                        topic = topics[record.channel_id]
                        read[topic] = read.get(topic, 0) + 1
            except Exception as error:  # a disk that lies may lie anywhere
                raise EpisodeError(f"{bag} cannot be read back: {error!r}; it is kept as it is.") from None
            hashing.read(-1)
        written = {name: c.meter.count for name, c in self._channels.items() if c.meter.count}
        if read != written:
            raise EpisodeError(f"{bag} reads back {read} messages, but {written} were written; it is kept as it is.")
        return hashing.hasher.hexdigest()

    def _metadata(self, bag: str) -> str:
        """metadata.yaml in version 8, which every rosbag2 from Humble on reads."""
        start = self._start_ns or 0
        span = {"nanoseconds": max(0, self._end_ns - start)}
        begin = {"nanoseconds_since_epoch": start}
        topics = [
            {
                "topic_metadata": {
                    "name": name,
                    "type": channel.topic.msgtype,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": channel.topic.qos_yaml(),
                    "type_description_hash": channel.topic.described[1],
                },
                "message_count": channel.meter.count,
            }
            for name, channel in self._channels.items()
        ]
        information = {
            "version": 8,
            "storage_identifier": "mcap",
            "duration": span,
            "starting_time": begin,
            "message_count": self.messages,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [bag],
            "files": [
                {"path": bag, "starting_time": begin, "duration": span, "message_count": self.messages},
            ],
            "custom_data": None,
            "ros_distro": "",
        }
        return yaml.dump({"rosbag2_bagfile_information": information}, Dumper=_PlainDumper, sort_keys=False)


class EpisodeWriter(EpisodeRecord):
    """Writes one episode into its `.partial` folder.

    Args:
        dataset: the folder of episodes; made if needed.
        robot, robot_digest: name and digest of the robot YAML.
        task: what is demonstrated, in words.
        name: of the episode; by default the next one.
        storage: how it is stored.
        thresholds: of the verdict.

    Raises:
        EpisodeError: the folder cannot be made.
    """

    def __init__(
        self,
        dataset: Path,
        robot: str,
        robot_digest: str,
        task: str,
        name: str | None = None,
        storage: Storage | None = None,
        thresholds: VerdictConfig | None = None,
    ) -> None:
        self._storage = storage or Storage()
        self._lock = threading.Lock()
        self._schemas: dict[str, int] = {}
        try:
            dataset.mkdir(parents=True, exist_ok=True)
            folder = dataset / f"{name or next_episode_name(dataset)}.partial"
            super().__init__(folder, robot, robot_digest, task, thresholds)
            folder.mkdir()
            self._file = self.bag.open("wb")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever repairs must leave it alone
        except OSError as error:
            raise EpisodeError(
                f"{dataset} cannot take a new episode: {error}. Check its path and permissions."
            ) from None
        compression = CompressionType.ZSTD if self._storage.compress else CompressionType.NONE
        self._writer = Writer(self._file, chunk_size=self._storage.chunk_bytes, compression=compression)
        about = {"robot": robot, "robot_digest": robot_digest, "task": task}
        if thresholds is not None:
            about["verdict"] = json.dumps(dataclasses.asdict(thresholds))  # for whoever repairs or cuts it
        try:
            self._writer.start(profile="ros2", library="lam_ros")
            self._writer.add_metadata(ABOUT, about)
            self._writer.flush()
        except OSError as error:
            self.abandon()
            raise EpisodeError(f"{self.folder} cannot be written: {error}. Free some space.") from None
        self._began_s = self._flushed_s = time.monotonic()

    @classmethod
    def of(cls, robot: RobotConfig, dataset: Path, task: str) -> EpisodeWriter:
        """A writer as the robot YAML wants it."""
        settings = robot.recorder
        storage = Storage(robot.compresses, round(settings.chunk_mb * 1e6), settings.flush_s)
        return cls(dataset, robot.name, robot.digest, task, storage=storage, thresholds=settings.verdict)

    def add_topic(self, topic: Topic) -> None:
        """Announce a topic before its first message; another thread may be writing."""
        if topic.name in self._channels:
            return
        with self._lock:
            self._register(topic)

    def _register(self, topic: Topic) -> None:
        text, _ = topic.described
        if topic.msgtype not in self._schemas:
            self._schemas[topic.msgtype] = self._writer.register_schema(topic.msgtype, "ros2msg", text.encode())
        channel = self._writer.register_channel(
            topic.name,
            "cdr",
            self._schemas[topic.msgtype],
            {"offered_qos_profiles": topic.qos_yaml(), ABOUT: json.dumps(dataclasses.asdict(topic))},
        )
        self.know(topic, channel)

    def write(self, topic: str, data: bytes, received_ns: int) -> None:
        """Append one serialized message.

        Raises:
            EpisodeError: the disk does not take it; what was written before stays readable.
        """
        channel = self._channels[topic]
        stamp = header_stamp_ns(data) if channel.is_stamped else 0
        channel.sequence += 1
        try:
            with self._lock:
                self._writer.add_message(channel.id, received_ns, data, stamp or received_ns, channel.sequence)
                if time.monotonic() - self._flushed_s > self._storage.flush_s:
                    self._writer.flush()
                    self._flushed_s = time.monotonic()
        except OSError as error:
            raise EpisodeError(f"{self.folder} cannot be written: {error}. Free some space and record again.") from None
        self.note(topic, data, received_ns)

    @property
    def age_s(self) -> float:
        """How long ago the take began."""
        return time.monotonic() - self._began_s

    def seal(
        self,
        outcome: Outcome,
        required: tuple[str, ...] = (),
        findings: tuple[str, ...] = (),
        ended_ns: int | None = None,
    ) -> Path:
        """Close, flush to disk, reopen and verify, write the manifest and rename.

        Args:
            outcome: as the demonstrator marked it.
            required: topics without which an episode is worthless.
            findings: what else is known against it; the verdict is then WARN at best.
            ended_ns: when the take ended, by the clock of arrivals; by default with its last message.

        Returns:
            The sealed folder.

        Raises:
            EpisodeError: the disk fails or what was read back is not what was written; the `.partial` folder stays.
        """
        try:
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise EpisodeError(f"{self.folder} could not be sealed: {error}. It is kept as it is.") from None
        return self.seal_closed(outcome, required, findings, ended_ns)

    def abandon(self) -> None:
        """Let go of an episode that cannot be sealed; its `.partial` folder stays, for ``repair``."""
        with contextlib.suppress(OSError):  # what is still buffered may not fit on the disk
            self._file.close()

    def discard(self) -> None:
        """Delete the unfinished episode: only when the user says so."""
        self.abandon()
        with contextlib.suppress(FileNotFoundError):  # interrupted just as it was sealed
            shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """Write and seal within this: whatever comes between, also Ctrl-C, leaves nothing. What is half written would
        be repaired, and learned from."""
        try:
            yield
        except BaseException:
            self.discard()
            raise


def thresholds_in(about: Mapping[str, str]) -> VerdictConfig | None:
    """By what an episode was judged, as its bag says; None where it does not, or not in this version's words."""
    try:
        return from_mapping(VerdictConfig, json.loads(about["verdict"]))
    except (KeyError, ValueError, RecursionError, ConfigError):
        return None


def thresholds_of(bag: Path) -> VerdictConfig | None:
    """See ``thresholds_in``; raises EpisodeError where the bag is damaged."""
    try:
        with bag.open("rb") as file:
            about = next((data.metadata for data in make_reader(file).iter_metadata() if data.name == ABOUT), {})
        return thresholds_in(about)
    except Exception as error:  # damaged bytes may fail anywhere
        raise EpisodeError(f"{bag} cannot be read: {error!r}. Try `lam episodes verify`.") from None


def _check_chunks(file: IO[bytes]) -> None:
    """Raises ValueError where unpacking a chunk would take more memory than any recording's: 37 KB can hold 2 GB."""
    summary = make_reader(file).get_summary()
    if summary is None:
        raise ValueError("it has no index")
    for chunk in summary.chunk_indexes:
        file.seek(chunk.chunk_start_offset + _CHUNK_SIZE_AT)
        said, _, length = struct.unpack("<QII", file.read(16))
        kind = file.read(min(length, 16))
        file.seek(8, os.SEEK_CUR)
        frame = file.read(_ZSTD_HEADER)
        holds = zstandard.frame_content_size(frame) if kind == b"zstd" else 0  # -1: no more than was said
        if kind not in (b"", b"zstd") or max(said, holds) > LARGEST_CHUNK:
            raise ValueError(f"a chunk of it unpacks to more than {LARGEST_CHUNK >> 20} MB")


def read_messages(bag: Path) -> Iterator[tuple[str, str, bytes, int]]:
    """(topic, type, serialized message, received ns) of one MCAP file, in the order received.

    Raises:
        EpisodeError: the file is missing, truncated or damaged.
    """
    try:
        with bag.open("rb") as file:
            _check_chunks(file)
            file.seek(0)
            for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
                if schema is not None:
                    yield channel.topic, schema.name, message.data, message.log_time
    except EpisodeError:
        raise
    except Exception as error:  # damaged bytes may fail anywhere: in zstd, in struct, in mcap
        raise EpisodeError(f"{bag} cannot be read: {error!r}. Try `lam episodes verify`.") from None


def read_topics(bag: Path) -> dict[str, Topic]:
    """The recorded topics of a bag that lam_ros wrote, by name.

    Raises:
        EpisodeError: the file is damaged, or not lam_ros' own.
    """
    try:
        with bag.open("rb") as file:
            summary = make_reader(file).get_summary()
            channels = summary.channels.values() if summary else ()
            topics = [from_mapping(Topic, json.loads(channel.metadata[ABOUT])) for channel in channels]
    except Exception as error:  # damaged bytes may fail anywhere
        raise EpisodeError(f"{bag} cannot be read: {error!r}. Try `lam episodes verify`.") from None
    return {topic.name: topic for topic in topics}


@dataclass(frozen=True)
class Episode:
    """A sealed episode."""

    folder: Path
    manifest: Manifest

    @property
    def bag(self) -> Path:
        return self.folder / f"{self.manifest.name}_0.mcap"

    @property
    def number(self) -> int:
        return _number(self.manifest.name)

    @property
    def is_usable(self) -> bool:
        """Whether it is successful or unmarked, and its verdict is not FAIL."""
        return self.manifest.outcome != "failure" and self.manifest.verdict.grade != "FAIL"

    def messages(self) -> Iterator[tuple[str, str, bytes, int]]:
        """See ``read_messages``."""
        return read_messages(self.bag)

    def verify(self) -> None:
        """Raises EpisodeError when a file is not what was sealed."""
        for name, expected in self.manifest.sha256.items():
            file = self.folder / Path(name).name
            if not file.is_file():
                raise EpisodeError(f"{file} is missing; restore it from a copy, or move the episode away.")
            if sha256_of(file) != expected:
                raise EpisodeError(f"{file} has changed since it was sealed; restore it from a copy.")


def open_episode(folder: Path) -> Episode:
    """Raises EpisodeError when its manifest is missing or damaged."""
    path = folder / MANIFEST
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        manifest = from_mapping(Manifest, raw)
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise EpisodeError(f"{path} cannot be read: {error}.") from None
    if manifest.schema != SCHEMA:
        raise EpisodeError(f"{path} has the schema {manifest.schema!r}; this version reads {SCHEMA!r}.")
    if manifest.name != folder.name:
        raise EpisodeError(f"{path} belongs to {manifest.name}; the folder was renamed. Give it its name back.")
    return Episode(folder, manifest)


def change_manifest(episode: Episode, **changes: Any) -> Episode:
    """Change fields of a sealed episode's manifest; the file is replaced whole, never half written.

    Raises:
        EpisodeError: the disk does not take it.
    """
    manifest = dataclasses.replace(episode.manifest, **changes)
    new = episode.folder / f"{MANIFEST}.new"
    try:
        new.write_text(_json(manifest))
        _fsync(new)
        new.replace(episode.folder / MANIFEST)
        _fsync(episode.folder)
    except OSError as error:
        raise EpisodeError(f"{episode.folder / MANIFEST} cannot be written: {error}. Check the disk.") from None
    return Episode(episode.folder, manifest)


def set_replaced(folder: Path) -> Path:
    """Take a sealed episode out of its dataset, because a newer take replaces it; its data stays.

    Raises:
        EpisodeError: the folder cannot be renamed.
    """
    replaced = folder.with_name(f"{folder.name}.replaced")
    try:
        folder.rename(replaced)
    except OSError as error:
        raise EpisodeError(f"{folder} cannot be set aside: {error}. Check its permissions.") from None
    return replaced


def list_episodes(dataset: Path) -> list[Episode]:
    """The sealed episodes of a dataset, by number.

    Raises:
        EpisodeError: the folder is not there, its episodes are a folder further down, or a manifest is damaged.
    """
    if not dataset.is_dir():
        raise EpisodeError(f"{dataset} is no folder of episodes; record some with `lam record --out {dataset}`.")
    folders = sealed_folders(dataset)
    if not folders:
        below = sorted(folder for folder in dataset.iterdir() if folder.is_dir() and sealed_folders(folder))
        if below:
            raise EpisodeError(f"{dataset} holds no episodes itself, but {below[0]} does; give that.")
    return [open_episode(folder) for folder in folders]
