"""LeRobot's own training loop, `lerobot-train`, on a CPU; runs in LeRobot's own environment (see throughput.py).

All arguments are lerobot-train's. Before it starts, a line ``multiply-adds N`` says what its network costs a sample.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded

import torch

if torch.version.cuda is None:  # torchvision's wheel expects operators whose library wants CUDA
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.scripts import lerobot_train
from torch.utils.flop_counter import FlopCounterMode

_update = lerobot_train.update_policy
_counted = False


def counted(metrics: Any, policy: Any, batch: Any, *rest: Any, **more: Any) -> Any:
    """The loop's own step; the first is counted before."""
    global _counted
    if not _counted:
        _counted = True
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            policy.forward(batch)
        print(f"multiply-adds {counter.get_total_flops() // (2 * len(batch['index']))}", flush=True)
    return _update(metrics, policy, batch, *rest, **more)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    lerobot_train.update_policy = counted
    sys.argv[0] = "lerobot-train"
    lerobot_train.main()
