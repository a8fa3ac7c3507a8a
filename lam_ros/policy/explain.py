"""Explainability: show on the picture where the network looks."""

from __future__ import annotations

import cv2
import numpy as np


def draw_attention(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The image with a heat map over it where attention is.

    Args:
        image: uint8 (H, W, 3), RGB.
        attention: float32 (h, w), 0 to 1; scaled to the image.

    Returns:
        uint8 (H, W, 3), RGB: unattended pixels as they were, attended ones towards the heat map.
    """
    heat = cv2.resize(attention, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    heat = np.clip(heat, 0.0, 1.0)
    colours = cv2.cvtColor(cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = 0.7 * np.sqrt(heat)[..., None]
    blended: np.ndarray = (image * (1.0 - share) + colours * share).round().astype(np.uint8)
    return blended
