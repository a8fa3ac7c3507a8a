"""The policies that are compared: this project's, and what else there is. Each trains within a budget.

bc_rnn_gmm follows robomimic's recipe for images (Mandlekar et al. 2021, arXiv 2108.03298): a ResNet18 from scratch a
camera, 32 key points by spatial softmax, 64 features, random crops of 76/84, an LSTM of 2 x 1000 on windows of 10 that
is reset every 10 ticks in use, a mixture of 5 Gaussians over min-max-normalised actions, Adam 1e-4, batches of 16.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from precision import DEVICE, bfloat16_pays, faster
from torch import Tensor, nn
from torch.nn import functional

from lam_ros.cli.steps import training_settings
from lam_ros.demonstrations.dataset import Dataset, chunk_targets
from lam_ros.learning.configuration import STAGES, TrainConfig
from lam_ros.learning.pretraining import pretrain
from lam_ros.learning.training import train
from lam_ros.policy.checkpoint import load_runtime
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.decoding import ActionDecoder
from lam_ros.policy.encoders import make_encoder
from lam_ros.policy.perception import Perception

Limits = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long a training may be: so many CPU-seconds, or, where these are 0, so many optimiser steps."""

    cpu_seconds: float = 0.0
    steps: int = 0

    def is_spent(self, cpu_seconds: float, steps: int) -> bool:
        return cpu_seconds >= self.cpu_seconds if self.cpu_seconds else steps >= self.steps


class Method(ABC):
    """A way to learn: ``train`` once, then ``reset`` and ``act`` in several episodes at once.

    Attributes:
        steps: optimiser steps taken.
        wants_films: whether it learns from ``films``, recordings whose actions it does not look at, beforehand.
        cpu_seconds: what training them took, wherever it ran.
    """

    steps = 0
    cpu_seconds = 0.0
    wants_films = False
    films: Dataset

    @abstractmethod
    def train(self, dataset: Dataset, limits: Limits, budget: Budget, seed: int) -> None:
        """Learn from demonstrations until the budget, of this process's CPU time or of steps, is spent."""

    def reset(self, episodes: int) -> None:  # noqa: B027 - some have nothing to forget
        """So many episodes begin."""

    @abstractmethod
    def act(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Joint targets (B, J) for images uint8 (B, C, h, w, 3) and states (B, J) of B episodes."""


class Lam(Method):
    """This project's policy, with config/train.yaml or changes of it; its steps scaled to the budget.

    How long a step takes is measured first, for a few seconds that do not count; a training that is going to take more
    than its budget all the same is thrown away as soon as that is plain, and done anew with fewer steps. After
    ``forget_after`` ticks its memory starts anew; 0 for never. Steps of pre-training on films count neither as steps
    nor as time: they need no demonstrations, and are done once.
    """

    def __init__(self, forget_after: int = 0, pretraining_steps: int = 0, **changes: object) -> None:
        self._forget_after = forget_after
        self._pretraining_steps, self.wants_films = pretraining_steps, pretraining_steps > 0
        policy = changes.pop("policy", {})
        settings = training_settings(None)
        assert isinstance(policy, dict)
        policy_config = dataclasses.replace(settings.policy, **policy)
        self._settings = dataclasses.replace(settings, policy=policy_config, **changes)  # type: ignore[arg-type]

    def train(self, dataset: Dataset, limits: Limits, budget: Budget, seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = dataclasses.replace(
                self._settings, seed=seed, precision="bf16" if bfloat16_pays() else "float32"
            )
            pretrained = None
            if self.wants_films:
                pretrained = Path(folder) / "perception.safetensors"
                pretrain(self.films, settings, self._pretraining_steps, pretrained)
            allowed, watch = budget.cpu_seconds, None
            if allowed:
                costs = measured_costs(settings, dataset, Path(folder))
                settings = costs.fitted(settings, 0.98 * allowed)
            else:
                settings = settings.scaled(budget.steps / sum(getattr(settings, stage) for stage in STAGES))
            for attempt in itertools.count():
                if allowed:
                    watch = _Clock(costs, settings, allowed)
                began, out = time.process_time(), Path(folder) / f"policy{attempt}.safetensors"
                try:
                    result = train(dataset, settings, out, report=watch or (lambda *_: None), pretrained=pretrained)
                    break
                except _TooSlow as slow:
                    settings = settings.scaled(0.95 * allowed / slow.cpu_seconds)
            self.cpu_seconds = time.process_time() - began
            self.steps = sum(getattr(settings, stage) for stage in STAGES)
            self._runtime, _ = load_runtime(result.checkpoint)
        self._limits = limits

    def reset(self, episodes: int) -> None:
        config = self._runtime.config
        self._hidden, self._ticks = [None] * episodes, 0
        self._decoders = [
            ActionDecoder(*self._limits, config.ensemble_decay, config.smoothing) for _ in range(episodes)
        ]

    def act(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        if self._forget_after and self._ticks % self._forget_after == 0:
            self._hidden = [None] * len(self._hidden)
        self._ticks += 1
        # One at a time, by what the nodes run.
        size, targets = self._runtime.config.image_size, np.empty_like(state)
        for i, decoder in enumerate(self._decoders):
            rows = [self._runtime.perceive(camera, _resized(image, size)) for camera, image in enumerate(images[i])]
            chunk, self._hidden[i] = self._runtime.step(np.concatenate(rows), state[i], self._hidden[i])
            targets[i] = decoder.decode(chunk)
        return targets


# One change each of what config/train.yaml says, for the grid's --ablations.
ABLATIONS: dict[str, dict[str, object]] = {
    "lam:chunk_1": {"policy": {"chunk": 1}},
    "lam:chunk_16": {"policy": {"chunk": 16}},
    "lam:no_ensembling": {"policy": {"ensemble_decay": 100.0}},
    "lam:gmm": {"policy": {"head": "gmm"}},
    "lam:refined": {"policy": {"head": "refined"}},
    "lam:categorical": {"policy": {"head": "categorical"}},
    "lam:relative_targets": {"policy": {"targets": "relative"}},
    "lam:article_encoder": {"policy": {"encoder": "article"}, "shift": 0},  # it cannot be told of displacements
    "lam:resnet18": {"policy": {"encoder": "resnet18"}},
    "lam:group_norm": {"policy": {"normalisation": "group"}},
    "lam:no_norm": {"policy": {"normalisation": "none"}},
    "lam:windows_of_10": {"window": 10, "hand_on": False, "forget_after": 10},
    "lam:no_hindsight": {"way_weight": 0.0},
    "lam:destination_alone": {"way_weight": 0.0, "destination_weight": 1.0},
    "lam:destination_too": {"destination_weight": 1.0},
    "lam:contact_too": {"contact_weight": 0.5},
    "lam:time_too": {"time_weight": 0.5},
    "lam:all_hindsight": {"destination_weight": 1.0, "contact_weight": 0.5, "time_weight": 0.5},
    "lam:no_shift": {"shift": 0},
    "lam:more_light": {"light": 0.3, "colour": 25.0},
    "lam:reflex_learned_again": {"keep_reflex": False},
    "lam:one_view": {"views": 1},
    "lam:then_together": {"together_steps": 300},
    "lam:pretrained": {"pretraining_steps": 500},
}


MEASURED_STEPS = 45


@dataclasses.dataclass(frozen=True)
class _Costs:
    """CPU-seconds of a training: once, and of each step of each stage."""

    once: float
    each: Mapping[str, float]

    def of_steps(self, settings: TrainConfig) -> float:
        return sum(getattr(settings, stage) * cost for stage, cost in self.each.items())

    def fitted(self, settings: TrainConfig, allowed: float) -> TrainConfig:
        """The settings with their steps scaled so that training takes about ``allowed`` CPU-seconds."""
        return settings.scaled((allowed - self.once) / self.of_steps(settings))


def measured_costs(settings: TrainConfig, dataset: Dataset, folder: Path) -> _Costs:
    """What a training costs here, by a short run."""
    stages = [stage for stage in STAGES if getattr(settings, stage)]
    clock: dict[str, list[float]] = {stage: [] for stage in stages}

    def watch(stage: str, step: int, steps: int, loss: float) -> None:
        clock[f"{stage}_steps"].append(time.process_time())

    began = time.process_time()
    short = dataclasses.replace(settings, **dict.fromkeys(stages, MEASURED_STEPS))
    train(dataset, short, folder / "measured.safetensors", report=watch)
    spent = time.process_time() - began
    # The first steps of a stage are dearer.
    each = {name: (ticks[-1] - ticks[MEASURED_STEPS // 3]) / (2 * MEASURED_STEPS // 3) for name, ticks in clock.items()}
    return _Costs(spent - sum(MEASURED_STEPS * cost for cost in each.values()), each)


class _TooSlow(Exception):
    """A training is going to take so many CPU-seconds, more than it may."""

    def __init__(self, cpu_seconds: float) -> None:
        super().__init__(cpu_seconds)
        self.cpu_seconds = cpu_seconds


class _Clock:
    """Watches a training, and ends it once it is plain that it will take more than ``allowed`` CPU-seconds."""

    surely, margin = 0.1, 1.03  # the share of a training after which it is plain; how much more is let pass

    def __init__(self, costs: _Costs, settings: TrainConfig, allowed: float) -> None:
        self._once = costs.once
        self._stages = {stage: getattr(settings, stage) * cost for stage, cost in costs.each.items()}
        self._allowed, self._began = allowed, time.process_time()

    def __call__(self, stage: str, step: int, steps: int, loss: float) -> None:
        now = f"{stage}_steps"
        earlier = itertools.takewhile(lambda name: name != now, self._stages)
        done = self._once + sum(self._stages[name] for name in earlier) + self._stages[now] * step / steps
        share = done / (self._once + sum(self._stages.values()))
        expected = (time.process_time() - self._began) / share
        if share > self.surely and expected > self.margin * self._allowed:
            raise _TooSlow(expected)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


class Learner(Method):
    """A peer that is one torch module, trained end to end."""

    batch, rate = 16, 1e-4

    def train(self, dataset: Dataset, limits: Limits, budget: Budget, seed: int) -> None:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self._limits = limits
        self.prepare(dataset)
        self.module.to(DEVICE)
        optimiser = self.optimiser()
        self.module.train()
        began = time.process_time()
        while not budget.is_spent(spent := time.process_time() - began, self.steps):
            loss = self.loss(rng)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            self.steps += 1
        self.cpu_seconds = spent
        self.module.eval()

    module: nn.Module

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), self.rate)

    @abstractmethod
    def prepare(self, dataset: Dataset) -> None:
        """Make the module and keep the data."""

    @abstractmethod
    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of one batch."""


class _RecurrentMixture(nn.Module):
    def __init__(self, cameras: int, joints: int, size: tuple[int, int]) -> None:
        super().__init__()
        config = PolicyConfig(encoder="resnet18", image_size=size)
        self.encoders = nn.ModuleList(make_encoder(config) for _ in range(cameras))
        self.lstm = nn.LSTM(64 * cameras + joints, 1000, 2, batch_first=True)
        self.joints, self.modes = joints, 5
        self.head = nn.Linear(1000, self.modes * (2 * joints + 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, state: Tensor, hidden: tuple[Tensor, Tensor] | None) -> tuple[Tensor, ...]:
        """From images (B, T, C, 3, h, w) and states (B, T, J): logits, means, spreads of the modes; hidden state."""
        batch, ticks = state.shape[:2]
        seen = [encoder(images[:, :, i].flatten(0, 1)).float() for i, encoder in enumerate(self.encoders)]
        seen = torch.cat(seen, 1).unflatten(0, (batch, ticks))
        output, hidden = self.lstm(torch.cat([seen, state], -1), hidden)
        said = self.head(output)
        logits, rest = said[..., : self.modes], said[..., self.modes :].unflatten(-1, (self.modes, 2 * self.joints))
        means, spreads = torch.tanh(rest[..., : self.joints]), functional.softplus(rest[..., self.joints :]) + 1e-4
        assert hidden is not None
        return logits, means, spreads, *hidden


class BcRnnGmm(Learner):
    """robomimic's recipe; see the module's docstring."""

    window = 10

    def prepare(self, dataset: Dataset) -> None:
        self._demonstrations = dataset.demonstrations
        actions = np.concatenate([d.action for d in dataset.demonstrations])
        states = np.concatenate([d.state for d in dataset.demonstrations])
        self._low, self._high = actions.min(0), np.maximum(actions.max(0), actions.min(0) + 1e-3)
        self._mean, self._std = states.mean(0), np.maximum(states.std(0), 1e-3)
        height, width = dataset.demonstrations[0].images.shape[2:4]
        self._crop = (round(width * 76 / 84), round(height * 76 / 84))
        self.module = _RecurrentMixture(len(dataset.contract.cameras), states.shape[1], self._crop)

    def _normalised(self, state: np.ndarray) -> Tensor:
        return torch.from_numpy(((state - self._mean) / self._std).astype(np.float32)).to(DEVICE)

    def loss(self, rng: np.random.Generator) -> Tensor:
        images, states, actions = [], [], []
        width, height = self._crop
        for number in rng.integers(0, len(self._demonstrations), self.batch):
            shown = self._demonstrations[number]
            start = int(rng.integers(0, max(1, len(shown) - self.window + 1)))
            ticks = np.minimum(np.arange(start, start + self.window), len(shown) - 1)
            top = rng.integers(0, shown.images.shape[2] - height + 1)
            left = rng.integers(0, shown.images.shape[3] - width + 1)
            images.append(shown.images[ticks, :, top : top + height, left : left + width])
            states.append(shown.state[ticks])
            actions.append(shown.action[ticks])
        pixels = torch.from_numpy(np.stack(images)).to(DEVICE).permute(0, 1, 2, 5, 3, 4)
        with faster():
            logits, means, spreads, *_ = self.module(pixels.float(), self._normalised(np.stack(states)), None)
        scaled_actions = 2 * (np.stack(actions) - self._low) / (self._high - self._low) - 1
        wanted = torch.from_numpy(scaled_actions.astype(np.float32)).to(DEVICE)
        logits, means, spreads = logits.float(), means.float(), spreads.float()
        z = (wanted[..., None, :] - means) / spreads
        each = (-0.5 * z.square() - spreads.log()).sum(-1)
        return -(each + logits.log_softmax(-1)).logsumexp(-1).mean()

    def reset(self, episodes: int) -> None:
        self._hidden: tuple[Tensor, Tensor] | None = None
        self._ticks = 0

    @torch.inference_mode()
    def act(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        if self._ticks % self.window == 0:
            self._hidden = None
        self._ticks += 1
        width, height = self._crop
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        pixels = torch.from_numpy(images[:, :, top : top + height, left : left + width].copy()).to(DEVICE)
        pixels = pixels.permute(0, 1, 4, 2, 3).float()[:, None]
        logits, means, _, *hidden = self.module(pixels, self._normalised(state)[:, None], self._hidden)
        self._hidden = (hidden[0], hidden[1])
        best = means[torch.arange(len(means)), 0, logits[:, 0].argmax(-1)].cpu().numpy()
        return np.clip((best + 1) / 2 * (self._high - self._low) + self._low, *self._limits).astype(np.float32)


class ChunkedMlp(Learner):
    """No memory: the strided CNN and an MLP to chunks of 8 absolute targets, ensembled over time; L1, AdamW 1e-3."""

    batch, rate, chunk = 128, 1e-3, 8

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.module.parameters(), self.rate, weight_decay=1e-4)

    def prepare(self, dataset: Dataset) -> None:
        self._images = torch.from_numpy(np.concatenate([d.images for d in dataset.demonstrations])).to(DEVICE)
        self._state = np.concatenate([d.state for d in dataset.demonstrations])
        targets = np.concatenate([chunk_targets(d.action, self.chunk) for d in dataset.demonstrations])
        self._middle = targets.mean(0)
        self._mean, self._std = self._state.mean(0), np.maximum(self._state.std(0), 1e-3)
        self._scale = np.maximum(targets.std(0), 1e-4)
        self._wanted = torch.from_numpy(((targets - self._middle) / self._scale).astype(np.float32)).to(DEVICE)
        height, width = self._images.shape[2:4]
        perception = Perception(PolicyConfig(image_size=(width, height)), dataset.contract.cameras)
        joints = self._state.shape[1]
        inputs = len(dataset.contract.cameras) * perception.features + joints
        self.module = nn.ModuleDict(
            {
                "perception": perception,
                "head": nn.Sequential(
                    *(nn.Linear(inputs, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()),
                    nn.Linear(512, self.chunk * joints),
                ),
            }
        )
        self._joints = joints

    def _said(self, images: Tensor, state: np.ndarray) -> Tensor:
        normalised = torch.from_numpy(((state - self._mean) / self._std).astype(np.float32)).to(DEVICE)
        features = self.module["perception"](images).flatten(1)
        said: Tensor = self.module["head"](torch.cat([features, normalised], 1))
        return said.unflatten(-1, (self.chunk, self._joints)).float()

    def loss(self, rng: np.random.Generator) -> Tensor:
        index = rng.integers(0, len(self._state), self.batch)
        with faster():
            said = self._said(self._images[index], self._state[index])
        return functional.l1_loss(said.float(), self._wanted[index])

    def reset(self, episodes: int) -> None:
        self._decoders = [ActionDecoder(*self._limits, 0.1, 0.0) for _ in range(episodes)]

    @torch.inference_mode()
    def act(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        chunks = self._said(torch.from_numpy(images).to(DEVICE), state).cpu().numpy() * self._scale + self._middle
        return np.stack([decoder.decode(chunk) for decoder, chunk in zip(self._decoders, chunks, strict=True)])


class NearestNeighbour(Method):
    """Does what the demonstrator did at the most similar moment: small pictures and states, no training."""

    side = 16

    def train(self, dataset: Dataset, limits: Limits, budget: Budget, seed: int) -> None:
        self._limits = limits
        states = np.concatenate([d.state for d in dataset.demonstrations])
        self._mean, self._std = states.mean(0), np.maximum(states.std(0), 1e-3)
        self._offsets = np.concatenate([d.action - d.state for d in dataset.demonstrations])
        rows = [
            self._key(images, state)
            for d in dataset.demonstrations
            for images, state in zip(d.images, d.state, strict=True)
        ]
        self._keys = np.stack(rows)
        self._lengths = np.square(self._keys).sum(1)

    def _key(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        small = [_resized(image, (self.side, self.side)).astype(np.float32).ravel() / 255.0 for image in images]
        pixels = np.concatenate(small)
        # Both parts weigh as many numbers as the state has.
        return np.concatenate([(state - self._mean) / self._std, pixels * np.sqrt(len(state) / len(pixels)) * 8.0])

    def act(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        keys = np.stack([self._key(*seen) for seen in zip(images, state, strict=True)])
        nearest = (self._lengths[:, None] - 2 * self._keys @ keys.T).argmin(0)  # but for the lengths of ``keys``
        return np.clip(state + self._offsets[nearest], *self._limits).astype(np.float32)
