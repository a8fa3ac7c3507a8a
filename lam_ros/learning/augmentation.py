"""Changes of light, colour and place: the same for all frames of a sequence, as another lamp or a moved camera is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How much images are changed in training.

    Attributes:
        light: largest relative change of brightness, the same for all cameras.
        colour: standard deviation of each colour channel's shift, in grey levels of 255, the same for all cameras.
        shift: largest displacement of each camera's picture, in pixels each way; the border is repeated. Encoders
            with key points are told of it.
        erase: a rectangle of each camera's picture with up to this share of its sides becomes noise; 0 for none.
    """

    light: float = 0.0
    colour: float = 0.0
    shift: int = 0
    erase: float = 0.0

    def __call__(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Change sequences.

        Args:
            images: uint8 (B, T, C, H, W, 3).
            draws: int64 (B,); the change of a sequence follows from its number alone.

        Returns:
            uint8 of the same shape: each channel v becomes clip(gain * v + shift, 0, 255), displaced; and by how much
            each camera's pictures are, float32 (B, C, 2) as (right, down), where a picture's width and height are 2.
        """
        source = images.numpy()
        changed = np.empty(source.shape, dtype=np.uint8)
        cameras, height, width = source.shape[2:5]
        displacement = np.zeros((len(source), cameras, 2), dtype=np.float32)
        levels = np.arange(256)[:, None]
        for row, (sequence, draw, output) in enumerate(zip(source, draws.tolist(), changed, strict=True)):
            rng = np.random.default_rng(draw)
            gain = 1.0 + self.light * rng.uniform(-1.0, 1.0)
            # A table of 256 entries a channel: ten times faster than arithmetic on all pixels.
            table = np.clip(gain * levels + self.colour * rng.standard_normal(3), 0.0, 255.0).astype(np.uint8)[None]
            for camera in range(cameras):
                down, right = rng.integers(-self.shift, self.shift + 1, 2) if self.shift else (0, 0)
                displacement[row, camera] = 2.0 * right / width, 2.0 * down / height
                patch = self._patch(rng, height, width) if self.erase else None
                for frame, out in zip(sequence[:, camera], output[:, camera], strict=True):
                    cv2.LUT(displaced(frame, down, right), table, dst=out)
                    if patch is not None:
                        rows, columns, noise = patch
                        out[rows, columns] = noise
        return torch.from_numpy(changed), torch.from_numpy(displacement)

    def _patch(self, rng: np.random.Generator, height: int, width: int) -> tuple[slice, slice, np.ndarray]:
        tall, wide = (max(1, int(side * rng.uniform(0.0, self.erase))) for side in (height, width))
        top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
        noise = rng.integers(0, 256, (tall, wide, 3), dtype=np.uint8)
        return slice(top, top + tall), slice(left, left + wide), noise


def displaced(frame: np.ndarray, down: int, right: int) -> np.ndarray:
    """The picture uint8 (H, W, 3) moved by whole pixels, its border repeated; may be a view."""
    if not (down or right):
        return frame
    height, width = frame.shape[:2]
    up, left = abs(down), abs(right)
    wide = cv2.copyMakeBorder(frame, up, up, left, left, cv2.BORDER_REPLICATE)
    moved: np.ndarray = wide[up - down : up - down + height, left - right : left - right + width]
    return moved
