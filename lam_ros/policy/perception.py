"""The perception module: one CNN a camera, or one for all, from pixels to a row of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.encoders import Encoder, make_encoder


class Perception(nn.Module):
    """An encoder for each camera, or one that all share.

    Args:
        config: which encoder, whether it is shared, and the image size.
        cameras: their names, in the robot's order.

    Raises:
        ConfigError: the encoder cannot be made.
    """

    def __init__(self, config: PolicyConfig, cameras: Sequence[str]) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self._is_shared = config.share_encoder
        self.encoders = nn.ModuleList(make_encoder(config) for _ in (cameras[:1] if self._is_shared else cameras))
        self.features: int = self.encoder(0).features
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encoder(self, camera: int) -> Encoder:
        """The encoder of a camera, by its place in the robot's order."""
        encoder = self.encoders[0 if self._is_shared else camera]
        assert isinstance(encoder, Encoder)
        return encoder

    def forward(self, images: Tensor, displacement: Tensor | None = None) -> Tensor:
        """uint8 (B, C, H, W, 3) RGB to features (B, C, D); ``displacement`` (B, C, 2) of displaced pictures."""
        if self._is_shared:
            rows = self._rows(0, images.flatten(0, 1), None if displacement is None else displacement.flatten(0, 1))
            return rows.unflatten(0, images.shape[:2])
        moved = [None] * len(self.cameras) if displacement is None else list(displacement.unbind(1))
        return torch.stack([self._rows(i, images[:, i], moved[i]) for i in range(len(self.cameras))], 1)

    def one(self, camera: int, image: Tensor) -> Tensor:
        """Features (D,) of one camera's uint8 (H, W, 3) image: a row of what ``forward`` gives."""
        return self._rows(camera, image[None])[0]

    def _rows(self, camera: int, images: Tensor, displacement: Tensor | None = None) -> Tensor:
        encoder = self.encoder(camera)
        rows: Tensor = encoder(encoder.pixels(images), displacement)
        return rows

    def attention(self, camera: int, image: Tensor) -> Tensor:
        """Where the CNN of one camera looks in one uint8 (H, W, 3) image: (H, W), from 0 to 1 at its peak."""
        encoder = self.encoder(camera)
        heat = encoder.attention(encoder.pixels(image[None]))[:, None]
        heat = functional.interpolate(heat, size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        return heat / heat.max().clamp_min(1e-12)

    def fold(self) -> Perception:
        """Fold each batch normalisation into its convolution: the same function, faster. For use only, in place."""
        self.eval()
        for encoder in self.encoders:
            assert isinstance(encoder, Encoder)
            encoder.fold()
        return self
