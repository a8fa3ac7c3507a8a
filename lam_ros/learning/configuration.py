"""Training's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lam_ros.config import from_mapping, read_yaml
from lam_ros.errors import ConfigError
from lam_ros.policy.configuration import PolicyConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a policy is trained. Training goes in two stages: perception on shuffled frames, action on whole episodes.

    Attributes:
        policy: the model.
        seed: of weights, shuffling and the validation split.
        perception_steps: optimiser steps of stage one, each on ``perception_batch`` frames.
        action_steps: optimiser steps of stage two, each on ``action_batch`` whole episodes.
        learning_rate: its peak; warm-up over 50 steps, then cosine to 1 %.
        weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        validation_share: share of the episodes held out.
        destination_weight: weight of the auxiliary loss "where does this demonstration end?", which tells every frame
            where the object is; 0 turns it off.
        state_noise: standard deviation added to normalised states, so that the policy looks instead of extrapolating.
        feature_noise: likewise for cached features in stage two.
        light: largest relative change of brightness, one for all cameras of a frame.
        colour: standard deviation of each colour channel's shift, in grey levels of 255.
        precision: ``bf16`` or ``float32`` convolutions; ``auto`` measures which is faster here.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    seed: int = 0
    perception_steps: int = 1500
    perception_batch: int = 256
    action_steps: int = 1500
    action_batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    validation_share: float = 0.08
    destination_weight: float = 1.0
    state_noise: float = 0.05
    feature_noise: float = 0.02
    light: float = 0.1
    colour: float = 8.0
    precision: Literal["auto", "bf16", "float32"] = "auto"

    def __post_init__(self) -> None:
        if min(self.perception_steps, self.action_steps, self.perception_batch, self.action_batch) < 1:
            raise ConfigError("steps and batch sizes must be at least 1.")
        if not 0.0 < self.validation_share < 1.0:
            raise ConfigError(f"validation_share is {self.validation_share}; it must lie between 0 and 1.")
        if min(self.learning_rate, self.clip_norm) <= 0.0:
            raise ConfigError("learning_rate and clip_norm must be above 0.")


def load_train_config(path: Path) -> TrainConfig:
    """Raises ConfigError when the file is missing or wrong."""
    try:
        return from_mapping(TrainConfig, read_yaml(path) or {})
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(str(path)) else f"{path}: {message}") from None
