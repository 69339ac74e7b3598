"""What is delivered is the smallest graph of the same outputs, counted in the shapes that were uploaded."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.admission import AdmittedModel, admit
from compressor.artifacts import dense_onnx, sparse_onnx
from compressor.config import CompressionConfig
from compressor.delivery import deliver, files, finite_outputs, verify_files, write_model
from compressor.errors import ArtifactMismatch
from compressor.structure import Compaction, compact

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((6, 20)).astype(np.float32)


@pytest.fixture
def upload(tmp_path: Path) -> AdmittedModel:
    """20 to 30 to 5, with notes of an exporter and one of its user."""
    tensors = {"w": RNG.standard_normal((30, 20)), "b": np.ones(30), "v": RNG.standard_normal((5, 30)), "c": np.zeros(5)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first", transB=1, doc_string="File /home/somebody/train.py"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["y"], transB=1),
    ]
    nodes[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/somebody/train.py")
    nodes[0].metadata_props.add(key="layer", value="mine")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 20), ("y", 5))]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    model.metadata_props.add(key="names", value="cat,dog")
    onnx.save(model, tmp_path / "upload.onnx")
    return admit(tmp_path / "upload.onnx")


def pruned(upload: AdmittedModel) -> dict[str, torch.Tensor]:
    """Ten units are read by nobody, five others are made of nothing but their bias."""
    tensors = {name: tensor.detach().clone() for name, tensor in upload.module.state().items()}
    tensors["v"][:, :10] = 0
    tensors["w"][10:15] = 0
    with torch.no_grad():
        for name, tensor in upload.module.state().items():
            tensor.copy_(tensors[name])
    return tensors


def test_dead_units_are_gone_and_the_outputs_are_the_same(upload: AdmittedModel, tmp_path: Path) -> None:
    delivered = deliver(upload, pruned(upload), {"w": torch.full((30, 20), -2.0)})
    config = CompressionConfig(posterior_sigma=True)

    names = write_model(tmp_path, delivered, config)
    expected = finite_outputs(upload.module, [torch.from_numpy(ROWS)])
    checked = verify_files(tmp_path, delivered, config, names, [ROWS], expected, "y")

    assert names == ("model.onnx", "model.dense.onnx", "weights.safetensors")
    assert {name: len(runtimes) for name, runtimes in checked.items()} == {"model.onnx": 2, "model.dense.onnx": 2}
    shapes = {name: array.shape for name, array in sparse_onnx.read(tmp_path / "model.onnx").items()}
    assert shapes == {"w": (15, 20), "b": (15,), "v": (5, 15), "c": (5,)}
    assert {name: sigma.shape for name, sigma in delivered.sigmas.items()} == {"w": (15, 20)}
    outputs = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": ROWS})[0]
    assert np.allclose(outputs, expected, atol=1e-5)


def test_what_is_left_is_counted_in_the_uploaded_shapes(upload: AdmittedModel, tmp_path: Path) -> None:
    delivered = deliver(upload, pruned(upload), {})
    write_model(tmp_path, delivered, CompressionConfig())

    whole = delivered.whole(sparse_onnx.read(tmp_path / "model.onnx"))

    assert {name: array.shape for name, array in whole.items()} == {"w": (30, 20), "b": (30,), "v": (5, 30), "c": (5,)}
    assert np.count_nonzero(whole["w"]) == 15 * 20
    assert np.count_nonzero(whole["v"]) == 5 * 15
    assert np.array_equal(whole["v"][:, 15:], upload.module.tensors()["v"].detach().numpy()[:, 15:])


def test_notes_of_the_exporter_are_gone_and_those_of_the_user_stay(upload: AdmittedModel) -> None:
    model = deliver(upload, pruned(upload), {}).model
    assert b"somebody" not in model.SerializeToString()
    assert [(note.key, note.value) for note in model.graph.node[0].metadata_props] == [("layer", "mine")]
    assert [(note.key, note.value) for note in model.metadata_props] == [("names", "cat,dog")]
    assert [node.name for node in model.graph.node][:1] == ["first"]


def miscut(model: ModelProto, arrays: dict[str, np.ndarray]) -> Compaction:
    """As `compact`, with a constant that is folded into the wrong bias."""
    found = compact(model, arrays)
    tensor = next(tensor for tensor in found.model.graph.initializer if tensor.name == "c")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), "c"))
    return found


@pytest.mark.parametrize("rows", [None, [ROWS]])
def test_a_compaction_with_other_outputs_is_not_taken(
    upload: AdmittedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[np.ndarray] | None
) -> None:
    """On the rows that are given, or on those of the import."""
    monkeypatch.setattr(files, "compact", miscut)
    delivered = deliver(upload, pruned(upload), {"w": torch.full((30, 20), -2.0)}, rows)

    (warning,) = delivered.warnings
    assert "'y' differs by" in warning
    names = write_model(tmp_path, delivered, CompressionConfig(posterior_sigma=True))
    expected = finite_outputs(upload.module, [torch.from_numpy(ROWS)])
    checked = verify_files(tmp_path, delivered, CompressionConfig(posterior_sigma=True), names, [ROWS], expected, "y")
    assert [len(runtimes) for runtimes in checked.values()] == [2, 2]
    found = sparse_onnx.read(tmp_path / "model.onnx")
    assert {name: array.shape for name, array in found.items()} == {"w": (30, 20), "b": (30,), "v": (5, 30), "c": (5,)}
    assert all(np.array_equal(array, found[name]) for name, array in delivered.whole(found).items())


def test_a_compaction_that_cannot_be_compared_is_not_taken(upload: AdmittedModel) -> None:
    assert "no rows" in deliver(upload, pruned(upload), {}, []).warnings[0]
    assert "no finite number" in deliver(upload, pruned(upload), {}, [np.full_like(ROWS, np.nan)]).warnings[0]
    assert deliver(upload, pruned(upload), {}, [ROWS]).warnings == ()


def test_the_second_runtime_is_judged_by_the_uploaded_graph_with_the_trained_tensors(upload: AdmittedModel) -> None:
    """With its dead units: what they held is in the biases."""
    delivered = deliver(upload, pruned(upload), {})
    whole = delivered.whole_graph()
    assert {tensor.name: tuple(tensor.dims) for tensor in whole.graph.initializer}["w"] == (30, 20)
    expected = finite_outputs(upload.module, [torch.from_numpy(ROWS)])
    assert np.allclose(onnxruntime.InferenceSession(whole.SerializeToString()).run(None, {"x": ROWS})[0], expected, atol=1e-5)


def test_a_delivered_file_can_be_sent_again(upload: AdmittedModel, tmp_path: Path) -> None:
    """Without what was noted of the first file."""
    write_model(tmp_path, deliver(upload, pruned(upload), {}), CompressionConfig())
    for name in ("model.onnx", "model.dense.onnx"):
        again = admit(tmp_path / name)
        out = tmp_path / f"again-{name}"
        out.mkdir()
        delivered = deliver(again, again.module.state(), {})
        names = write_model(out, delivered, CompressionConfig())
        expected = finite_outputs(again.module, [torch.from_numpy(ROWS)])
        verify_files(out, delivered, CompressionConfig(), names, [ROWS], expected, "y")
        keys = [entry.key for entry in onnx.load(out / "model.onnx").metadata_props]
        assert keys == ["names", "bayespress_sparse"]


def test_a_graph_that_gives_other_outputs_is_found(upload: AdmittedModel, tmp_path: Path) -> None:
    tensors = pruned(upload)
    expected = finite_outputs(upload.module, [torch.from_numpy(ROWS)])
    assert expected is not None
    delivered = deliver(upload, tensors | {"c": tensors["c"] + 0.1}, {})
    names = write_model(tmp_path, delivered, CompressionConfig())
    with pytest.raises(ArtifactMismatch, match=r"model\.onnx"):
        verify_files(tmp_path, delivered, CompressionConfig(), names, [ROWS], expected, "y")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_of_a_table_that_are_0_are_one_in_the_dense_form_alone(tmp_path: Path, dtype: Literal["float32", "float16"]) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "w"], ["y"]),
    ]
    tensors = {"table": RNG.standard_normal((300, 8)), "w": RNG.standard_normal((8, 3))}
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()]
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "words.onnx")
    upload = admit(tmp_path / "words.onnx")
    with torch.no_grad():
        upload.module.state()["table"][100:] = 0
    delivered, config = deliver(upload, upload.module.state(), {}), CompressionConfig(weight_dtype=dtype)
    names = write_model(tmp_path, delivered, config)
    rows = RNG.integers(0, 300, (6, 4))
    checked = verify_files(tmp_path, delivered, config, names, [rows], finite_outputs(upload.module, [torch.from_numpy(rows)]), "y")
    assert len(checked["model.dense.onnx"]) == 2
    assert sparse_onnx.read(tmp_path / "model.onnx")["table"].shape == (300, 8)
    assert dense_onnx.read(tmp_path / "model.dense.onnx")["table"].shape == (101, 8)


@pytest.mark.parametrize("shut", [-1e4, -1e9, float(np.finfo(np.float32).min), -np.inf])
@pytest.mark.parametrize("in_nodes", [False, True], ids=["initialisers", "constants"])
def test_in_float16_masks_stay_as_they_are(tmp_path: Path, shut: float, in_nodes: bool) -> None:
    """Attention of the last of four tokens over all of them, but for those that the mask shuts out."""
    tensors = {"w": RNG.standard_normal((8, 16)), "m": np.where(np.tri(4, dtype=np.bool_), 0, shut), "v": RNG.standard_normal((64, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["s"]),
        helper.make_node("Add", ["s", "m"], ["k"]),
        helper.make_node("Softmax", ["k"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "h"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()]
    if in_nodes:
        nodes = [*(helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in initializers), *nodes]
        initializers = []
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "causal.onnx")
    upload = admit(tmp_path / "causal.onnx")
    delivered = deliver(upload, upload.module.state(), {})
    config = CompressionConfig(weight_dtype="float16", formats=("packed",), packed_values="float16")

    names = write_model(tmp_path, delivered, config)
    rows = RNG.standard_normal((6, 4, 8)).astype(np.float32)
    verify_files(tmp_path, delivered, config, names, [rows], finite_outputs(upload.module, [torch.from_numpy(rows)]), "y")

    found = dense_onnx.read(tmp_path / "model.dense.onnx")
    assert np.array_equal(found["m"], sparse_onnx.read(tmp_path / "model.onnx")["m"])
    for name in ("w", "v"):
        assert np.array_equal(found[name], tensors[name].astype(np.float32).astype(np.float16).astype(np.float32))
