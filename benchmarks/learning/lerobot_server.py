"""LeRobot's ACT or diffusion policy, trained and asked over a pipe; runs in LeRobot's own environment.

    python lerobot_server.py serve act|diffusion DATASET.npz CPU_SECONDS STEPS SEED     (see lerobot_peer.py)
    python lerobot_server.py cost act|diffusion                                   (see step_cost.py)

The policies, their losses, optimisers, schedules, clipping and normalisation are LeRobot's; the batches are made here
as its dataset makes them. Two sizes: ``full`` is what LeRobot ships; ``small``, the default, is what gets through a
useful number of steps in minutes on one CPU core. LEROBOT_SIZE chooses. Nothing is downloaded, so ACT's ResNet18 begins
without ImageNet's weights: its frozen normalisations, which are those weights', are GroupNorm here, as in diffusion.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import time
from typing import Any, BinaryIO

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded

import numpy as np
import torch

if torch.version.cuda is None:  # torchvision's wheel expects operators whose library wants CUDA
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors
from precision import DEVICE, faster
from torchvision.ops.misc import FrozenBatchNorm2d

BATCH = 8  # LeRobot's default
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CHUNK_S = 1.0  # ACT's chunk: demonstrations here last 1.5 to 5 s, and LeRobot's 100 ticks would be most of one
SMALL_ACT = {"dim_model": 256, "dim_feedforward": 1024, "use_vae": True}
SMALL_DIFFUSION = {"down_dims": (128, 256, 512), "noise_scheduler_type": "DDIM", "num_inference_steps": 10}


def make_policy(kind: str, cameras: list[str], size: tuple[int, int], joints: int, rate_hz: float) -> Any:
    """An untrained policy for images (height, width) = ``size``."""
    inputs = {
        f"observation.images.{camera}": PolicyFeature(type=FeatureType.VISUAL, shape=(3, *size)) for camera in cameras
    }
    inputs["observation.state"] = PolicyFeature(type=FeatureType.STATE, shape=(joints,))
    shared = {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(type=FeatureType.ACTION, shape=(joints,))},
        "device": DEVICE,
        "push_to_hub": False,
        "pretrained_backbone_weights": None,
    }
    is_full = os.environ.get("LEROBOT_SIZE", "small") == "full"
    if kind == "act":
        # Temporal ensembling, as ACT's authors evaluate it; 1e-5, LeRobot's rate, learns nothing in minutes.
        used = {"chunk_size": round(CHUNK_S * rate_hz), "n_action_steps": 1, "temporal_ensemble_coeff": 0.01}
        used |= {"optimizer_lr": 1e-4, "optimizer_lr_backbone": 1e-4}
        policy = ACTPolicy(ACTConfig(**shared, **used, **({} if is_full else SMALL_ACT)))
        replace_frozen_norms(policy)
        return policy.to(DEVICE)
    crop = {"crop_shape": tuple(round(side * 0.875) for side in size)}
    return DiffusionPolicy(DiffusionConfig(**shared, **crop, **({} if is_full else SMALL_DIFFUSION))).to(DEVICE)


def replace_frozen_norms(module: torch.nn.Module) -> None:
    """GroupNorm for FrozenBatchNorm2d, which without the weights that it was frozen with does nothing at all."""
    for name, child in module.named_children():
        if isinstance(child, FrozenBatchNorm2d):
            channels = child.weight.numel()
            setattr(module, name, torch.nn.GroupNorm(channels // 16, channels))
        else:
            replace_frozen_norms(child)


class Data:
    """Demonstrations as LeRobot's dataset gives them: frames with their neighbours in time."""

    def __init__(self, arrays: Any, config: Any, cameras: list[str]) -> None:
        self._images, self._state, self._action = arrays["images"], arrays["state"], arrays["action"]
        lengths = arrays["lengths"]
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        ends = np.repeat(np.cumsum(lengths) - 1, lengths)
        self._bounds = starts, ends
        self._config, self._cameras = config, cameras
        self.stats = {
            name: {key: torch.from_numpy(getattr(values, key)(0)).float() for key in ("mean", "std", "min", "max")}
            for name, values in (("observation.state", self._state), ("action", self._action))
        }
        for values in self.stats.values():
            values["std"] = values["std"].clamp_min(1e-3)  # a joint that never moves
            values["max"] = torch.maximum(values["max"], values["min"] + 1e-3)
        for camera in cameras:
            self.stats[f"observation.images.{camera}"] = {
                key: torch.tensor(values).reshape(3, 1, 1) for key, values in IMAGENET.items()
            }

    def batch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        index = rng.integers(0, len(self._state), BATCH)
        starts, ends = (bounds[index][:, None] for bounds in self._bounds)
        seen = index[:, None] + np.array(self._config.observation_delta_indices or [0])
        done = index[:, None] + np.array(self._config.action_delta_indices)
        seen, wanted = np.clip(seen, starts, ends), np.clip(done, starts, ends)
        images = torch.from_numpy(self._images[seen]).permute(0, 1, 2, 5, 3, 4).float() / 255.0
        state = torch.from_numpy(self._state[seen])
        if self._config.observation_delta_indices is None:
            images, state = images[:, 0], state[:, 0]
        batch = {f"observation.images.{camera}": images[..., i, :, :, :] for i, camera in enumerate(self._cameras)}
        batch["observation.state"] = state
        batch["action"] = torch.from_numpy(self._action[wanted])
        batch["action_is_pad"] = torch.from_numpy((done < starts) | (done > ends))
        return batch


def trained(kind: str, file: str, cpu_seconds: float, allowed: int, seed: int) -> tuple[Any, Any, Any, int, float]:
    """Train for so many CPU-seconds or, where these are 0, ``allowed`` steps.

    Returns:
        The policy, its pre- and post-processor, the steps taken and the CPU-seconds spent.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    with np.load(file, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    cameras = [str(camera) for camera in arrays["cameras"]]
    size = arrays["images"].shape[2:4]
    policy = make_policy(kind, cameras, size, arrays["state"].shape[1], float(arrays["rate_hz"]))
    data = Data(arrays, policy.config, cameras)
    before, after = make_pre_post_processors(policy.config, dataset_stats=data.stats)
    preset, schedule = policy.config.get_optimizer_preset(), policy.config.get_scheduler_preset()
    optimiser = preset.build(policy.get_optim_params())
    if schedule is not None:
        schedule.num_warmup_steps = min(schedule.num_warmup_steps, 50)
    policy.train()
    scheduler, steps, began = None, 0, time.process_time()
    while True:
        spent = time.process_time() - began
        if spent >= cpu_seconds if cpu_seconds else steps >= allowed:
            break
        if steps == 5 and schedule is not None:  # now it is known how many steps there will be
            scheduler = schedule.build(optimiser, allowed or round(cpu_seconds / (spent / steps)))
        with faster():
            loss, _ = policy.forward(before(data.batch(rng)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        if scheduler is not None:
            scheduler.step()
        steps += 1
    policy.eval()
    return policy, before, after, steps, spent


def observation(images: np.ndarray, state: np.ndarray, cameras: list[str]) -> dict[str, torch.Tensor]:
    """From images uint8 (B, C, h, w, 3) and states (B, J)."""
    pixels = torch.from_numpy(images.copy()).permute(0, 1, 4, 2, 3).float() / 255.0
    seen = {f"observation.images.{camera}": pixels[:, i] for i, camera in enumerate(cameras)}
    return {**seen, "observation.state": torch.from_numpy(state.copy())}


def serve(
    kind: str, file: str, cpu_seconds: float, allowed: int, seed: int, requests: BinaryIO, answers: BinaryIO
) -> None:
    """Train, say in a line of JSON how it went, then answer.

    ``R`` and a number begin so many episodes; ``A``, their images and states give their targets.
    """
    policy, before, after, steps, spent = trained(kind, file, cpu_seconds, allowed, seed)
    with np.load(file, allow_pickle=False) as kept:
        shape, joints = kept["images"].shape[1:], kept["state"].shape[1]
        cameras = [str(camera) for camera in kept["cameras"]]
    answers.write(json.dumps({"steps": steps, "cpu_seconds": spent}).encode() + b"\n")
    answers.flush()
    episodes = 1
    while request := requests.read(1):
        if request == b"R":
            (episodes,) = struct.unpack("<i", requests.read(4))
            policy.reset()
            continue
        images = np.frombuffer(requests.read(episodes * int(np.prod(shape))), np.uint8).reshape(episodes, *shape)
        state = np.frombuffer(requests.read(4 * episodes * joints), np.float32).reshape(episodes, joints)
        # ACT's head would give its targets in bfloat16, too coarse for absolute ones; diffusion's are float32 anyway.
        with torch.inference_mode(), faster() if kind == "diffusion" else contextlib.nullcontext():
            target = after(policy.select_action(before(observation(images, state, cameras))))
        answers.write(target.float().cpu().numpy().tobytes())
        answers.flush()


def cost(kind: str) -> None:
    """Time each pass of an untrained policy's network; prints milliseconds as JSON."""
    cameras, joints = ["front", "wrist"], 7
    policy = make_policy(kind, cameras, (96, 96), joints, 20.0)
    policy.eval()
    numbers = {
        key: torch.full((joints,), value) for key, value in (("mean", 0.0), ("std", 1.0), ("min", -1.0), ("max", 1.0))
    }
    stats = {"observation.state": numbers, "action": numbers}
    before, after = make_pre_post_processors(policy.config, dataset_stats=stats)
    images, state = np.zeros((1, 2, 96, 96, 3), np.uint8), np.zeros((1, joints), np.float32)
    spent = []
    for _ in range(12):
        policy.reset()  # so that the network runs, and not a queue of what it said
        start = time.perf_counter()
        with torch.inference_mode():
            after(policy.select_action(before(observation(images, state, cameras))))
        spent.append(1e3 * (time.perf_counter() - start))
    best, median, late = np.percentile(spent[2:], (0, 50, 99))
    print(json.dumps({"best_ms": round(best, 2), "median_ms": round(median, 2), "p99_ms": round(late, 2)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "cost":
        cost(sys.argv[2])
    else:
        out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # whatever a library prints must not stand among the answers
        seconds, steps, seed = float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
        serve(sys.argv[2], sys.argv[3], seconds, steps, seed, sys.stdin.buffer, out)
