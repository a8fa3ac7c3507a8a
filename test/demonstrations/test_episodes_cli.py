"""`lam episodes …` on a small dataset, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lam_ros.cli.episodes import episodes_app
from lam_ros.config import RobotConfig
from lam_ros.demonstrations.episode import list_episodes


@pytest.fixture
def folder(recording: Any, robot: Any, messages: Any) -> Path:
    """Two takes of a second; the second is a failure."""
    first = recording.usual(20).sealed("success")
    type(recording)(first.folder.parent, robot, messages).usual(20).sealed("failure")
    return first.folder.parent


def said(*arguments: object, code: int = 0, answer: str = "") -> str:
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(episodes_app, [str(a) for a in arguments], input=answer)
    assert ended.exit_code == code, ended.output
    return " ".join(ended.output.split())


def test_list_and_show(folder: Path) -> None:
    assert "episode_000001" in said("list", folder)
    shown = said("show", folder / "episode_000000")
    assert "task: wave" in shown
    assert "who drove: teleop 20" in shown
    assert "/joint_states" in shown


def test_stats_name_failures_and_double_takes(folder: Path) -> None:
    told = said("stats", folder)
    assert "2 episodes" in told
    assert "episode_000001 failure, PASS: training leaves it out." in told or "failure, WARN" in told
    assert "moves as episode_000000 does: the same take twice?" in told


def test_plot_writes_one_page_that_needs_nothing_else(folder: Path, tmp_path: Path) -> None:
    page, film = tmp_path / "page.html", tmp_path / "takes.rrd"
    said("plot", folder, "--out", page, "--rerun", film)
    text = page.read_text()
    assert text.count('alt="frame"') == 2 * 2 * 4
    assert text.count('alt="joints over time"') == 2
    assert "http" not in text
    assert film.read_bytes()[:4] == b"RRF2"
    assert film.stat().st_size > 10_000


def test_trim_split_merge_tag_clean(folder: Path, tmp_path: Path) -> None:
    one = folder / "episode_000000"
    assert "episode_000002" in said("trim", one, "--start", 0.1, "--end", 0.6)
    assert "episode_000004" in said("split", folder / "episode_000002", "--at", 0.2)
    assert "3 episodes are in" in said("merge", folder, "--out", tmp_path / "all")
    assert "episode_000000: success tidy" in said(
        "tag", tmp_path / "all" / "episode_000000", "--add", "tidy", "--outcome", "success"
    )
    assert "3 episodes are as they were sealed" in said("verify", tmp_path / "all")
    said("clean", folder, code=1, answer="n\n")
    assert len(list(folder.glob("*.replaced"))) == 2
    assert "2 replaced takes are deleted" in said("clean", folder, answer="y\n")
    assert len(list_episodes(folder)) == 3


def test_a_dry_run_cuts_nothing(folder: Path) -> None:
    before = [episode.manifest.name for episode in list_episodes(folder)]
    said("trim", folder, "--dry-run", "--margin", 0)
    assert [episode.manifest.name for episode in list_episodes(folder)] == before


@pytest.mark.parametrize("command", ["show", "verify", "stats", "plot", "trim", "repair", "list"])
def test_a_wrong_folder_is_one_sentence(tmp_path: Path, command: str) -> None:
    told = said(command, tmp_path / "nowhere", code=1)
    assert told.startswith("error")
    assert "Traceback" not in told


def test_export_without_faces_and_import_again(
    folder: Path, tmp_path: Path, robot: RobotConfig, desk_arm_with: Callable[..., str]
) -> None:
    assert "1 episodes, 20 ticks" in said("export", folder, "--to", "lerobot", "--out", tmp_path / "le", "--anonymise")
    back = ("import", tmp_path / "le", "--from", "lerobot", "--out", tmp_path / "back")
    assert (
        "waist at 0 to 19, where the robot YAML allows -2.6 to 2.6 rad. If these are degrees, give --degrees"
        in said(*back, code=1)
    )
    wide = desk_arm_with(joints={name: {"position": [-200.0, 200.0]} for name in robot.joint_names})
    assert "1 episodes are in" in said(*back, "--robot", wide)
    assert "2 episodes, 40 ticks" in said(
        "export", folder, "--to", "robomimic", "--all", "--out", tmp_path / "demos.hdf5", "--size", "48x48"
    )
    assert "write it as 640x480" in said(
        "export", folder, "--to", "lerobot", "--out", tmp_path / "no", "--size", "big", code=1
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["arm.yaml", "back", "data", "demos.hdf5", "le"]
    assert "1 episodes are in" in said(
        "import", folder / "episode_000000", "--from", "rosbag2", "--task", "fold", "--out", tmp_path / "back"
    )
