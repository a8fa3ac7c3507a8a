"""Training in two stages with Lightning: perception on shuffled frames, then action on cached features.

The imitation loss is nearly all small late movements, whose gradient hardly says where the object is. The auxiliary
question "where does this demonstration end?" says it in every frame, and costs no label.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn

from lam_ros.demonstrations.dataset import Dataset, digest_of
from lam_ros.errors import TrainingError
from lam_ros.learning.augmentation import vary_light
from lam_ros.learning.batches import Episodes, Frames, InOrder, Shuffled
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.losses import destination_loss, masked_mean
from lam_ros.policy.action import HEADS
from lam_ros.policy.checkpoint import CheckpointInfo, digest, save_checkpoint
from lam_ros.policy.policy import PolicyNetwork

STEPS_PER_EPOCH = 50
WARM_UP_STEPS = 50
Report = Callable[[str, int, int, float], None]  # stage, steps done, steps in all, loss


@dataclass(frozen=True)
class TrainingResult:
    """What training gives back: the checkpoint, the folder of its logs and curves, and its figures."""

    checkpoint: Path
    log_folder: Path
    figures: dict[str, float]


class _Stage(lightning.LightningModule):
    """What both stages share: the optimiser and its schedule."""

    def __init__(self, config: TrainConfig, steps: int) -> None:
        super().__init__()
        self.settings = config
        self._steps = steps

    def _rate(self, step: int) -> float:
        warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
        return warm_up * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self._steps))))

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _generator(self, batch_index: int) -> torch.Generator:
        """Noise that depends on the seed and the step alone, so that a resumed run draws the same."""
        step = self.current_epoch * STEPS_PER_EPOCH + batch_index
        return torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)


class PerceptionStage(_Stage):
    """Stage one: the CNN under a memoryless head, and the auxiliary question where the demonstration ends."""

    def __init__(self, network: PolicyNetwork, config: TrainConfig, training: Frames, validation: Frames) -> None:
        super().__init__(config, config.perception_steps)
        self.perception = network.perception
        self.normaliser = network.normaliser
        self._data = {"train": training, "val": validation}
        joints = training.state.shape[1]
        inputs = len(network.contract.cameras) * network.perception.features
        size = config.policy.hidden_size
        self.trunk = nn.Sequential(nn.Linear(inputs + joints, size), nn.ReLU(), nn.Linear(size, 2 * size), nn.ReLU())
        self.head = HEADS[config.policy.head](2 * size, joints, config.policy)
        self.destination = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, joints))

    def _losses(self, part: str, index: Tensor, images: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        data = self._data[part]
        device = images.device
        features = self.perception(images).flatten(1)
        prediction = self.head(self.trunk(torch.cat([features, state], 1)))
        target = self.normaliser.offset(data.offsets_at(index).to(device))
        imitation = self.head.loss(prediction.float(), target).mean()
        # Where it ends, in units of how widely the demonstrations' ends differ from the mean posture.
        end = self.normaliser.state(data.destination[index].to(device))
        return imitation, destination_loss(self.destination(features), end)

    def training_step(self, index: Tensor, batch_index: int) -> Tensor:
        data, generator = self._data["train"], self._generator(batch_index)
        images = vary_light(data.images[index], self.settings.light, self.settings.colour, generator)
        state = self.normaliser.state(data.state[index].to(self.device))
        noise = torch.randn(state.shape, generator=generator).to(self.device)
        state = state + self.settings.state_noise * noise
        imitation, destination = self._losses("train", index, images.to(self.device), state)
        self.log_dict({"loss": imitation, "destination": destination})
        return imitation + self.settings.destination_weight * destination

    def validation_step(self, index: Tensor, batch_index: int) -> None:
        data = self._data["val"]
        state = self.normaliser.state(data.state[index].to(self.device))
        imitation, destination = self._losses("val", index, data.images[index].to(self.device), state)
        self.log_dict({"val_loss": imitation, "val_destination": destination}, batch_size=len(index))


class ActionStage(_Stage):
    """Stage two: the LSTM over whole episodes, on features that no longer change."""

    def __init__(self, network: PolicyNetwork, config: TrainConfig, training: Episodes, validation: Episodes) -> None:
        super().__init__(config, config.action_steps)
        self.action = network.action
        self._data = {"train": training, "val": validation}

    def _predict(self, episodes: Episodes, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prediction, _ = self.action(features, state)
        prediction = prediction.float()
        mask, target = episodes.mask.to(self.device), episodes.offsets.to(self.device)
        return masked_mean(self.action.head.loss(prediction, target), mask), prediction, mask

    def training_step(self, index: Tensor, batch_index: int) -> Tensor:
        generator = self._generator(batch_index)
        episodes = self._data["train"].pick(index)

        def noisy(values: Tensor, scale: float) -> Tensor:
            return (values + scale * torch.randn(values.shape, generator=generator)).to(self.device)

        features = noisy(episodes.features, self.settings.feature_noise)
        loss, _, _ = self._predict(episodes, features, noisy(episodes.state, self.settings.state_noise))
        self.log("loss", loss)
        return loss

    def validation_step(self, index: Tensor, batch_index: int) -> None:
        episodes = self._data["val"].pick(index)
        loss, prediction, mask = self._predict(
            episodes, episodes.features.to(self.device), episodes.state.to(self.device)
        )
        target = episodes.offsets.to(self.device)
        # Most ticks hardly move; the moving part of an episode is what tells recipes apart.
        moving = mask * (target[:, :, 0].abs().mean(-1) > 0.5)
        figures = {
            "val_loss": loss,
            "val_loss_moving": masked_mean(self.action.head.loss(prediction, target), moving),
            "val_accuracy": masked_mean(self.action.head.accuracy(prediction, target), mask),
        }
        self.log_dict(figures, batch_size=len(index))


class _Progress(Callback):
    def __init__(self, stage: str, steps: int, report: Report) -> None:
        self._stage, self._steps, self._report = stage, steps, report

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        self._report(self._stage, trainer.global_step, self._steps, float(outputs["loss"]))


class _Epochs(Callback):
    """Tells the shuffled batches which epoch it is, also after a resume."""

    def __init__(self, batches: Shuffled) -> None:
        self._batches = batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._batches.set_epoch(trainer.current_epoch)


def _fit(
    stage: _Stage,
    name: str,
    steps: int,
    counts: tuple[int, int],
    batch: int,
    folder: Path,
    precision: str,
    report: Report,
) -> dict[str, float]:
    """Train one stage to its end, from where an earlier run stopped, and return its last figures."""
    training, held_out = counts
    batches = Shuffled(training, batch, STEPS_PER_EPOCH, stage.settings.seed)
    validation = InOrder(held_out, batch)
    loggers: list[Logger] = [CSVLogger(folder, name="", version=name)]
    try:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=name))
    except ModuleNotFoundError:
        logging.getLogger(__name__).info("tensorboard is not installed; curves go to %s/%s/metrics.csv", folder, name)
    # save_last with save_top_k=0 would write at the stage's end alone.
    keep = ModelCheckpoint(folder / name, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False)
    trainer = lightning.Trainer(
        max_steps=steps,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        gradient_clip_val=stage.settings.clip_norm,
        logger=loggers,
        log_every_n_steps=10,
        callbacks=[_Epochs(batches), _Progress(name, steps, report), keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    last = folder / name / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on workers and logging cadence: the batches are indices, already in memory
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(stage, batches, validation, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit:  # how Lightning answers Ctrl-C, which it ignores from then on
            if not trainer.interrupted:
                raise
        finally:
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return _remembered(folder / name / "figures.json", {k: float(v) for k, v in trainer.callback_metrics.items()})


def _remembered(path: Path, figures: dict[str, float]) -> dict[str, float]:
    """Keep a finished stage's figures for a run that resumes after it, and so has none."""
    if figures:
        path.write_text(json.dumps(figures))
    elif path.is_file():
        figures = json.loads(path.read_text())
    return figures


def faster_precision(network: PolicyNetwork, batch: int) -> str:
    """``bf16`` where a training step of the CNN is faster with it on this machine, else ``float32``; measured."""
    width, height = network.config.image_size
    images = torch.zeros((min(batch, 64), len(network.contract.cameras), height, width, 3), dtype=torch.uint8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trial = PolicyNetwork(network.config, network.contract).to(device)
    seconds = {}
    for name, enabled in (("float32", False), ("bf16", True)):
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                loss = trial.perception(images.to(device)).sum()
            loss.backward()
            best = min(best, time.perf_counter() - start)
        seconds[name] = best
    return min(seconds, key=seconds.__getitem__)


def untrained_path(checkpoint: Path) -> Path:
    """Where training leaves the policy as it was before its first step: the same network, knowing nothing."""
    return checkpoint.with_name(f"{checkpoint.stem}.untrained{checkpoint.suffix}")


def _check(dataset: Dataset, log: logging.Logger) -> None:
    if len(dataset.demonstrations) < 2:
        raise TrainingError(
            f"there are {len(dataset.demonstrations)} usable episodes; training needs at least 2. Record more."
        )
    states = torch.cat([torch.from_numpy(d.state) for d in dataset.demonstrations])
    actions = torch.cat([torch.from_numpy(d.action) for d in dataset.demonstrations])
    for values, noun in ((states, "state"), (actions, "action")):
        if not torch.isfinite(values).all():
            raise TrainingError(f"the demonstrations hold {noun}s that are not finite; run `lam episodes verify`.")
    still = [joint for i, joint in enumerate(dataset.contract.joints) if actions[:, i].std() < 1e-4]
    if len(still) == len(dataset.contract.joints):
        raise TrainingError("no joint is ever moved in these demonstrations; there is nothing to imitate.")
    if still:
        log.warning("never moved in the demonstrations, and so never by the policy: %s", ", ".join(still))


def train(dataset: Dataset, config: TrainConfig, checkpoint: Path, report: Report = lambda *_: None) -> TrainingResult:
    """Train a policy and write its checkpoint; an interrupted run of the same data and settings is resumed.

    Args:
        dataset: aligned demonstrations; images are already at ``config.policy.image_size``.
        config: the settings.
        checkpoint: the .safetensors file to write. Logs and the state to resume from go to a folder beside it.
        report: told of each step.

    Raises:
        TrainingError: too few demonstrations, or values that nothing can be learned from.
        CheckpointError: the file cannot be written.
    """
    log = logging.getLogger(__name__)
    for noisy in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    _check(dataset, log)
    run = digest_of([dataset.digest, json.dumps(asdict(config), sort_keys=True)])
    folder = checkpoint.with_suffix("") / f"run_{run}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(asdict(config), indent=2))
    finished = folder / "finished.json"
    if finished.is_file() and checkpoint.is_file():
        kept = json.loads(finished.read_text())
        if kept["checkpoint"] == digest(checkpoint):
            return TrainingResult(checkpoint, folder, kept["figures"])
    lightning.seed_everything(config.seed, verbose=False)
    network = PolicyNetwork(config.policy, dataset.contract)

    def info(figures: dict[str, float]) -> CheckpointInfo:
        return CheckpointInfo(dataset.contract, config.policy, dataset.robot, dataset.task, dataset.digest, figures)

    training, validation = (
        Frames.of(part, config.policy.chunk) for part in dataset.split(config.validation_share, config.seed)
    )
    network.normaliser.fit(training.state, training.offsets)
    save_checkpoint(untrained_path(checkpoint), network, info({}))
    precision = config.precision
    if precision == "auto":  # measured once: a resumed run goes on with the same arithmetic
        remembered = folder / "precision.txt"
        if not remembered.is_file():
            remembered.write_text(faster_precision(network, config.perception_batch))
        precision = "bf16" if remembered.read_text() == "bf16" else "float32"
    stage_one = PerceptionStage(network, config, training, validation)
    sizes = (len(training.state), len(validation.state))
    started = time.perf_counter()
    perceived = _fit(
        stage_one, "perception", config.perception_steps, sizes, config.perception_batch, folder, precision, report
    )
    between = time.perf_counter()
    stage_two = ActionStage(network, config, _cached(network, training), _cached(network, validation))
    counts = (len(training.lengths), len(validation.lengths))
    acted = _fit(stage_two, "action", config.action_steps, counts, config.action_batch, folder, "float32", report)
    figures = {
        "episodes": float(sum(counts)),
        "ticks": float(sum(sizes)),
        "perception_seconds": between - started,
        "action_seconds": time.perf_counter() - between,
        **{f"perception_{key}": value for key, value in perceived.items()},
        **{f"action_{key}": value for key, value in acted.items()},
    }
    save_checkpoint(checkpoint, network, info(figures))
    finished.write_text(json.dumps({"checkpoint": digest(checkpoint), "figures": figures}))
    return TrainingResult(checkpoint, folder, figures)


@torch.inference_mode()
def _features(network: PolicyNetwork, images: Tensor, batch: int = 256) -> Tensor:
    network.perception.eval()
    device = next(network.parameters()).device
    return torch.cat([network.perception(part.to(device)).flatten(1).cpu() for part in images.split(batch)])


def _cached(network: PolicyNetwork, frames: Frames) -> Episodes:
    features = _features(network, frames.images).clone()
    normaliser = network.normaliser.cpu()
    return Episodes.of(features, normaliser.state(frames.state), normaliser.offset(frames.offsets), frames.lengths)
