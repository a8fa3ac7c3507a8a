"""Which arithmetic convolutions train faster in, on this machine."""

from __future__ import annotations

import copy
import math
import time

import torch

from lam_ros.policy.perception import Perception

FRAMES = 16  # few: a CPU without instructions for bf16 takes nine times as long
ROUNDS = 3  # of which the best counts


def faster_precision(perception: Perception, image_size: tuple[int, int]) -> str:
    """``bf16`` where a training step of the CNN is faster with it on this machine, else ``float32``; measured.

    Args:
        perception: stays as it is.
        image_size: width and height.
    """
    width, height = image_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.zeros((FRAMES, len(perception.cameras), height, width, 3), dtype=torch.uint8, device=device)
    trial = copy.deepcopy(perception).to(device)
    seconds = {}
    for name, enabled in (("float32", False), ("bf16", True)):
        best = math.inf
        for _ in range(ROUNDS):
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                loss = trial(images).sum()
            loss.backward()
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        seconds[name] = best
    return min(seconds, key=seconds.__getitem__)
