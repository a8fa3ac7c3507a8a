"""The three stages of training, as Lightning modules.

1. perception: the CNN and the whole policy without its memory on shuffled frames, and the questions of ``hindsight``;
2. action: the LSTM over whole episodes, on features that no longer change, which makes a step cheap;
3. together: both over windows of episodes; optional.
"""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from lam_ros.demonstrations.dataset import ways
from lam_ros.learning.batches import Frames, Window
from lam_ros.learning.configuration import TrainConfig
from lam_ros.learning.losses import distance, masked_mean
from lam_ros.policy.action import Hidden
from lam_ros.policy.heads import Head
from lam_ros.policy.runtime import PolicyNetwork

STEPS_PER_EPOCH = 50  # of optimisation; an epoch of windows may be longer
WARM_UP_STEPS, WARM_UP_SHARE = 50, 1 / 3  # at most so many steps, and so much of a short stage
LAST_RATE = 0.01  # of the peak, at the end of the cosine
# Mean way to the next target, in the joints' spreads of it: ticks that hardly move hardly tell recipes apart.
MOVING = 0.5
FEATURE_DRAWS = 1 << 31  # apart from the draws of `randomness`; a generator takes the lowest 32 bits alone


class Stage(lightning.LightningModule):
    """What the stages share: optimiser, schedule, randomness that follows from the step, and the data."""

    def __init__(
        self,
        network: PolicyNetwork,
        config: TrainConfig,
        steps: int,
        rate: float,
        training: Frames,
        validation: Frames,
    ) -> None:
        super().__init__()
        self.settings = config
        self.normaliser = network.normaliser
        self._steps, self._rate = steps, rate
        self._warm_up = max(1, min(WARM_UP_STEPS, round(WARM_UP_SHARE * steps)))
        self._training, self._validation = training, validation
        self._usual_length = sum(training.lengths) / len(training.lengths)  # ticks, the unit of the time to go
        self.steps_per_epoch = STEPS_PER_EPOCH

    def _schedule(self, step: int) -> float:
        warm_up = min(1.0, (step + 1) / self._warm_up)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self._steps)))
        return warm_up * (LAST_RATE + (1.0 - LAST_RATE) * cosine)

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=self._rate, weight_decay=self.settings.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._schedule)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # indices: the data they choose from stays in memory

    def randomness(self, batch_index: int) -> torch.Generator:
        """Depends on the seed and the step alone, so that a resumed run draws the same, and so does every process."""
        step = self.current_epoch * self.steps_per_epoch + batch_index
        return torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)

    def mine(self, values: Tensor) -> Tensor:
        """This process's rows of a global batch."""
        return values[self.global_rank :: self.trainer.world_size]

    def disturbed(self, state: Tensor, features: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise on what the policy is told, so that it looks instead of extrapolating.

        Args:
            state: (B, ..., J) of the global batch, normalised.
            features: (B, ..., C, D) likewise; may be this process's rows.
        """
        settings, rows = self.settings, state.shape[:-1]
        state = state + settings.state_noise * torch.randn(state.shape, generator=noise).to(state)
        is_kept = torch.rand(rows, generator=noise) >= settings.state_dropout
        state = self.mine(state * is_kept[..., None].to(state))
        cameras = features.shape[-2]
        # Of each sequence, at most one camera is missing.
        missing = torch.randint(cameras, rows[:1], generator=noise)
        is_missing = torch.rand(rows[:1], generator=noise) < settings.camera_dropout
        seen = 1.0 - torch.nn.functional.one_hot(missing, cameras) * is_missing[:, None]
        # What is left out stays out for the whole of a sequence, as what is hidden or never learned does.
        kept = torch.rand((*rows[:1], *features.shape[-2:]), generator=noise) >= settings.feature_dropout
        seen = seen[:, :, None] * kept / (1.0 - settings.feature_dropout)
        seen = self.mine(seen).to(features)
        return state, features * seen.reshape(len(seen), *[1] * (features.dim() - 3), *features.shape[-2:])

    def head_loss(
        self, head: Head, context: Tensor, target: Tensor, noise: torch.Generator, is_shared: bool = True
    ) -> Tensor:
        """A head's loss; what it draws is drawn for the global batch, of which these rows may be this process's share.

        Held-out rows are not shared: each process sees all of them.
        """
        if not head.draws:
            return head.loss(context, target)
        rows = len(target) * (self.trainer.world_size if is_shared else 1)
        drawn = torch.randn((rows, *target.shape[1:]), generator=noise)
        return head.loss(context, target, (self.mine(drawn) if is_shared else drawn).to(target))

    def labels(self, frames: Frames, index: Tensor) -> Tensor:
        """What hindsight says, (..., 5J + 1): destination, contact and way, normalised as states; share of time."""
        joints = frames.state.shape[1]
        destination = self.normaliser.state(frames.destination[index].to(self.device))
        contact = self.normaliser.state(frames.contact[index].to(self.device))
        way = frames.way[index].to(self.device).unflatten(-1, (-1, joints))
        way = self.normaliser.state(way).flatten(-2)
        time_to_go = (frames.time_to_go[index].to(self.device) / self._usual_length)[..., None]
        return torch.cat([destination, contact, way, time_to_go], -1)


class Hindsighted(nn.Module):
    """Answers the questions of ``hindsight`` from one frame and the state; trained along, then dropped."""

    def __init__(self, inputs: int, joints: int, config: TrainConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs + joints, 128), nn.ReLU(), nn.Linear(128, 5 * joints + 1))
        self._joints = joints
        self._weights = (config.destination_weight, config.contact_weight, config.way_weight, config.time_weight)

    def losses(self, features: Tensor, state: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One value a row for each question, (...), from features (..., C * D) and states (..., J)."""
        answers = self.net(torch.cat([features, state], -1))
        j = self._joints
        parts = (slice(0, j), slice(j, 2 * j), slice(2 * j, 5 * j), slice(5 * j, None))
        names = ("destination", "contact", "way", "time")
        return {name: distance(answers[..., part], labels[..., part]) for name, part in zip(names, parts, strict=True)}

    def asked(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those that count: the others' answers are never learned, and their curves would say nothing."""
        return {name: loss for (name, loss), w in zip(losses.items(), self._weights, strict=True) if w}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([w * loss for w, loss in zip(self._weights, losses.values(), strict=True)]).sum(0)


class PerceptionStage(Stage):
    """Stage one."""

    def __init__(self, network: PolicyNetwork, config: TrainConfig, training: Frames, validation: Frames) -> None:
        super().__init__(network, config, config.perception_steps, config.learning_rate, training, validation)
        self.perception = network.perception
        self.action = network.action
        self.action.lstm.requires_grad_(False)
        inputs = len(network.contract.cameras) * network.perception.features
        self.hindsight = Hindsighted(inputs, training.state.shape[1], config)

    def _losses(
        self, frames: Frames, index: Tensor, features: Tensor, state: Tensor, noise: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        seen = features.flatten(1)
        context = self.action.memoryless(seen, state).float()
        measured = frames.state[index].to(self.device)
        target = self.normaliser.chunk(frames.targets[index].to(self.device), measured)
        imitation = self.head_loss(self.action.head, context, target, noise, frames is self._training).mean()
        answered = self.hindsight.losses(seen, state, self.labels(frames, index))
        return imitation, {name: loss.mean() for name, loss in answered.items()}

    def training_step(self, index: Tensor, batch_index: int) -> Tensor:
        frames, noise = self._training, self.randomness(batch_index)
        draws = torch.randint(2**31, (len(index),), generator=noise)
        own = self.mine(index)
        images, moved = self.settings.augmentation(frames.images[own][:, None], self.mine(draws))
        features = self.perception(images[:, 0].to(self.device), moved.to(self.device))
        state = self.normaliser.state(frames.state[index].to(self.device))
        state, features = self.disturbed(state, features, noise)
        imitation, answered = self._losses(frames, own, features, state, noise)
        self.log_dict({"loss": imitation, **self.hindsight.asked(answered)}, sync_dist=True)
        return imitation + self.hindsight.total(answered)

    def validation_step(self, index: Tensor, batch_index: int) -> None:
        frames = self._validation
        state = self.normaliser.state(frames.state[index].to(self.device))
        features = self.perception(frames.images[index].to(self.device))
        noise = torch.Generator().manual_seed(batch_index)
        imitation, answered = self._losses(frames, index, features, state, noise)
        asked = {f"val_{name}": loss for name, loss in self.hindsight.asked(answered).items()}
        self.log_dict({"val_loss": imitation, **asked}, batch_size=len(index))


class EpisodeStage(Stage):
    """What both stages over episodes share: the LSTM's state, handed on from window to window."""

    def __init__(
        self,
        network: PolicyNetwork,
        config: TrainConfig,
        steps: int,
        rate: float,
        training: Frames,
        validation: Frames,
    ) -> None:
        super().__init__(network, config, steps, rate, training, validation)
        self.action = network.action
        self._hidden: Hidden | None = None
        # By how far joints go, also where targets are absolute, which are normalised by where joints are.
        self._way = torch.from_numpy(ways(training.state.numpy(), training.targets[:, :1].numpy())[0])

    def seen(self, frames: Frames, window: Window) -> Tensor:
        """Features (B, W, C, D) of a window."""
        raise NotImplementedError

    def handed_on(self, window: Window, batch_index: int) -> Hidden:
        """The state that each stream's LSTM begins the window with: nothing where an episode begins."""
        rows = len(window.index)
        begins = batch_index == 0 or not self.settings.hand_on
        if self._hidden is None or begins or self._hidden[0].shape[1] != rows:
            self._hidden = self.action.nothing_yet(rows)
        goes_on = (~window.fresh).to(self.device)[None, :, None]
        return self._hidden[0] * goes_on, self._hidden[1] * goes_on

    def _predict(
        self,
        frames: Frames,
        window: Window,
        features: Tensor,
        state: Tensor,
        hidden: Hidden | None = None,
        is_heard: Tensor | None = None,
    ) -> Any:
        context, hidden = self.action(features.flatten(2), state, hidden, is_heard)
        measured = frames.state[window.index].to(self.device)
        target = self.normaliser.chunk(frames.targets[window.index].to(self.device), measured)
        return context.float(), target, self.counts(frames, window), hidden

    def counts(self, frames: Frames, window: Window) -> Tensor:
        """How much each tick of a window counts, (B, W): nothing where there is none, or a policy drove."""
        return (window.mask * frames.taught[window.index]).to(self.device)

    def is_moving(self, frames: Frames, index: Tensor) -> Tensor:
        """Which ticks ask the arm to move: bool, as ``index``."""
        way = frames.targets[index][..., 0, :] - frames.state[index]
        return (way / self._way).abs().mean(-1) > MOVING

    def imitation(self, frames: Frames, window: Window, features: Tensor, batch_index: int) -> tuple[Tensor, Tensor]:
        """The loss of a training window, and this process's disturbed features; hands on the LSTM's state."""
        noise = self.randomness(batch_index)
        state = self.normaliser.state(frames.state[window.index].to(self.device))
        state, features = self.disturbed(state, features, noise)
        own = window.share(self.global_rank, self.trainer.world_size)
        hidden = self.handed_on(own, batch_index)
        is_heard = self.mine(torch.rand(len(window.index), generator=noise) >= self.settings.memory_dropout)
        context, target, mask, hidden = self._predict(frames, own, features, state, hidden, is_heard.to(self.device))
        self._hidden = (hidden[0].detach(), hidden[1].detach())
        return masked_mean(self.head_loss(self.action.head, context, target, noise), mask), features

    def validation_step(self, window: Window, batch_index: int) -> None:
        frames = self._validation
        state = self.normaliser.state(frames.state[window.index].to(self.device))
        context, target, mask, _ = self._predict(frames, window, self.seen(frames, window), state)
        head, noise = self.action.head, torch.Generator().manual_seed(batch_index)
        loss = self.head_loss(head, context, target, noise, is_shared=False)
        moving = mask * self.is_moving(frames, window.index).to(self.device)
        figures = {
            "val_loss": (loss, mask),
            "val_loss_moving": (loss, moving),
            "val_accuracy": (head.accuracy(context, target), mask),
        }
        for name, (values, counts) in figures.items():
            ticks = int(counts.sum())
            if ticks:  # else there is nothing to have a mean of, and 0 would be a perfect one
                self.log(name, masked_mean(values, counts), batch_size=ticks)


class ActionStage(EpisodeStage):
    """Stage two, on features (V, N, C, D) of several views of each training episode: unchanged, then augmented."""

    def __init__(
        self,
        network: PolicyNetwork,
        config: TrainConfig,
        training: Frames,
        validation: Frames,
        views: Tensor,
        held_out: Tensor,
    ) -> None:
        super().__init__(network, config, config.action_steps, config.learning_rate, training, validation)
        self.action.requires_grad_(True)
        for part in (self.action.inlet, self.action.reflex):
            part.requires_grad_(not config.keep_reflex)
        self._features = _Kept(views, held_out)

    def seen(self, frames: Frames, window: Window) -> Tensor:
        return self._features.held_out[window.index].to(self.device)

    def training_step(self, window: Window, batch_index: int) -> Tensor:
        views = self._features.views
        features = views[(window.draw % len(views))[:, None], window.index]
        noise = torch.Generator().manual_seed(FEATURE_DRAWS + self.settings.seed * 7_000_003 + self.global_step)
        features = features + self.settings.feature_noise * torch.randn(features.shape, generator=noise)
        loss, _ = self.imitation(self._training, window, self.mine(features).to(self.device), batch_index)
        self.log("loss", loss, sync_dist=True)
        return loss


class _Kept:
    """Arrays that a copy of the module must not copy."""

    def __init__(self, views: Tensor, held_out: Tensor) -> None:
        self.views, self.held_out = views, held_out

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kept:
        return self


class TogetherStage(EpisodeStage):
    """Stage three: perception and action over windows of episodes; hindsight keeps perception honest."""

    def __init__(self, network: PolicyNetwork, config: TrainConfig, training: Frames, validation: Frames) -> None:
        super().__init__(network, config, config.together_steps, config.together_rate, training, validation)
        self.perception = network.perception
        self.perception.eval()  # batch statistics stay stage one's: a window's padded ticks would spoil them
        self.action.requires_grad_(True)
        inputs = len(network.contract.cameras) * network.perception.features
        self.hindsight = Hindsighted(inputs, training.state.shape[1], config)

    def seen(self, frames: Frames, window: Window) -> Tensor:
        rows = self.perception(frames.images[window.index.flatten()].to(self.device))
        return rows.unflatten(0, window.index.shape)

    def training_step(self, window: Window, batch_index: int) -> Tensor:
        frames = self._training
        own = window.share(self.global_rank, self.trainer.world_size)
        images = frames.images[own.index.flatten()].unflatten(0, own.index.shape)
        images, moved = self.settings.augmentation(images, own.draw)
        moved = moved.repeat_interleave(own.index.shape[1], 0)
        features = self.perception(images.flatten(0, 1).to(self.device), moved.to(self.device))
        features = features.unflatten(0, own.index.shape)
        loss, features = self.imitation(frames, window, features, batch_index)
        state = self.normaliser.state(frames.state[own.index].to(self.device))
        answered = self.hindsight.losses(features.flatten(2), state, self.labels(frames, own.index))
        counts = self.counts(frames, own)
        means = {name: masked_mean(each[..., None], counts) for name, each in answered.items()}
        self.log_dict({"loss": loss, **self.hindsight.asked(means)}, sync_dist=True)
        return loss + self.hindsight.total(means)
