"""The model's settings: what a checkpoint stores and a policy YAML may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lam_ros.errors import ConfigError


@dataclass(frozen=True)
class PolicyConfig:
    """The Large Action Model.

    Attributes:
        encoder: ``strided`` (small strided CNN with spatial softmax) or ``article`` (the articles' two convolutions).
        image_size: (width, height) in pixels that camera images are scaled to.
        hidden_size: units of the LSTM and of the layer before it.
        head: ``regression`` (chunks of joint targets, L1) or ``categorical`` (softmax over bins, cross-entropy).
        chunk: how many future ticks one prediction covers.
        bins: bins per joint of the categorical head.
        ensemble_decay: temporal ensembling weighs a prediction made n ticks ago with exp(-decay * n).
        smoothing: share of the last target kept in the next one, 0 (none) to below 1.
    """

    encoder: Literal["strided", "article"] = "strided"
    image_size: tuple[int, int] = (96, 96)
    hidden_size: int = 256
    head: Literal["regression", "categorical"] = "regression"
    chunk: int = 8
    bins: int = 21
    ensemble_decay: float = 0.1
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if min(self.image_size) < 24:
            raise ConfigError(f"image_size is {list(self.image_size)}; the encoders need at least 24 x 24 pixels.")
        if min(self.hidden_size, self.chunk) < 1 or self.bins < 2:
            raise ConfigError("hidden_size and chunk must be at least 1, and bins at least 2.")
        if not 0.0 <= self.smoothing < 1.0:
            raise ConfigError(f"smoothing is {self.smoothing}; it must be from 0 to below 1.")
        if self.ensemble_decay < 0.0:
            raise ConfigError(f"ensemble_decay is {self.ensemble_decay}; it must not be negative.")
