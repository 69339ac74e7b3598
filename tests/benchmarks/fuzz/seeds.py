"""The real files that mutants are made of: small networks through both exporters, and forms that no exporter writes."""

from functools import cache

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from compressor.artifacts.sparse_onnx import to_sparse
from tests.compressor.graph.models import linear_model, model_of, node, values
from tests.compressor.graph.networks import exported

_EXPORTED = (
    ("mlp", "legacy-training"),
    ("lenet", "dynamo"),
    ("lenet", "legacy-static"),
    ("vgg", "legacy-17"),
    ("resnet", "dynamo-unoptimised"),
    ("mobilenet", "legacy-13"),
    ("shapes", "legacy-11"),
    ("shapes", "dynamo"),
    ("activations", "legacy-18"),
    ("volume", "dynamo-static"),
    ("products", "legacy-17"),
    ("lstm", "dynamo"),
    ("lstm", "legacy-static"),
    ("gru", "legacy-17"),
    ("rnn", "legacy-13"),
    ("embedding", "dynamo"),
    ("encoder", "legacy-17"),
    ("encoder", "dynamo-unoptimised"),
    ("attention", "dynamo-static"),
    ("unet", "legacy-18"),
    ("folding", "dynamo"),
)


@cache
def seeds() -> tuple[bytes, ...]:
    """All of them, in an order that does not change."""
    built = [make().SerializeToString() for make in (linear_model, _half, _sparse, _two_outputs, _scikit_learn, _conv_in_double)]
    return (*(exported(*name) for name in _EXPORTED), *built)


def _half() -> ModelProto:
    nodes = [node("Conv", ["x", "w", "b"], "c", pads=[1, 1, 1, 1]), node("Relu", ["c"], "r"), node("GlobalAveragePool", ["r"], "y")]
    arrays = {"w": values(3, 2, 3, 3).astype(np.float16), "b": values(3).astype(np.float16)}
    return model_of(nodes, {"x": ["n", 2, 6, 6]}, {"y": ["n", 3, 1, 1]}, arrays, types=dict.fromkeys(("x", "y"), TensorProto.FLOAT16))


def _sparse() -> ModelProto:
    """As we deliver it."""
    model = linear_model()
    for tensor, shape in zip(model.graph.initializer, ((4, 64), (64,), (64, 3)), strict=True):
        array = values(*shape)
        array[np.abs(array) < 2] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return to_sparse(model)


def _two_outputs() -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], "s"), node("ArgMax", ["s"], "label", axis=1), node("Expand", ["s", "e"], "more")]
    nodes += [node("Softmax", ["s"], "y"), node("Shape", ["y"], "shape"), node("ConstantOfShape", ["shape"], "zeros")]
    outputs = {"y": ["n", 3], "label": ["n", 1], "more": [2, "n", 3], "zeros": ["n", 3]}
    return model_of(nodes, {"x": ["n", 4]}, outputs, {"w": values(4, 3), "e": np.array([2, 1, 1])}, types={"label": TensorProto.INT64})


def _scikit_learn() -> ModelProto:
    model = _two_outputs()
    model.graph.node.append(node("ArrayFeatureExtractor", ["classes", "label"], "named", domain="ai.onnx.ml"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 8, 9]), "classes"))
    model.graph.output[1].name = "named"
    model.opset_import.add(domain="ai.onnx.ml", version=1)
    return model


def _conv_in_double() -> ModelProto:
    nodes = [node("ConvTranspose", ["x", "w"], "c", strides=[2]), node("AveragePool", ["c"], "p", kernel_shape=[3], ceil_mode=1)]
    nodes += [node("Einsum", ["p", "v"], "y", equation="nct,td->ncd")]
    types = dict.fromkeys(("x", "y"), TensorProto.DOUBLE)
    arrays = {"w": values(2, 3, 2).astype(np.float64), "v": values(6, 4).astype(np.float64)}
    return model_of(nodes, {"x": [2, 2, 4]}, {"y": [2, 3, 4]}, arrays, types=types)
