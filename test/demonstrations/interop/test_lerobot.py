"""LeRobot datasets there and back; benchmarks/interop_check.py does the same with LeRobot itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lam_ros.config import RobotConfig
from lam_ros.demonstrations.alignment import align
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.demonstrations.episode import Episode, list_episodes
from lam_ros.demonstrations.interop import lerobot
from lam_ros.demonstrations.interop.lerobot import export_lerobot, import_lerobot, on_grid, pooled, statistics_of
from lam_ros.demonstrations.interop.video import read_video, write_video
from lam_ros.errors import EpisodeError

SIZE = (96, 96)
COMMAND = "lam/command"


@pytest.fixture
def robot(robot: RobotConfig) -> RobotConfig:
    """One whose joints may go where ``Recording.usual`` sends them."""
    joints = {name: dataclasses.replace(joint, position=(-200.0, 200.0)) for name, joint in robot.joints.items()}
    return dataclasses.replace(robot, joints=joints)


@pytest.fixture
def episodes(recording: Any, robot: RobotConfig, messages: Any) -> list[Episode]:
    first = recording.usual(12).sealed()
    return [first, type(recording)(first.folder.parent, robot, messages).usual(7).sealed()]


@pytest.fixture
def exported(episodes: list[Episode], robot: RobotConfig, tmp_path: Path) -> Path:
    assert export_lerobot(episodes, robot, tmp_path / "lerobot") == 19
    return tmp_path / "lerobot"


def test_a_round_trip_keeps_frames_actions_times_and_images(
    episodes: list[Episode], exported: Path, robot: RobotConfig, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    back = import_lerobot(exported, tmp_path / "back", robot, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert [episode.manifest.task for episode in back] == ["wave", "wave"]
    assert back[1].manifest.origin == "imported from episode 1 of the LeRobot dataset lerobot"
    for before, after in zip(episodes, list_episodes(tmp_path / "back"), strict=True):
        after.verify()
        old, new = (align(episode, robot, SIZE, COMMAND) for episode in (before, after))
        assert len(new) == len(old)
        np.testing.assert_allclose(new.action, old.action, atol=1e-6)
        np.testing.assert_allclose(new.state, old.state, atol=1e-6)
        np.testing.assert_array_less(np.abs(np.diff(new.stamps_ns - old.stamps_ns)), 25_000_000)
        assert np.abs(new.images.astype(int) - old.images).mean() < 3.0


def test_a_robot_with_latencies_and_compressed_cameras_gets_the_rows_back(
    exported: Path, robot: RobotConfig, tmp_path: Path
) -> None:
    cameras = {
        name: dataclasses.replace(camera, transport="compressed", latency_s=latency_s)
        for (name, camera), latency_s in zip(robot.cameras.items(), (0.063, 0.02), strict=True)
    }
    states = dataclasses.replace(robot.joint_states, latency_s=0.008)
    late = dataclasses.replace(robot, cameras=cameras, joint_states=states)
    prompt, delayed = (
        [align(episode, one, SIZE, COMMAND) for episode in import_lerobot(exported, tmp_path / name, one)]
        for name, one in (("prompt", robot), ("late", late))
    )
    for expected, found in zip(prompt, delayed, strict=True):
        np.testing.assert_array_equal(found.state, expected.state)
        np.testing.assert_array_equal(found.action, expected.action)
        np.testing.assert_array_equal(found.images, expected.images)


def test_the_numbers_are_where_lerobot_looks_for_them(exported: Path, robot: RobotConfig) -> None:
    info = json.loads((exported / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"], info["total_episodes"]) == ("v3.0", 20, 19, 2)
    assert info["features"]["action"]["names"] == list(robot.joint_names)
    data = pq.read_table(exported / "data/chunk-000/file-000.parquet")
    assert data["index"].to_pylist() == list(range(19))
    assert data["frame_index"].to_pylist() == [*range(12), *range(7)]
    np.testing.assert_allclose(data["timestamp"].to_numpy()[:12], np.arange(12) / 20, atol=1e-6)
    rows = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 12), (12, 19)]
    stats = json.loads((exported / "meta/stats.json").read_text())
    assert stats["action"]["count"] == [19]
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)
    assert 0.0 < stats["observation.images.front"]["mean"][0][0][0] < 1.0


def ticks_at(*seconds: float) -> Demonstration:
    nothing = np.zeros((len(seconds), 1))
    return Demonstration(nothing, nothing, nothing, np.array([round(1e9 * (5 + s)) for s in seconds]))


def test_ticks_are_put_onto_the_grid_of_a_film() -> None:
    assert on_grid(ticks_at(0.0, 0.051, 0.099, 0.15), 20).tolist() == [0, 1, 2, 3]
    assert on_grid(ticks_at(0.0, 0.05, 0.20, 0.25), 20).tolist() == [0, 1, 1, 2, 2, 3]  # a pause is filled
    assert on_grid(ticks_at(0.0, 0.02, 0.05, 0.07, 0.1), 20).tolist() == [0, 2, 4]
    assert on_grid(ticks_at(0.0), 20).tolist() == [0]


def test_pooled_statistics_are_those_of_all_frames_together() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(i, 1 + i, (10 + 5 * i, 3)) for i in range(3)]
    together, alone = pooled([statistics_of(part) for part in parts]), statistics_of(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(together[name], alone[name])


def test_a_film_of_several_episodes_is_cut_at_the_right_frame(tmp_path: Path) -> None:
    frames = [np.full((32, 48, 3), 10 * i, np.uint8) for i in range(20)]
    write_video(tmp_path / "film.mp4", frames, 20)
    shades = [int(frame.mean().round()) for frame in read_video(tmp_path / "film.mp4", 0.35, 6, 20.0, (48, 32))]
    np.testing.assert_allclose(shades, [70, 80, 90, 100, 110, 120], atol=2)
    with pytest.raises(EpisodeError, match=r"has 3 frames from 0\.85 s on, where 6 were expected"):
        list(read_video(tmp_path / "film.mp4", 0.85, 6, 20.0, (48, 32)))
    with pytest.raises(EpisodeError, match="is 48x32; the robot YAML says 96x96"):
        list(read_video(tmp_path / "film.mp4", 0.0, 1, 20.0, SIZE))


def test_nothing_is_overwritten_and_nothing_half_is_left(
    episodes: list[Episode], robot: RobotConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(EpisodeError, match="exists already"):
        export_lerobot(episodes, robot, tmp_path / "there")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lerobot, "write_video", full)
    with pytest.raises(EpisodeError, match="No space left on device"):
        export_lerobot(episodes, robot, tmp_path / "new")
    assert not list(tmp_path.glob("new*"))


def test_a_rate_that_is_no_whole_number_is_refused(episodes: list[Episode], robot: RobotConfig, tmp_path: Path) -> None:
    odd = dataclasses.replace(robot, policy=dataclasses.replace(robot.policy, rate_hz=17.5))
    with pytest.raises(EpisodeError, match=r"whole frames a second; policy\.rate_hz is 17\.5"):
        export_lerobot(episodes, odd, tmp_path / "lerobot")


def change_info(exported: Path, **changes: Any) -> None:
    path = exported / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_joints_are_found_by_name(exported: Path, robot: RobotConfig, tmp_path: Path) -> None:
    names = list(robot.joint_names)
    info = json.loads((exported / "meta/info.json").read_text())
    info["features"]["action"]["names"] = [f"{name}.pos" for name in reversed(names)]
    change_info(exported, features=info["features"])
    back = import_lerobot(exported, tmp_path / "back", robot)[0]
    rows = pq.read_table(exported / "data/chunk-000/file-000.parquet")["action"].to_pylist()
    np.testing.assert_allclose(align(back, robot, SIZE, COMMAND).action[3], rows[3][::-1], atol=1e-6)


def test_numbers_of_another_unit_are_refused_and_degrees_are_converted(
    exported: Path, robot: RobotConfig, tmp_path: Path
) -> None:
    """Those of ``Recording.usual``, up to 111, as an arm's degrees and as LeRobot's normalised numbers."""

    def limited(**limits: tuple[float, float]) -> RobotConfig:
        joints = {name: dataclasses.replace(joint, position=limits[joint.unit]) for name, joint in robot.joints.items()}
        return dataclasses.replace(robot, joints=joints)

    turning = limited(rad=(-2.0, 2.0), m=(0.0, 200.0))
    with pytest.raises(EpisodeError, match=r"state of episode 0 has waist at 0 to 11.* -2 to 2 rad.*give --degrees"):
        import_lerobot(exported, tmp_path / "rad", turning)
    assert not list((tmp_path / "rad").glob("episode_*"))
    before, after = (
        align(import_lerobot(exported, tmp_path / name, one, in_degrees=name == "deg")[0], one, SIZE, COMMAND)
        for name, one in (("same", robot), ("deg", turning))
    )
    np.testing.assert_allclose(after.action[:, :6], np.deg2rad(before.action[:, :6]), rtol=1e-5)
    np.testing.assert_allclose(after.action[:, 6], before.action[:, 6])
    with pytest.raises(
        EpisodeError, match=r"action of episode 0 has waist at 1\.75 to 1\.94.* record in degrees or rad"
    ):
        import_lerobot(exported, tmp_path / "x", limited(rad=(-0.5, 0.5), m=(0.0, 200.0)), in_degrees=True)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: change_info(folder, codebase_version="v2.1"), "of version v2.1; v3.0 is read"),
        (lambda folder: change_info(folder, features={}), "cannot be read as a LeRobot dataset"),
        (lambda folder: (folder / "meta/info.json").write_text("{"), "cannot be read as a LeRobot dataset"),
        (lambda folder: (folder / "meta/info.json").unlink(), "cannot be read as a LeRobot dataset"),
        (
            lambda folder: (folder / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1"),
            "cannot be read as a LeRobot dataset",
        ),
        (
            lambda folder: next(folder.glob("videos/*/*/file-000.mp4")).write_bytes(b"no film"),
            "cannot be read as a film",
        ),
    ],
)
def test_what_is_damaged_is_one_sentence_and_leaves_nothing(
    exported: Path, robot: RobotConfig, tmp_path: Path, damage: Any, sentence: str
) -> None:
    damage(exported)
    with pytest.raises(EpisodeError, match=sentence):
        import_lerobot(exported, tmp_path / "back", robot)
    assert not list((tmp_path / "back").glob("*.partial"))


def test_a_dataset_of_another_arm_is_refused(exported: Path, robot: RobotConfig, tmp_path: Path) -> None:
    joints = {**dict(list(robot.joints.items())[:3]), "extra": robot.joints["waist"]}
    with pytest.raises(EpisodeError, match=r"observation\.state has \[7\] values, named waist"):
        import_lerobot(exported, tmp_path / "x", dataclasses.replace(robot, joints=joints))
    cameras = {"top": robot.cameras["front"]}
    with pytest.raises(EpisodeError, match="has no camera top; it has front, wrist"):
        import_lerobot(exported, tmp_path / "x", dataclasses.replace(robot, cameras=cameras))
