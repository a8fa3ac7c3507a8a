"""Training: tiny, repeatable, and resumed as if never interrupted."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Dataset, mixed
from lam_ros.errors import ContractError, TrainingError
from lam_ros.learning import training
from lam_ros.learning.batches import Frames, Windows
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.stages import ActionStage, PerceptionStage
from lam_ros.learning.training import averaging, epoch_steps, train, untrained_path
from lam_ros.policy.checkpoint import load_policy, read_info
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.runtime import PolicyNetwork

TINY = TrainConfig(
    policy=PolicyConfig(image_size=(24, 24), hidden_size=16, chunk=2),
    perception_steps=120,
    perception_batch=4,
    action_steps=120,
    action_batch=2,
    learning_rate=3e-3,
    shift=0,
    views=1,
    memory_dropout=0.0,
    feature_noise=0.02,
    precision="float32",
)
Report = Callable[[str, int, int, float], None]


@pytest.fixture
def dataset(robot: RobotConfig, demonstrate: Any) -> Dataset:
    return Dataset(Contract.of(robot), "wave", "desk_arm", demonstrate(4, ticks=8), "synthetic")


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_file(file)


class PowerCut(Exception):
    pass


def interrupt_at(stage: str, step: int, error: type[BaseException] = PowerCut) -> Report:
    def report(now: str, done: int, total: int, loss: float) -> None:
        if (now, done) == (stage, step):
            raise error

    return report


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Filled by the first test that trains to the end, so that it is done once."""
    return {}


def train_once(dataset: Dataset, folder: Path, unbroken: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not unbroken:
        unbroken.update(weights(train(dataset, TINY, folder / "unbroken.safetensors").checkpoint))
    return unbroken


def test_training_learns_and_writes_a_policy_for_the_robot(
    dataset: Dataset, robot: RobotConfig, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    file, told = tmp_path / "policy.safetensors", []
    result = train(dataset, TINY, file, lambda *step: told.append(step))
    unbroken.update(weights(file))
    assert result.checkpoint == file
    assert [step[:3] for step in told[:120]] == [("perception", n, 120) for n in range(1, 121)]
    assert [step[:3] for step in told[120:]] == [("action", n, 120) for n in range(1, 121)]
    for stage in (told[:120], told[120:]):
        losses = [step[3] for step in stage]
        assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    info = read_info(file)
    assert (info.task, info.robot, info.dataset, info.policy) == ("wave", "desk_arm", "synthetic", TINY.policy)
    assert info.figures["episodes"] == 4
    assert info.figures["ticks"] == 32
    assert np.isfinite(info.figures["action_val_loss"])
    assert info.colours == dataset.colours()
    load_policy(file, robot)
    assert result.log_folder.parent == tmp_path / "policy"


@pytest.mark.parametrize(
    ("stage", "step", "kept"),  # an epoch has 50 steps; the crash at a stage's last step comes before its epoch is kept
    [
        ("perception", 30, 0),
        ("perception", 110, 60),
        ("action", 110, 180),
    ],
)
def test_an_interrupted_run_is_resumed_to_the_same_weights(
    dataset: Dataset, tmp_path: Path, unbroken: dict[str, torch.Tensor], stage: str, step: int, kept: int
) -> None:
    expected = train_once(dataset, tmp_path, unbroken)
    file, told = tmp_path / "policy.safetensors", []
    with pytest.raises(PowerCut):
        train(dataset, TINY, file, interrupt_at(stage, step))
    assert not file.exists()
    train(dataset, TINY, file, lambda *step: told.append(step))
    resumed = weights(file)
    assert resumed.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(resumed[name], weight), name
    assert len(told) == 240 - kept


def test_nothing_is_learned_of_held_out_episodes(
    dataset: Dataset, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    _, held_out = dataset.split(TINY.validation_share, TINY.seed)
    kept = [id(one) for one in held_out.demonstrations]
    others = [
        dataclasses.replace(one, images=255 - one.images, state=3 * one.state, action=one.action - 2.0)
        if id(one) in kept
        else one
        for one in dataset.demonstrations
    ]
    assert len(kept) == 1
    expected = train_once(dataset, tmp_path, unbroken)
    learned = weights(
        train(dataclasses.replace(dataset, demonstrations=others), TINY, tmp_path / "other.safetensors").checkpoint
    )
    for name, weight in expected.items():
        assert torch.equal(learned[name], weight), name


def curves(log_folder: Path) -> dict[str, list[dict[str, str]]]:
    """What is in each stage's metrics.csv, its empty cells left out."""
    found = {}
    for file in sorted(log_folder.glob("*/metrics.csv")):
        with file.open() as lines:
            found[file.parent.name] = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]
    return found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"ema": 0.9, "patience": 100},
        {"patience": 100, "learning_rate": 1e-2},  # stage two is best after 50 steps, in the epoch before the cut
        {"together_steps": 80, "together_batch": 2, "window": 3},  # the LSTM's state handed on between windows
    ],
    ids=str,
)
def test_a_run_that_is_resumed_twice_has_the_curves_and_weights_of_an_unbroken_one(
    dataset: Dataset, tmp_path: Path, more: dict[str, Any]
) -> None:
    config = dataclasses.replace(TINY, **more)
    unbroken = train(dataset, config, tmp_path / "unbroken.safetensors")
    file = tmp_path / "policy.safetensors"
    cuts = [("perception", 77), ("action", 60), *([("together", 60)] if config.together_steps else [])]
    for stage, step in cuts:
        with pytest.raises(PowerCut):
            train(dataset, config, file, interrupt_at(stage, step))
    resumed = train(dataset, config, file)
    expected = weights(unbroken.checkpoint)
    for name, weight in weights(file).items():
        assert torch.equal(weight, expected[name]), name
    assert len(curves(resumed.log_folder)) == len(cuts)
    assert curves(resumed.log_folder) == curves(unbroken.log_folder)
    kept = {name: value for name, value in resumed.figures.items() if not name.endswith("seconds")}
    assert kept == {name: value for name, value in unbroken.figures.items() if not name.endswith("seconds")}


def test_a_cut_between_the_last_step_and_what_is_left_of_the_stage_loses_nothing(
    dataset: Dataset, tmp_path: Path
) -> None:
    averaged = dataclasses.replace(TINY, perception_steps=100, action_steps=100, ema=0.9)
    file = tmp_path / "policy.safetensors"
    result = train(dataset, averaged, file)
    expected = weights(file)
    for left in (result.log_folder / "finished.json", result.log_folder / "action" / "finished.pt"):
        left.unlink()
    train(dataset, averaged, file)
    for name, weight in weights(file).items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize(("stage", "name"), [("action", "last.ckpt"), ("perception", "finished.pt")])
def test_a_damaged_file_of_a_stage_is_said_and_the_stage_begins_anew_without_it(
    dataset: Dataset, tmp_path: Path, unbroken: dict[str, torch.Tensor], stage: str, name: str
) -> None:
    expected = train_once(dataset, tmp_path, unbroken)
    file = tmp_path / "policy.safetensors"
    with pytest.raises(PowerCut):
        train(dataset, TINY, file, interrupt_at("action", 70))
    (damaged,) = tmp_path.glob(f"policy/run_*/{stage}/{name}")
    (curve,) = tmp_path.glob("policy/run_*/action/metrics.csv")
    whole, told = damaged.read_bytes(), curve.read_text()
    for part in (b"", whole[:1], whole[:1000], whole[:-1]):
        damaged.write_bytes(part)
        with pytest.raises(TrainingError, match=rf"{name} is damaged; delete the folder {damaged.parent}, and"):
            train(dataset, TINY, file)
    assert curve.read_text() == told
    shutil.rmtree(damaged.parent)
    train(dataset, TINY, file)
    for key, weight in weights(file).items():
        assert torch.equal(weight, expected[key]), key


def test_a_torn_line_of_a_curve_is_left_out(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "policy.safetensors"
    with pytest.raises(PowerCut):
        train(dataset, TINY, file, interrupt_at("perception", 77))
    (curve,) = tmp_path.glob("policy/run_*/perception/metrics.csv")
    curve.write_text(curve.read_text() + "0,0.4")
    told = curves(train(dataset, TINY, file).log_folder)["perception"]
    assert [int(row["step"]) for row in told if "loss" in row] == list(range(9, 120, 10))


def test_a_stage_that_ended_early_does_not_go_on_when_the_next_one_is_resumed(dataset: Dataset, tmp_path: Path) -> None:
    patient = dataclasses.replace(TINY, perception_steps=2000, learning_rate=1e-2, patience=1)
    file, told = tmp_path / "policy.safetensors", []
    with pytest.raises(PowerCut):
        train(dataset, patient, file, interrupt_at("action", 20))
    train(dataset, patient, file, lambda stage, done, *_: told.append((stage, done)))
    assert {stage for stage, _ in told} == {"action"}


@pytest.mark.parametrize("targets", ["relative", "absolute"])
def test_a_tick_moves_by_the_way_it_asks_for_whatever_targets_are(dataset: Dataset, targets: Any) -> None:
    for demonstration in dataset.demonstrations:
        demonstration.state[:] = np.linspace(-1.0, 1.0, len(demonstration))[:, None]
        demonstration.action[:] = demonstration.state
        demonstration.action[::4] += 0.1
    frames = Frames.of(dataset, 2)
    config = dataclasses.replace(TINY, policy=dataclasses.replace(TINY.policy, targets=targets))
    network = PolicyNetwork(config.policy, dataset.contract)
    network.normaliser.fit(frames.state, frames.targets)
    views = torch.zeros(1, len(frames.state), 2, network.perception.features)
    stage = ActionStage(network, config, frames, frames, views, views[0])
    assert stage.is_moving(frames, torch.arange(8)).tolist() == [True, False, False, False] * 2


@pytest.fixture
def sigint_handler() -> Iterator[Any]:
    """Ctrl-C's handler, which is put back whatever a test does to it."""
    handler = signal.getsignal(signal.SIGINT)
    yield handler
    signal.signal(signal.SIGINT, handler)


def test_ctrl_c_ends_training_as_a_keyboard_interrupt(dataset: Dataset, tmp_path: Path, sigint_handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(dataset, TINY, tmp_path / "policy.safetensors", interrupt_at("perception", 3, KeyboardInterrupt))
    assert signal.getsignal(signal.SIGINT) is sigint_handler, "a second Ctrl-C must still be heard"


def test_a_finished_run_keeps_the_weights_of_another_seed_apart(
    dataset: Dataset, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    expected = train_once(dataset, tmp_path, unbroken)
    short = dataclasses.replace(TINY, perception_steps=2, action_steps=2, seed=1)
    file = tmp_path / "other.safetensors"
    train(dataset, short, file)
    assert not torch.equal(weights(file)["action.inlet.0.weight"], expected["action.inlet.0.weight"])
    untrained = weights(untrained_path(file))
    assert untrained_path(file).name == "other.untrained.safetensors"
    torch.testing.assert_close(untrained["normaliser.state_mean"], weights(file)["normaliser.state_mean"])
    assert not torch.equal(untrained["action.inlet.0.weight"], weights(file)["action.inlet.0.weight"])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_episodes_are_refused(dataset: Dataset, demonstrate: Any, tmp_path: Path, count: int) -> None:
    few = dataclasses.replace(dataset, demonstrations=demonstrate(count))
    with pytest.raises(TrainingError, match=rf"there are {count} usable episodes; training needs at least 2"):
        train(few, TINY, tmp_path / "policy.safetensors")


@pytest.mark.parametrize("part", ["state", "action"])
def test_values_that_are_not_finite_are_refused(dataset: Dataset, tmp_path: Path, part: str) -> None:
    getattr(dataset.demonstrations[1], part)[3, 2] = np.nan
    with pytest.raises(TrainingError, match=f"hold {part}s that are not finite; run `lam episodes verify`"):
        train(dataset, TINY, tmp_path / "policy.safetensors")


def test_episodes_in_which_no_human_drove_teach_nothing(dataset: Dataset, tmp_path: Path) -> None:
    alone = [dataclasses.replace(d, human=np.zeros(len(d), dtype=bool)) for d in dataset.demonstrations]
    with pytest.raises(TrainingError, match="a policy drove in all of these episodes"):
        train(dataclasses.replace(dataset, demonstrations=alone), TINY, tmp_path / "p.safetensors")


def test_demonstrations_of_nothing_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    for demonstration in dataset.demonstrations:
        demonstration.action[:] = 0.5
    with pytest.raises(TrainingError, match="no joint is ever moved in these demonstrations"):
        train(dataset, TINY, tmp_path / "policy.safetensors")


def test_fine_tuning_begins_with_a_checkpoint_and_its_normaliser(dataset: Dataset, tmp_path: Path) -> None:
    first, tuned = tmp_path / "first.safetensors", tmp_path / "tuned.safetensors"
    short = dataclasses.replace(TINY, perception_steps=3, action_steps=3)
    train(dataset, short, first)
    spread = np.concatenate([d.action for d in dataset.demonstrations]).std(0)
    shifted = [dataclasses.replace(d, state=d.state + spread, action=d.action + spread) for d in dataset.demonstrations]
    other = dataclasses.replace(dataset, demonstrations=shifted, digest="shifted")
    train(other, short, tuned, start=first)
    begun, trained = weights(untrained_path(tuned)), weights(first)
    for name, weight in trained.items():
        assert torch.equal(begun[name], weight), name
    assert torch.equal(weights(tuned)["normaliser.state_mean"], trained["normaliser.state_mean"])
    assert not torch.equal(weights(tuned)["action.inlet.0.weight"], trained["action.inlet.0.weight"])
    changed = dataclasses.replace(short, policy=dataclasses.replace(short.policy, hidden_size=8))
    with pytest.raises(TrainingError, match=r"than the settings ask for: hidden_size 16, not 8\. "):
        train(other, changed, tuned, start=first)


def test_a_joint_that_stood_still_is_not_fine_tuned_to_move(dataset: Dataset, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    short = dataclasses.replace(TINY, perception_steps=3, action_steps=3)
    still = [dataclasses.replace(d, action=d.action.copy(), state=d.state.copy()) for d in dataset.demonstrations]
    for demonstration in still:
        demonstration.action[:, 6] = demonstration.state[:, 6] = 0.02
    train(dataclasses.replace(dataset, demonstrations=still, digest="still"), short, first)
    with pytest.raises(TrainingError, match=r"gripper \(\d+ times as far\) moves further .* on both folders together"):
        train(dataset, short, tmp_path / "tuned.safetensors", start=first)


def test_a_robot_at_another_rate_is_not_fine_tuned(dataset: Dataset, tmp_path: Path) -> None:
    first, short = tmp_path / "first.safetensors", dataclasses.replace(TINY, perception_steps=1, action_steps=1)
    train(dataset, short, first)
    slower = dataclasses.replace(dataset, contract=dataclasses.replace(dataset.contract, rate_hz=15.0))
    with pytest.raises(ContractError, match="with rate_hz = 20"):
        train(slower, short, tmp_path / "tuned.safetensors", start=first)


@pytest.mark.parametrize("what", ["data", "start", "settings"])
def test_a_run_of_other_data_or_another_start_begins_anew(dataset: Dataset, tmp_path: Path, what: str) -> None:
    short = dataclasses.replace(TINY, perception_steps=1, action_steps=1)
    starts = [tmp_path / f"{seed}.safetensors" for seed in (1, 2)]
    for seed, file in enumerate(starts):
        train(dataset, dataclasses.replace(short, seed=seed), file)
    other = dataclasses.replace(dataset, demonstrations=dataset.demonstrations[:3], digest="three of them")
    given = {
        "data": [(dataset, short, starts[0]), (other, short, starts[0])],
        "start": [(dataset, short, starts[0]), (dataset, short, starts[1])],
        "settings": [(dataset, short, starts[0]), (dataset, dataclasses.replace(short, colour=40.0), starts[0])],
    }[what]
    found, out = [], tmp_path / "tuned.safetensors"
    for data, settings, start in given:
        train(data, settings, out, start=start)
        found.append(weights(out)["action.inlet.0.weight"])
    assert not torch.equal(*found)


def test_corrections_count_as_much_as_they_are_set_to(dataset: Dataset, tmp_path: Path) -> None:
    shown = [dataclasses.replace(d, human=np.arange(8) >= 4 * (n % 2)) for n, d in enumerate(dataset.demonstrations)]
    corrected, found = dataclasses.replace(dataset, demonstrations=shown), []
    for count in (1.0, 9.0):
        settings = dataclasses.replace(TINY, perception_steps=5, action_steps=1, corrections=count)
        file = train(corrected, settings, tmp_path / f"{count}.safetensors").checkpoint
        found.append(weights(file)["action.inlet.0.weight"])
    assert not torch.equal(*found)


def test_scales_and_bins_are_of_what_a_human_did(dataset: Dataset, tmp_path: Path) -> None:
    """Whatever the policy did in between, the policy that is trained begins alike."""
    policy, found = dataclasses.replace(TINY.policy, head="categorical"), []
    settings = dataclasses.replace(TINY, policy=policy, perception_steps=1, action_steps=1)
    for driven in (0.1, 9.0):
        human = np.isin(np.arange(8), (3, 4), invert=True)
        times = np.where(human, 1.0, driven)[:, None].astype(np.float32)
        shown = [
            dataclasses.replace(d, human=human, state=d.state * times, action=d.action * times)
            for d in dataset.demonstrations
        ]
        result = train(dataclasses.replace(dataset, demonstrations=shown), settings, tmp_path / f"{driven}.safetensors")
        found.append(weights(untrained_path(result.checkpoint)))
    for name in ("normaliser.state_std", "normaliser.target_mean", "normaliser.target_scale", "action.head.reach"):
        assert torch.equal(found[0][name], found[1][name]), name


def test_the_bins_of_a_categorical_head_reach_as_far_as_targets_do(dataset: Dataset, tmp_path: Path) -> None:
    policy = dataclasses.replace(TINY.policy, head="categorical")
    settings = dataclasses.replace(TINY, policy=policy, perception_steps=1, action_steps=1)
    trained = weights(train(dataset, settings, tmp_path / "policy.safetensors").checkpoint)
    reach = trained["action.head.reach"]
    assert not torch.allclose(reach, reach[0, 0].expand_as(reach)), "each joint's own, not the default"


def test_a_categorical_policy_is_not_fine_tuned_beyond_its_bins(dataset: Dataset, tmp_path: Path) -> None:
    policy = dataclasses.replace(TINY.policy, head="categorical")
    settings = dataclasses.replace(TINY, policy=policy, perception_steps=1, action_steps=1)
    first, tuned = tmp_path / "first.safetensors", tmp_path / "tuned.safetensors"
    train(dataset, settings, first)
    train(dataset, settings, tuned, start=first)
    further = [dataclasses.replace(d, action=d.action.copy()) for d in dataset.demonstrations]
    for demonstration in further:
        demonstration.action[:, [1, 4]] *= 2.0
    other = dataclasses.replace(dataset, demonstrations=further, digest="further")
    joints = ", ".join(rf"{dataset.contract.joints[i]} \(\d+ % of ticks\)" for i in (1, 4))
    with pytest.raises(TrainingError, match=rf"{joints} goes beyond the bins of {first}, .* Train from the beginning"):
        train(other, settings, tuned, start=first)


@pytest.mark.parametrize("keep", [True, False])
def test_stage_two_keeps_what_stage_one_made_of_single_ticks(dataset: Dataset, tmp_path: Path, keep: bool) -> None:
    short = dataclasses.replace(TINY, perception_steps=20, action_steps=20, keep_reflex=keep)
    result = train(dataset, short, tmp_path / "p.safetensors")
    stage_one = torch.load(result.log_folder / "perception" / "last.ckpt", weights_only=True)["state_dict"]
    begun, trained = weights(untrained_path(result.checkpoint)), weights(result.checkpoint)
    for name in ("action.inlet.0.weight", "action.reflex.0.weight", "action.reflex.0.bias"):
        assert not torch.equal(stage_one[name], begun[name])
        assert torch.equal(trained[name], stage_one[name]) == keep
    assert torch.equal(stage_one["action.lstm.weight_hh_l0"], begun["action.lstm.weight_hh_l0"])
    assert not torch.equal(trained["action.lstm.weight_hh_l0"], begun["action.lstm.weight_hh_l0"])


def test_weights_that_are_moved_between_the_stages_can_still_be_trained(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a move makes new tensors; on a CPU it makes none."""
    monkeypatch.setattr(PolicyNetwork, "to", lambda network, *_: network._apply(torch.clone))
    result = train(dataset, dataclasses.replace(TINY, perception_steps=2, action_steps=2), tmp_path / "p.safetensors")
    begun, trained = weights(untrained_path(result.checkpoint)), weights(result.checkpoint)
    assert not torch.equal(trained["action.lstm.weight_hh_l0"], begun["action.lstm.weight_hh_l0"])


def test_a_memory_that_is_never_heard_learns_nothing(dataset: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, perception_steps=5, action_steps=5, weight_decay=0.0)
    moved = {}
    for dropout in (0.0, 1.0 - 1e-9):
        file = tmp_path / f"dropout_{dropout}.safetensors"
        train(dataset, dataclasses.replace(short, memory_dropout=dropout), file)
        before, after = weights(untrained_path(file)), weights(file)
        moved[dropout > 0] = not torch.equal(after["action.lstm.weight_hh_l0"], before["action.lstm.weight_hh_l0"])
    assert moved == {False: True, True: False}


@pytest.mark.parametrize("hand_on", [True, False])
def test_a_window_begins_with_the_last_ones_memory_where_it_is_handed_on(dataset: Dataset, hand_on: bool) -> None:
    config = dataclasses.replace(TINY, hand_on=hand_on)
    frames, network = Frames.of(dataset, 2), PolicyNetwork(TINY.policy, dataset.contract)
    views = torch.zeros(1, len(frames.state), 2, network.perception.features)
    stage = ActionStage(network, config, frames, frames, views, views[0])
    window = next(iter(Windows(frames.lengths, frames.weights, 2, 3, 4, 0)))
    window = dataclasses.replace(window, fresh=torch.tensor([True, False]))
    stage._hidden = torch.ones(1, 2, 16), torch.ones(1, 2, 16)
    for part in stage.handed_on(window, batch_index=1):
        torch.testing.assert_close(part[0], torch.stack([torch.zeros(16), torch.ones(16) * hand_on]))


def test_averaged_weights_lag_behind_the_last_ones(dataset: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, perception_steps=20, action_steps=20)
    moved = {}
    for ema in (0.0, 0.99):
        file = tmp_path / f"ema_{ema}.safetensors"
        train(dataset, dataclasses.replace(short, ema=ema), file)
        before, after = weights(untrained_path(file)), weights(file)
        moved[ema] = float((after["action.lstm.weight_hh_l0"] - before["action.lstm.weight_hh_l0"]).norm())
    assert 0.0 < moved[0.99] < moved[0.0]


def test_an_average_takes_up_weights_by_its_decay_and_faster_at_the_beginning() -> None:
    average, kept = torch.zeros(3), 1.0
    for n in range(200):
        average = averaging(0.9)(average, torch.ones(3), n)
        kept *= min(0.9, (1 + n) / (10 + n))
        torch.testing.assert_close(average, torch.full((3,), 1.0 - kept))
    slow = torch.zeros(3)
    for n in range(150):
        slow = averaging(0.999)(slow, torch.ones(3), n)
    assert slow.min() > 0.999, "150 steps are a stage: what it began with is gone"


def test_held_out_ticks_that_do_not_count_give_no_perfect_loss(dataset: Dataset, tmp_path: Path) -> None:
    shown, *others = dataset.demonstrations
    driven = [dataclasses.replace(other, human=np.zeros(len(other.state), dtype=bool)) for other in others]
    dataset = dataclasses.replace(dataset, demonstrations=[shown, *driven])  # a policy drove in all but one
    result = train(dataset, TINY, tmp_path / "p.safetensors")
    assert "action_val_loss" not in result.figures
    assert "action_loss" in result.figures
    with pytest.raises(TrainingError, match="in no held-out episode a human drove"):
        train(dataset, dataclasses.replace(TINY, patience=2), tmp_path / "q.safetensors")


def test_the_time_to_go_has_one_unit(dataset: Dataset) -> None:
    frames = Frames.of(dataset, 2)
    longer = dataclasses.replace(frames, lengths=[2 * length for length in frames.lengths])
    stage = PerceptionStage(PolicyNetwork(TINY.policy, dataset.contract), TINY, frames, longer)
    index = torch.tensor([0])
    assert torch.equal(stage.labels(frames, index), stage.labels(longer, index))


def test_a_stage_ends_early_and_keeps_its_best_weights(dataset: Dataset, tmp_path: Path) -> None:
    """Trained on noise, the loss on held-out episodes soon rises."""
    told: list[tuple[str, int]] = []
    patient = dataclasses.replace(TINY, perception_steps=2000, action_steps=2000, learning_rate=1e-2, patience=2)
    result = train(dataset, patient, tmp_path / "p.safetensors", lambda stage, done, *_: told.append((stage, done)))
    for stage in ("perception", "action"):
        assert max(done for name, done in told if name == stage) < 2000
        assert (result.log_folder / stage / "best.ckpt").is_file()
        kept = torch.load(result.log_folder / stage / "best.ckpt", weights_only=True)["state_dict"]
        trained = weights(result.checkpoint)
        for name in ("perception.encoders.0.colour.weight", "action.inlet.0.weight"):
            if name in kept:
                assert torch.equal(trained[name], kept[name]), name
        held_out = [float(row["val_loss"]) for row in curves(result.log_folder)[stage] if "val_loss" in row]
        assert min(held_out) < held_out[-1]
        assert result.figures[f"{stage}_val_loss"] == pytest.approx(min(held_out))


def test_what_is_learned_by_heart_and_what_stands_still_is_said(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for demonstration in dataset.demonstrations:
        demonstration.state[3:] = demonstration.state[3]
    sharp = dataclasses.replace(TINY, perception_steps=400, action_steps=1, learning_rate=1e-2, way_weight=0.0)
    train(dataset, sharp, tmp_path / "policy.safetensors")
    assert "the arm stands still in" in caplog.text
    assert "it learns by heart" in caplog.text


@pytest.mark.parametrize("more", [{"head": "gmm"}, {"head": "refined"}, {"targets": "absolute", "layers": 2}])
def test_each_model_trains_through_all_stages(dataset: Dataset, robot: RobotConfig, tmp_path: Path, more: Any) -> None:
    config = dataclasses.replace(
        TINY,
        policy=dataclasses.replace(TINY.policy, **more),
        **{"perception_steps": 3, "action_steps": 3, "together_steps": 3, "window": 3, "views": 2, "shift": 2},
    )
    file = tmp_path / "policy.safetensors"
    figures = train(dataset, config, file).figures
    assert {"perception_loss", "action_loss", "together_loss"} <= figures.keys()
    load_policy(file, robot)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (("policy", None, None), r"policy; give it a name that ends in \.safetensors"),
        (("p.safetensors", "none.safetensors", None), r"none\.safetensors is not there"),
        (("p.safetensors", "a", "b"), "a has a perception already; give it, or the pre-trained b, not both"),
    ],
)
def test_files_that_do_not_go_together_are_said_before_anything_is_trained(
    dataset: Dataset, tmp_path: Path, files: tuple[str | None, ...], sentence: str
) -> None:
    out, start, pretrained = (Path(name) if name else None for name in files)
    assert out is not None
    with pytest.raises(TrainingError, match=sentence):
        train(dataset, TINY, tmp_path / out, start=start, pretrained=pretrained)
    assert not list(tmp_path.iterdir())


def test_windows_reach_the_ends_of_the_longest_episodes(
    robot: RobotConfig, demonstrate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    class Watched(Windows):
        def __iter__(self) -> Iterator[Any]:
            for window in super().__iter__():
                drawn.append(int(window.index.max()))
                yield window

    monkeypatch.setattr(training, "Windows", Watched)
    long = Dataset(Contract.of(robot), "wave", "desk_arm", demonstrate(2, ticks=70, size=(24, 24)), "synthetic")
    settings = dataclasses.replace(TINY, window=1, perception_steps=1, action_steps=70, action_batch=1)
    train(long, settings, tmp_path / "policy.safetensors")
    assert max(drawn) == 69


def test_each_stage_over_episodes_has_its_batch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Watched(Windows):
        def __init__(self, lengths: Any, weights: Any, batch: int, *more: Any) -> None:
            asked.append(batch)
            super().__init__(lengths, weights, batch, *more)

    monkeypatch.setattr(training, "Windows", Watched)
    steps = {"perception_steps": 1, "action_steps": 1, "together_steps": 1}
    settings = dataclasses.replace(TINY, **steps, action_batch=3, together_batch=2)
    train(dataset, settings, tmp_path / "policy.safetensors")
    assert asked == [3, 2]


@pytest.mark.parametrize("name", ["perception_batch", "action_batch", "together_batch"])
def test_a_batch_that_processes_cannot_share_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(training, "processes", lambda: (0, 3))
    batches = {"perception_batch": 6, "action_batch": 3, "together_batch": 9, name: 7}
    with pytest.raises(TrainingError, match=f"{name} is 7; 3 processes cannot share it evenly"):
        train(dataset, dataclasses.replace(TINY, **batches), tmp_path / "policy.safetensors")


def test_figures_that_are_not_finite_do_not_spoil_a_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    human = [np.arange(8) >= 0, *(np.arange(8) < 0 for _ in range(3))]  # nothing is left to judge by
    shown = [dataclasses.replace(d, human=h) for d, h in zip(dataset.demonstrations, human, strict=True)]
    settings = dataclasses.replace(TINY, perception_steps=2, action_steps=2)
    result = train(dataclasses.replace(dataset, demonstrations=shown), settings, tmp_path / "policy.safetensors")
    assert "perception_val_loss" not in result.figures
    assert np.isfinite(read_info(result.checkpoint).figures["perception_loss"])


def test_a_stage_shorter_than_an_epoch_is_validated_all_the_same(dataset: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, perception_steps=3, action_steps=4, together_steps=4, together_batch=2, window=2)
    figures = train(dataset, short, tmp_path / "policy.safetensors").figures
    assert all(f"{stage}_val_loss" in figures for stage in ("perception", "action", "together"))


def test_folders_are_shown_by_their_weights_in_every_stage(
    dataset: Dataset, demonstrate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[float]] = {}

    class Noted:
        def __init__(self, lengths: Any, weights: Any, *more: Any) -> None:
            shown["episodes"] = list(map(float, weights))
            raise PowerCut

    def shuffled(weights: Any, *more: Any) -> Any:
        shown["frames"] = list(map(float, weights))
        return made(weights, *more)

    made = training.Shuffled
    monkeypatch.setattr(training, "Shuffled", shuffled)
    monkeypatch.setattr(training, "Windows", Noted)
    other = dataclasses.replace(dataset, demonstrations=demonstrate(4, ticks=8, seed=1))
    both = mixed([dataset, other], [1.0, 3.0])
    with pytest.raises(PowerCut):
        train(both, dataclasses.replace(TINY, perception_steps=1), tmp_path / "policy.safetensors")
    for weights_shown in shown.values():
        assert len({round(weight / min(weights_shown), 3) for weight in weights_shown}) > 1, "not alike"
        assert max(weights_shown) / min(weights_shown) == pytest.approx(3.0, rel=0.5)


def test_curves_go_to_tensorboard_too(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `train`")
    short = dataclasses.replace(TINY, perception_steps=1, action_steps=1)
    folder = train(dataset, short, tmp_path / "policy.safetensors").log_folder
    assert {file.parent.name for file in folder.rglob("events.out.tfevents.*")} == {"perception", "action"}


def test_a_note_of_the_end_that_was_cut_short_is_no_end(dataset: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, perception_steps=1, action_steps=1)
    result = train(dataset, short, tmp_path / "policy.safetensors")
    (result.log_folder / "finished.json").write_text("")
    again = train(dataset, short, tmp_path / "policy.safetensors")
    assert again.figures["ticks"] == result.figures["ticks"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "learn"}, (1, 2)),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "interactive"}, (0, 1)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "learn"}, None),
    ],
)
def test_how_many_train_together(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int] | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if expected:
        assert training.processes() == expected
    else:
        with pytest.raises(TrainingError, match="srun --ntasks-per-node=N"):
            training.processes()


@pytest.mark.parametrize("least", [1, 50, 72])
def test_epochs_are_equally_long_and_the_last_ends_about_where_its_stage_does(least: int) -> None:
    for steps in range(1, 1200):
        each = epoch_steps(steps, least)
        assert each >= min(steps, least)
        assert each < 2 * least or each == steps
        assert steps % each < max(1, steps // least), "less than a step an epoch"
