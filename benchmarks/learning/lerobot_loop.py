"""LeRobot's own training loop with this project's network in it; runs in LeRobot's own environment.

    python lerobot_loop.py DEMONSTRATIONS.npz STEPS BATCH WORKERS        (see throughput.py)

`lerobot_train.train` runs as it is: its dataset, data loader, preprocessing, update and bookkeeping. Only the policy it
makes is another: the CNN and the head that this project's first stage trains, so that both loops train one network.
Frames are stored as PNG, which LeRobot decodes faster than its default, video. Prints the times at which steps ended.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot_server import make_policy  # first: it makes torchvision importable without CUDA
from torch import Tensor, nn

# isort: split
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.scripts import lerobot_train

from lam_ros.policy.action import ActionModule
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.perception import Perception

NAME = "lam_ros/throughput"


class Network(nn.Module):
    """This project's perception and policy without memory, as LeRobot's loop expects a policy."""

    def __init__(self, config: Any, cameras: list[str], size: tuple[int, int], joints: int) -> None:
        super().__init__()
        policy = PolicyConfig(image_size=size[::-1])
        self.config, self._cameras = config, cameras
        self.perception = Perception(policy, cameras)
        self.action = ActionModule(policy, len(cameras) * self.perception.features, joints)
        self.action.lstm.requires_grad_(False)
        self.ended: list[float] = []

    def get_optim_params(self) -> Any:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        images = [batch[f"observation.images.{camera}"] for camera in self._cameras]
        features = [self.perception.encoder(i)(image) for i, image in enumerate(images)]
        context = self.action.memoryless(torch.cat(features, 1), batch["observation.state"])
        return self.action.head.loss(context, batch["action"], None).mean(), {}

    def update(self) -> None:
        """What LeRobot's loop calls after each step."""
        self.ended.append(time.perf_counter())


def recorded(arrays: Any, root: Path) -> None:
    """The demonstrations as a LeRobot dataset of images."""
    cameras = [str(camera) for camera in arrays["cameras"]]
    joints, size = arrays["state"].shape[1], arrays["images"].shape[2:]
    row = {"dtype": "float32", "shape": (joints,), "names": [f"joint_{i}" for i in range(joints)]}
    features: dict[str, Any] = {"observation.state": row, "action": row}
    for camera in cameras:
        names = ["height", "width", "channels"]
        features[f"observation.images.{camera}"] = {"dtype": "image", "shape": tuple(size), "names": names}
    dataset = LeRobotDataset.create(NAME, round(float(arrays["rate_hz"])), features, root=root, use_videos=False)
    at = 0
    for length in arrays["lengths"].tolist():
        for tick in range(at, at + length):
            frame = {"observation.state": arrays["state"][tick], "action": arrays["action"][tick], "task": "push"}
            shown = {f"observation.images.{name}": arrays["images"][tick, i] for i, name in enumerate(cameras)}
            dataset.add_frame({**frame, **shown})
        dataset.save_episode()
        at += length
    dataset.finalize()


def main(file: str, steps: int, batch: int, workers: int) -> list[float]:
    """Train; returns when each step ended, in seconds."""
    with np.load(file, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    cameras, joints = [str(camera) for camera in arrays["cameras"]], arrays["state"].shape[1]
    size = arrays["images"].shape[2:4]
    config = make_policy("act", cameras, size, joints, float(arrays["rate_hz"])).config
    config.chunk_size = PolicyConfig().chunk
    network = Network(config, cameras, size, joints)
    lerobot_train.make_policy = lambda **_: network
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        recorded(arrays, root)
        settings = TrainPipelineConfig(
            dataset=DatasetConfig(repo_id=NAME, root=str(root)),
            policy=config,
            output_dir=Path(folder) / "out",
            num_workers=workers,
            batch_size=batch,
            steps=steps,
            eval_freq=0,
            save_checkpoint=False,
        )
        sys.argv = sys.argv[:1]
        lerobot_train.train(settings)
    return network.ended


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    out.write(json.dumps(main(sys.argv[1], *(int(number) for number in sys.argv[2:5]))) + "\n")
    out.flush()
