"""Training with Lightning: the stages one after the other, each resumed where it stopped, then a checkpoint.

Several processes, started by torchrun or SLURM, train as one does with the same global batch.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import math
import os
import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import Tensor

from lam_ros.demonstrations.dataset import Dataset, digest_of
from lam_ros.errors import TrainingError
from lam_ros.learning.batches import EpisodesInOrder, Frames, InOrder, Shuffled, Windows
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.precision import faster_precision
from lam_ros.learning.progress import Progress, Report, fit, prepared_logging
from lam_ros.learning.stages import STEPS_PER_EPOCH, ActionStage, PerceptionStage, Stage, TogetherStage
from lam_ros.policy.checkpoint import CheckpointInfo, digest, load_network, load_perception, save_checkpoint
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.perception import Perception
from lam_ros.policy.runtime import PolicyNetwork

IDLE = 1e-3  # rad or m a tick: slower is standing still
IDLE_SHARE = 0.3  # of all ticks: more is said
EPISODES_PER_EPOCH = 4  # of the longest, where windows cut it
BEYOND = 10.0  # how much further a joint moves than in what a checkpoint learned: more is refused
MOST_BEYOND = 0.05  # share of ticks whose targets lie beyond a checkpoint's bins: more is refused
GAP = 3.0  # validation loss over training loss: more is said
Batches = Shuffled | Windows
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What training gives back: the checkpoint, the folder of its logs and curves, and its figures."""

    checkpoint: Path
    log_folder: Path
    figures: dict[str, float]


def processes() -> tuple[int, int]:
    """This process's rank and how many train together, as torchrun or SLURM say.

    Raises:
        TrainingError: SLURM does not say how many are on each node.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])
    if SLURMEnvironment.detect() and int(os.environ.get("SLURM_NTASKS", "1")) > 1:  # not in an interactive shell
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise TrainingError("say how many processes each node has: `srun --ntasks-per-node=N lam train …`.")
        return int(os.environ.get("SLURM_PROCID", "0")), int(os.environ["SLURM_NTASKS"])
    return 0, 1


class _Epochs(Callback):
    """Tells the shuffled batches which epoch it is, and the loggers which step, also after a resume."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.have_begun = False

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._batches.set_epoch(trainer.current_epoch)

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        # Resumed from the end of an epoch, Lightning's loggers would count one step too many from then on.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        self.have_begun = True


def _fit(
    stage: Stage,
    name: str,
    steps: int,
    batches: Batches,
    validation: InOrder | EpisodesInOrder,
    folder: Path,
    precision: str,
    report: Report,
) -> dict[str, float]:
    """Train one stage to its end, from where an earlier run stopped, and return the figures of the weights it keeps."""
    settings, stage.steps_per_epoch = stage.settings, len(batches)
    finished = folder / name / "finished.pt"
    if finished.is_file():  # Lightning's own state would go on past an early end, and with the last weights
        kept = _kept(finished)
        stage.load_state_dict(kept["state_dict"])
        return dict(kept["figures"])
    last = folder / name / "last.ckpt"
    if last.is_file():
        _kept(last)  # what Lightning says of a damaged one is a traceback
    rank, world = processes()
    is_first = rank == 0
    curve = _Curve(folder / name / "metrics.csv")
    if is_first:
        curve.set_aside()
    # Written as often as the state to resume from is.
    loggers: list[Logger] = [CSVLogger(folder, name="", version=name, flush_logs_every_n_steps=STEPS_PER_EPOCH)]
    try:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=name))
    except ModuleNotFoundError:
        log.info("tensorboard is not installed; curves go to %s/%s/metrics.csv", folder, name)
    # save_last with save_top_k=0 would write at the stage's end alone.
    keep = ModelCheckpoint(folder / name, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False)
    epochs, best = _Epochs(batches), None
    callbacks: list[Callback] = [epochs, Progress(name, steps, report)]
    if settings.ema:
        callbacks.append(WeightAveraging(avg_fn=averaging(settings.ema)))
    if settings.patience:
        # At a training epoch's end a resumed run has no validation loss yet.
        callbacks.append(EarlyStopping("val_loss", patience=settings.patience, check_on_train_epoch_end=False))
        best = ModelCheckpoint(folder / name, filename="best", monitor="val_loss", enable_version_counter=False)
        callbacks.append(best)
    callbacks.append(keep)  # the last: what a run goes on from knows of this epoch's best weights
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", str(world))))
    trainer = lightning.Trainer(
        max_steps=steps,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        gradient_clip_val=settings.clip_norm,
        logger=loggers,
        log_every_n_steps=10,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        strategy="ddp" if world > 1 else "auto",
        devices=local if world > 1 else 1,
        num_nodes=max(1, world // local),
    )
    try:
        fit(trainer, stage, batches, validation, ckpt_path=last if last.is_file() else None, weights_only=True)
    finally:
        if is_first:
            curve.join()
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if is_first:  # held-out episodes were perhaps last looked at before this run went on
        figures = {**curve.at(trainer.global_step, curve.names), **figures}
    chosen = last if not epochs.have_begun else None  # all had been trained, and only `finished` was not written
    if best is not None and Path(best.best_model_path).is_file():
        chosen = Path(best.best_model_path)
    if chosen is not None:  # its state_dict is the average, where there is one
        loaded = _kept(chosen)
        stage.load_state_dict(loaded["state_dict"])
        if is_first:
            figures.update(curve.at(loaded["global_step"], figures))
    if is_first:
        partial = finished.with_suffix(".partial")
        torch.save({"state_dict": stage.state_dict(), "figures": figures}, partial)
        partial.replace(finished)
    return figures


def _kept(file: Path) -> dict[str, Any]:
    """What a stage left in a file: tensors and plain values. Raises TrainingError where it is damaged."""
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError):
        raise TrainingError(
            f"{file} is damaged; delete the folder {file.parent}, and the same command begins this stage anew."
        ) from None


class _Curve:
    """A stage's metrics.csv, which Lightning begins anew in a resumed run: what was in it before is kept."""

    def __init__(self, file: Path) -> None:
        self._file, self._before = file, file.with_name("metrics.before.csv")

    def set_aside(self) -> None:
        if self._file.is_file():
            self.join()
            self._file.replace(self._before)

    def join(self) -> None:
        """Put what was set aside before what there is, up to where that begins."""
        before, now = self._rows(self._before), self._rows(self._file)
        if not before:
            return
        begins = min((int(row["step"]) for row in now), default=math.inf)
        rows = [*(row for row in before if int(row["step"]) < begins), *now]
        partial = self._file.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self._file)
        self._before.unlink()

    @property
    def names(self) -> list[str]:
        """Of the figures that were noted."""
        return sorted({name for row in self._rows(self._file) for name in row} - {"epoch", "step"})

    def at(self, step: int, names: Iterable[str]) -> dict[str, float]:
        """What was last noted of these figures by a step."""
        rows = [row for row in self._rows(self._file) if int(row["step"]) <= step]
        return {name: float(row[name]) for row in rows for name in names if row.get(name)}

    @staticmethod
    def _rows(file: Path) -> list[dict[str, str]]:
        if not file.is_file():
            return []
        with file.open(newline="") as lines:
            return [row for row in csv.DictReader(lines) if (row.get("step") or "").isdigit()]  # no torn last line


def _check_model(known: PolicyConfig, asked: PolicyConfig, start: Path) -> None:
    """Raises TrainingError, naming the settings, where a checkpoint's model is not the one that is asked for."""
    differ = {name: value for name, value in asdict(known).items() if getattr(asked, name) != value}
    if differ:
        said = ", ".join(f"{name} {value}, not {getattr(asked, name)}" for name, value in differ.items())
        raise TrainingError(
            f"{start} holds another model than the settings ask for: {said}. "
            "Leave the model's settings as they were, or train from the beginning."
        )


def _check_motion(network: PolicyNetwork, state: Tensor, targets: Tensor, start: Path) -> None:
    """Raises TrainingError where a joint moves that hardly did in what a checkpoint learned: by its scale, such motion
    would be the whole loss."""
    spread = network.normaliser.chunk(targets, state).square().mean((0, 1)).sqrt()
    beyond = [
        f"{joint} ({size:.0f} times as far)"
        for joint, size in zip(network.contract.joints, spread.tolist(), strict=True)
        if size > BEYOND
    ]
    if beyond:
        raise TrainingError(
            f"in these demonstrations {', '.join(beyond)} moves further than in those that {start} was trained on. "
            "Train from the beginning, on both folders together."
        )


def _check_reach(network: PolicyNetwork, state: Tensor, targets: Tensor, start: Path) -> None:
    """Raises TrainingError where joints go further than the head of a checkpoint can say: it would never learn it."""
    shares = network.action.head.beyond(network.normaliser.chunk(targets, state)).tolist()
    beyond = [
        f"{joint} ({100.0 * share:.0f} % of ticks)"
        for joint, share in zip(network.contract.joints, shares, strict=True)
        if share > MOST_BEYOND
    ]
    if beyond:
        raise TrainingError(
            f"in these demonstrations {', '.join(beyond)} goes beyond the bins of {start}, which reach as far as those "
            "that it was trained on. Train from the beginning, on both folders together."
        )


def epoch_steps(steps: int, least: int) -> int:
    """Steps of each epoch of a stage: equally many, so that held-out episodes are looked at as it ends too,
    but for less than a step an epoch."""
    return steps // max(1, steps // least)


def _precision(perception: Perception, config: TrainConfig, folder: Path) -> str:
    """What ``auto`` means here; measured once, so that a resumed run goes on with the same arithmetic."""
    if config.precision != "auto":
        return config.precision
    if processes()[1] > 1:  # all must agree
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
    remembered = folder / "precision.txt"
    if not remembered.is_file():
        remembered.write_text(faster_precision(perception, config.policy.image_size))
    return "bf16" if remembered.read_text() == "bf16" else "float32"


def untrained_path(checkpoint: Path) -> Path:
    """Where training leaves the policy as it was before its first step: the same network, knowing nothing."""
    return checkpoint.with_name(f"{checkpoint.stem}.untrained{checkpoint.suffix}")


def check_files(checkpoint: Path, start: Path | None, pretrained: Path | None) -> None:
    """What can be said of a training's files before any data is read.

    Raises:
        TrainingError: they do not go together.
    """
    if checkpoint.suffix != ".safetensors":
        raise TrainingError(f"the checkpoint to write is {checkpoint}; give it a name that ends in .safetensors.")
    if start and pretrained:
        raise TrainingError(f"{start} has a perception already; give it, or the pre-trained {pretrained}, not both.")
    for file in (start, pretrained):
        if file and not file.is_file():
            raise TrainingError(f"{file} is not there; give a file that `lam train` or `lam pretrain` wrote.")


def _check(dataset: Dataset) -> None:
    if len(dataset.demonstrations) < 2:
        raise TrainingError(
            f"there are {len(dataset.demonstrations)} usable episodes; training needs at least 2. Record more."
        )
    states = np.concatenate([d.state for d in dataset.demonstrations])
    actions = np.concatenate([d.action for d in dataset.demonstrations])
    for values, noun in ((states, "state"), (actions, "action")):
        if not np.isfinite(values).all():
            raise TrainingError(f"the demonstrations hold {noun}s that are not finite; run `lam episodes verify`.")
    still = [joint for i, joint in enumerate(dataset.contract.joints) if actions[:, i].std() < 1e-4]
    if len(still) == len(dataset.contract.joints):
        raise TrainingError("no joint is ever moved in these demonstrations; there is nothing to imitate.")
    if still:
        log.warning("never moved in the demonstrations, and so never by the policy: %s", ", ".join(still))
    if not any(d.human.any() for d in dataset.demonstrations):
        raise TrainingError(
            "a policy drove in all of these episodes; what it did itself teaches it nothing. Take over."
        )
    if max(map(len, dataset.demonstrations)) < 2:
        raise TrainingError("every episode has a single tick; there is no way to learn. See `lam episodes stats`.")
    moves = [np.abs(np.diff(d.state, axis=0)).max(1) > IDLE for d in dataset.demonstrations if len(d) > 1]
    idle = 1.0 - float(np.concatenate(moves).mean())
    if idle > IDLE_SHARE:
        log.warning(
            "the arm stands still in %.0f %% of all ticks, and so will the policy; `lam episodes trim` cuts idle ends.",
            100 * idle,
        )


def averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """How an average takes up the weights after a step: d average + (1 - d) weights, where d grows to ``decay``.

    After n steps d is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage: a short stage's average
    would else be mostly of the weights that it began with.
    """

    def average(averaged: Tensor, weights: Tensor, steps: Tensor | int) -> Tensor:
        n = int(steps)
        return averaged + (1.0 - min(decay, (1 + n) / (10 + n))) * (weights - averaged)

    return average


def _warn_of_gap(name: str, figures: dict[str, float], head: str) -> None:
    trained, held_out = figures.get("loss", math.nan), figures.get("val_loss", math.nan)
    # gmm's loss is the logarithm of a likelihood, whose ratio counts, and is negative where it fits.
    if held_out - trained > math.log(GAP) if head == "gmm" else held_out > GAP * trained > 0:
        log.warning(
            "%s: the loss on held-out episodes is %.3g, on the others %.3g: it learns by heart. "
            "More demonstrations help most; see docs/learning.md.",
            *(name, held_out, trained),
        )


def train(
    dataset: Dataset,
    config: TrainConfig,
    checkpoint: Path,
    report: Report = lambda *_: None,
    start: Path | None = None,
    pretrained: Path | None = None,
) -> TrainingResult:
    """Train a policy and write its checkpoint; an interrupted run of the same data and settings is resumed.

    Args:
        dataset: aligned demonstrations; images are already at ``config.policy.image_size``.
        config: the settings.
        checkpoint: the .safetensors file to write. Logs and the state to resume from go to a folder beside it.
        report: told of each step.
        start: a checkpoint to begin from, as in fine-tuning: its weights and its normaliser.
        pretrained: a perception to begin with, from ``pretrain``.

    Raises:
        TrainingError: too few demonstrations, or values that nothing can be learned from.
        CheckpointError: the file cannot be written, or the one to start from does not fit.
    """
    prepared_logging()
    check_files(checkpoint, start, pretrained)
    if config.shift and config.policy.encoder == "article":
        log.warning("the article encoder is not told how far pictures are displaced; give --set shift=0")
    _check(dataset)
    rank, world = processes()
    is_first = rank == 0
    for name in ("perception_batch", "action_batch", "together_batch"):
        if getattr(config, name) % world:
            raise TrainingError(
                f"{name} is {getattr(config, name)}; {world} processes cannot share it evenly. Set it to a multiple."
            )
    begun_from = " ".join(digest(file) for file in (start, pretrained) if file)
    run = digest_of([dataset.digest, json.dumps(asdict(config), sort_keys=True), begun_from])
    folder = checkpoint.with_suffix("") / f"run_{run}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(asdict(config), indent=2))
    finished = folder / "finished.json"
    if finished.is_file() and checkpoint.is_file():
        with contextlib.suppress(ValueError):  # a disk that was full as it was written
            kept = json.loads(finished.read_text())
            if kept["checkpoint"] == digest(checkpoint):
                return TrainingResult(checkpoint, folder, kept["figures"])
    lightning.seed_everything(config.seed, verbose=False)
    colours = dataset.colours()

    def info(figures: dict[str, float]) -> CheckpointInfo:
        described = (dataset.robot, dataset.task, dataset.digest)
        return CheckpointInfo(dataset.contract, config.policy, *described, figures, colours)

    training, validation = (
        Frames.of(part, config.policy.chunk, config.corrections)
        for part in dataset.split(config.validation_share, config.seed)
    )
    if config.patience and not validation.taught.any():
        raise TrainingError(
            "in no held-out episode a human drove, and patience has nothing to look at; give more, or patience: 0."
        )
    is_taught = training.taught > 0.0
    state, targets = training.state[is_taught], training.targets[is_taught]
    if start is None:
        network = PolicyNetwork(config.policy, dataset.contract)
        network.normaliser.fit(state, targets)
        network.action.head.fit(network.normaliser.chunk(targets, state))
        if pretrained is not None:
            load_perception(pretrained, network)
    else:
        network, known = load_network(start)
        known.contract.check_same(dataset.contract)
        _check_model(known.policy, config.policy, start)
        _check_motion(network, state, targets, start)
        _check_reach(network, state, targets, start)
    if is_first:
        save_checkpoint(untrained_path(checkpoint), network, info({}))
    precision = _precision(network.perception, config, folder)
    seconds: dict[str, float] = {}
    figures: dict[str, float] = {}

    def learn(stage: Stage, name: str, steps: int, batches: Batches, held_out: InOrder | EpisodesInOrder) -> None:
        began = time.perf_counter()
        arithmetic = "float32" if name == "action" else precision  # the LSTM gains nothing
        found = _fit(stage, name, steps, batches, held_out, folder, arithmetic, report)
        _warn_of_gap(name, found, config.policy.head)
        seconds[f"{name}_seconds"] = time.perf_counter() - began
        figures.update({f"{name}_{key}": value for key, value in found.items()})

    perception = PerceptionStage(network, config, training, validation)
    drawn = torch.get_rng_state()
    learn(
        perception,
        "perception",
        config.perception_steps,
        Shuffled(
            training.frame_weights,
            config.perception_batch,
            epoch_steps(config.perception_steps, STEPS_PER_EPOCH),
            config.seed,
        ),
        InOrder(validation.taught, config.perception_batch),
    )

    # Each epoch begins with fresh episodes: it must be long enough for several, or their last ticks are seldom learned.
    at_once = config.window or max(training.lengths)
    least = max(STEPS_PER_EPOCH, EPISODES_PER_EPOCH * math.ceil(max(training.lengths) / at_once))

    def windows(batch: int, steps: int) -> Windows:
        return Windows(training.lengths, training.weights, batch, config.window, epoch_steps(steps, least), config.seed)

    held_out = EpisodesInOrder(validation.lengths, config.action_batch)
    views = torch.stack([_features(network, training, view, config) for view in range(config.views)])
    unseen = _features(network, validation, 0, config)
    action = ActionStage(network, config, training, validation, views, unseen)
    learn(action, "action", config.action_steps, windows(config.action_batch, config.action_steps), held_out)
    if config.together_steps:
        torch.set_rng_state(drawn)  # Lightning seeds several processes anew at each stage that they train
        together = TogetherStage(network, config, training, validation)
        batches = windows(config.together_batch, config.together_steps)
        learn(together, "together", config.together_steps, batches, held_out)
    figures = {
        "episodes": float(len(dataset.demonstrations)),
        "ticks": float(len(training.state) + len(validation.state)),
        **seconds,
        **{name: value for name, value in figures.items() if math.isfinite(value)},  # a checkpoint takes no others
    }
    if is_first:
        save_checkpoint(checkpoint, network, info(figures))
        finished.write_text(json.dumps({"checkpoint": digest(checkpoint), "figures": figures}))
    return TrainingResult(checkpoint, folder, figures)


def _features(network: PolicyNetwork, frames: Frames, view: int, config: TrainConfig, batch: int = 256) -> Tensor:
    """Features (N, C, D) of all frames; of another view than 0, each episode is augmented as a whole."""
    network.perception.eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"  # Lightning has taken the network back to the CPU
    network.to(device)  # not in inference mode: weights that are moved there can never be trained again
    with torch.inference_mode():
        rows = _perceived(network, frames, view, config, batch, device)
    return rows.clone()


def _perceived(
    network: PolicyNetwork, frames: Frames, view: int, config: TrainConfig, batch: int, device: str
) -> Tensor:
    rows: list[Tensor] = []
    at = 0
    for episode, ticks in enumerate(frames.lengths):
        images, moved = frames.images[at : at + ticks], None
        if view:
            draw = torch.tensor([int(np.random.default_rng((config.seed, view, episode)).integers(2**31))])
            (images,), moved = config.augmentation(images[None], draw)
        for part in images.split(batch):
            displacement = None if moved is None else moved.expand(len(part), -1, -1).to(device)
            rows.append(network.perception(part.to(device), displacement).cpu())
        at += ticks
    return torch.cat(rows)
