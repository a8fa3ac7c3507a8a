"""`lam improve`: fine-tuned on what a human did in takeovers, judged by takeovers it has not seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lam_ros.cli import improve as command
from lam_ros.cli.improve import improve_app, improved
from lam_ros.config import RobotConfig
from lam_ros.demonstrations.dataset import Demonstration
from lam_ros.demonstrations.episode import list_episodes
from lam_ros.errors import TrainingError
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.corrections import Comparison, distance_from_human, held_out
from lam_ros.policy.checkpoint import read_info
from lam_ros.policy.configuration import PolicyConfig

TINY = TrainConfig(
    policy=PolicyConfig(image_size=(24, 24), chunk=2),
    **dict.fromkeys(("perception_steps", "action_steps"), 3),
    **dict.fromkeys(("perception_batch", "action_batch"), 2),
    shift=0,
    views=1,
    precision="float32",
)


class Says:
    """A runtime whose targets are the measured state and something on top."""

    features = 2

    def __init__(self, further: float) -> None:
        self._further = further

    def perceive(self, camera: int, image: np.ndarray) -> np.ndarray:
        return np.zeros(2, np.float32)

    def step(self, features: np.ndarray, state: np.ndarray, hidden: Any) -> tuple[np.ndarray, Any]:
        return (state + self._further)[None], None


def moved_by(step: float, human: list[bool]) -> Demonstration:
    state = np.zeros((4, 2), np.float32)
    action = np.where(np.array(human)[:, None], step, -9.0).astype(np.float32) * [1.0, 0.0]
    return Demonstration(np.zeros((4, 1, 2, 2, 3), np.uint8), state, action, np.arange(4), np.array(human))


def test_a_policy_that_is_as_far_off_as_the_one_before_is_not_better() -> None:
    assert [Comparison(0.5, after, 12).is_better for after in (0.4, 0.5, 0.6)] == [True, False, False]


def test_the_distance_is_a_share_of_the_humans_motion_where_the_human_drove() -> None:
    episodes = [moved_by(0.2, [False, True, True, False])]
    assert distance_from_human(Says(0.2), episodes) == (pytest.approx(0.0, abs=1e-6), 2)  # type: ignore[arg-type]
    assert distance_from_human(Says(0.1), episodes)[0] == pytest.approx(0.5)  # type: ignore[arg-type]
    assert distance_from_human(Says(0.0), episodes)[0] == pytest.approx(1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("episode", "sentence"),
    [(moved_by(0.2, [False] * 4), "no human drove"), (moved_by(0.0, [True] * 4), "nothing moved while a human drove")],
)
def test_without_a_human_there_is_nothing_to_compare(episode: Demonstration, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        distance_from_human(Says(0.0), [episode])  # type: ignore[arg-type]


def test_the_same_episodes_are_held_out_whenever_it_is_asked() -> None:
    assert held_out([0, 1], int) == ([0], [1])
    assert held_out(range(5), int) == ([0, 1, 2, 3], [4])
    assert held_out(range(11), int)[1] == [4, 9]
    assert held_out(range(7), int)[1] == [4]
    assert held_out([0, 2, 3, 4, 7, 9], int)[1] == [4, 9], "whatever becomes of another episode"
    with pytest.raises(TrainingError, match="and 1 are to judge by; one more is needed"):
        held_out([0], int)


@pytest.fixture
def folders(tmp_path: Path, record: Any) -> tuple[Path, Path]:
    """Three plain demonstrations, and three in which a human took over."""
    plain, corrected = tmp_path / "plain", tmp_path / "corrected"
    for folder, taken_over in ((plain, 0), (corrected, 8)):
        for _ in range(3):
            record(folder).usual(20, taken_over=taken_over).sealed()
    return plain, corrected


@pytest.fixture
def current(robot: RobotConfig, folders: tuple[Path, Path], tmp_path: Path) -> Path:
    from lam_ros.cli.steps import load_data
    from lam_ros.learning.training import train

    return train(load_data([folders[0]], [], robot, TINY), TINY, tmp_path / "now.safetensors").checkpoint


def test_a_round_writes_a_policy_of_the_same_model_and_compares_it(
    robot: RobotConfig, folders: tuple[Path, Path], current: Path, tmp_path: Path
) -> None:
    out = tmp_path / "better" / "one.safetensors"
    other_model = dataclasses.replace(TINY, policy=PolicyConfig())
    found = improved(current, [str(folders[0])], list_episodes(folders[1]), robot, other_model, out)
    assert read_info(out).policy == TINY.policy
    assert found.ticks == 12
    assert found.before > 0
    assert found.after > 0
    with pytest.raises(TrainingError, match="no policy drove in the corrected episodes"):
        improved(current, [str(folders[0])], list_episodes(folders[0]), robot, TINY, out)


@pytest.mark.parametrize(
    ("is_better", "answer", "is_taken"), [(True, "\n", True), (False, "\n", False), (False, "y\n", True)]
)
def test_the_human_decides_and_the_better_one_is_what_is_offered(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_better: bool,
    answer: str,
    is_taken: bool,
) -> None:
    given: list[Path] = []
    monkeypatch.setattr(command, "improved", lambda *_: Comparison(0.5, 0.4 if is_better else 0.6, 12))
    monkeypatch.setattr(command, "_swap", given.append)
    monkeypatch.setattr(command.os, "nice", lambda _: 0)
    arguments = ["--checkpoint", "now.safetensors", "--data", str(folders[0]), "--corrections", str(folders[1])]
    more = ["--out", str(tmp_path / "better"), "--rounds", "1", "--every", "3"]
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(improve_app, [*arguments, *more], input=answer)
    assert ended.exit_code == 0, ended.output
    new = tmp_path / "better" / "now_1.safetensors"
    assert given == ([new] if is_taken else [])
    assert f"{new if is_taken else 'now.safetensors'} is the policy now" in ended.output.replace("\n", "")


def test_only_usable_episodes_that_a_human_drove_in_make_a_round(tmp_path: Path, record: Any) -> None:
    folder = tmp_path / "corrected"
    record(folder).usual(20, taken_over=8).sealed("failure")
    record(folder).usual(20, taken_over=20).sealed()
    good = record(folder).usual(20, taken_over=8).sealed()
    assert [episode.folder for episode in command._corrected(folder)] == [good.folder]


def test_what_an_earlier_call_wrote_is_not_written_over(tmp_path: Path) -> None:
    assert command._next_file(tmp_path, "now").name == "now_1.safetensors"
    (tmp_path / "now_1.safetensors").touch()
    assert command._next_file(tmp_path, "now").name == "now_2.safetensors"
