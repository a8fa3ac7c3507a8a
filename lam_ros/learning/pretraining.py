"""Self-supervised pre-training of perception on frames that nobody labelled, as the articles ask.

Two questions that a film answers by itself: which frames lie close in time (time-contrastive: Sermanet et al. 2018,
arXiv 1704.06888), and how did the joints move between two frames (inverse dynamics: Agrawal et al. 2016, arXiv
1606.07419).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lam_ros.demonstrations.dataset import Dataset
from lam_ros.errors import TrainingError
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.precision import faster_precision
from lam_ros.learning.progress import Progress, Report, fit, prepared_logging
from lam_ros.policy.checkpoint import save_perception
from lam_ros.policy.perception import Perception

PROJECTION = 64
TEMPERATURE = 0.1
NEAR_TICKS = 2  # so close in time, two frames show the same
FAR_TICKS = 8  # up to so far apart, the joints' motion between two frames is asked for


@dataclass(frozen=True)
class Pair:
    """Ticks (B,) of two frames of one episode each: anchor, another close to it, and a later one."""

    anchor: Tensor
    near: Tensor
    later: Tensor


class Pairs:
    """Batches of pairs that follow from the seed alone."""

    def __init__(self, lengths: list[int], batch: int, batches: int, seed: int) -> None:
        self._lengths = np.repeat(lengths, lengths)
        self._place = np.concatenate([np.arange(length) for length in lengths])
        self._batch, self._batches, self._seed = min(batch, len(self._place)), batches, seed

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Pair]:
        rng = np.random.default_rng(self._seed)
        for _ in range(self._batches):
            anchor = rng.choice(len(self._place), self._batch, replace=False)
            last = self._lengths[anchor] - 1 - self._place[anchor]
            near = anchor + np.minimum(rng.integers(1, NEAR_TICKS + 1, self._batch), last)
            later = anchor + np.minimum(rng.integers(1, FAR_TICKS + 1, self._batch), last)
            yield Pair(*map(torch.from_numpy, (anchor, near, later)))


def contrastive_loss(anchor: Tensor, near: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748): mean of -log(exp(a_i n_i / t) / sum_j exp(a_i n_j / t)).

    Args:
        anchor, near: (B, P); row i of both belong together. They are scaled to length 1.
    """
    logits = functional.normalize(anchor, dim=-1) @ functional.normalize(near, dim=-1).T / TEMPERATURE
    return functional.cross_entropy(logits, torch.arange(len(anchor), device=anchor.device))


class PretrainingStage(lightning.LightningModule):
    """The perception under both questions."""

    def __init__(self, perception: Perception, images: Tensor, state: Tensor, config: TrainConfig, steps: int) -> None:
        super().__init__()
        self.perception = perception
        self._images, self._state = [images], [state]  # in lists: they are no part of the module
        self._spread = state.std(0).clamp_min(1e-3)
        self._config, self._steps = config, steps
        inputs = len(perception.cameras) * perception.features
        self.project = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, PROJECTION))
        self.motion = nn.Sequential(nn.Linear(2 * inputs, 128), nn.ReLU(), nn.Linear(128, state.shape[1]))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch

    def training_step(self, pair: Pair, batch_index: int) -> Tensor:
        parts = torch.cat([pair.anchor, pair.near, pair.later])
        noise = torch.Generator().manual_seed(self._config.seed * 1_000_003 + batch_index)
        draws = torch.randint(2**31, (len(parts),), generator=noise)
        images, displacement = self._config.augmentation(self._images[0][parts][:, None], draws)
        features = self.perception(images[:, 0].to(self.device), displacement.to(self.device))
        anchor, near, later = features.flatten(1).chunk(3)
        contrastive = contrastive_loss(self.project(anchor).float(), self.project(near).float())
        moved = (self._state[0][pair.later] - self._state[0][pair.anchor]) / self._spread
        motion = functional.l1_loss(self.motion(torch.cat([anchor, later], 1)).float(), moved.to(self.device))
        self.log_dict({"loss": contrastive + motion, "contrastive": contrastive, "motion": motion})
        return contrastive + motion

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(self.parameters(), self._config.learning_rate, weight_decay=1e-4)
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self._steps)))
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def pretrain(
    dataset: Dataset, config: TrainConfig, steps: int, out: Path, report: Report = lambda *_: None
) -> dict[str, float]:
    """Train a perception on frames and joint states alone, and write it for ``train`` to begin with.

    Returns:
        The last losses.

    Raises:
        TrainingError: there are too few frames, in all or in a batch.
        CheckpointError: the file cannot be written.
    """
    prepared_logging()
    ticks = sum(map(len, dataset.demonstrations))
    if ticks < 4:
        raise TrainingError(f"there are {ticks} frames; pre-training needs films of several. Record more.")
    if config.perception_batch < 4:
        raise TrainingError(
            f"perception_batch is {config.perception_batch}; pre-training tells pairs of frames from one another, and "
            "needs two pairs: at least 4."
        )
    lightning.seed_everything(config.seed, verbose=False)
    perception = Perception(config.policy, dataset.contract.cameras)
    is_measured = config.precision == "auto"
    precision = faster_precision(perception, config.policy.image_size) if is_measured else config.precision
    images = torch.from_numpy(np.concatenate([d.images for d in dataset.demonstrations]))
    state = torch.from_numpy(np.concatenate([d.state for d in dataset.demonstrations]))
    stage = PretrainingStage(perception, images, state, config, steps)
    pairs = Pairs([len(d) for d in dataset.demonstrations], config.perception_batch // 2, steps, config.seed)
    trainer = lightning.Trainer(
        max_epochs=1,
        devices=1,  # each of several processes would do the same
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        gradient_clip_val=config.clip_norm,
        logger=False,
        enable_checkpointing=False,
        callbacks=[Progress("perception beforehand", steps, report)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fit(trainer, stage, pairs)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    save_perception(out, perception, dataset.contract, config.policy)
    return figures
