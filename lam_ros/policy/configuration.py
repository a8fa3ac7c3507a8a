"""The model's settings: what a checkpoint stores and a policy YAML may change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lam_ros.errors import ConfigError

LARGEST_IMAGE, LARGEST_SIZE, MOST_LAYERS = 4096, 1 << 16, 64  # what is larger is a mistake, or an attack
ENCODER_NAMES = ("strided", "article", "resnet18")


@dataclass(frozen=True)
class PolicyConfig:
    """The Large Action Model.

    Attributes:
        encoder: ``strided`` (small strided CNN with spatial softmax), ``article`` (the articles' two convolutions),
            ``resnet18`` (with spatial softmax, as robomimic's), or ``timm:NAME`` for a backbone of the timm library.
        normalisation: of ``strided`` and ``resnet18``: ``batch``, ``group`` or ``none``.
        share_encoder: one encoder for all cameras instead of one each.
        image_size: (width, height) in pixels that camera images are scaled to.
        hidden_size: units of each LSTM layer and of the layer before them.
        layers: LSTM layers.
        head: ``regression`` (chunks of joint targets, L1), ``refined`` (the same, refined in a second step), ``gmm``
            (a mixture of Gaussians over chunks), ``categorical`` (softmax over bins, cross-entropy).
        targets: ``absolute`` joint targets, or ``relative`` to the measured state.
        chunk: how many future ticks one prediction covers.
        bins: bins per joint of the categorical head.
        modes: of the gmm head.
        ensemble_decay: temporal ensembling weighs a prediction made n ticks ago with exp(-decay * n); 100 turns it off.
        smoothing: share of the last target kept in the next one, 0 (none) to below 1.
    """

    encoder: str = "strided"
    normalisation: Literal["batch", "group", "none"] = "batch"
    share_encoder: bool = False
    image_size: tuple[int, int] = (96, 96)
    hidden_size: int = 256
    layers: int = 1
    head: Literal["regression", "refined", "gmm", "categorical"] = "regression"
    targets: Literal["absolute", "relative"] = "absolute"
    chunk: int = 8
    bins: int = 21
    modes: int = 5
    ensemble_decay: float = 0.1
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        # timm would download what has a colon or a slash in its name.
        if self.encoder not in ENCODER_NAMES and not re.fullmatch(r"timm:[\w.-]+", self.encoder):
            raise ConfigError(
                f"there is no encoder {self.encoder!r}; there are {', '.join(ENCODER_NAMES)}, and timm:NAME."
            )
        if min(self.image_size) < 24 or max(self.image_size) > LARGEST_IMAGE:
            raise ConfigError(
                f"image_size is {list(self.image_size)}; the encoders take sides of 24 to {LARGEST_IMAGE} pixels."
            )
        if min(self.hidden_size, self.layers, self.chunk, self.modes) < 1 or self.bins < 2:
            raise ConfigError("hidden_size, layers, chunk and modes must be at least 1, and bins at least 2.")
        if max(self.hidden_size, self.chunk, self.modes, self.bins) > LARGEST_SIZE or self.layers > MOST_LAYERS:
            raise ConfigError(
                f"hidden_size, chunk, modes and bins may be {LARGEST_SIZE} at most, and layers {MOST_LAYERS}."
            )
        if not 0.0 <= self.smoothing < 1.0:
            raise ConfigError(f"smoothing is {self.smoothing}; it must be from 0 to below 1.")
        if self.ensemble_decay < 0.0:
            raise ConfigError(f"ensemble_decay is {self.ensemble_decay}; it must not be negative.")
