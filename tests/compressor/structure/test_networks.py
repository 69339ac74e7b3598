"""Whole networks under masks that leave units dead."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, write_arrays
from compressor.structure import compact, merge_zero_rows
from tests.benchmarks.dense import lenet_5, lenet_300_100
from tests.benchmarks.networks import Transformer, resnet_18
from tests.benchmarks.zoo.builders import plain_networks
from tests.benchmarks.zoo.catalogue import FAMILIES
from tests.compressor.graph.models import values
from tests.compressor.graph.networks import NETWORKS, export, exported, network
from tests.compressor.structure.checks import check, outputs_of, pruned, sizes


def test_dead_features_of_the_input_are_not_gathered() -> None:
    model = lenet_300_100_model()
    arrays = float_tensors(model)
    dead = np.random.default_rng(0).permutation(784)[:354]
    arrays["2.weight"] = arrays["2.weight"].copy()
    arrays["2.weight"][:, dead] = 0
    rows = values(4, 1, 28, 28)
    assert sizes(check(model, arrays, rows))["2.weight"] == (300, 784)
    found = check(model, arrays, rows, drop_dead_inputs=True)
    assert sizes(found)["2.weight"] == (300, 430)
    module = OnnxModule(found.model)
    assert module.inputs[0].shape == (None, 1, 28, 28)
    np.testing.assert_allclose(module(torch.from_numpy(rows)).detach().numpy(), outputs_of(found.model, rows)[0], atol=1e-5)


def exported_network(net: torch.nn.Module, rows: torch.Tensor) -> ModelProto:
    return parse_model(export(net.eval(), rows, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},)))


def lenet_300_100_model() -> ModelProto:
    return exported_network(lenet_300_100(), torch.zeros(2, 1, 28, 28))


def test_lenet_5_of_the_benchmark() -> None:
    model = exported_network(lenet_5(), torch.zeros(2, 1, 28, 28))
    arrays = float_tensors(model)
    rng = np.random.default_rng(0)
    for name, dead in (("0.weight", 13), ("3.weight", 30), ("8.weight", 450)):
        arrays[name] = arrays[name].copy()
        arrays[name][rng.permutation(len(arrays[name]))[:dead]] = 0
    found = check(model, arrays, values(4, 1, 28, 28))
    assert sizes(found) == {
        **{"0.weight": (7, 1, 5, 5), "0.bias": (7,), "3.weight": (20, 7, 5, 5), "3.bias": (20,)},
        **{"8.weight": (50, 320), "8.bias": (50,), "11.weight": (10, 50), "11.bias": (10,)},
    }


def test_resnet_18_of_the_benchmark() -> None:
    torch.manual_seed(0)
    model = exported_network(resnet_18(10), torch.zeros(2, 3, 32, 32))
    arrays = pruned(float_tensors(model), dead=0.8)
    found = check(model, arrays, values(2, 3, 32, 32))
    assert sum(math.prod(shape) for shape in sizes(found).values()) < 0.8 * sum(array.size for array in arrays.values())


WORDS = np.random.default_rng(0).integers(0, 5000, (2, 64))


@pytest.fixture(scope="module")
def transformer() -> ModelProto:
    torch.manual_seed(0)
    net = Transformer()
    for parameter in net.parameters():  # layers begin as copies of each other, and the exporter stores equal tensors once
        torch.nn.init.normal_(parameter, std=0.05)
    return exported_network(net, torch.zeros(2, 64, dtype=torch.long))


def test_hidden_units_of_a_transformer_go(transformer: ModelProto) -> None:
    arrays = float_tensors(transformer)
    inner = next(name for name, array in arrays.items() if array.shape == (512, 128))
    arrays[inner] = arrays[inner].copy()
    arrays[inner][100:] = 0
    found = check(transformer, arrays, WORDS)
    assert sizes(found)[inner] == (100, 128)
    assert sum(array.size for array in arrays.values()) - sum(map(math.prod, sizes(found).values())) == 412 * (128 + 128 + 1)


def test_dead_words_of_a_transformer_share_a_row(transformer: ModelProto) -> None:
    arrays = float_tensors(transformer)
    (table,) = (name for name, array in arrays.items() if array.shape == (5000, 128))
    dead = np.random.default_rng(1).random(5000) < 0.4
    assert dead[WORDS].any()
    assert not dead[WORDS].all()
    model = write_arrays(transformer, {table: np.where(dead[:, None], 0, arrays[table])})
    merged = parse_model(merge_zero_rows(model).SerializeToString())
    onnx.checker.check_model(merged, full_check=True)
    shapes = {name: array.shape for name, array in float_tensors(merged).items()}
    assert shapes == {name: array.shape for name, array in arrays.items()} | {table: (5000 - int(dead.sum()) + 1, 128)}
    (expected,), (found,) = outputs_of(model, WORDS), outputs_of(merged, WORDS)
    assert np.array_equal(found, expected)


SHRINKING = {"mlp", "lenet", "vgg", "resnet", "mobilenet"}


@pytest.mark.parametrize("exporter", ["dynamo", "dynamo-unoptimised", "dynamo-static", "legacy-11", "legacy-17", "legacy-static"])
@pytest.mark.parametrize("name", sorted(SHRINKING))
def test_usual_networks_of_every_exporter_shrink(name: str, exporter: str) -> None:
    model = parse_model(exported(name, exporter))
    arrays = pruned(float_tensors(model), dead=0.6)
    rows = network(name).rows(1 if exporter.endswith("static") else 5).numpy()
    found = check(model, arrays, rows)
    if exporter != "dynamo-unoptimised":  # where biases are results of Expand
        assert sum(map(math.prod, sizes(found).values())) < 0.8 * sum(array.size for array in arrays.values())


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - SHRINKING))
def test_other_networks_give_what_they_gave(name: str) -> None:
    model = parse_model(exported(name, "dynamo"))
    found = check(model, pruned(float_tensors(model), dead=0.6), network(name).rows(3).numpy())
    assert sizes(found).keys() <= float_tensors(model).keys()


def test_batch_normalisation_in_training_stays_so_and_pins() -> None:
    model = parse_model(exported("resnet", "legacy-training"))
    found = compact(model, pruned(float_tensors(model)))
    assert any(attribute.name == "training_mode" for each in found.model.graph.node for attribute in each.attribute)
    assert OnnxModule(found.model).weight_names


_HYPOTHESIS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_SHARES = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@_HYPOTHESIS
@given(seed=st.integers(0, 2**16), dead=_SHARES, kept=_SHARES, drop=st.booleans())
def test_any_masks_of_an_mlp(seed: int, dead: float, kept: float, drop: bool) -> None:
    model = parse_model(exported("mlp", "dynamo-unoptimised"))
    check(model, pruned(float_tensors(model), seed, dead=dead, kept=kept), network("mlp").rows(3).numpy(), drop_dead_inputs=drop)


@_HYPOTHESIS
@given(seed=st.integers(0, 2**16), dead=_SHARES, kept=_SHARES, name=st.sampled_from(["lenet", "vgg", "mobilenet"]))
def test_any_masks_of_a_convolutional_network(seed: int, dead: float, kept: float, name: str) -> None:
    model = parse_model(exported(name, "dynamo"))
    check(model, pruned(float_tensors(model), seed, dead=dead, kept=kept), network(name).rows(3).numpy())


# Weights that the graph computes of others, and two layers that the exporter has written as one.
UNPROVEN = {"tcn", "transformer_encoder"}


@pytest.mark.parametrize("name", FAMILIES["plain_networks"])
def test_architectures_of_the_zoo(name: str, tmp_path: Path) -> None:
    """Units of both sides of every weight, and some of the other elements, are dead."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = getattr(plain_networks, name)()
    built.exports["legacy"](tmp_path / "zoo.onnx")
    model = parse_model((tmp_path / "zoo.onnx").read_bytes())
    arrays = pruned(float_tensors(model), seed=1, dead=0.6, kept=0.8)
    found = check(model, arrays, built.inputs[0][:3])
    before, after = (sum(array.size for array in tensors.values()) for tensors in (arrays, found.shrink(arrays)))
    assert (after < before) == (name not in UNPROVEN)
