"""Two processes train as one does with the same global batch."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("train_tiny.py")


def train(folder: Path, processes: int) -> Path:
    """Train in so many processes, joined by gloo on this machine; the checkpoint."""
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "policy.safetensors"
    command = [sys.executable, str(SCRIPT), str(checkpoint)]
    if processes > 1:
        options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
        command = [sys.executable, "-m", "torch.distributed.run", *options, str(SCRIPT), str(checkpoint)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return checkpoint


def curves(checkpoint: Path, stage: str) -> dict[str, list[float]]:
    """What is in each column of a stage's metrics.csv."""
    (folder,) = checkpoint.with_suffix("").glob("run_*")
    with (folder / stage / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("distributed")
    return [train(folder / str(processes), processes) for processes in (1, 2)]


def test_two_processes_end_with_the_same_weights(checkpoints: list[Path]) -> None:
    alone, together = (load_file(checkpoint) for checkpoint in checkpoints)
    untrained = load_file(checkpoints[0].with_name("policy.untrained.safetensors"))
    assert alone.keys() == together.keys()
    moved = different = 0.0
    for name, weight in alone.items():
        if weight.is_floating_point():
            moved += float((weight - untrained[name]).square().sum())
            different += float((weight - together[name]).square().sum())
    assert moved > 0.0
    assert different < 1e-2 * moved, "Adam blows rounding up where gradients are near zero, but not so far"


@pytest.mark.parametrize("stage", ["perception", "action", "together"])
def test_two_processes_have_the_same_curves(checkpoints: list[Path], stage: str) -> None:
    alone, together = (curves(checkpoint, stage) for checkpoint in checkpoints)
    assert {"loss", "val_loss"} < together.keys() == alone.keys()
    assert ("way" in alone) == (stage != "action"), "the questions of hindsight too"
    for name, values in alone.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-3, err_msg=name)


def test_two_processes_that_are_resumed_go_on_as_if_never_interrupted(checkpoints: list[Path]) -> None:
    file = checkpoints[1]
    (folder,) = file.with_suffix("").glob("run_*")
    weights, unbroken = load_file(file), curves(file, "together")
    shutil.rmtree(folder / "together")
    (folder / "finished.json").unlink()
    train(file.parent, 2)
    assert curves(file, "together") == unbroken
    for name, weight in load_file(file).items():
        assert torch.equal(weight, weights[name]), name
