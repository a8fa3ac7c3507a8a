"""Export to ONNX, the LSTM's state as explicit inputs and outputs, in float32 or int8; and how far it is from torch.

The file is a .safetensors too, the graphs as bytes and in its metadata the contract: nodes load it as any checkpoint.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lam_ros.errors import CheckpointError
from lam_ros.policy.onnx_runtime import ACTION_GRAPH, attention_graph, perception_graph
from lam_ros.policy.runtime import PolicyNetwork, Runtime

FLOAT_TOLERANCE = 1e-3  # of how far a joint goes: what another order of additions may change
INT8_TOLERANCE = 0.25  # likewise, what 8 bits may: for reach, 250 demonstrations, it is 0.09, and 0.007 on the mean
# Of the 8 of a weight. Processors without VNNI add pairs of products in 16 bits, which full weights overflow: a trained
# policy's targets were then five times as far off as with 7 bits. The file may go to any processor.
SEVEN_BITS = True
CALIBRATION_IMAGES = 200
# All of a convolutional network, so that its maps stay in 8 bits from layer to layer. Not the softmax over positions:
# it costs nothing, and is where the accuracy is.
INTEGER_OPERATORS = ["Conv", "Relu", "Add", "MaxPool"]
# Most of the action module's. Where features and states enter it and targets leave it stays in float32: with those two
# in 8 bits as well, targets were three times as far off.
INTEGER_WEIGHTS = ("network.action.lstm.", "network.action.reflex.")


class _Perceive(nn.Module):
    def __init__(self, network: PolicyNetwork, camera: int) -> None:
        super().__init__()
        self.network, self.camera = network, camera

    def forward(self, image: Tensor) -> Tensor:
        return self.network.perception.one(self.camera, image)


class _Attend(_Perceive):
    def forward(self, image: Tensor) -> Tensor:
        return self.network.perception.attention(self.camera, image)


class _Step(nn.Module):
    def __init__(self, network: PolicyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, state: Tensor, output: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        targets, (output, memory) = self.network.step(features[None], state[None], (output, memory))
        return targets[0], output, memory


def export_graphs(network: PolicyNetwork) -> dict[str, bytes]:
    """Serialized ONNX models of a network: perception and attention of each encoder, and one tick of the action.

    Raises:
        CheckpointError: the exporter is not installed, or cannot express this network.
    """
    network = copy.deepcopy(network).eval().cpu()
    network.perception.fold()
    width, height = network.config.image_size
    image = torch.zeros((height, width, 3), dtype=torch.uint8)
    features = torch.zeros(len(network.contract.cameras) * network.perception.features)
    state = torch.zeros(len(network.contract.joints))
    graphs = {}
    for camera in range(len(network.perception.encoders)):
        graphs[perception_graph(camera)] = _export(_Perceive(network, camera), {"image": image}, ["features"])
        graphs[attention_graph(camera)] = _export(_Attend(network, camera), {"image": image}, ["attention"])
    output, memory = network.action.nothing_yet(1)
    given = {"features": features, "state": state, "output": output, "memory": memory}
    graphs[ACTION_GRAPH] = _export(_Step(network), given, ["targets", "output_next", "memory_next"])
    return graphs


def _export(module: nn.Module, given: Mapping[str, Tensor], outputs: list[str]) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")  # on torchvision, which is not needed
            program = torch.onnx.export(
                module.eval(),
                tuple(value.detach().clone() for value in given.values()),
                input_names=list(given),
                output_names=outputs,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        serialized: bytes = program.model_proto.SerializeToString()
    except ImportError as error:
        raise CheckpointError(f"export needs {error.name}: pip install 'lam_ros[onnx]'.") from None
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"this network cannot be expressed in ONNX ({reason}).") from None
    return serialized


def quantise(graphs: Mapping[str, bytes], images: Sequence[np.ndarray]) -> dict[str, bytes]:
    """Graphs with 8-bit weights: convolutions with activations calibrated on images, the LSTM dynamically.

    Args:
        images: for each encoder, uint8 (N, h, w, 3) of what its camera sees.

    Raises:
        CheckpointError: the quantiser is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise CheckpointError(f"int8 needs {error.name}: pip install 'lam_ros[onnx]'.") from None
    quantised = dict(graphs)
    with tempfile.TemporaryDirectory() as name, _quiet():
        source, ready, written = (Path(name) / f"{part}.onnx" for part in ("source", "ready", "written"))

        def convert(graph: str, write: Any) -> None:
            source.write_bytes(graphs[graph])
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            write()
            quantised[graph] = written.read_bytes()

        for camera, seen in enumerate(images):
            chosen = seen[:: max(1, len(seen) // CALIBRATION_IMAGES)]
            convert(
                perception_graph(camera),
                lambda chosen=chosen: quantize_static(
                    str(ready),
                    str(written),
                    _Calibration(chosen),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    reduce_range=SEVEN_BITS,
                    op_types_to_quantize=INTEGER_OPERATORS,
                ),
            )
        convert(
            ACTION_GRAPH,
            lambda: quantize_dynamic(
                str(ready),
                str(written),
                nodes_to_quantize=_products(onnx.load(ready)),
                per_channel=True,
                weight_type=QuantType.QInt8,
                reduce_range=SEVEN_BITS,
            ),
        )
    return quantised


def _products(action: Any) -> list[str]:
    """The nodes of an action graph that multiply by INTEGER_WEIGHTS, by the names that the quantiser will give them."""
    products = [node for node in action.graph.node if any(name.startswith(INTEGER_WEIGHTS) for name in node.input)]
    return [f"{node.name}_MatMul" if node.op_type == "Gemm" else node.name for node in products]


@contextlib.contextmanager
def _quiet() -> Any:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Calibration:
    """What ONNX Runtime's calibration reads: one image at a time, None at the end."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": np.ascontiguousarray(image)}


@dataclass(frozen=True)
class Parity:
    """How far an exported policy is from its checkpoint, over episodes with the LSTM's state handed on.

    ``mean`` and ``largest`` are differences of joint targets in units of how far joints go (``dataset.ways``): not of
    the scale that targets are normalised by, which for absolute ones is that of places.
    """

    mean: float
    largest: float
    ticks: int


def parity(
    exported: Runtime, original: Runtime, episodes: Sequence[tuple[np.ndarray, np.ndarray]], scale: np.ndarray
) -> Parity:
    """Run both over the same episodes.

    Args:
        episodes: images uint8 (T, C, h, w, 3) at the policy's size, and states float32 (T, J), of each.
        scale: (K, J), what differences are measured in.
    """
    differences = []
    for images, states in episodes:
        hidden: dict[str, Any] = {"exported": None, "original": None}
        for pictures, state in zip(images, states, strict=True):
            targets = {}
            for name, runtime in (("exported", exported), ("original", original)):
                features = np.concatenate([runtime.perceive(i, picture) for i, picture in enumerate(pictures)])
                targets[name], hidden[name] = runtime.step(features, state, hidden[name])
            differences.append(np.abs(targets["exported"] - targets["original"]) / scale)
    errors = np.array(differences)
    return Parity(float(errors.mean()), float(errors.max()), len(errors))
