"""The node tests that ship with ONNX, for every operator of our table, run over the same handlers as a model's nodes.

The cases come with the newest version of each operator; what a case asks for beyond opset 23, or beyond what a float network needs, is
named in LEFT_OUT with its reason. A case that is left out must really fail, and each reason must still have a case.
"""

import importlib
import pkgutil
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.backend.test.case.node as node_cases
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.graph.ops import OPERATORS, supported_operators
from compressor.graph.program import Program
from compressor.graph.reader import read_graph
from compressor.graph.tensors import to_torch

LEFT_OUT = {
    r"test_(add|sub|div|mod|min|max|greater|less|bitshift)\w*_uint(16|32|64)(_expanded)?$": "PyTorch has no arithmetic for these types",
    r"test_bitwise_not_3d$": "PyTorch has no arithmetic for uint16",
    r"_(to_)?(FLOAT8|FLOAT4|U?INT[24])\w*": "quantised types are refused at intake",
    r"test_(equal|castlike?|cast)_.*(STRING|string)": "strings are no data of a network",
    r"^(?!test_(einsum|compress|reversesequence)).*(BFLOAT16|bfloat16|bf16)(_expanded)?$": "bfloat16 is computed in float32, exactly",
    r"test_(training_dropout|training_dropout_mask)(_default(_mask)?)?$": "training mode draws at random",
    r"test_batchnorm_\w+_training_mode$": "statistics are frozen",
    r"test_resize_downsample_scales_(linear|cubic)_align_corners$": "a width that is no whole number: PyTorch and ONNX Runtime round it",
    r"test_attention_4d_gqa_with_past_and_present_fp16(_expanded)?$": "float16 is computed in float32",
    r"test_attention_(?!.*(_expanded|window_default))\w*(nonpad|padded_kv|window)\w*$": "the inputs and attributes of opsets 24 and 25",
    r"test_spacetodepth_crd_mode_example$": "the attribute mode is newer than opset 23",
}

# Operators whose only oracle is another test: ONNX has no node test for them.
WITHOUT_CASES = {"ConcatFromSequence", "GlobalLpPool", "SequenceAt", "SequenceConstruct"}


def _module_name(operator: str) -> str:
    return {"Range": "rangeop"}.get(operator, operator.lower())


def _load() -> dict[str, list[Any]]:
    wanted = {_module_name(operator): operator for operator in supported_operators()}
    with warnings.catch_warnings():
        # The cases overflow and divide by zero on purpose when they are made.
        warnings.simplefilter("ignore", RuntimeWarning)
        for found in pkgutil.iter_modules(node_cases.__path__):
            if found.name.replace("_", "") in wanted:
                importlib.import_module(f"{node_cases.__name__}.{found.name}")
    cases = defaultdict(list)
    for case in node_cases._NodeTestCases:
        cases[_operator_of(case.model)].append(case)
    return cases


def _operator_of(model: ModelProto) -> str:
    """The operator that a case tests; for an expanded function, the one that it expands."""
    first = model.graph.node[0]
    prefix = (first.name or first.output[0]).split("_test_")[0]
    return prefix if model.graph.name.find("_expanded") >= 0 and prefix in OPERATORS else first.op_type


CASES = _load()


def _tensor(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return to_torch(numpy_helper.to_array(value), value.data_type)
    if isinstance(value, list):
        return [_tensor(item) for item in value]
    return to_torch(np.asarray(value), helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype))


def _mismatches(case: Any) -> Iterator[str]:
    """What is wrong with our outputs: nothing, where the case passes."""
    model = ModelProto()
    model.CopyFrom(case.model)
    for entry in model.opset_import:
        entry.version = min(entry.version, 23)
    graph = read_graph(model)
    names = [info.name for info in graph.outputs]
    # Of operators that give one output here, only that one is compared.
    checked = names if all(OPERATORS[node.op_type].multiple for node in graph.nodes) else names[:1]
    for inputs, outputs in case.data_sets:
        program = Program(graph.needed_nodes(checked), checked)
        values = [(program.slot(info.name), _tensor(value)) for info, value in zip(graph.inputs, inputs, strict=True)]
        for name, constant in graph.constants.items():
            loaded = constant.load()
            assert loaded is not None
            values.append((program.slot(name), to_torch(*loaded)))
        for name, expected in zip(checked, outputs, strict=False):
            got = program.run(name, values, training=False, device=torch.device("cpu"))
            yield from _difference(got, expected, case)


def _difference(got: Any, expected: Any, case: Any) -> Iterator[str]:
    if isinstance(expected, list):
        for ours, theirs in zip(got, expected, strict=True):
            yield from _difference(ours, theirs, case)
        return
    wanted = numpy_helper.to_array(expected) if isinstance(expected, TensorProto) else np.asarray(expected)
    if got.shape != wanted.shape:
        yield f"shape {tuple(got.shape)}, not {wanted.shape}"
    elif wanted.dtype.kind in "biu":
        if got.numpy().dtype != wanted.dtype or not np.array_equal(got.numpy(), wanted):
            yield f"{got}, not {wanted}"
    elif not np.allclose(got.double().numpy(), wanted.astype(np.float64), case.rtol, max(case.atol, 1e-6), equal_nan=True):
        yield f"{got}, not {wanted}"


def _problem(case: Any) -> str | None:
    try:
        return next(_mismatches(case), None)
    except Exception as error:  # a case that is left out may fail in any way
        return f"{type(error).__name__}: {error}"


def _reason(case: Any) -> str | None:
    return next((pattern for pattern in LEFT_OUT if re.search(pattern, case.name)), None)


def _runnable(case: Any) -> bool:
    """Whether the case, or the function that it expands, uses our operators only."""
    used = {(node.op_type, node.domain) for node in case.model.graph.node}
    return all(domain in ("", "ai.onnx") and (name in OPERATORS or name == "Constant") for name, domain in used)


@pytest.mark.parametrize("operator", sorted(set(supported_operators()) - WITHOUT_CASES))
def test_operator_passes_its_node_tests(operator: str) -> None:
    cases = [case for case in CASES[operator] if _runnable(case) and _reason(case) is None]
    assert cases, f"no node test for {operator}"
    failed = {case.name: problem for case in cases if (problem := _problem(case)) is not None}
    assert not failed


def test_what_is_left_out_really_fails_and_every_reason_has_a_case() -> None:
    left_out = [case for cases in CASES.values() for case in cases if _runnable(case) and _reason(case) is not None]
    passing = [case.name for case in left_out if _problem(case) is None]
    assert not passing
    assert {_reason(case) for case in left_out} == set(LEFT_OUT)


def test_operators_without_cases_have_none() -> None:
    assert all(not CASES[operator] for operator in WITHOUT_CASES)
