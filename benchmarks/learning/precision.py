"""Which precision trains a network faster on this machine; for scripts in either environment."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager

import torch
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def bfloat16_pays() -> bool:
    """Whether a convolution is faster in bfloat16; a CPU without instructions for it takes nine times as long."""
    if DEVICE == "cuda":
        return True
    convolution, images = nn.Conv2d(32, 32, 3), torch.zeros(16, 32, 48, 48)
    took = []
    for is_enabled in (False, True):
        each = []
        for _ in range(4):
            began = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_enabled):
                convolution(images).sum().backward()
            each.append(time.process_time() - began)
        took.append(min(each))
    return took[1] < took[0]


def faster() -> AbstractContextManager[None]:
    """The context in which the forward pass of training is faster here."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16_pays())


def machine() -> str:
    """What trained: figures of CPU-seconds compare on one kind of machine alone."""
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}, {'bfloat16' if bfloat16_pays() else 'float32'}"
