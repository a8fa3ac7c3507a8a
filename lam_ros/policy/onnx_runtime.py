"""Both networks in ONNX Runtime, from one file that holds their graphs and the whole contract."""

from __future__ import annotations

from typing import Any

import numpy as np

from lam_ros.contract import Contract
from lam_ros.errors import CheckpointError
from lam_ros.policy.configuration import PolicyConfig

PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
}


def perception_graph(camera: int) -> str:
    """The name of a camera's graph in an exported file; its attention's has ``attention`` for ``perception``."""
    return f"perception.{camera}"


def attention_graph(camera: int) -> str:
    return f"attention.{camera}"


ACTION_GRAPH = "action"


class OnnxRuntime:
    """A ``Runtime`` of exported graphs.

    Args:
        graphs: name -> serialized ONNX model.
        contract, config: what the file says of itself.
        provider: ``CPU``, ``CUDA`` or ``TensorRT``.
        threads: of each graph; the control path wants one.

    Raises:
        CheckpointError: ONNX Runtime or the provider is not there, a graph is missing, cannot be read, or has other
            shapes than the contract.
    """

    def __init__(
        self,
        graphs: dict[str, bytes],
        contract: Contract,
        config: PolicyConfig,
        provider: str = "CPU",
        threads: int = 1,
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise CheckpointError("an exported policy needs ONNX Runtime: pip install onnxruntime.") from None
        there = onnxruntime.get_available_providers()
        if PROVIDERS.get(provider) not in there:
            usable = [name for name, long_name in PROVIDERS.items() if long_name in there]
            raise CheckpointError(
                f"this ONNX Runtime cannot use {provider}; it has {', '.join(usable)}. "
                "Install onnxruntime-gpu for CUDA and TensorRT, or choose another provider."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.contract, self.config = contract, config
        self.name = f"onnxruntime, {provider}"
        self.known_states: tuple[np.ndarray, np.ndarray] | None = None  # they are inside the graphs
        # Whatever TensorRT cannot run, CUDA does, and whatever that cannot, the CPU.
        order = list(PROVIDERS)[: list(PROVIDERS).index(provider) + 1][::-1]
        providers = [PROVIDERS[name] for name in order if PROVIDERS[name] in there]

        def session(name: str, dimensions: tuple[int, ...], **shapes: tuple[int, ...]) -> Any:
            """Of a graph with inputs of these shapes, and outputs of so many dimensions."""
            if name not in graphs:
                raise CheckpointError(f"the exported policy lacks the graph {name}; export it again.")
            try:
                made = onnxruntime.InferenceSession(graphs[name], options, providers=providers)
                found = {node.name: tuple(node.shape) for node in made.get_inputs()}
                gives = tuple(len(node.shape) for node in made.get_outputs())
            except Exception as error:  # ONNX Runtime has its own kinds, which share no base but this one
                reason = " ".join(str(error).split())[:200]
                raise CheckpointError(f"the graph {name} cannot be run ({reason}); export it again.") from None
            if found != shapes:
                raise CheckpointError(f"the graph {name} takes {found}, not {shapes}; export the policy again.")
            if gives != dimensions:
                raise CheckpointError(
                    f"the graph {name} gives outputs of {gives} dimensions, not {dimensions}; export the policy again."
                )
            if PROVIDERS[provider] not in made.get_providers():  # ONNX Runtime goes on with the next one
                raise CheckpointError(
                    f"{provider} cannot be used: its libraries are missing or do not fit this ONNX Runtime. Install "
                    "them, or choose another provider."
                )
            return made

        width, height = config.image_size
        cameras = range(1 if config.share_encoder else len(contract.cameras))
        self._perception = [session(perception_graph(i), (1,), image=(height, width, 3)) for i in cameras]
        self._attention = [session(attention_graph(i), (2,), image=(height, width, 3)) for i in cameras]
        self.features = int(self._perception[0].get_outputs()[0].shape[0])
        hidden = (config.layers, 1, config.hidden_size)
        self._action = session(
            ACTION_GRAPH,
            (2, 3, 3),
            features=(len(contract.cameras) * self.features,),
            state=(len(contract.joints),),
            output=hidden,
            memory=hidden,
        )
        self._nothing_yet = np.zeros(hidden, dtype=np.float32)

    def perceive(self, camera: int, image: np.ndarray) -> np.ndarray:
        features: np.ndarray = self._of(self._perception, camera).run(None, {"image": image})[0]
        return features

    def step(self, features: np.ndarray, state: np.ndarray, hidden: Any) -> tuple[np.ndarray, Any]:
        output, memory = hidden or (self._nothing_yet, self._nothing_yet)
        given = {"features": features, "state": state, "output": output, "memory": memory}
        targets, output, memory = self._action.run(None, given)
        return targets, (output, memory)

    def attention(self, camera: int, image: np.ndarray) -> np.ndarray:
        attention: np.ndarray = self._of(self._attention, camera).run(None, {"image": image})[0]
        return attention

    def _of(self, sessions: list[Any], camera: int) -> Any:
        return sessions[0 if self.config.share_encoder else camera]
