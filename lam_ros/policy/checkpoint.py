"""Checkpoints: one .safetensors file, the weights and in its metadata the whole contract. Nothing is unpickled.

An exported policy is such a file too, with ONNX graphs in the place of weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from lam_ros.config import RobotConfig, from_mapping
from lam_ros.contract import Contract
from lam_ros.errors import CheckpointError, ConfigError
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.onnx_runtime import OnnxRuntime
from lam_ros.policy.perception import Perception
from lam_ros.policy.policy import Policy
from lam_ros.policy.runtime import PolicyNetwork, Runtime, TorchRuntime

FORMAT = "lam_ros.policy/3"
EXPORT_FORMAT = "lam_ros.onnx/1"
PERCEPTION_FORMAT = "lam_ros.perception/1"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        contract: joints, units, cameras, image sizes and rate it was trained with.
        policy: the model's configuration.
        robot: name and digest of the robot.
        task: what was demonstrated.
        dataset: digest of the demonstrations.
        figures: what it was accepted with (losses, counts).
        colours: mean red, green and blue (0 to 255) of each camera's pictures in the demonstrations, where known.
    """

    contract: Contract
    policy: PolicyConfig
    robot: str
    task: str
    dataset: str
    figures: dict[str, float] = field(default_factory=dict)
    colours: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def save_checkpoint(path: Path, network: PolicyNetwork, info: CheckpointInfo) -> None:
    """Write the file beside its final name, flush it to disk and rename: it is there whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    _save(path, network.state_dict(), FORMAT, info)


def save_exported(path: Path, graphs: dict[str, bytes], info: CheckpointInfo) -> None:
    """Write exported graphs as ``save_checkpoint`` writes weights; raises CheckpointError."""
    arrays = {name: torch.frombuffer(bytearray(graph), dtype=torch.uint8) for name, graph in graphs.items()}
    _save(path, arrays, EXPORT_FORMAT, info, graphs=_hash_of(graphs))


def _hash_of(graphs: dict[str, bytes]) -> str:
    hasher = hashlib.sha256()
    for name, graph in sorted(graphs.items()):
        hasher.update(f"{name} {len(graph)} ".encode() + graph)
    return hasher.hexdigest()


def save_perception(path: Path, perception: Perception, contract: Contract, config: PolicyConfig) -> None:
    """Write a pre-trained perception for ``load_perception``; raises CheckpointError."""
    _save(path, perception.state_dict(), PERCEPTION_FORMAT, CheckpointInfo(contract, config, "", "", ""))


def load_perception(path: Path, network: PolicyNetwork) -> None:
    """Give a network the weights of a pre-trained perception.

    Raises:
        CheckpointError: the file cannot be used, or is of another encoder or other cameras.
    """
    _, info = _read(path, (PERCEPTION_FORMAT,), "Give a file that `lam pretrain` wrote.")
    known, asked = info.contract.cameras, network.contract.cameras
    if known != asked and not network.config.share_encoder:  # else each camera would see with another one's eyes
        raise CheckpointError(
            f"{path} was pre-trained with the cameras {', '.join(known)}, and the robot's are {', '.join(asked)}; "
            "pre-train with these, or with one encoder for all (policy.share_encoder)."
        )
    try:
        network.perception.load_state_dict(_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path} holds another perception than the settings ask for: {reason}. Pre-train with the same settings."
        ) from None


def _save(path: Path, tensors: dict[str, torch.Tensor], kind: str, info: CheckpointInfo, **more: str) -> None:
    metadata = {"format": kind, "info": json.dumps(dataclasses.asdict(info)), **more}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}. Check the folder and the free space.") from None


def read_info(path: Path) -> CheckpointInfo:
    """Read only what the checkpoint, or exported policy, says of itself.

    Raises:
        CheckpointError: it is not there, not a lam_ros checkpoint, truncated or damaged.
    """
    return _read(path)[1]


def _read(
    path: Path,
    formats: tuple[str, ...] = (FORMAT, EXPORT_FORMAT),
    cure: str = "Give a file that this version's `lam train` wrote.",
) -> tuple[str, CheckpointInfo]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({error}); give a file that `lam train` wrote."
        ) from None
    kind = metadata.get("format", "")
    if kind not in formats:
        raise CheckpointError(f"{path} has the format {metadata.get('format')!r}; {formats[0]!r} was expected. {cure}")
    try:
        raw: Any = json.loads(metadata["info"])
        info = from_mapping(CheckpointInfo, raw)
        if not info.contract.is_whole:
            raise ConfigError("its contract names no robot")
        return kind, info
    except (KeyError, ValueError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{path} has damaged metadata: {error}. Train it again.") from None


def digest(path: Path) -> str:
    """16 hex digits of the file's SHA-256: perception stamps its features with it, and action checks it.

    Raises:
        CheckpointError: it cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); give a file that `lam train` wrote."
        ) from None
    return hasher.hexdigest()[:16]


def load_network(path: Path) -> tuple[PolicyNetwork, CheckpointInfo]:
    """Raises CheckpointError when the weights do not fit the configuration in the same file, or are not finite."""
    kind, info = _read(path)
    if kind != FORMAT:
        raise CheckpointError(f"{path} is an exported policy, without weights; give the checkpoint it was made from.")
    try:
        _check_shapes(path, info)
        network = PolicyNetwork(info.policy, info.contract)
        weights = load_file(path)
        network.load_state_dict(weights)
    except (OSError, safetensors.SafetensorError, RuntimeError, OverflowError, ConfigError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} holds weights that do not fit its own configuration: {reason}") from None
    if any(not np.isfinite(weight.float().numpy()).all() for weight in weights.values()):
        raise CheckpointError(f"{path} holds weights that are not finite; train it again.")
    return network, info


def _check_shapes(path: Path, info: CheckpointInfo) -> None:
    """Raises ConfigError where the weights are not what the configuration asks for, before memory is taken for these:
    a file of a few bytes may ask for terabytes."""
    # Many of timm's backbones cannot be made without memory; what else there is, is as large with any of them.
    is_timm = info.policy.encoder.startswith("timm:")
    config = info.policy
    if is_timm:  # a size that the other takes
        config = dataclasses.replace(config, encoder="resnet18", normalisation="none", image_size=(224, 224))
    with torch.device("meta"):
        network = PolicyNetwork(config, info.contract)
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    with safetensors.safe_open(path, framework="np") as file:
        found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    for name in sorted(wanted.keys() | found.keys()):
        if is_timm and name.startswith("perception."):
            continue
        if wanted.get(name) != found.get(name):
            raise ConfigError(f"{name} is {found.get(name, 'missing')}, {wanted.get(name, 'nothing')} was expected")


def load_runtime(path: Path, provider: str = "CPU", threads: int = 1) -> tuple[Runtime, CheckpointInfo]:
    """What runs a file: torch a checkpoint, ONNX Runtime an exported policy.

    Args:
        provider: ``CPU``, ``CUDA``, or for exported policies ``TensorRT``.
        threads: of ONNX Runtime; torch has as many as the process (OMP_NUM_THREADS).

    Raises:
        CheckpointError: the file cannot be used, or the provider is not there.
    """
    kind, info = _read(path)
    if kind == EXPORT_FORMAT:
        graphs = {name: graph.numpy().tobytes() for name, graph in _tensors(path).items()}
        with safetensors.safe_open(path, framework="np") as file:
            # Before ONNX Runtime's parser sees them: it is native code, and was not made for damaged files.
            if file.metadata().get("graphs") != _hash_of(graphs):
                raise CheckpointError(
                    f"{path} is damaged: its graphs are not those that were exported; export it again."
                )
        return OnnxRuntime(graphs, info.contract, info.policy, provider, threads), info
    if provider not in ("CPU", "CUDA"):
        raise CheckpointError(f"{provider} runs exported policies; export {path} with `lam export`.")
    if provider == "CUDA" and not torch.cuda.is_available():
        raise CheckpointError("this torch sees no CUDA device; choose the provider CPU, or install torch with CUDA.")
    network, info = load_network(path)
    return TorchRuntime(network.to(provider.lower())), info


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); make it again.") from None


def load_policy(path: str | Path, robot: RobotConfig, provider: str = "CPU", threads: int = 1) -> Policy:
    """The policy of a checkpoint or an exported policy, for this robot; see ``load_runtime``.

    Raises:
        CheckpointError: the file cannot be used.
        ContractError: it was trained for another robot; the message names the field that differs.
    """
    read_info(Path(path)).contract.check_same(Contract.of(robot))
    runtime, _ = load_runtime(Path(path), provider, threads)
    return Policy(runtime, robot.position_limits)
