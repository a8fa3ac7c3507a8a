"""Training's settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lam_ros.config import from_mapping, read_yaml
from lam_ros.errors import ConfigError
from lam_ros.learning.augmentation import Augmentation
from lam_ros.policy.configuration import PolicyConfig

STAGES = ("perception_steps", "action_steps", "together_steps")


@dataclass(frozen=True)
class TrainConfig:
    """How a policy is trained: perception on shuffled frames, action on whole episodes, then both together.

    Attributes:
        policy: the model.
        seed: of weights, shuffling and the validation split.
        perception_steps: optimiser steps of stage one, each on ``perception_batch`` frames.
        action_steps: optimiser steps of stage two, each on ``action_batch`` episodes.
        together_steps: optimiser steps of stage three, each on ``together_batch`` episodes; 0 leaves it out.
        window: ticks through which gradients flow back in an episode (truncated back-propagation through time; the
            LSTM's state is handed on from window to window); 0 for whole episodes.
        hand_on: whether it is; without, each window begins with nothing, as where a policy remembers some ticks alone.
        learning_rate: its peak in stages one and two; 50 steps of warm-up (a third of a short stage), then cosine
            to 1 %.
        together_rate: its peak in stage three.
        weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        ema: the weights that count are an exponential moving average with this decay a step, less in the first steps; 0
            for the last ones.
        patience: a stage ends after so many epochs (50 steps) without a better validation loss, and keeps its best
            weights; 0 never.
        validation_share: share of each folder's episodes that is held out, one at least.
        corrections: what a tick counts at which a human has taken over from a policy, against one of a demonstration;
            ticks at which the policy drove itself count nothing.
        way_weight: weight of the auxiliary loss "which way does this demonstration take?"; 0 turns it off.
        destination_weight: likewise "where does it end?": in vain where all demonstrations end alike.
        contact_weight: likewise "where does the arm next touch something?".
        time_weight: likewise "how long will it take?".
        state_noise: standard deviation added to normalised states, so that the policy looks instead of extrapolating.
        state_dropout: share of ticks at which the policy is told no state.
        camera_dropout: share of samples in which one camera is missing.
        feature_dropout: share of features that is left out of each sample, the others being scaled up.
        feature_noise: standard deviation added to cached features in stage two.
        keep_reflex: stage two leaves what stage one made of single ticks, on every frame in many lights and places, as
            it is; what is learned from a few cached views is learned by heart.
        memory_dropout: share of stage two's episodes in which the LSTM is not heard, so that the head relies on it no
            more than it must.
        views: how many views of each episode stage two sees: one unchanged, the others augmented.
        light: largest relative change of brightness, one for all cameras of a frame.
        colour: standard deviation of each colour channel's shift, in grey levels of 255.
        shift: largest displacement of a camera's picture, in pixels each way; encoders with key points are told of it.
        erase: a rectangle with up to this share of a picture's sides becomes noise; 0 for none.
        precision: ``bf16`` or ``float32`` convolutions; ``auto`` measures which is faster here.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    seed: int = 0
    perception_steps: int = 1000
    perception_batch: int = 128
    action_steps: int = 150
    action_batch: int = 16
    together_steps: int = 0
    together_batch: int = 8
    window: int = 0
    hand_on: bool = True
    learning_rate: float = 1e-3
    together_rate: float = 2e-4
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.0
    patience: int = 0
    validation_share: float = 0.08
    corrections: float = 1.0
    way_weight: float = 1.0
    destination_weight: float = 0.0
    contact_weight: float = 0.0
    time_weight: float = 0.0
    state_noise: float = 0.05
    state_dropout: float = 0.0
    camera_dropout: float = 0.0
    feature_dropout: float = 0.0
    feature_noise: float = 0.05
    keep_reflex: bool = True
    memory_dropout: float = 0.5
    views: int = 3
    light: float = 0.1
    colour: float = 8.0
    shift: int = 12
    erase: float = 0.0
    precision: Literal["auto", "bf16", "float32"] = "auto"

    def __post_init__(self) -> None:
        counts = (self.perception_steps, self.action_steps, self.perception_batch, self.action_batch)
        if min(*counts, self.together_batch, self.views) < 1:
            raise ConfigError("steps, batch sizes and views must be at least 1 (together_steps may be 0).")
        if min(self.together_steps, self.window, self.patience, self.shift) < 0:
            raise ConfigError("together_steps, window, patience and shift must not be negative.")
        if not 0.0 < self.validation_share < 1.0:
            raise ConfigError(f"validation_share is {self.validation_share}; it must lie between 0 and 1.")
        if min(self.learning_rate, self.together_rate, self.clip_norm, self.corrections) <= 0.0:
            raise ConfigError("learning_rate, together_rate, clip_norm and corrections must be above 0.")
        if not 0 <= self.seed < 2**32 or self.weight_decay < 0.0:
            raise ConfigError("seed must be from 0 to 2^32 - 1, and weight_decay must not be negative.")
        weights = (self.way_weight, self.destination_weight, self.contact_weight, self.time_weight)
        if min(*weights, self.state_noise, self.feature_noise) < 0.0:
            raise ConfigError("weights of questions, state_noise and feature_noise must not be negative.")
        for name in ("ema", "state_dropout", "camera_dropout", "feature_dropout", "memory_dropout", "erase"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be from 0 to below 1.")

    def scaled(self, factor: float) -> TrainConfig:
        """These settings with that many times the optimiser steps; at least one in each stage that has any.

        Raises:
            ConfigError: the factor is not a number above 0.
        """
        if not 0.0 < factor < math.inf:
            raise ConfigError(f"the optimiser steps cannot be scaled by {factor}; give a number above 0.")
        steps = {stage: getattr(self, stage) for stage in STAGES}
        return replace(self, **{stage: max(1, round(factor * count)) for stage, count in steps.items() if count})

    @property
    def augmentation(self) -> Augmentation:
        """How training's images are changed."""
        return Augmentation(self.light, self.colour, self.shift, self.erase)


def load_train_config(path: Path) -> TrainConfig:
    """Raises ConfigError when the file is missing or wrong."""
    try:
        return from_mapping(TrainConfig, read_yaml(path) or {})
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(str(path)) else f"{path}: {message}") from None
