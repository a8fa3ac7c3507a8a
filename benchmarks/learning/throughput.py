"""Training throughput of this project's loop and LeRobot's own, for networks of the same cost, in one run.

    python benchmarks/learning/throughput.py --data DEMOS [--steps 24] [--batch 64]

Both train ResNet18 from scratch on two cameras at the demonstrations' size, with little after it: here stage one with
``encoder: resnet18``; there ACT with one narrow transformer layer, so that the ResNet is its cost too. LeRobot reads
the same demonstrations, exported, with no workers (one thread each, as here) and with one. LEROBOT_PYTHON names a
Python that can import LeRobot; lerobot_environment.sh makes one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from lam_ros.cli.steps import training_settings
from lam_ros.config import load_robot
from lam_ros.demonstrations.alignment import load_dataset
from lam_ros.demonstrations.dataset import Dataset
from lam_ros.demonstrations.episode import list_episodes
from lam_ros.learning.training import train
from lam_ros.policy.runtime import PolicyNetwork

WARM_UP = 4  # steps that do not count
LOOP = Path(__file__).with_name("lerobot_loop.py")
LOGGED = re.compile(r"updt_s:([\d.]+) data_s:([\d.]+)")
NARROW = (
    *("dim_model=64", "n_heads=2", "dim_feedforward=64", "n_encoder_layers=1", "n_decoder_layers=1"),
    *("use_vae=false", "chunk_size=8", "n_action_steps=8", "pretrained_backbone_weights=null"),
)


def ours(dataset: Dataset, steps: int, batch: int, precision: str) -> tuple[float, int]:
    """Samples a second of stage one, and the network's multiply-adds a sample."""
    settings = training_settings(None)
    policy = dataclasses.replace(
        settings.policy, encoder="resnet18", image_size=dataset.demonstrations[0].images.shape[3:1:-1]
    )
    settings = dataclasses.replace(
        settings,
        policy=policy,
        precision=precision,
        perception_steps=steps,
        perception_batch=batch,
        action_steps=1,
        views=1,
    )
    clock: list[float] = []

    def watch(stage: str, step: int, total: int, loss: float) -> None:
        if stage == "perception":
            clock.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(dataset, settings, Path(folder) / "policy.safetensors", report=watch)
    network = PolicyNetwork(policy, dataset.contract)
    images = torch.from_numpy(dataset.demonstrations[0].images[:2])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.perception(images)
    per_second = (steps - WARM_UP) * batch / (clock[-1] - clock[WARM_UP - 1])
    return per_second, counter.get_total_flops() // (2 * len(images))


def theirs(python: str, root: Path, steps: int, batch: int, more: tuple[str, ...]) -> tuple[float, int]:
    """Samples a second of lerobot-train, and its network's multiply-adds a sample."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(python, str(LOOP), "--dataset.repo_id=lam_ros/throughput", f"--dataset.root={root}"),
            *("--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false", "--wandb.enable=false"),
            *(f"--policy.{setting}" for setting in NARROW),
            *(f"--batch_size={batch}", f"--steps={steps}", "--log_freq=1", "--eval_freq=0", "--save_checkpoint=false"),
            *(f"--output_dir={folder}/out", *more),
        ]
        kept = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
        ended = subprocess.run(command, capture_output=True, text=True, env=kept, check=False)
    said = ended.stdout + ended.stderr
    seconds = [float(update) + float(data) for update, data in LOGGED.findall(said)][WARM_UP:]
    if ended.returncode or not seconds:
        raise SystemExit(f"lerobot-train failed: {said[-2000:]}")
    cost = re.search(r"multiply-adds (\d+)", said)
    return batch * len(seconds) / sum(seconds), int(cost[1]) if cost else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of the desk arm's episodes")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    python = os.environ.get("LEROBOT_PYTHON", "")
    if not python:
        raise SystemExit("set LEROBOT_PYTHON to a Python that can import LeRobot; lerobot_environment.sh makes one.")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    steps, batch = arguments.steps, arguments.batch
    dataset = load_dataset(list_episodes(arguments.data)[:20], load_robot("desk_arm"), (96, 96))
    rows: dict[str, tuple[float, int]] = {}
    for precision in ("bf16", "float32"):
        rows[f"lam_ros, {precision}"] = ours(dataset, steps, batch, precision)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "exported"
        export = [sys.executable, "-m", "lam_ros.cli.main", "episodes", "export", str(arguments.data)]
        subprocess.run([*export, "--to", "lerobot", "--out", str(root)], check=True, stdout=subprocess.DEVNULL)
        for name, more in (
            ("lerobot-train, float32", ("--num_workers=0",)),
            ("lerobot-train, bf16", ("--num_workers=0", "--policy.use_amp=true")),
            ("lerobot-train, float32, one worker", ("--num_workers=1",)),
        ):
            rows[name] = theirs(python, root, steps, batch, more)
    fastest = max(rate for name, (rate, _) in rows.items() if name.startswith("lerobot"))
    table = Table("loop", "samples a second", "of the fastest lerobot-train", "multiply-adds a sample")
    for name, (rate, cost) in rows.items():
        table.add_row(name, f"{rate:.1f}", f"{rate / fastest:.2f}", f"{cost / 1e6:.0f} M")
    Console().print(table)
    figures = {name: {"samples_per_second": rate, "multiply_adds": cost} for name, (rate, cost) in rows.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
