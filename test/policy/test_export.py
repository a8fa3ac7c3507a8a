"""Exported policies: the same function in ONNX Runtime, whole and for this robot or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from lam_ros.cli.steps import export_policy
from lam_ros.config import RobotConfig
from lam_ros.demonstrations.dataset import Dataset
from lam_ros.errors import CheckpointError, ConfigError, ContractError
from lam_ros.learning.evaluation import EpisodeResult, Evaluation
from lam_ros.learning.rollouts import Trial
from lam_ros.policy.checkpoint import (
    EXPORT_FORMAT,
    CheckpointInfo,
    load_network,
    load_policy,
    load_runtime,
    read_info,
    save_checkpoint,
    save_exported,
)
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.export import export_graphs, parity, quantise
from lam_ros.policy.onnx_runtime import ACTION_GRAPH, PROVIDERS, OnnxRuntime, perception_graph
from lam_ros.policy.runtime import PolicyNetwork, TorchRuntime

SMALL = {"image_size": (24, 24), "hidden_size": 16, "chunk": 3, "bins": 7}
RNG = np.random.default_rng(0)
EPISODES = [
    (RNG.integers(0, 256, (6, 2, 24, 24, 3), dtype=np.uint8), RNG.normal(0, 0.3, (6, 7)).astype(np.float32))
    for _ in range(2)
]


def info_of(network: PolicyNetwork) -> CheckpointInfo:
    return CheckpointInfo(network.contract, network.config, "desk_arm", "wave", "abc")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"folder": tmp_path_factory.mktemp("exported")}


@pytest.fixture
def file(exported: dict[str, Any], make_network: Any) -> Path:
    """An exported policy; exporting takes seconds, so it is done once."""
    path: Path = exported["folder"] / "policy.onnx.safetensors"
    if not path.is_file():
        network = make_network(PolicyConfig(**SMALL))
        exported["graphs"] = export_graphs(network)
        save_exported(path, exported["graphs"], info_of(network))
    return path


@pytest.mark.parametrize(
    "more",
    [
        {"head": "gmm", "layers": 2, "targets": "absolute"},
        {"head": "refined", "encoder": "article", "share_encoder": True},
        {"head": "categorical", "normalisation": "group"},
    ],
)
def test_every_kind_of_policy_does_the_same_in_onnx_runtime(make_network: Any, more: dict[str, Any]) -> None:
    network = make_network(PolicyConfig(**SMALL, **more))
    runtime = OnnxRuntime(export_graphs(network), network.contract, network.config)
    assert runtime.features == network.perception.features
    scale = network.normaliser.target_scale.numpy()
    same = parity(runtime, TorchRuntime(network), EPISODES, scale)
    assert same.largest < 1e-3
    assert same.ticks == 12


def test_parity_finds_another_policy(file: Path, make_network: Any) -> None:
    runtime, _ = load_runtime(file)
    other = make_network(PolicyConfig(**SMALL), seed=1)
    assert parity(runtime, TorchRuntime(other), EPISODES, other.normaliser.target_scale.numpy()).largest > 0.05


def test_a_policy_loads_and_looks_alike(file: Path, make_network: Any, robot: RobotConfig) -> None:
    network = make_network(PolicyConfig(**SMALL))
    assert read_info(file) == info_of(network)
    policy, original = load_policy(file, robot), TorchRuntime(network)
    assert policy.runtime.name == "onnxruntime, CPU"
    picture = EPISODES[0][0][0, 1]
    for index, camera in enumerate(("front", "wrist")):
        large = RNG.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        assert policy.attention(camera, large).shape == (24, 24)
        np.testing.assert_allclose(
            policy.runtime.attention(index, picture), original.attention(index, picture), atol=1e-3
        )


def test_eight_bits_are_close_and_smaller(exported: dict[str, Any], file: Path, make_network: Any) -> None:
    network = make_network(PolicyConfig(**SMALL))
    seen = np.concatenate([images for images, _ in EPISODES])
    quantised = quantise(exported["graphs"], [seen[:, 0], seen[:, 1]])
    assert sum(map(len, quantised.values())) < 0.8 * sum(map(len, exported["graphs"].values()))
    runtime = OnnxRuntime(quantised, network.contract, network.config)
    same = parity(runtime, TorchRuntime(network), EPISODES, network.normaliser.target_scale.numpy())
    assert 0.0 < same.largest < 0.25


@pytest.mark.parametrize("head", ["regression", "refined", "gmm"])
def test_what_enters_and_leaves_the_lstm_stays_in_float(make_network: Any, head: str) -> None:
    network = make_network(PolicyConfig(**{**SMALL, "head": head, "layers": 2}))
    seen = RNG.integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    action = onnx.load_from_string(quantise(export_graphs(network), [seen, seen])[ACTION_GRAPH])
    names = [tensor.name for tensor in action.graph.initializer]
    eight_bits = {name.partition(".weight")[0] for name in names if name.endswith("_quantized")}
    assert eight_bits == {"network.action.lstm", "network.action.reflex.0"}
    assert sum(name.endswith("_quantized") for name in names) == 5  # two of each layer of the LSTM, and the reflex
    floats = [name for name in names if "weight" in name and "_quantized" not in name and "_scale" not in name]
    assert any("inlet" in name for name in floats)
    assert any("head" in name for name in floats)
    tensors = {tensor.name: tensor for tensor in action.graph.initializer}
    for name in (name for name in names if name.endswith("_quantized")):
        outputs = tensors[f"{name.removesuffix('_quantized')}_scale"].dims
        assert outputs in ([tensors[name].dims[-1]], [1, tensors[name].dims[1]]), "a scale an output"


def test_resnet18_stays_in_8_bits_from_pixels_to_its_last_map(make_network: Any, tmp_path: Path) -> None:
    network = make_network(PolicyConfig(**{**SMALL, "encoder": "resnet18", "image_size": (64, 64)}))
    seen = RNG.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    graph = quantise(export_graphs(network), [seen, seen])[perception_graph(0)]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")  # what ONNX Runtime makes of it
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    does = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    assert does["QLinearConv"] == 1 + 8 * 2 + 3 + 1  # the first, the blocks, their shortcuts, the key points
    assert does["QLinearAdd"] == 8
    assert not {"Conv", "Relu", "Add", "Sub", "Div", "BatchNormalization"} & set(does)


def test_export_leaves_the_network_as_it_is(make_network: Any) -> None:
    network = make_network(PolicyConfig(**SMALL))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    export_graphs(network)
    assert network.training
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_leave_a_bit_to_processors_that_add_in_16(exported: dict[str, Any], file: Path) -> None:
    seen = np.concatenate([images for images, _ in EPISODES])
    for name, graph in quantise(exported["graphs"], [seen[:, 0], seen[:, 1]]).items():
        model = onnx.load_from_string(graph)
        weights = [
            onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8
        ]
        assert not name.startswith("attention") or not weights
        assert all(int(np.abs(weight.astype(int)).max()) <= 64 for weight in weights)
        assert weights or name.startswith("attention"), f"{name} has no weight of 8 bits"


def test_the_hidden_state_is_not_changed_in_place(file: Path) -> None:
    runtime, _ = load_runtime(file)
    features, state = np.ones(2 * runtime.features, np.float32), np.zeros(7, np.float32)
    _, hidden = runtime.step(features, state, None)
    before = [part.copy() for part in hidden]
    first, _ = runtime.step(features, state, hidden)
    again, _ = runtime.step(features, state, hidden)
    np.testing.assert_array_equal(first, again)
    for part, kept in zip(hidden, before, strict=True):
        np.testing.assert_array_equal(part, kept)


def changed(file: Path, tmp_path: Path, name: str, graph: bytes | None) -> Path:
    """The exported file with one graph replaced, or left out."""
    graphs = {key: value for key, value in load_file(file).items() if graph is not None or key != name}
    if graph is not None:
        graphs[name] = torch.frombuffer(bytearray(graph), dtype=torch.uint8)
    info = read_info(file)
    path = tmp_path / "changed.safetensors"
    save_exported(path, {key: value.numpy().tobytes() for key, value in graphs.items()}, info)
    return path


def with_outputs(graph: bytes, count: int) -> bytes:
    model = onnx.load_from_string(graph)
    del model.graph.output[count:]
    serialized: bytes = model.SerializeToString()
    return serialized


def test_a_damaged_missing_or_foreign_graph_is_refused(
    exported: dict[str, Any], file: Path, tmp_path: Path, robot: RobotConfig
) -> None:
    whole = exported["graphs"]["action"]
    for graph, message in (
        (None, "lacks the graph action; export it again"),
        (b"nonsense", r"the graph action cannot be run .*export it again"),
        (whole[: len(whole) // 2], "the graph action cannot be run"),
        (exported["graphs"]["perception.0"], r"the graph action takes .*image.*, not .*features"),
        (with_outputs(whole, 1), r"the graph action gives outputs of \(2,\) dimensions, not \(2, 3, 3\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_policy(changed(file, tmp_path, "action", graph), robot)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_graph_with_a_flipped_bit_never_reaches_the_parser(file: Path, tmp_path: Path, share: float) -> None:
    data, damaged = bytearray(file.read_bytes()), tmp_path / "damaged.safetensors"
    data[int(share * len(data))] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: its graphs are not those that were exported"):
        load_runtime(damaged)


def test_it_is_for_its_robot_alone(file: Path, robot: RobotConfig) -> None:
    import dataclasses

    other = dataclasses.replace(robot, policy=dataclasses.replace(robot.policy, rate_hz=15.0))
    with pytest.raises(ContractError, match="with rate_hz = 20, this robot has 15"):
        load_policy(file, other)


def test_what_is_not_there_is_said(
    file: Path, tmp_path: Path, robot: RobotConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"cannot use TensorRT; it has .*CPU"):
        load_policy(file, robot, provider="TensorRT")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(PROVIDERS.values()))
    with pytest.raises(CheckpointError, match="CUDA cannot be used: its libraries are missing"):
        load_policy(file, robot, provider="CUDA")  # ONNX Runtime would go on with the CPU
    with pytest.raises(CheckpointError, match="is an exported policy, without weights"):
        load_network(file)
    damaged = tmp_path / "damaged.safetensors"
    save_file({"action": torch.ones(1)}, damaged, {"format": EXPORT_FORMAT, "info": "{"})
    with pytest.raises(CheckpointError, match="has damaged metadata"):
        load_policy(damaged, robot)


@pytest.fixture
def export_as(
    exported: dict[str, Any],
    file: Path,
    make_network: Any,
    demonstrate: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Exports a checkpoint, and on the way takes some graphs for its own."""
    checkpoint = tmp_path / "policy.safetensors"
    network = make_network(PolicyConfig(**SMALL))
    save_checkpoint(checkpoint, network, info_of(network))
    shown = Dataset(network.contract, "wave", "desk_arm", demonstrate(2), "abc")
    monkeypatch.setattr("lam_ros.cli.steps.episodes_of", lambda data: [])
    monkeypatch.setattr("lam_ros.cli.steps.usable", lambda episodes, robot: episodes)
    monkeypatch.setattr("lam_ros.cli.steps.load_dataset", lambda *given: shown)

    def export(
        graphs: dict[str, bytes],
        task: str = "",
        int8: bool = False,
        quantised: Callable[..., dict[str, bytes]] = lambda graphs, pictures: graphs,
    ) -> list[str]:
        monkeypatch.setattr("lam_ros.policy.export.export_graphs", lambda network: graphs)
        monkeypatch.setattr("lam_ros.policy.export.quantise", quantised)
        return export_policy(checkpoint, tmp_path / "out.safetensors", "demos", "desk_arm", int8, task, 20, 1, print)

    return export


def test_an_export_that_answers_otherwise_is_not_written(
    export_as: Any, exported: dict[str, Any], make_network: Any, tmp_path: Path
) -> None:
    other = export_graphs(make_network(PolicyConfig(**SMALL), seed=1))
    with pytest.raises(CheckpointError, match=r"float32: .* Nothing was written\.$"):
        export_as(other)
    with pytest.raises(CheckpointError, match=r"int8: .* Nothing was written; export without --int8\.$"):
        export_as(other, int8=True)
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]
    assert "float32: joint targets differ by" in export_as(exported["graphs"])[0]
    assert read_info(tmp_path / "out.safetensors").figures["float32_parity_largest"] < 1e-3


def test_an_export_whose_answers_are_not_finite_is_not_written(
    export_as: Any, exported: dict[str, Any], make_network: Any, tmp_path: Path
) -> None:
    network = make_network(PolicyConfig(**SMALL))
    with torch.no_grad():
        network.normaliser.target_scale.fill_(torch.nan)
    with pytest.raises(CheckpointError, match=r"differ by nan on the mean .* Nothing was written\.$"):
        export_as(export_graphs(network))
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]


def test_eight_bits_are_judged_by_what_they_were_not_calibrated_on(
    export_as: Any, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[np.ndarray]] = {"calibrated": [], "judged": []}

    def quantised(graphs: dict[str, bytes], pictures: list[np.ndarray]) -> dict[str, bytes]:
        shown["calibrated"] += pictures
        return graphs

    def compared(exported: Any, original: Any, episodes: Any, scale: np.ndarray) -> Any:
        shown["judged"] += [images[:, camera] for images, _ in episodes for camera in range(images.shape[1])]
        return parity(exported, original, episodes, scale)

    monkeypatch.setattr("lam_ros.policy.export.parity", compared)
    export_as(exported["graphs"], int8=True, quantised=quantised)
    pictures = {name: {one.tobytes() for some in kept for one in some} for name, kept in shown.items()}
    assert pictures["calibrated"]
    assert pictures["judged"]
    assert not pictures["calibrated"] & pictures["judged"]


def test_an_export_does_not_replace_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    file.write_bytes(b"weights")
    for out in (file, tmp_path / "x" / ".." / "p.safetensors", tmp_path / "p.onnx"):
        with pytest.raises(ConfigError, match=r"name another [.]safetensors file than the checkpoint"):
            export_policy(file, out, "demos", "desk_arm", False, "", 20, 1, print)
    assert file.read_bytes() == b"weights"


def test_an_export_that_succeeds_less_often_is_not_written(
    export_as: Any, exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(trial: Trial, seeds: range, workers: int) -> Evaluation:
        is_original = trial.checkpoint.name == "policy.safetensors"
        return Evaluation(tuple(EpisodeResult(seed, is_original, 1.0) for seed in seeds))

    monkeypatch.setattr("lam_ros.learning.rollouts.evaluate", evaluate)
    with pytest.raises(CheckpointError, match="Nothing was written: the exported policy is worse"):
        export_as(exported["graphs"], task="reach")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]


def test_a_comparison_on_a_task_that_the_checkpoint_never_does_says_nothing(
    export_as: Any, exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(trial: Trial, seeds: range, workers: int) -> Evaluation:
        return Evaluation(tuple(EpisodeResult(seed, False, 1.0) for seed in seeds))

    monkeypatch.setattr("lam_ros.learning.rollouts.evaluate", evaluate)
    with pytest.raises(CheckpointError, match=r"That says nothing of what was exported\. Nothing was written"):
        export_as(exported["graphs"], task="push")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]
    assert export_as(exported["graphs"])[-1].startswith("Successes were not compared; --task does that")


def test_what_an_export_was_accepted_with_is_written_down(
    export_as: Any, exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(trial: Trial, seeds: range, workers: int) -> Evaluation:
        return Evaluation(tuple(EpisodeResult(seed, seed % 4 != 0, 1.0) for seed in seeds))

    monkeypatch.setattr("lam_ros.learning.rollouts.evaluate", evaluate)
    assert "15 of 20 succeeded, the checkpoint's 15" in export_as(exported["graphs"], task="reach")[1]
    assert read_info(tmp_path / "out.safetensors").figures["float32_success"] == 0.75


@pytest.mark.parametrize(("given", "threads"), [({}, 1), ({"threads": 3}, 3)])
def test_one_thread_runs_it_unless_more_are_asked_for(file: Path, given: dict[str, int], threads: int) -> None:
    runtime, _ = load_runtime(file, **given)
    assert isinstance(runtime, OnnxRuntime)
    options = [session.get_session_options() for session in (*runtime._perception, runtime._action)]
    assert {option.intra_op_num_threads for option in options} == {threads}
    assert {option.inter_op_num_threads for option in options} == {1}
