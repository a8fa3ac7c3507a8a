"""What one step of the policy costs on one thread: two cameras and the LSTM, in torch, ONNX Runtime and 8 bits.

    python benchmarks/learning/step_cost.py [--lerobot-python PYTHON] [--json FILE]

Images are at the policy's size already; random weights, which cost as much as trained ones. All take turns, so that a
slow minute of a shared machine is nobody's alone. With --lerobot-python, an environment in which LeRobot can be
imported, ACT's and the diffusion policy's cost on the same machine beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

SIZES = (("strided", 96), ("strided", 128), ("article", 96), ("resnet18", 96), ("resnet18", 128))
ROUNDS, REPEATS, WARM_UP = 10, 20, 5
PEER = Path(__file__).with_name("lerobot_server.py")


def costs(steps: Mapping[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """Best, median and 99th percentile of each, in ms, taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in track(range(ROUNDS), "rounds"):
        for name, step in steps.items():
            for repeat in range(WARM_UP + REPEATS):
                start = time.perf_counter()
                step()
                if repeat >= WARM_UP:
                    spent[name].append(1e3 * (time.perf_counter() - start))
    figures = {}
    for name, row in spent.items():
        best, median, late = np.percentile(row, (0, 50, 99))
        figures[name] = {"best_ms": round(best, 3), "median_ms": round(median, 3), "p99_ms": round(late, 3)}
    return figures


def measure() -> dict[str, dict[str, float]]:
    import torch

    from lam_ros.config import load_robot
    from lam_ros.contract import Contract
    from lam_ros.policy.configuration import PolicyConfig
    from lam_ros.policy.export import export_graphs, quantise
    from lam_ros.policy.onnx_runtime import OnnxRuntime
    from lam_ros.policy.runtime import PolicyNetwork, Runtime, TorchRuntime

    torch.set_num_threads(1)
    contract = Contract.of(load_robot("desk_arm"))
    steps = {}
    for encoder, side in SIZES:
        network = PolicyNetwork(PolicyConfig(encoder=encoder, image_size=(side, side)), contract)
        graphs = export_graphs(network)
        frames = np.random.default_rng(0).integers(0, 256, (20, side, side, 3), dtype=np.uint8)
        state = np.zeros(len(contract.joints), dtype=np.float32)

        def step(runtime: Runtime, frames: np.ndarray = frames, state: np.ndarray = state) -> None:
            features = np.concatenate([runtime.perceive(i, frames[i]) for i in range(len(contract.cameras))])
            runtime.step(features, state, None)

        eight_bits = quantise(graphs, [frames] * len(contract.cameras))
        runtimes: dict[str, Runtime] = {
            "torch": TorchRuntime(network),
            "ONNX Runtime": OnnxRuntime(graphs, contract, network.config),
            "ONNX Runtime, int8": OnnxRuntime(eight_bits, contract, network.config),
        }
        for name, runtime in runtimes.items():
            steps[f"{encoder} {side} px, {name}"] = partial(step, runtime)
    return costs(steps)


def measure_peers(python: Path) -> dict[str, dict[str, float]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("LD_LIBRARY_PATH", None)
    figures = {}
    for name in ("act", "diffusion"):
        command = [str(python), str(PEER), "cost", name]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        figures[f"LeRobot {name}"] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = measure()
    if arguments.lerobot_python:
        figures |= measure_peers(arguments.lerobot_python)
    table = Table("one step, two cameras, one thread", "best ms", "median ms", "p99 ms")
    for name, row in figures.items():
        table.add_row(name, *(f"{row[key]:.2f}" for key in ("best_ms", "median_ms", "p99_ms")))
    Console().print(table)
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
