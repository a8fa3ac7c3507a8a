"""What the stages do with each setting: noise, schedule, memory, auxiliary questions, clipping."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lam_ros.config import RobotConfig
from lam_ros.contract import Contract
from lam_ros.demonstrations.dataset import Dataset, Demonstration
from lam_ros.learning.augmentation import displaced
from lam_ros.learning.batches import Frames, Windows
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.stages import (
    LAST_RATE,
    WARM_UP_STEPS,
    ActionStage,
    Hindsighted,
    PerceptionStage,
    Stage,
    TogetherStage,
)
from lam_ros.learning.training import _features, train, untrained_path
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.runtime import PolicyNetwork

TICKS, CAMERAS = 12, 2
QUIET = TrainConfig(
    policy=PolicyConfig(image_size=(24, 24), hidden_size=16, chunk=2),
    state_noise=0.0,
    state_dropout=0.0,
    camera_dropout=0.0,
    feature_dropout=0.0,
    feature_noise=0.0,
    memory_dropout=0.0,
    shift=0,
    views=1,
    precision="float32",
    perception_batch=4,
    action_batch=2,
)


@pytest.fixture
def dataset(robot: RobotConfig, demonstrate: Any) -> Dataset:
    return Dataset(Contract.of(robot), "wave", "desk_arm", demonstrate(3, ticks=TICKS), "synthetic")


class _Alone:
    """A stage in one process, without a trainer."""

    global_rank = 0
    current_epoch = 0
    global_step = 0
    trainer = type("Trainer", (), {"world_size": 1})()

    def log(self, *args: Any, **more: Any) -> None:
        pass

    log_dict = log


class Alone(_Alone, ActionStage):  # type: ignore[misc]
    pass


class PerceptionAlone(_Alone, PerceptionStage):  # type: ignore[misc]
    pass


class TogetherAlone(_Alone, TogetherStage):  # type: ignore[misc]
    pass


def stage_of(dataset: Dataset, views: int = 1, **more: Any) -> Alone:
    config = dataclasses.replace(QUIET, views=views, **more)
    frames, network = Frames.of(dataset, 2), PolicyNetwork(config.policy, dataset.contract)
    network.normaliser.fit(frames.state, frames.targets)
    features = torch.randn(views, len(frames.state), CAMERAS, network.perception.features)
    return Alone(network, config, frames, frames, features, features[0])


def disturbed(dataset: Dataset, **more: float) -> tuple[torch.Tensor, torch.Tensor]:
    """States of 0 and features of 1, disturbed: (400, 5, J) and (400, 5, C, D)."""
    stage = stage_of(dataset, **more)
    state, features = torch.zeros(400, 5, 3), torch.ones(400, 5, CAMERAS, 40)
    return stage.disturbed(state, features, torch.Generator().manual_seed(0))


def test_without_noise_nothing_is_disturbed(dataset: Dataset) -> None:
    state, features = disturbed(dataset)
    assert not state.any()
    assert bool((features == 1.0).all())


def test_state_noise_has_the_standard_deviation_it_is_set_to(dataset: Dataset) -> None:
    state, _ = disturbed(dataset, state_noise=0.3)
    assert float(state.std()) == pytest.approx(0.3, rel=0.05)


def test_state_dropout_leaves_out_whole_states(dataset: Dataset) -> None:
    stage = stage_of(dataset, state_dropout=0.25)
    state, _ = stage.disturbed(torch.ones(400, 5, 3), torch.ones(400, 5, CAMERAS, 4), torch.Generator().manual_seed(0))
    assert set(state.sum(-1).flatten().tolist()) == {0.0, 3.0}
    assert float((state == 0.0).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_a_missing_camera_is_one_and_missing_for_the_whole_sequence(dataset: Dataset) -> None:
    _, features = disturbed(dataset, camera_dropout=0.4)
    missing = (features == 0.0).all(-1)  # (400, 5, C)
    assert torch.equal(missing.any(1), missing.all(1))
    assert int(missing.all(1).sum(-1).max()) == 1
    assert float(missing.any(1).any(-1).float().mean()) == pytest.approx(0.4, abs=0.06)


def test_a_feature_left_out_is_so_for_the_whole_sequence_and_the_others_make_up_for_it(dataset: Dataset) -> None:
    _, features = disturbed(dataset, feature_dropout=0.2)
    assert torch.equal(features, features[:, :1].expand_as(features))
    assert float((features == 0.0).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float(features.max()) == pytest.approx(1.0 / 0.8)


SIMPLE = dataclasses.replace(QUIET, light=0.0, colour=0.0, way_weight=0.0)


def first_loss(kind: type[Stage], dataset: Dataset, **more: Any) -> float:
    """What a stage's first step has to say, with everything else as it was."""
    torch.manual_seed(0)
    config = dataclasses.replace(SIMPLE, **more)
    frames, network = Frames.of(dataset, 2), PolicyNetwork(config.policy, dataset.contract)
    network.normaliser.fit(frames.state, frames.targets)
    stage: Any = kind(network, config, frames, frames)
    windows = Windows(frames.lengths, frames.weights, 2, 5, 1, 0)
    batch = next(iter(windows)) if kind is TogetherAlone else torch.arange(8)
    return float(stage.training_step(batch, 0).detach())


@pytest.mark.parametrize("kind", [PerceptionAlone, TogetherAlone])
def test_each_setting_reaches_the_stages_that_see(dataset: Dataset, kind: type[Stage]) -> None:
    plain = first_loss(kind, dataset)
    assert first_loss(kind, dataset) == plain
    settings: dict[str, Any] = {
        **{"state_noise": 0.5, "state_dropout": 0.5, "camera_dropout": 0.9, "feature_dropout": 0.5},
        **{"light": 0.5, "colour": 90.0, "shift": 6, "erase": 0.9},
        **{"way_weight": 0.5, "destination_weight": 0.5, "contact_weight": 0.5, "time_weight": 0.5},
    }
    assert [name for name, value in settings.items() if first_loss(kind, dataset, **{name: value}) == plain] == []


@pytest.mark.parametrize(("setting", "value"), [("light", 0.5), ("shift", 6)])
def test_views_of_an_episode_are_augmented(dataset: Dataset, setting: str, value: Any) -> None:
    frames, network = Frames.of(dataset, 2), PolicyNetwork(SIMPLE.policy, dataset.contract)
    first, second, plain = (
        _features(network, frames, view, dataclasses.replace(SIMPLE, **{setting: amount}))
        for view, amount in ((0, value), (1, value), (1, 0))
    )
    torch.testing.assert_close(plain, first)
    assert not torch.allclose(second, first)


def test_a_third_stage_leaves_the_first_ones_batch_statistics(dataset: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(QUIET, perception_steps=3, action_steps=2, together_batch=2, window=5)
    found = []
    for steps in (0, 3):
        file = tmp_path / f"{steps}.safetensors"
        train(dataset, dataclasses.replace(short, together_steps=steps), file)
        found.append({name: value for name, value in load_file(file).items() if name.startswith("perception.")})
    statistics = [name for name in found[0] if "running_" in name]
    assert statistics
    assert all(torch.equal(found[0][name], found[1][name]) for name in statistics)
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0]), "it was trained"


def window_of(stage: Alone, length: int) -> Windows:
    frames = stage._training
    return Windows(frames.lengths[:1], frames.weights[:1], 1, length, TICKS // length, 0)


def contexts(stage: Alone, length: int) -> torch.Tensor:
    """What the LSTM tells the head over one episode that is shown in windows of so many ticks."""
    heard: list[torch.Tensor] = []
    hook = stage.action.lstm.register_forward_hook(lambda module, given, told: heard.append(told[0]))
    for number, window in enumerate(window_of(stage, length)):
        stage.training_step(window, number)
    hook.remove()
    return torch.cat([told.flatten(0, -2) for told in heard])


def test_windows_that_hand_the_memory_on_see_what_a_whole_episode_does(dataset: Dataset) -> None:
    torch.manual_seed(0)
    stage = stage_of(dataset)
    whole, parts = contexts(stage, TICKS), contexts(stage, 3)
    torch.testing.assert_close(parts, whole)
    stage.settings = dataclasses.replace(stage.settings, hand_on=False)
    assert not torch.allclose(contexts(stage, 3), whole)


def test_no_gradient_crosses_a_window(dataset: Dataset) -> None:
    stage = stage_of(dataset)
    for number, window in enumerate(window_of(stage, 3)):
        stage.training_step(window, number)
        assert stage._hidden is not None
        assert not any(part.requires_grad for part in stage._hidden)


def test_each_view_of_an_episode_is_shown(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, shown = stage_of(dataset, views=3), set()

    def imitation(frames: Frames, window: Any, features: torch.Tensor, batch_index: int) -> tuple[torch.Tensor, Any]:
        of = [bool((features[0] == view[window.index][0]).all()) for view in stage._features.views]
        shown.add(of.index(True))
        return torch.zeros(()), features

    monkeypatch.setattr(stage, "imitation", imitation)
    for number, window in enumerate(Windows([TICKS] * 3, stage._training.weights, 1, TICKS, 40, 0)):
        stage.training_step(window, number)
    assert shown == {0, 1, 2}


def test_feature_noise_is_not_the_noise_of_states(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same seed one would tell the policy of the other."""
    stage = stage_of(dataset, feature_noise=1.0, state_noise=1.0)
    stage._features.views.zero_()
    seen: dict[str, torch.Tensor] = {}

    def noisy(state: torch.Tensor, features: torch.Tensor, noise: torch.Generator) -> Any:
        seen["states"], seen["features"] = torch.randn(50, generator=noise), features.flatten()[:50]
        return state, features

    monkeypatch.setattr(stage, "disturbed", noisy)
    stage.training_step(next(iter(window_of(stage, 3))), 0)
    assert float(seen["features"].std()) == pytest.approx(1.0, abs=0.4)
    assert not torch.allclose(seen["states"][:16], seen["features"][:16])


def test_the_rate_warms_up_and_falls_along_a_cosine(dataset: Dataset) -> None:
    stage = stage_of(dataset, action_steps=1000)
    rates = [stage._schedule(step) for step in range(1001)]
    assert rates[0] == pytest.approx(1.0 / WARM_UP_STEPS, rel=0.01)
    assert rates[: WARM_UP_STEPS - 1] == sorted(rates[: WARM_UP_STEPS - 1])
    assert rates[WARM_UP_STEPS:] == sorted(rates[WARM_UP_STEPS:], reverse=True)
    assert rates[500] == pytest.approx((1.0 + LAST_RATE) / 2, abs=0.01)
    assert rates[1000] == pytest.approx(LAST_RATE)


def test_a_short_stage_reaches_its_rate_too(dataset: Dataset) -> None:
    stage = stage_of(dataset, action_steps=30)
    rates = [stage._schedule(step) for step in range(30)]
    assert max(rates) > 0.75
    assert rates.index(max(rates)) < 10


@pytest.mark.parametrize("name", ["destination", "contact", "way", "time"])
def test_an_auxiliary_question_counts_as_much_as_its_weight(name: str) -> None:
    weights = dict.fromkeys(("destination_weight", "contact_weight", "way_weight", "time_weight"), 0.0)
    config = dataclasses.replace(QUIET, **{**weights, f"{name}_weight": 0.5})
    asked = Hindsighted(8, 3, config)
    losses = asked.losses(torch.randn(6, 8), torch.randn(6, 3), torch.randn(6, 5 * 3 + 1))
    assert set(losses) == {"destination", "contact", "way", "time"}
    torch.testing.assert_close(asked.total(losses), 0.5 * losses[name])
    assert asked.asked(losses) == {name: losses[name]}


def test_gradients_are_clipped(dataset: Dataset, tmp_path: Path) -> None:
    """Adam makes up for a small gradient until it drowns in the 1e-8 that it adds."""
    moved = {}
    for norm in (1.0, 1e-12):
        file = tmp_path / f"clip_{norm}.safetensors"
        train(
            dataset,
            dataclasses.replace(QUIET, clip_norm=norm, perception_steps=5, action_steps=1, weight_decay=0.0),
            file,
        )
        begun, trained = load_file(untrained_path(file)), load_file(file)
        moved[norm] = float((trained["action.inlet.0.weight"] - begun["action.inlet.0.weight"]).abs().max())
    assert moved[1e-12] < 0.01 * moved[1.0]


@pytest.mark.parametrize(("precision", "arithmetic"), [("bf16", "bf16-mixed"), ("float32", "32-true")])
def test_perception_trains_in_the_precision_asked_for(
    dataset: Dataset, tmp_path: Path, arithmetics: list[str], precision: Any, arithmetic: str
) -> None:
    short = dataclasses.replace(QUIET, precision=precision, perception_steps=2, action_steps=2)
    train(dataset, short, tmp_path / "policy.safetensors")
    assert arithmetics == [arithmetic, "32-true"]


def test_a_joint_that_is_never_moved_is_named(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for demonstration in dataset.demonstrations:
        demonstration.action[:, 1] = 0.2
    train(dataset, dataclasses.replace(QUIET, perception_steps=1, action_steps=1), tmp_path / "policy.safetensors")
    assert f"never by the policy: {dataset.contract.joints[1]}" in caplog.text


def test_a_memory_begins_anew_where_an_episode_does(dataset: Dataset) -> None:
    stage, heard = stage_of(dataset), []
    stage.action.lstm.register_forward_hook(lambda module, given, told: heard.append(told[0]))
    frames = stage._training
    windows = list(
        Windows(frames.lengths, frames.weights, 1, 4, 2 * TICKS // 4, 0)
    )  # two episodes, one after the other
    (second,) = [number for number, window in enumerate(windows) if window.fresh.any() and number]
    for number, window in enumerate(windows):
        stage.training_step(window, number)
    stage.training_step(windows[second], 0)
    torch.testing.assert_close(heard[second], heard[-1])
    assert not torch.allclose(heard[second + 1], heard[-1])


def displacements(images: torch.Tensor, seen: torch.Tensor) -> list[tuple[int, int]]:
    """By how many pixels (right, down) pictures (N, H, W, 3) were displaced, each found by trying."""
    places = [(right, down) for right in range(-4, 5) for down in range(-4, 5)]
    pairs = zip(images.numpy(), seen.numpy(), strict=True)
    return [next((r, d) for r, d in places if (displaced(a, d, r) == b).all()) for a, b in pairs]


def watched(perception: Any, told: list[Any]) -> None:
    """Note what perception is shown, and what it is told of it."""
    perception.register_forward_pre_hook(lambda module, given: told.append(given))


SHIFTED = dataclasses.replace(SIMPLE, shift=4)


def test_perception_is_told_of_each_sequence_how_far_it_is_displaced(dataset: Dataset) -> None:
    frames, network = Frames.of(dataset, 2), PolicyNetwork(SHIFTED.policy, dataset.contract)
    stage: Any = TogetherAlone(network, SHIFTED, frames, frames)
    told: list[Any] = []
    watched(stage.perception, told)
    window = next(iter(Windows(frames.lengths, frames.weights, 2, 5, 1, 0)))
    stage.training_step(window, 0)
    ((images, moved),) = told
    check_displacements(frames.images[window.index.flatten()], images, moved, [5, 5])


def test_each_view_of_each_episode_is_displaced_by_itself_and_perception_is_told(dataset: Dataset) -> None:
    frames, network = Frames.of(dataset, 2), PolicyNetwork(SHIFTED.policy, dataset.contract)
    told: list[Any] = []
    watched(network.perception, told)
    found = []
    for view in (1, 2):
        told.clear()
        _features(network, frames, view, SHIFTED)
        images, moved = (torch.cat(parts) for parts in zip(*told, strict=True))
        found.append(check_displacements(frames.images, images, moved, frames.lengths))
    assert found[0] != found[1], "another view is displaced otherwise"


def check_displacements(
    plain: torch.Tensor, images: torch.Tensor, moved: torch.Tensor, lengths: list[int]
) -> list[tuple[int, int]]:
    """Each sequence's pictures are displaced by what is told, alike from its beginning to its end; by how much."""
    sizes = []
    for camera in range(CAMERAS):
        pixels = displacements(plain[:, camera], images[:, camera])
        expected = torch.tensor(pixels) * 2.0 / images.shape[2]  # of pictures as wide as high
        torch.testing.assert_close(moved[:, camera], expected.float())
        parts = torch.tensor(pixels).split(lengths)
        assert all(bool((part == part[0]).all()) for part in parts)
        sizes += [(int(part[0, 0]), int(part[0, 1])) for part in parts]
    assert len(set(sizes)) > CAMERAS, "each sequence is displaced by itself"
    return sizes


def test_padded_ticks_and_what_a_policy_did_answer_no_question(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [dataset.demonstrations[0], _first(dataset.demonstrations[1], 4)]
    shown[1] = dataclasses.replace(shown[1], human=np.arange(4) < 2)
    short = dataclasses.replace(dataset, demonstrations=shown, weights=[1.0, 1.0])
    config = dataclasses.replace(SIMPLE, way_weight=1.0)
    frames, network = Frames.of(short, 2), PolicyNetwork(config.policy, dataset.contract)
    stage: Any = TogetherAlone(network, config, frames, frames)
    window = next(iter(Windows(frames.lengths, frames.weights, 2, 0, 1, 0)))
    counts = window.mask * frames.taught[window.index]
    assert window.mask.sum() - counts.sum() == 2
    losses = dict.fromkeys(("destination", "contact", "way", "time"), 2.0 + 100.0 * (1.0 - counts))
    monkeypatch.setattr(stage.hindsight, "losses", lambda *given: losses)
    logged: dict[str, Any] = {}
    monkeypatch.setattr(TogetherAlone, "log_dict", lambda self, values, **more: logged.update(values))
    stage.training_step(window, 0)
    assert float(logged["way"]) == pytest.approx(2.0)


def test_held_out_ticks_that_ask_the_arm_to_move_have_a_loss_of_their_own(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, logged = stage_of(dataset), {}
    frames = stage._training
    monkeypatch.setattr(Alone, "log", lambda self, name, value, batch_size: logged.update({name: batch_size}))
    window = next(iter(Windows(frames.lengths, frames.weights, 3, 0, 1, 0)))
    stage.validation_step(window, 0)
    moving = int(stage.is_moving(frames, window.index).sum())
    assert 0 < moving < 3 * TICKS
    assert (logged["val_loss"], logged["val_loss_moving"]) == (3 * TICKS, moving)


def _first(one: Demonstration, ticks: int) -> Demonstration:
    parts = ("images", "state", "action", "stamps_ns", "human")
    return dataclasses.replace(one, **{name: getattr(one, name)[:ticks] for name in parts})
