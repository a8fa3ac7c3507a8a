"""Checkpoints: one .safetensors file, the weights and in its metadata the whole contract. Nothing is unpickled."""

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
from safetensors.torch import load_file, save_file

from lam_ros.config import RobotConfig, from_mapping
from lam_ros.contract import Contract
from lam_ros.errors import CheckpointError, ConfigError
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.policy import Policy, PolicyNetwork

FORMAT = "lam_ros.policy/1"


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
    """

    contract: Contract
    policy: PolicyConfig
    robot: str
    task: str
    dataset: str
    figures: dict[str, float] = field(default_factory=dict)


def save_checkpoint(path: Path, network: PolicyNetwork, info: CheckpointInfo) -> None:
    """Write the file beside its final name, flush it to disk and rename: it is there whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    metadata = {"format": FORMAT, "info": json.dumps(dataclasses.asdict(info))}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}, partial, metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}. Check the folder and the free space.") from None


def read_info(path: Path) -> CheckpointInfo:
    """Read only what the checkpoint says of itself.

    Raises:
        CheckpointError: it is not there, not a lam_ros checkpoint, truncated or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({error}); give a file that `lam train` wrote."
        ) from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has the format {metadata.get('format')!r}; {FORMAT!r} was expected. "
            "Give a file that this version's `lam train` wrote."
        )
    try:
        raw: Any = json.loads(metadata["info"])
        return from_mapping(CheckpointInfo, raw)
    except (KeyError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path} has damaged metadata: {error}. Train it again.") from None


def digest(path: Path) -> str:
    """16 hex digits of the file's SHA-256: perception stamps its features with it, and action checks it."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()[:16]


def load_network(path: Path) -> tuple[PolicyNetwork, CheckpointInfo]:
    """Raises CheckpointError when the weights do not fit the configuration in the same file, or are not finite."""
    info = read_info(path)
    network = PolicyNetwork(info.policy, info.contract)
    try:
        weights = load_file(path)
        network.load_state_dict(weights)
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} holds weights that do not fit its own configuration: {reason}") from None
    if any(not np.isfinite(weight.float().numpy()).all() for weight in weights.values()):
        raise CheckpointError(f"{path} holds weights that are not finite; train it again.")
    return network, info


def load_policy(path: str | Path, robot: RobotConfig) -> Policy:
    """The policy of a checkpoint, for this robot.

    Raises:
        CheckpointError: the file cannot be used.
        ContractError: it was trained for another robot; the message names the field that differs.
    """
    network, info = load_network(Path(path))
    info.contract.check_same(Contract.of(robot))
    return Policy(network, robot.position_limits)
