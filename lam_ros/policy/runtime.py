"""What runs the networks: torch here, ONNX Runtime in ``onnx_runtime``. Arrays in, arrays out, one tick at a time."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lam_ros.contract import Contract
from lam_ros.policy.action import ActionModule
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.normaliser import Normaliser
from lam_ros.policy.perception import Perception


class Runtime(Protocol):
    """Both networks of a checkpoint, ready to run.

    Attributes:
        contract: joints, cameras, sizes and rate.
        config: the model's settings.
        features: D, of each camera.
        name: for people, such as ``torch`` or ``onnxruntime, CPU``.
        known_states: mean and spread (J,) of the states it was trained on; None where the file does not say.
    """

    contract: Contract
    config: PolicyConfig
    features: int
    name: str
    known_states: tuple[np.ndarray, np.ndarray] | None

    def perceive(self, camera: int, image: np.ndarray) -> np.ndarray:
        """Features float32 (D,) of a camera's uint8 (h, w, 3) RGB image of the policy's size."""
        ...

    def step(self, features: np.ndarray, state: np.ndarray, hidden: Any) -> tuple[np.ndarray, Any]:
        """One tick of the LSTM.

        Args:
            features: float32 (C * D,).
            state: float32 (J,), measured, in rad or m.
            hidden: what the last call returned; None at an episode's start. It is not changed.

        Returns:
            Joint targets float32 (K, J) of the next ticks in rad or m, and the hidden state for the next call.
        """
        ...

    def attention(self, camera: int, image: np.ndarray) -> np.ndarray:
        """Where the CNN looks in an image: float32 (h, w), from 0 to 1 at its peak."""
        ...


class PolicyNetwork(nn.Module):
    """All the weights: perception, action and the normaliser. What a checkpoint holds."""

    def __init__(self, config: PolicyConfig, contract: Contract) -> None:
        super().__init__()
        joints = len(contract.joints)
        self.config = config
        self.contract = contract
        self.perception = Perception(config, contract.cameras)
        self.action = ActionModule(config, len(contract.cameras) * self.perception.features, joints)
        self.normaliser = Normaliser(joints, config.chunk, config.targets == "relative")

    def step(self, features: Tensor, state: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """One tick from features (B, C * D) and measured states (B, J) to joint targets (B, K, J), both in rad or m."""
        chunk, hidden = self.action.step(features, self.normaliser.state(state), hidden)
        return self.normaliser.targets(chunk, state), hidden


class TorchRuntime:
    """A network in torch.

    Args:
        network: trained weights; it is put in evaluation mode, its batch normalisations are folded.
    """

    def __init__(self, network: PolicyNetwork) -> None:
        network.eval()
        network.perception.fold()
        self.contract, self.config = network.contract, network.config
        self.features = network.perception.features
        self._device = next(network.parameters()).device
        self.name = f"torch, {self._device.type}"
        known = network.normaliser.state_mean.cpu().numpy(), network.normaliser.state_std.cpu().numpy()
        self.known_states: tuple[np.ndarray, np.ndarray] | None = known
        self._network = network

    def _tensor(self, array: np.ndarray) -> Tensor:
        # A view on a message is read-only, which torch does not know.
        whole = array if array.flags.writeable and array.flags.c_contiguous else array.copy()
        return torch.from_numpy(whole).to(self._device)

    @torch.inference_mode()
    def perceive(self, camera: int, image: np.ndarray) -> np.ndarray:
        return self._network.perception.one(camera, self._tensor(image)).cpu().numpy()

    @torch.inference_mode()
    def step(self, features: np.ndarray, state: np.ndarray, hidden: Any) -> tuple[np.ndarray, Any]:
        if hidden is None:
            hidden = self._network.action.nothing_yet(1)
        chunk, hidden = self._network.step(self._tensor(features)[None], self._tensor(state)[None], hidden)
        return chunk[0].cpu().numpy(), hidden

    @torch.inference_mode()
    def attention(self, camera: int, image: np.ndarray) -> np.ndarray:
        return self._network.perception.attention(camera, self._tensor(image)).cpu().numpy()
