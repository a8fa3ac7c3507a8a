"""The command line: help that teaches, and errors of one sentence without a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lam_ros.bringup import Options
from lam_ros.cli import steps
from lam_ros.cli.console import friendly_errors, isolated_ros
from lam_ros.cli.learning import changed, learning_app
from lam_ros.cli.main import app
from lam_ros.config import RobotConfig
from lam_ros.errors import BringUpError, ConfigError
from lam_ros.learning import rollouts
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.evaluation import EpisodeResult, Evaluation
from lam_ros.policy import checkpoint


def lam(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lam_ros.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


LEARNING = ("train", "pretrain", "evaluate", "inspect", "export", "swap")


@pytest.mark.parametrize("command", ["up", "node", "record", *LEARNING, "demo", "episodes", "calibrate"])
def test_every_command_explains_itself(command: str) -> None:
    ended = lam(command, "--help")
    assert ended.returncode == 0
    assert "Usage" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("node", "juggle"), "there is no node 'juggle'; there are perception"),
        (("up", "deploy"), "deploy needs a policy: give --checkpoint FILE"),
        (("up", "record"), "give --out DIR"),
        (("record", "--out", "demos"), "say what is shown, in words: --task"),
        (("calibrate", "latency", "--joint", "tail", "--simulated"), "there is no joint 'tail'; the robot has waist"),
        (("up", "simulate", "--robot", "ur99"), "there is no robot 'ur99'; lam_ros ships desk_arm"),
        (("episodes", "list", "nowhere"), "nowhere is no folder of episodes"),
        (("train", "--data", "nowhere", "--out", "x.safetensors"), "nowhere is no folder of episodes"),
        (("train", "--data", "nowhere", "--out", "x"), "give it a name that ends in .safetensors"),
        (("record", "--simulated", "--task", "reach", "--out", "/proc/nowhere/x"), "/proc/nowhere: No such file"),
        (("evaluate", "--checkpoint", "nothing.safetensors"), "is not a readable checkpoint"),
        (("demo", "--task", "juggle"), "there is no task 'juggle'; the embedded simulator has reach"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ended = lam(*arguments)
    assert ended.returncode == 1
    said = " ".join((ended.stdout + ended.stderr).split())
    assert sentence in said
    assert "Traceback" not in said


def test_any_setting_can_be_changed() -> None:
    settings = changed(TrainConfig(), ["policy.chunk=16", "shift=4", "policy.image_size=[64, 48]", "ema=0.99"])
    assert (settings.policy.chunk, settings.shift, settings.policy.image_size, settings.ema) == (16, 4, (64, 48), 0.99)
    assert changed(TrainConfig(), []) == TrainConfig()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("shift", r"--set shift has no '='; write --set key=value"),
        ("shfit=4", r"shfit is not a known key; did you mean 'shift'"),
        ("policy.chunk=many", r"policy\.chunk"),
        ("seed.more=1", r"there are no settings 'seed'"),
        ("ema=1.5", r"ema is 1\.5; it must be from 0 to below 1"),
        ("policy.encoder=resnet", r"there is no encoder 'resnet'"),
        ("policy.chunk=[", r"--set policy\.chunk=\[ is no YAML"),
        ("seed=2020-99-99", r"--set seed=2020-99-99 is no YAML"),
        ("seed=" + 400 * "9", r"seed is larger than 1e\+12"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_sentence(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(TrainConfig(), [assignment])


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_steps_cannot_be_scaled_by_what_is_no_number_above_zero(factor: float) -> None:
    with pytest.raises(ConfigError, match="give a number above 0"):
        TrainConfig().scaled(factor)


def test_what_is_read_is_mixed_by_its_weights_and_films_are_all_there_is(
    monkeypatch: pytest.MonkeyPatch, robot: RobotConfig
) -> None:
    asked: list[dict[str, Any]] = []

    def load(episodes: list[str], *given: Any, **more: Any) -> str:
        asked.append(more)
        return ",".join(episodes)

    monkeypatch.setattr(steps, "episodes_of", lambda folder: [f"{folder}{i}" for i in range(4)])
    monkeypatch.setattr(steps, "usable", lambda episodes, robot: episodes[1:])  # the first take failed
    monkeypatch.setattr(steps, "load_dataset", load)
    monkeypatch.setattr(steps, "mixed", lambda parts, weights=(): (parts, weights))
    read: Any = steps.load_data(["a", "b"], [1.0, 2.0], robot, TrainConfig())
    assert read == (["a1,a2,a3", "b1,b2,b3"], [1.0, 2.0])
    steps.load_films(["c"], robot, TrainConfig())
    assert [more.get("films", False) for more in asked] == [False, False, True]
    first: Any = steps.load_data(["a"], [], robot, TrainConfig(), limit=2)
    assert first == (["a1,a2"], [])


def test_fine_tuning_keeps_the_checkpoints_model(
    turning_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, asked = turning_policy(0.2, 1e-3), []

    def run(dataset: Any, settings: TrainConfig, *others: Any) -> Any:
        asked.append(settings)
        raise ConfigError("enough.")

    monkeypatch.setattr(steps, "load_data", lambda *given: None)
    monkeypatch.setattr("lam_ros.learning.training.train", run)
    out = str(tmp_path / "tuned.safetensors")
    for more in ([], ["--set", "policy.smoothing=0.25", "--set", "shift=3"]):
        ended = CliRunner().invoke(learning_app, ["train", "--data", "x", "--out", out, "--start", str(start), *more])
        assert "enough." in ended.output
    model = checkpoint.read_info(start).policy
    assert model != TrainConfig().policy
    assert asked[0] == replace(TrainConfig(), policy=model)
    assert asked[1] == replace(TrainConfig(), policy=replace(model, smoothing=0.25), shift=3)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [("train", "run the same command again to go on."), ("pretrain", "the same command begins anew.")],
)
def test_ctrl_c_says_what_the_same_command_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, sentence: str
) -> None:
    def pressed(*given: Any) -> None:
        raise KeyboardInterrupt

    for name in ("load_data", "load_films"):
        monkeypatch.setattr(steps, name, pressed)
    ended = CliRunner().invoke(learning_app, [command, "--data", "x", "--out", str(tmp_path / "x.safetensors")])
    assert ended.exit_code == 130
    assert f"interrupted; {sentence}" in ended.output


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), friendly_errors():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "the disk is full; free some space, then run the same command again" in capsys.readouterr().out
    with pytest.raises(OSError, match="a fault of ours"), friendly_errors():
        raise OSError(errno.EINVAL, "a fault of ours")


def test_what_is_simulated_stays_out_of_the_robots_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "101")
    monkeypatch.delenv("LAM_ROS_DOMAIN_ID", raising=False)
    with isolated_ros():
        first = os.environ["ROS_DOMAIN_ID"]
        os.environ["ROS_DOMAIN_ID"] = "101"  # as in another terminal
        with isolated_ros():
            second = os.environ["ROS_DOMAIN_ID"]
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert len({"101", first, second}) == 3
    assert os.environ["ROS_DOMAIN_ID"] == "101"
    monkeypatch.setenv("LAM_ROS_DOMAIN_ID", "7")
    with isolated_ros():
        assert os.environ["ROS_DOMAIN_ID"] == "7"


def test_a_camera_to_unplug_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "read_info", lambda file: None)
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(
        learning_app, ["evaluate", "--checkpoint", str(tmp_path / "policy.safetensors"), "--black-camera", "wirst"]
    )
    assert ended.exit_code == 1
    assert "--black-camera is wirst; the robot's are front, wrist, or `all`." in ended.output


def test_what_makes_it_harder_reaches_the_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def evaluate(trial: Any, seeds: range, workers: int, cluster: str, report: Any) -> Evaluation:
        tried.append((trial.perturbation, list(seeds), workers))
        return Evaluation((EpisodeResult(7, True, 1.0),))

    monkeypatch.setattr(checkpoint, "read_info", lambda path: None)
    monkeypatch.setattr(rollouts, "evaluate", evaluate)
    given = "--core --workers 3 --seed 7 --episodes 1 --delay 2 --drop 0.2 --light 0.3 --camera-shift 4"
    ended = CliRunner().invoke(learning_app, ["evaluate", "--checkpoint", str(tmp_path), *given.split()])
    assert ended.exit_code == 0, ended.output
    assert tried == [(rollouts.Perturbation(2, 0.2, 0.3, 4, ""), [7], 3)]


def test_an_evaluation_that_ends_early_says_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_of_three(*arguments: Any, **more: Any) -> None:
        report = arguments[6]
        report(EpisodeResult(1, True, 2.0))
        report(EpisodeResult(2, False, 5.0))
        raise BringUpError("perception ended.")

    monkeypatch.setattr(checkpoint, "read_info", lambda file: None)
    monkeypatch.setattr(steps, "perform", two_of_three)
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(
        learning_app,
        ["evaluate", "--checkpoint", str(tmp_path / "policy.safetensors"), "--episodes", "3", "--seed", "1"],
    )
    assert ended.exit_code == 1
    assert "policy.safetensors ended after 2 of 3 episodes" in ended.output
    assert "1 of 2 succeeded; 95 % interval 0.09 to 0.91" in ended.output
    assert "perception ended." in ended.output


@pytest.mark.parametrize(("asked", "rad"), [([], 0.02), (["--disturbance", "0.05"], 0.05)])
def test_the_simulated_arm_errs_as_far_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], rad: float
) -> None:
    brought_up: list[Options] = []
    monkeypatch.setattr(steps, "_conduct", lambda options, *rest: brought_up.append(options))
    command = ["record", "--simulated", "--episodes", "2", "--out", str(tmp_path / "demos"), *asked]
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert ended.exit_code == 0, ended.output
    assert brought_up[0].simulation["disturbance"] == rad
