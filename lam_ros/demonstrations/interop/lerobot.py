"""To and from LeRobot datasets, version 3.0: numbers in Parquet, cameras as films.

<dataset>/meta/info.json  stats.json  tasks.parquet  episodes/chunk-000/file-000.parquet
          data/chunk-000/file-000.parquet             one row a tick: state, action, timestamp, indices
          videos/observation.images.<camera>/chunk-000/file-000012.mp4        here one film an episode

Their timestamps are frame_index / fps: ticks are put onto that grid, each grid point taking the nearest tick. Format:
https://huggingface.co/docs/lerobot/lerobot-dataset-v3, checked against lerobot itself by benchmarks/interop_check.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lam_ros.config import RobotConfig
from lam_ros.contract import NANOSECONDS, Contract, absolute_topic, seconds_to_ns
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.demonstrations.episode import Episode, EpisodeWriter, Topic, change_manifest, open_episode
from lam_ros.demonstrations.interop.output import written_whole
from lam_ros.demonstrations.interop.video import CODEC, KEY_FRAME_EVERY, PIXEL_FORMAT, QUALITY, read_video, write_video
from lam_ros.demonstrations.messages import IMAGE, JOINT_STATE, image, joint_state
from lam_ros.errors import EpisodeError, LamError

VERSION = "v3.0"
CHUNK = 1000  # files a folder
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
SAMPLED = 100  # frames of an episode that its image statistics are taken from
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]
# What pandas wants to know of tasks.parquet, to make the task's text its index.
_PANDAS = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, kind, numpy_type in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ],
    "pandas_version": "2.0.0",
}


def export_lerobot(
    episodes: Iterable[Episode],
    robot: RobotConfig,
    out: Path,
    command_topic: str = "lam/command",
    size: tuple[int, int] | None = None,
) -> int:
    """Write a LeRobot dataset of some episodes.

    Args:
        out: its folder, which must not exist; written beside and renamed when it is whole.
        size: (width, height) of the films; by default that of the first camera.

    Returns:
        How many frames it holds.

    Raises:
        EpisodeError: ``out`` exists, an episode cannot be aligned, or the disk does not take it.
    """
    rate = robot.policy.rate_hz
    if not float(rate).is_integer():
        raise EpisodeError(f"LeRobot counts whole frames a second; policy.rate_hz is {rate:g}.")
    first = next(iter(robot.cameras.values()))
    with written_whole(out) as making:
        export = _Export(making, Contract.of(robot), robot.name, int(rate), size or (first.width, first.height))
        for episode in episodes:
            export.add(align(episode, robot, export.size, command_topic), episode.manifest.task)
        export.finish()
    return export.frames


def on_grid(demonstration: Demonstration, fps: int) -> np.ndarray:
    """The index of the nearest tick for each frame of a film of ``fps``, (F,)."""
    seconds = (demonstration.stamps_ns - demonstration.stamps_ns[0]) / NANOSECONDS
    grid = np.arange(round(seconds[-1] * fps) + 1) / fps
    after = np.clip(np.searchsorted(seconds, grid), 1, max(1, len(seconds) - 1))
    if len(seconds) == 1:
        return np.zeros(1, dtype=np.int64)
    nearest: np.ndarray = np.where(grid - seconds[after - 1] <= seconds[after] - grid, after - 1, after)
    return nearest


def statistics_of(values: np.ndarray) -> Stats:
    """LeRobot's statistics of (F, …) values over the frames."""
    values = values.astype(np.float64)
    quantiles = {name: np.quantile(values, share, axis=0) for name, share in QUANTILES.items()}
    moments = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    return {**moments, "count": np.array([len(values)]), **quantiles}


def _image_statistics(frames: np.ndarray) -> Stats:
    """Those of (F, H, W, 3) frames, of each colour, in 0 to 1, as (3, 1, 1)."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(len(frames), SAMPLED)).astype(int)]
    flat = statistics_of(chosen.reshape(-1, 3) / 255.0)
    shaped = {name: value.reshape(3, 1, 1) for name, value in flat.items() if name != "count"}
    return {**shaped, "count": np.array([len(chosen)])}


def pooled(parts: Sequence[Stats]) -> Stats:
    """The statistics of several episodes together; quantiles are their weighted means, as in LeRobot."""
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)

    def weighted(values: list[np.ndarray]) -> np.ndarray:
        return np.tensordot(counts / counts.sum(), np.stack(values), axes=1)

    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    together = {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
    }
    return together | {name: weighted([part[name] for part in parts]) for name in QUANTILES}


class _Export:
    """A LeRobot dataset in the making."""

    def __init__(self, folder: Path, contract: Contract, robot: str, fps: int, size: tuple[int, int]) -> None:
        self._folder, self._contract, self._robot, self._fps, self.size = folder, contract, robot, fps, size
        self._tasks: dict[str, int] = {}
        self._columns: dict[str, list[np.ndarray]] = {}
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, Stats]] = []
        self.frames = 0

    def add(self, demonstration: Demonstration, task: str) -> None:
        """Add one episode: its films at once, its numbers at the end."""
        index, chosen = len(self._episodes), on_grid(demonstration, self._fps)
        count = len(chosen)
        task_index = self._tasks.setdefault(task, len(self._tasks))
        columns = {
            STATE: demonstration.state[chosen],
            ACTION: demonstration.action[chosen],
            "timestamp": (np.arange(count) / self._fps).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, index),
            "index": self.frames + np.arange(count),
            "task_index": np.full(count, task_index),
        }
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task],
            "length": count,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + count,
        }
        stats = {name: statistics_of(values.reshape(count, -1)) for name, values in columns.items()}
        for number, camera in enumerate(self._contract.cameras):
            key = IMAGES + camera
            chunk, file = divmod(index, CHUNK)
            frames = demonstration.images[chosen, number]
            path = VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
            write_video(self._folder / path, frames, self._fps)
            row |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": count / self._fps}
            stats[key] = _image_statistics(frames)
        for name, part in stats.items():
            row |= {f"stats/{name}/{statistic}": value.tolist() for statistic, value in part.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        self._episodes.append(row)
        self._stats.append(stats)
        self.frames += count

    def finish(self) -> None:
        """Write what is known at the end: numbers, episodes, tasks, statistics, and info.json."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._episodes:
            raise EpisodeError("there is no episode to export.")
        joints = len(self._contract.joints)
        arrays: dict[str, Any] = {}
        for name, parts in self._columns.items():
            values = np.concatenate(parts)
            if values.ndim == 2:
                flat = pa.array(values.astype(np.float32).ravel())
                arrays[name] = pa.FixedSizeListArray.from_arrays(flat, joints)
            else:
                arrays[name] = pa.array(values)
        features = {name: _hugging_face(array.type) for name, array in arrays.items()}
        described = {"huggingface": json.dumps({"info": {"features": features}})}
        self._write_table(DATA.format(chunk_index=0, file_index=0), pa.table(arrays, metadata=described), pq)
        self._write_table(EPISODES, pa.Table.from_pylist(self._episodes), pq)
        tasks = pa.table({"task_index": pa.array(list(self._tasks.values())), "task": pa.array(list(self._tasks))})
        self._write_table("meta/tasks.parquet", tasks.replace_schema_metadata({"pandas": json.dumps(_PANDAS)}), pq)
        stats = {name: pooled([part[name] for part in self._stats]) for name in self._stats[0]}
        plain = {name: {key: value.tolist() for key, value in part.items()} for name, part in stats.items()}
        (self._folder / "meta/stats.json").write_text(json.dumps(plain, indent=4))
        (self._folder / "meta/info.json").write_text(json.dumps(self._info(), indent=4))

    def _write_table(self, path: str, table: Any, parquet: Any) -> None:
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, self._folder / path)

    def _info(self) -> dict[str, Any]:
        width, height = self.size
        names = list(self._contract.joints)
        film = {
            "video.height": height,
            "video.width": width,
            "video.codec": CODEC,
            "video.pix_fmt": PIXEL_FORMAT,
            "video.fps": self._fps,
            "video.channels": 3,
            "has_audio": False,
            "video.g": KEY_FRAME_EVERY,
            "video.crf": QUALITY,
            "is_depth_map": False,
        }
        vector = {"dtype": "float32", "shape": [len(names)], "names": names}
        camera = {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": film}
        features: dict[str, Any] = {STATE: vector, ACTION: vector}
        features |= {IMAGES + name: camera for name in self._contract.cameras}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "int64", "shape": [1], "names": None}
        return {
            "codebase_version": VERSION,
            "fps": self._fps,
            "features": features,
            "total_episodes": len(self._episodes),
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "data_path": DATA,
            "video_path": VIDEO,
            "robot_type": self._robot,
            "splits": {"train": f"0:{len(self._episodes)}"},
        }


def _hugging_face(kind: Any) -> dict[str, Any]:
    """How Hugging Face's `datasets` names an Arrow type."""
    value = {"dtype": "float32" if "float" in str(kind) else "int64", "_type": "Value"}
    if str(kind).startswith("fixed_size_list"):
        return {"feature": value, "length": kind.list_size, "_type": "List"}
    return value


@dataclass(frozen=True)
class _Source:
    """A LeRobot dataset to read."""

    folder: Path
    info: Mapping[str, Any]
    fps: float
    in_degrees: bool

    def table(self, path: str) -> Any:
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / path)


def import_lerobot(
    folder: Path,
    dataset: Path,
    robot: RobotConfig,
    report: Callable[[int, int], None] = lambda done, total: None,
    in_degrees: bool = False,
) -> list[Episode]:
    """Make sealed episodes of a LeRobot dataset, with the topics of the robot YAML.

    Joints are found by their names (with or without ``.pos``), or taken in order where there are as many.

    Args:
        in_degrees: whether joints that turn are in degrees there, and not in rad. A dataset does not say.

    Raises:
        EpisodeError: it is no such dataset, is of another version, or does not fit the robot.
    """
    import pyarrow as pa

    try:
        info = json.loads((folder / "meta/info.json").read_text(encoding="utf-8"))
        if info["codebase_version"] != VERSION:
            raise EpisodeError(
                f"{folder} is a LeRobot dataset of version {info['codebase_version']}; {VERSION} is read. "
                "LeRobot's own converter brings it up to date."
            )
        source = _Source(folder, info, float(info["fps"]), in_degrees)
        order = {name: _order(info["features"], name, robot) for name in (STATE, ACTION)}
        missing = [name for name in robot.cameras if IMAGES + name not in info["features"]]
        if missing:
            there = ", ".join(name.removeprefix(IMAGES) for name in info["features"] if name.startswith(IMAGES))
            raise EpisodeError(
                f"{folder} has no camera {', '.join(missing)}; it has {there}. Name them so in the robot YAML."
            )
        rows = [row for path in sorted(folder.glob("meta/episodes/*/*.parquet")) for row in _rows(path)]
        episodes = []
        for done, row in enumerate(rows, 1):
            episodes.append(_import_episode(source, row, dataset, robot, order))
            report(done, len(rows))
        return episodes
    except LamError:
        raise
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, pa.ArrowException) as error:
        raise EpisodeError(f"{folder} cannot be read as a LeRobot dataset: {error!r}.") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
    rows: list[dict[str, Any]] = pq.read_table(path, columns=names).to_pylist()
    return rows


def _order(features: Mapping[str, Any], name: str, robot: RobotConfig) -> list[int]:
    names = features[name].get("names") or []
    if isinstance(names, Mapping):  # older ones: {"motors": [...]}
        names = next(iter(names.values()))
    plain = [str(joint).removesuffix(".pos") for joint in names]
    if all(joint in plain for joint in robot.joint_names):
        return [plain.index(joint) for joint in robot.joint_names]
    if features[name]["shape"] == [len(robot.joints)]:
        return list(range(len(robot.joints)))
    raise EpisodeError(
        f"{name} has {features[name]['shape']} values, named {', '.join(plain) or 'nothing'}; "
        f"the robot has {', '.join(robot.joint_names)}. Use the robot YAML of that arm."
    )


def _check_unit(source: _Source, index: int, vectors: Mapping[str, np.ndarray], robot: RobotConfig) -> None:
    """Raises EpisodeError where joints are so far beyond their limits that the numbers must be of another unit."""
    lower, upper = robot.position_limits
    for name, rows in vectors.items():
        beyond = np.maximum(lower - rows, rows - upper).max(0) > upper - lower
        if beyond.any():
            joint = int(np.argmax(beyond))
            cure = (
                "Their scale is that arm's calibration's; record in degrees or rad."
                if source.in_degrees
                else "If these are degrees, give --degrees; LeRobot's -100 to 100 are of that arm's calibration alone."
            )
            raise EpisodeError(
                f"{source.folder}: {name} of episode {index} has {robot.joint_names[joint]} at "
                f"{rows[:, joint].min():.3g} to {rows[:, joint].max():.3g}, where the robot YAML allows "
                f"{lower[joint]:.3g} to {upper[joint]:.3g} {robot.joints[robot.joint_names[joint]].unit}. {cure}"
            )


def _import_episode(
    source: _Source, row: Mapping[str, Any], dataset: Path, robot: RobotConfig, order: Mapping[str, Sequence[int]]
) -> Episode:
    index, count = int(row["episode_index"]), int(row["length"])
    path = DATA.format(chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"]))
    table = source.table(path)
    chosen = np.flatnonzero(np.asarray(table["episode_index"]) == index)
    if len(chosen) != count:
        raise EpisodeError(
            f"{source.folder}: episode {index} has {len(chosen)} rows in {path}, where {count} are told."
        )
    vectors = {
        name: np.stack([np.asarray(table[name][int(i)].as_py(), dtype=np.float32) for i in chosen])[
            :, list(order[name])
        ]
        for name in (STATE, ACTION)
    }
    if source.in_degrees:
        turns = np.array([joint.unit == "rad" for joint in robot.joints.values()])
        vectors = {name: np.where(turns, np.deg2rad(rows), rows).astype(np.float32) for name, rows in vectors.items()}
    _check_unit(source, index, vectors, robot)
    films = {}
    for name, camera in robot.cameras.items():
        key = IMAGES + name
        film = VIDEO.format(
            video_key=key,
            chunk_index=int(row[f"videos/{key}/chunk_index"]),
            file_index=int(row[f"videos/{key}/file_index"]),
        )
        start_s = float(row[f"videos/{key}/from_timestamp"])
        films[name] = read_video(source.folder / film, start_s, count, source.fps, (camera.width, camera.height))
    writer = EpisodeWriter.of(robot, dataset, str(row["tasks"][0]))
    joints, state, command = robot.joint_names, absolute_topic(robot.joint_states.topic), "/lam/command"
    with writer.whole_or_nothing():
        for camera in robot.cameras.values():
            writer.add_topic(Topic(absolute_topic(camera.subscribed_topic), IMAGE, source.fps))
        writer.add_topic(Topic(state, JOINT_STATE, source.fps))
        writer.add_topic(Topic(command, JOINT_STATE))
        for tick in range(count):
            stamp_ns = NANOSECONDS + seconds_to_ns(tick / source.fps)  # a stamp of 0 would mean none
            # Rows are of one moment: as late as this robot's own would be, so that they are aligned to it again.
            measured_ns = stamp_ns + seconds_to_ns(robot.joint_states.latency_s)
            writer.write(state, joint_state(measured_ns, joints, vectors[STATE][tick]), stamp_ns)
            for name, camera in robot.cameras.items():
                frame = image(stamp_ns + seconds_to_ns(camera.latency_s), next(films[name]), camera.frame_id)
                writer.write(absolute_topic(camera.subscribed_topic), frame, stamp_ns)
            answered_ns = stamp_ns + seconds_to_ns(max(camera.latency_s for camera in robot.cameras.values()))
            writer.write(command, joint_state(answered_ns, joints, vectors[ACTION][tick], "teleop"), stamp_ns)
        sealed = open_episode(writer.seal("unmarked"))
    return change_manifest(sealed, origin=f"imported from episode {index} of the LeRobot dataset {source.folder.name}")
