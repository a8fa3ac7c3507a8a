"""Alignment of images, states and commands to the policy's ticks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lam_ros.cli.gallery import THUMBNAILS, thumbnails
from lam_ros.config import JointStatesConfig, RobotConfig
from lam_ros.contract import Contract, absolute_topic
from lam_ros.demonstrations.alignment import StateHistory, Tick, TickAssembler, align, load_dataset, usable
from lam_ros.demonstrations.cache import cached
from lam_ros.demonstrations.dataset import Dataset, chunk_targets, digest_of, mixed, ways
from lam_ros.demonstrations.episode import EpisodeWriter, Topic, open_episode
from lam_ros.demonstrations.signals import read_signals
from lam_ros.errors import ContractError, EpisodeError, TrainingError

FRONT, WRIST = "/camera/front/image_raw", "/camera/wrist/image_raw"
IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
MS = 1_000_000
SIZE = (24, 24)


def feed(assembler: TickAssembler, frames: list[tuple[str, int]]) -> list[Tick]:
    """Push (camera, stamp in ms) with the stamp as the image."""
    ticks = [assembler.push(camera, stamp * MS, stamp) for camera, stamp in frames]
    return [tick for tick in ticks if tick is not None]


def history_of(max_age_ns: int, keep: int = 400, latency_ns: int = 0) -> StateHistory:
    return StateHistory(JointStatesConfig(max_age_s=max_age_ns / 1e9, latency_s=latency_ns / 1e9), keep)


def clocked(robot: RobotConfig, camera: str = "front", **latencies: float) -> RobotConfig:
    cameras = {
        name: dataclasses.replace(described, latency_s=latencies.get(name, 0.0))
        for name, described in robot.cameras.items()
    }
    return dataclasses.replace(robot, cameras=cameras, policy=dataclasses.replace(robot.policy, clock=camera))


def test_a_tick_is_stamped_with_its_oldest_image(robot: RobotConfig) -> None:
    ticks = feed(TickAssembler(robot), [("front", 3), ("wrist", 5), ("wrist", 55), ("front", 58)])
    assert [tick.stamp_ns for tick in ticks] == [3 * MS, 55 * MS]
    assert ticks[1].images == {"front": 58, "wrist": 55}
    assert list(ticks[1].images) == ["front", "wrist"]


def test_the_newest_frame_wins_and_older_ones_are_counted(robot: RobotConfig) -> None:
    assembler = TickAssembler(robot)
    (tick,) = feed(assembler, [("front", 0), ("front", 20), ("front", 40), ("wrist", 41)])
    assert tick.images == {"front": 40, "wrist": 41}
    assert assembler.dropped == 2


def test_faster_cameras_are_held_to_the_policys_rate(robot: RobotConfig) -> None:
    frames = [(camera, stamp) for stamp in range(0, 1000, 10) for camera in ("front", "wrist")]
    stamps = [tick.stamp_ns / MS for tick in feed(TickAssembler(robot), frames)]
    assert min(np.diff(stamps)) >= 37
    assert 15 <= len(stamps) <= 27


def test_jitter_does_not_cost_ticks(robot: RobotConfig) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for tick in range(100):
        frames += [("front", 50 * tick + int(rng.integers(-5, 6))), ("wrist", 50 * tick + int(rng.integers(-5, 6)))]
    assert len(feed(TickAssembler(robot), frames)) == 100


def test_frames_too_far_apart_are_no_observation(robot: RobotConfig) -> None:
    assembler = TickAssembler(robot)
    assembler.push("wrist", 0, 0)
    with pytest.raises(ContractError, match=r"camera wrist is 200 ms behind the others; at most 100 ms make one"):
        assembler.push("front", 200 * MS, 200)
    assert assembler.dropped == 1
    tick = assembler.push("wrist", 210 * MS, 210)
    assert tick is not None
    assert tick.images == {"front": 200, "wrist": 210}


def test_when_time_goes_back_it_starts_over(robot: RobotConfig) -> None:
    assembler = TickAssembler(robot)
    feed(assembler, [("front", 9000), ("wrist", 9000), ("front", 9050)])
    ticks = feed(assembler, [("front", 10), ("wrist", 12)])
    assert [tick.stamp_ns for tick in ticks] == [10 * MS]


def test_the_state_is_measured_or_interpolated_or_the_newest_before() -> None:
    history = history_of(100)
    for stamp in (100, 110, 120):
        history.push(stamp, np.array([2.0 * stamp], np.float32))
    assert history.at(110)[0] == 220
    assert history.at(119)[0] == pytest.approx(238)
    assert history.at(119).dtype == np.float32
    assert history.at(120)[0] == 240
    assert history.at(220)[0] == 240


def test_nothing_is_interpolated_over_a_pause() -> None:
    history = history_of(100)
    history.push(0, np.array([0.0]))
    history.push(150, np.array([150.0]))
    assert history.at(90)[0] == 0.0
    with pytest.raises(ContractError, match="older than the images"):
        history.at(140)


def test_a_state_counts_from_when_it_was_measured() -> None:
    history = history_of(100, latency_ns=30)
    history.push(130, np.array([1.0]))
    history.push(150, np.array([2.0]))
    assert history.at(100)[0] == 1.0
    assert history.at(110)[0] == pytest.approx(1.5)


def test_each_frame_of_the_clock_is_a_tick_with_the_newest_not_younger_of_the_others(robot: RobotConfig) -> None:
    assembler = TickAssembler(clocked(robot))
    frames = [("wrist", 0), ("wrist", 20), ("wrist", 40), ("front", 30), ("wrist", 60), ("wrist", 80), ("front", 80)]
    ticks = feed(assembler, frames)
    assert [tick.images for tick in ticks] == [{"front": 30, "wrist": 20}, {"front": 80, "wrist": 80}]
    assert [tick.stamp_ns for tick in ticks] == [20 * MS, 80 * MS]


def test_a_clock_without_the_others_makes_no_tick(robot: RobotConfig) -> None:
    assembler = TickAssembler(clocked(robot))
    assert feed(assembler, [("front", 0), ("wrist", 10), ("front", 5)]) == []
    with pytest.raises(ContractError, match="camera wrist is 490 ms behind the others"):
        feed(assembler, [("front", 500)])


def test_the_clock_is_held_to_the_policys_rate(robot: RobotConfig) -> None:
    frames = [(camera, stamp) for stamp in range(0, 1000, 10) for camera in ("wrist", "front")]
    stamps = [tick.stamp_ns / MS for tick in feed(TickAssembler(clocked(robot)), frames)]
    assert min(np.diff(stamps)) >= 37


def test_frames_count_from_when_the_light_fell_in(robot: RobotConfig) -> None:
    """The front camera stamps 40 ms late: its frame of 90 ms shows what the wrist's of 50 ms shows."""
    late = clocked(robot, "front", front=0.04)
    ticks = feed(TickAssembler(late), [("wrist", 0), ("wrist", 50), ("wrist", 75), ("front", 90)])
    assert [(tick.stamp_ns, tick.images) for tick in ticks] == [(50 * MS, {"front": 90, "wrist": 50})]


def test_a_frame_that_cannot_be_read_counts_as_if_it_had_never_come(robot: RobotConfig) -> None:
    assembler = TickAssembler(robot)
    feed(assembler, [("front", 0), ("wrist", 0)])
    (tick,) = feed(assembler, [("front", 50), ("wrist", 51)])
    assert assembler.without([tick.images["wrist"]]) is None
    (instead,) = feed(assembler, [("wrist", 70)])
    assert instead.images == {"front": 50, "wrist": 70}
    assert instead.stamp_ns == 50 * MS
    assert assembler.without(list(instead.images.values())) is None
    assert feed(assembler, [("front", 75)]) == [], "neither is there any more"


def test_beside_a_clock_an_older_frame_takes_the_place_of_one_that_cannot_be_read(robot: RobotConfig) -> None:
    assembler = TickAssembler(clocked(robot))
    (tick,) = feed(assembler, [("wrist", 0), ("wrist", 20), ("front", 30)])
    assert tick.images == {"front": 30, "wrist": 20}
    instead = assembler.without([tick.images["wrist"]])
    assert instead is not None
    assert instead.images == {"front": 30, "wrist": 0}
    assert instead.stamp_ns == 0
    assert assembler.without([instead.images["front"]]) is None, "no frame of the clock, no tick"
    (later,) = feed(assembler, [("front", 40)])
    assert later.images == {"front": 40, "wrist": 0}


def test_latencies_shift_what_belongs_to_a_tick(recording: Any, robot: RobotConfig) -> None:
    """With both cameras 20 ms late, the state is the one at capture, and a human's answer comes 20 ms later."""
    for tick in range(4):
        at = 1000 + 50 * tick
        for step in range(5):
            recording.state(at - 20 + 10 * step, tick + 0.1 * step)
        recording.image(FRONT, at, tick)
        recording.image(WRIST, at, tick)
        recording.command(at - 10, -1.0)  # before the frames arrived: answers the tick before
        recording.command(at + 5, 100.0 + tick)
    late = clocked(robot, "", front=0.02, wrist=0.02)
    demonstration = align(recording.sealed(), late, SIZE, "lam/command")
    np.testing.assert_array_equal(demonstration.stamps_ns, (980 + 50 * np.arange(4)) * MS)
    np.testing.assert_allclose(demonstration.state[:, 0], np.arange(4))
    np.testing.assert_allclose(demonstration.action[:, 0], 100.0 + np.arange(4))


def test_a_policys_command_belongs_to_the_images_it_answers(recording: Any, robot: RobotConfig) -> None:
    for tick in range(3):
        recording.state(980 + 50 * tick, 0.0)
        recording.image(FRONT, 1000 + 50 * tick, tick)
        recording.image(WRIST, 1000 + 50 * tick, tick)
        recording.command(980 + 50 * tick, 7.0 + tick, "policy")
    late = clocked(robot, "", front=0.02, wrist=0.02)
    demonstration = align(recording.sealed(), late, SIZE, "lam/command")
    np.testing.assert_allclose(demonstration.action[:, 0], [7.0, 8.0, 9.0])


def test_between_two_states_a_tick_is_interpolated(recording: Any, robot: RobotConfig) -> None:
    for at, value in ((1000, 1.0), (1010, 2.0)):
        recording.state(at, value)
    recording.image(FRONT, 1004, 0)
    recording.image(WRIST, 1005, 0)
    recording.command(1006, 5.0)
    assert align(recording.sealed(), robot, SIZE, "lam/command").state[0, 0] == pytest.approx(1.4)


def test_a_state_too_old_or_too_young_is_refused() -> None:
    history = history_of(100 * MS)
    with pytest.raises(ContractError, match="no joint state is as old as the images"):
        history.at(5)
    history.push(10 * MS, np.zeros(1))
    with pytest.raises(ContractError, match="no joint state is as old as the images"):
        history.at(9 * MS)
    with pytest.raises(
        ContractError, match=r"140 ms older than the images, more than 100 ms \(joint_states\.max_age_s"
    ):
        history.at(150 * MS)


def test_history_forgets_the_oldest_and_starts_over_when_time_goes_back() -> None:
    history = history_of(1000, keep=2)
    for stamp in (1, 2, 3):
        history.push(stamp, np.array([float(stamp)]))
    with pytest.raises(ContractError):
        history.at(1)
    history.push(1, np.array([7.0]))
    assert history.at(3)[0] == 7.0


def test_an_episode_becomes_arrays_at_its_ticks(recording: Any, robot: RobotConfig) -> None:
    demonstration = align(recording.usual(6).sealed(), robot, SIZE, "lam/command")
    assert len(demonstration) == 6
    assert demonstration.images.shape == (6, 2, 24, 24, 3)
    assert demonstration.images.dtype == np.uint8
    np.testing.assert_array_equal(demonstration.images[:, :, 0, 0, 0], [[10 * t, 10 * t + 1] for t in range(6)])
    np.testing.assert_allclose(demonstration.state[:, 0], np.arange(6))
    np.testing.assert_allclose(demonstration.action[:, 3], 100.0 + np.arange(6))
    assert demonstration.state.dtype == demonstration.action.dtype == np.float32
    np.testing.assert_array_equal(demonstration.stamps_ns, (1000 + 50 * np.arange(6)) * MS)


def test_the_action_is_the_first_command_from_the_tick_to_the_next(recording: Any, robot: RobotConfig) -> None:
    for tick in range(2):
        recording.state(50 * tick, 0.0)
        recording.image(FRONT, 50 * tick, 0)
        recording.image(WRIST, 50 * tick, 0)
    for at_ms, value in ((0, 1.0), (20, 2.0), (50, 3.0), (70, 4.0)):
        recording.command(at_ms, value)
    np.testing.assert_allclose(align(recording.sealed(), robot, SIZE, "lam/command").action[:, 0], [1.0, 3.0])


@pytest.mark.parametrize("driver", ["teleop", "policy"])
def test_two_ticks_of_a_clock_that_share_a_frame_have_an_action_each(
    recording: Any, robot: RobotConfig, driver: str
) -> None:
    for at in range(900, 1160, 10):
        recording.state(at, 0.0)
    recording.image(WRIST, 1000, 0)
    for tick in range(3):
        if tick == 2:
            recording.image(WRIST, 1090, 1)
        recording.image(FRONT, 1000 + 50 * tick, tick)
        answers = (1000, 1000, 1090)[tick]  # a policy's command has the stamp of the oldest image
        recording.command(answers if driver == "policy" else 1005 + 50 * tick, 7.0 + tick, driver)
    demonstration = align(recording.sealed(), clocked(robot), SIZE, "lam/command")
    np.testing.assert_array_equal(demonstration.stamps_ns, np.array([1000, 1000, 1090]) * MS)
    np.testing.assert_allclose(demonstration.action[:, 0], [7.0, 8.0, 9.0])


def test_holds_are_no_actions(recording: Any, robot: RobotConfig) -> None:
    recording.usual(4)
    for tick in range(4):
        recording.command(1000 + 50 * tick + 1, -1.0, "hold")
    np.testing.assert_allclose(align(recording.sealed(), robot, SIZE, "lam/command").action[:, 0], 100.0 + np.arange(4))


def test_who_drove_is_known_of_each_tick(recording: Any, robot: RobotConfig) -> None:
    for tick, driver in enumerate(("policy", "policy", "teleop", "teleop", "policy", "")):
        recording.state(1000 + 50 * tick, 0.0)
        recording.image(FRONT, 1000 + 50 * tick, tick)
        recording.image(WRIST, 1000 + 50 * tick, tick)
        recording.command(1000 + 50 * tick, 1.0, driver)
    episode = recording.sealed()
    demonstration = align(episode, robot, SIZE, "lam/command")
    assert demonstration.human.tolist() == [False, False, True, True, False, True]
    again = [cached(episode, robot, SIZE, "lam/command", align) for _ in range(2)][1]  # as training reads it
    np.testing.assert_array_equal(again.human, demonstration.human)


def test_a_tick_older_than_every_joint_state_is_left_out(recording: Any, robot: RobotConfig) -> None:
    recording.image(FRONT, 950, 99)
    recording.image(WRIST, 950, 99)
    recording.command(955, 99.0)
    demonstration = align(recording.usual(3).sealed(), robot, SIZE, "lam/command")
    np.testing.assert_allclose(demonstration.action[:, 0], [100.0, 101.0, 102.0])


def test_ticks_in_a_gap_of_the_joint_states_are_left_out_as_live(recording: Any, robot: RobotConfig) -> None:
    recording.usual(3)
    for tick in (3, 4, 5, 6):  # 0.2 s in which cameras and commands go on
        recording.image(FRONT, 1000 + 50 * tick, 0)
        recording.image(WRIST, 1000 + 50 * tick, 0)
        recording.command(1005 + 50 * tick, 100.0 + tick)
    demonstration = align(recording.usual(2, start_ms=1350).sealed(), robot, SIZE, "lam/command")
    np.testing.assert_allclose(demonstration.action[:, 0], [100.0, 101.0, 102.0, 103.0, 104.0, 100.0, 101.0])


def test_an_episode_without_a_young_joint_state_says_why(recording: Any, robot: RobotConfig) -> None:
    recording.state(0, 0.0)
    for tick in range(3):
        recording.image(FRONT, 1000 + 50 * tick, 0)
        recording.image(WRIST, 1000 + 50 * tick, 0)
        recording.command(1005 + 50 * tick, 0.0)
    with pytest.raises(
        EpisodeError, match=r"has no tick with every camera, a joint state and a command.*check the robot"
    ):
        align(recording.sealed(), robot, SIZE, "lam/command")


def test_joints_of_others_on_the_same_topic_are_no_states(recording: Any, robot: RobotConfig, messages: Any) -> None:
    recording.usual(3)
    messages.joints = ["finger"]
    recording.writer.write("/joint_states", messages.joint_state(1_020_000_000, [9.0]), 1_021_000_000)
    demonstration = align(recording.sealed(), robot, SIZE, "lam/command")
    assert len(demonstration) == 3
    assert demonstration.state.max() < 9.0


def test_an_episode_with_joints_of_others_alone_says_which(recording: Any, robot: RobotConfig, messages: Any) -> None:
    messages.joints = [f"left_{name}" for name in messages.joints]
    with pytest.raises(ContractError, match=r"episode_000000: .*lacks waist.*it has left_waist"):
        align(recording.usual(3).sealed(), robot, SIZE, "lam/command")


def test_topics_may_be_written_absolute_in_the_robot_file(recording: Any, robot: RobotConfig) -> None:
    cameras = {name: dataclasses.replace(camera, topic=f"/{camera.topic}") for name, camera in robot.cameras.items()}
    states = dataclasses.replace(robot.joint_states, topic="/joint_states")
    absolute = dataclasses.replace(robot, cameras=cameras, joint_states=states)
    assert len(align(recording.usual(4).sealed(), absolute, SIZE, "/lam/command")) == 4


def test_an_episode_without_commands_says_so(recording: Any, robot: RobotConfig) -> None:
    recording.state(0, 0.0)
    recording.image(FRONT, 0, 0)
    recording.image(WRIST, 0, 0)
    with pytest.raises(EpisodeError, match="holds no commands; see `lam episodes list`"):
        align(recording.sealed(), robot, SIZE, "lam/command")


def test_images_of_another_size_are_refused(recording: Any, robot: RobotConfig) -> None:
    cameras = {name: dataclasses.replace(camera, width=64) for name, camera in robot.cameras.items()}
    with pytest.raises(ContractError, match="sent 96x96 uint8; the robot YAML says 64x96"):
        align(recording.usual().sealed(), dataclasses.replace(robot, cameras=cameras), SIZE, "lam/command")


def record(tmp_path: Path, robot: RobotConfig, like: Any, outcome: str) -> Any:
    return type(like)(tmp_path / "data", robot, like._messages).usual(20).sealed(outcome)


def test_a_dataset_takes_what_is_usable(recording: Any, robot: RobotConfig, tmp_path: Path) -> None:
    episodes = [recording.usual(20).sealed("success")]
    episodes += [record(tmp_path, robot, recording, outcome) for outcome in ("failure", "unmarked")]
    told: list[tuple[int, int]] = []
    dataset = load_dataset(episodes, robot, SIZE, report=lambda done, total: told.append((done, total)))
    assert len(dataset.demonstrations) == 2
    assert told == [(1, 2), (2, 2)]
    assert (dataset.task, dataset.robot) == ("wave", "desk_arm")
    assert load_dataset(episodes[:1], robot, SIZE).digest != dataset.digest
    with pytest.raises(EpisodeError, match="there are no episodes"):
        load_dataset([], robot, SIZE)
    with pytest.raises(EpisodeError, match="none of 1 episodes is usable"):
        load_dataset(episodes[1:2], robot, SIZE)


def test_what_failed_its_verdict_is_not_learned_from(recording: Any, robot: RobotConfig) -> None:
    episode = recording.usual(20).sealed("success")
    assert usable([episode], robot) == [episode]
    verdict = dataclasses.replace(episode.manifest.verdict, grade="FAIL")
    failed = dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, verdict=verdict))
    assert usable([failed, episode], robot) == [episode]
    with pytest.raises(EpisodeError, match="none of 1 episodes is usable"):
        usable([failed], robot)


def test_a_dataset_of_another_robot_is_refused(recording: Any, robot: RobotConfig) -> None:
    other = dataclasses.replace(robot, name="other")
    with pytest.raises(EpisodeError, match="was recorded with the robot desk_arm, not other"):
        load_dataset([recording.usual(20).sealed()], other, SIZE)


def test_a_camera_that_an_episode_does_not_hold_is_named(recording: Any, robot: RobotConfig) -> None:
    renamed = {"front": robot.cameras["front"], "side": dataclasses.replace(robot.cameras["wrist"], topic="side/image")}
    with pytest.raises(EpisodeError, match="holds no images of side, which the robot YAML names"):
        load_dataset([recording.usual(20).sealed("success")], dataclasses.replace(robot, cameras=renamed), SIZE)


def test_a_demonstration_outlives_a_change_of_limits(recording: Any, robot: RobotConfig) -> None:
    careful = dataclasses.replace(robot, gate=dataclasses.replace(robot.gate, staleness_s=0.1))
    assert len(load_dataset([recording.usual(20).sealed("success")], careful, SIZE).demonstrations) == 1


@pytest.mark.parametrize(("count", "share", "held_out"), [(2, 0.08, 1), (20, 0.1, 2), (3, 0.99, 2)])
def test_a_split_is_by_episode_and_by_seed(
    demonstrate: Any, robot: RobotConfig, count: int, share: float, held_out: int
) -> None:
    demonstrations = demonstrate(count, ticks=2)
    dataset = Dataset(None, "wave", "desk_arm", demonstrations, "x")  # type: ignore[arg-type]
    training, validation = dataset.split(share, seed=1)
    trained, held = ([id(d) for d in part.demonstrations] for part in (training, validation))
    assert len(held) == held_out
    assert {*trained, *held} == {id(d) for d in demonstrations}
    assert len(trained) + len(held) == count
    again, _ = dataset.split(share, seed=1)
    assert [id(d) for d in again.demonstrations] == trained


def test_mixed_datasets_keep_their_weights(demonstrate: Any, robot: RobotConfig) -> None:
    contract = Contract.of(robot)
    old = Dataset(contract, "wave", "desk_arm", demonstrate(3, ticks=2), "a")
    new = Dataset(contract, "bow", "desk_arm", demonstrate(2, ticks=2, seed=1), "b")
    both = mixed([old, new], [1.0, 4.0])
    assert both.task == "wave and bow"
    assert list(map(id, both.demonstrations)) == [*map(id, old.demonstrations), *map(id, new.demonstrations)]
    assert both.weights == [1.0, 1.0, 1.0, 4.0, 4.0]
    assert both.pick([4, 0]).weights == [4.0, 1.0]
    assert mixed([old]) is old
    assert len({mixed([old, new], weights).digest for weights in ([1.0, 4.0], [4.0, 1.0], [])}) == 3
    other = dataclasses.replace(contract, cameras=("front",))
    with pytest.raises(ContractError, match="cameras"):
        mixed([old, dataclasses.replace(new, contract=other)])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_of_a_folder_stays_so_when_others_are_added(
    demonstrate: Any, robot: RobotConfig, seed: int
) -> None:
    contract, every = Contract.of(robot), demonstrate(45, ticks=2)
    parts = [Dataset(contract, "wave", "desk_arm", some, "x") for some in (every[:30], every[30:44], every[44:])]

    def held(dataset: Dataset) -> list[int]:
        return [id(one) for one in dataset.split(0.1, seed)[1].demonstrations]

    assert [len(held(part)) for part in parts[:2]] == [3, 1]
    assert held(mixed(parts)) == held(parts[0]) + held(parts[1]), "a single episode is learned from"
    assert held(mixed(parts[::-1])) == held(parts[1]) + held(parts[0])
    training, validation = mixed(parts).split(0.1, seed)
    assert set(map(id, (*training.demonstrations, *validation.demonstrations))) == set(map(id, every))
    assert held(parts[0]) == [id(every[i]) for i in sorted(np.random.default_rng(seed).permutation(30)[:3])]


def test_folders_that_hold_out_nothing_of_a_human_are_split_as_one(demonstrate: Any, robot: RobotConfig) -> None:
    first, second, *others = demonstrate(4, ticks=2)
    driven = [dataclasses.replace(other, human=np.zeros(2, dtype=bool)) for other in others]
    for shown in ([[first], [second]], [[first, driven[0]], [second, driven[1]]]):
        folders = [Dataset(Contract.of(robot), "wave", "desk_arm", some, "x") for some in shown]
        for part in mixed(folders).split(0.1, seed=0):
            assert any(one.human.any() for one in part.demonstrations)


def test_an_episode_is_given_once(demonstrate: Any, robot: RobotConfig) -> None:
    demonstrations = demonstrate(5, ticks=2)
    old = Dataset(Contract.of(robot), "wave", "desk_arm", demonstrations[:3], "a")
    copies = [dataclasses.replace(one, state=one.state.copy()) for one in demonstrations[2:]]
    new = dataclasses.replace(old, demonstrations=copies, weights=[1.0] * 3, digest="b")
    for parts, sentence in (([old, new], "1 of the 5"), ([old, old], "3 of the 3")):
        with pytest.raises(TrainingError, match=rf"{sentence} episodes are in more than one .* give each once"):
            mixed(parts)


@pytest.mark.parametrize("array", ["images", "state", "action", "stamps_ns", "human"])
def test_episodes_that_differ_in_anything_are_two(demonstrate: Any, array: str) -> None:
    (one,) = demonstrate(1, ticks=2)
    values = getattr(one, array)
    other = dataclasses.replace(one, **{array: (1 - values.astype(float)).astype(values.dtype)})
    assert one.digest != other.digest
    assert one.digest == dataclasses.replace(one, state=one.state.copy()).digest


@pytest.mark.parametrize("seed", range(5))
def test_a_human_drove_in_some_of_both_parts(demonstrate: Any, seed: int) -> None:
    shown = [
        dataclasses.replace(one, human=np.full(len(one), number in (2, 7)))
        for number, one in enumerate(demonstrate(10, ticks=2))
    ]
    parts = Dataset(None, "wave", "desk_arm", shown, "x").split(0.1, seed)  # type: ignore[arg-type]
    assert [len(part.demonstrations) for part in parts] == [9, 1]
    assert all(any(one.human.any() for one in part.demonstrations) for part in parts)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_episodes_cannot_be_split(demonstrate: Any, count: int) -> None:
    dataset = Dataset(None, "wave", "desk_arm", demonstrate(count), "x")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=rf"there are {count} usable episodes; training needs at least 2"):
        dataset.split(0.1, seed=0)


def test_chunks_repeat_the_last_action_past_the_end() -> None:
    action = np.arange(5.0)[:, None]
    np.testing.assert_array_equal(
        chunk_targets(action, 3)[..., 0], [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4], [4, 4, 4]]
    )


def test_digests_tell_texts_apart() -> None:
    assert digest_of(["a", "b"]) == digest_of(["a", "b"])
    assert len({digest_of(["a", "b"]), digest_of(["b", "a"]), digest_of(["ab"])}) == 3


def test_ways_are_those_of_each_target_from_where_the_arm_is() -> None:
    rng = np.random.default_rng(0)
    state, targets = rng.normal(size=(400, 3)), rng.normal(size=(400, 2, 3))
    targets[:, :, 0] = state[:, :1] + 0.2
    found = ways(state, targets)
    np.testing.assert_allclose(found[1, 1:], (targets[:, 1] - state)[:, 1:].std(0))
    assert (found[:, 0] == 1e-3).all(), "a joint that stands still is not measured in nothing"


@pytest.mark.parametrize("kind", ["relative", "absolute", "film"])
def test_an_episode_recorded_in_a_namespace_is_read_by_the_same_robot_file(
    tmp_path: Path, robot: RobotConfig, messages: Any, kind: str
) -> None:
    cameras, states = robot.cameras, robot.joint_states
    if kind == "absolute":
        cameras = {n: dataclasses.replace(c, topic=f"/left/{c.topic}") for n, c in cameras.items()}
    left = dataclasses.replace(robot, cameras=cameras)
    writer = EpisodeWriter.of(robot, tmp_path, "wave")
    commands = () if kind == "film" else ("/left/lam/command",)
    films = {name: absolute_topic(camera.topic, "left") for name, camera in robot.cameras.items()}
    for topic in (*films.values(), f"/left/{states.topic}", *commands):
        writer.add_topic(Topic(topic, IMAGE if topic in films.values() else JOINTS))
    for tick in range(6):
        stamp_ns = 10**9 + tick * 50_000_000
        writer.write(f"/left/{states.topic}", messages.joint_state(stamp_ns, [0.1 * tick] * 7), stamp_ns)
        for topic in films.values():
            writer.write(topic, messages.image(stamp_ns, np.zeros((96, 96, 3), np.uint8)), stamp_ns)
        for topic in commands:
            writer.write(topic, messages.joint_state(stamp_ns, [0.5] * 7, "teleop"), stamp_ns)
    episode = open_episode(writer.seal("success"))
    assert len(align(episode, left, SIZE, "lam/command" if commands else "")) == 6
    assert len(read_signals(episode, left).state) == 6
    assert {name: len(shown) for name, shown in thumbnails(episode, left).items()} == dict.fromkeys(
        films, min(6, THUMBNAILS)
    )
