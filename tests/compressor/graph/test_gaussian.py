"""Gaussian weights through the operators: without variance the plain operator, with it the distribution of sampled weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto

from compressor.graph.gaussian import GaussianValue, noise_like
from compressor.graph.module import OnnxModule
from tests.compressor.graph.models import model_of, node, values

DRAWS = 4000


@dataclass(frozen=True)
class Case:
    """A small model whose weight is "w"; one row of its input has the shape `row`. `shared`: one draw of "w" serves the whole batch."""

    model: ModelProto
    row: tuple[int, ...]
    shared: bool = False


def convolution(weight: tuple[int, ...], row: tuple[int, ...], out: tuple[int, ...], **attributes: object) -> Case:
    nodes = [node("Conv", ["x", "w", "b"], "y", **attributes)]
    arrays = {"w": values(*weight), "b": values(weight[0], seed=1)}
    return Case(model_of(nodes, {"x": ["n", *row]}, {"y": ["n", *out]}, arrays), row)


def transposed_convolution() -> Case:
    nodes = [node("ConvTranspose", ["x", "w", "b"], "y", strides=[2, 2], pads=[0, 1, 1, 0], group=2)]
    arrays = {"w": values(4, 3, 3, 2), "b": values(6, seed=1)}
    return Case(model_of(nodes, {"x": ["n", 4, 3, 3]}, {"y": ["n", 6, 6, 5]}, arrays), (4, 3, 3))


def gemm(transposed: int) -> Case:
    nodes = [node("Gemm", ["x", "w", "b"], "y", alpha=0.5, beta=2.0, transB=transposed)]
    arrays = {"w": values(*((3, 6) if transposed else (6, 3))), "b": values(3, seed=1)}
    return Case(model_of(nodes, {"x": ["n", 6]}, {"y": ["n", 3]}, arrays), (6,))


def matmul_right() -> Case:
    return Case(model_of([node("MatMul", ["x", "w"], "y")], {"x": ["n", 2, 6]}, {"y": ["n", 2, 3]}, {"w": values(6, 3)}), (2, 6))


def matmul_left() -> Case:
    return Case(model_of([node("MatMul", ["w", "x"], "y")], {"x": ["n", 6, 2]}, {"y": ["n", 3, 2]}, {"w": values(3, 6)}), (6, 2))


def sliced_and_transposed() -> Case:
    nodes = [
        node("Identity", ["w"], "same"),
        node("Transpose", ["same"], "turned", perm=[1, 0]),
        node("Slice", ["turned", "from", "to", "axes", "steps"], "part"),
        node("Split", ["part", "sizes"], ["left", "right"], axis=1),
        node("Concat", ["right", "left"], "swapped", axis=1),
        node("MatMul", ["x", "swapped"], "y"),
    ]
    arrays = {
        "w": values(5, 9),
        "from": np.array([7, 4]),
        "to": np.array([1, 0]),
        "axes": np.array([0, 1]),
        "steps": np.array([-1, -1]),
        "sizes": np.array([1, 3]),
    }
    return Case(model_of(nodes, {"x": ["n", 6]}, {"y": ["n", 4]}, arrays), (6,))


def recurrent(operator: str, weight: str, steps: int, **attributes: object) -> Case:
    """The last hidden states of both directions; "w" takes the place of the matrix called `weight`, x or h.

    Over several steps only the recurrent matrix is drawn as a sampled weight is: the input's noise differs from step to step.
    """
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    small = np.float32(0.3)  # far from where the gates are flat
    arrays = {"x": small * values(2, gates * 3, 4), "h": small * values(2, gates * 3, 3, seed=1), "b": small * values(2, gates * 6, seed=2)}
    names = {"x": "other", "h": "other", weight: "w"}
    nodes = [
        node("Transpose", ["x"], "steps", perm=[1, 0, 2]),
        node(operator, ["steps", names["x"], names["h"], "b"], ["", "last"], hidden_size=3, direction="bidirectional", **attributes),
        node("Transpose", ["last"], "y", perm=[1, 0, 2]),
    ]
    given = {names["x"]: arrays["x"], names["h"]: arrays["h"], "b": arrays["b"]}
    model = model_of(nodes, {"x": ["n", steps, 4]}, {"y": ["n", 2, 3]}, given)
    return Case(model, (steps, 4), shared=weight == "h")


def recurrent_of_pieces() -> Case:
    """The input matrix as the exporters make it: gates sliced apart, joined in another order, with an axis for the direction."""
    nodes = [
        node("Split", ["w"], ["first", "second", "third"], axis=0),
        node("Concat", ["second", "first", "third"], "joined", axis=0),
        node("Unsqueeze", ["joined", "zero"], "matrix"),
        node("Transpose", ["x"], "steps", perm=[1, 0, 2]),
        node("GRU", ["steps", "matrix", "r"], ["", "last"], hidden_size=3),
        node("Squeeze", ["last", "zero"], "y"),
    ]
    arrays = {"w": values(9, 4), "r": values(1, 9, 3), "zero": np.array([0])}
    return Case(model_of(nodes, {"x": ["n", 1, 4]}, {"y": ["n", 3]}, arrays), (1, 4))


def einsum(
    equation: str, weight: tuple[int, ...], row: tuple[int, ...], out: tuple[int, ...], *, place: int = 1, shared: bool = False
) -> Case:
    """The weight stands at `place`, "x" at the other."""
    nodes = [node("Einsum", ["x", "w"] if place else ["w", "x"], "y", equation=equation)]
    return Case(model_of(nodes, {"x": ["n", *row]}, {"y": ["n", *out]}, {"w": values(*weight)}), row, shared)


def standardised() -> Case:
    """Weight standardisation: the rows of w are centred and scaled to the same length, with a gain of their own."""
    nodes = [
        node("ReduceMean", ["w"], "middle", axes=[0]),
        node("Sub", ["w", "middle"], "centred"),
        node("ReduceL2", ["centred"], "length", axes=[0]),
        node("Max", ["length", "epsilon"], "divisor"),
        node("Div", ["centred", "divisor"], "unit"),
        node("Mul", ["unit", "gain"], "weight"),
        node("MatMul", ["x", "weight"], "y"),
    ]
    arrays = {"w": values(6, 3), "gain": values(1, 3, seed=1), "epsilon": np.float32(1e-6)}
    return Case(model_of(nodes, {"x": ["n", 6]}, {"y": ["n", 3]}, arrays), (6,), shared=True)


CASES: dict[str, Callable[[], Case]] = {
    "conv": lambda: convolution((3, 2, 3, 3), (2, 4, 4), (3, 2, 2)),
    "conv grouped, asymmetric": lambda: convolution((4, 1, 3, 2), (2, 4, 4), (4, 5, 4), group=2, pads=[2, 0, 1, 1]),
    "conv strided, dilated": lambda: convolution((3, 2, 2, 2), (2, 6, 6), (3, 3, 3), strides=[2, 2], dilations=[2, 2], pads=[0, 0, 1, 1]),
    "conv, same": lambda: convolution((3, 2, 2), (2, 5), (3, 5), auto_pad="SAME_UPPER"),
    "conv 3d": lambda: convolution((2, 1, 2, 2, 2), (1, 3, 3, 3), (2, 2, 2, 2)),
    "transposed conv": transposed_convolution,
    "gemm": lambda: gemm(0),
    "gemm, transposed": lambda: gemm(1),
    "matmul, weight on the right": matmul_right,
    "matmul, weight on the left": matmul_left,
    "transpose, slice, split, concat, matmul": sliced_and_transposed,
    "LSTM, input matrix": lambda: recurrent("LSTM", "x", 1),
    "GRU, input matrix": lambda: recurrent("GRU", "x", 1, linear_before_reset=1),
    "RNN, input matrix": lambda: recurrent("RNN", "x", 1),
    "LSTM, recurrent matrix": lambda: recurrent("LSTM", "h", 3),
    "GRU, recurrent matrix": lambda: recurrent("GRU", "h", 3),
    "GRU, recurrent matrix, reset last": lambda: recurrent("GRU", "h", 3, linear_before_reset=1),
    "RNN, recurrent matrix": lambda: recurrent("RNN", "h", 3),
    "GRU, input matrix of pieces": recurrent_of_pieces,
    "einsum": lambda: einsum("bij,oj->bio", (3, 4), (2, 4), (2, 3)),
    "einsum, weight on the left": lambda: einsum("jA,bj->bA", (4, 3), (4,), (3,), place=0),
    "einsum, implicit output": lambda: einsum("Ba,ca", (3, 4), (4,), (3,)),
    "einsum, ellipsis, two sums": lambda: einsum("...ij,kij->...k", (3, 2, 4), (2, 4), (3,)),
    "einsum, a factor for each": lambda: einsum("bij,ij->bij", (3, 4), (3, 4), (3, 4)),
    "einsum, a sum beside the weight": lambda: einsum("bij,oj->bo", (3, 4), (2, 4), (3,), shared=True),
    "einsum, a broadcast sum": lambda: einsum("bij,oij->bo", (3, 1, 4), (2, 4), (3,), shared=True),
    "einsum, a diagonal": lambda: einsum("bi,ooi->boi", (3, 3, 4), (4,), (3, 4), shared=True),
    "weight standardisation": standardised,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def row_of(case: Case) -> torch.Tensor:
    return torch.randn(case.row, generator=torch.Generator().manual_seed(3))


def variance_of(mean: torch.Tensor) -> torch.Tensor:
    return torch.rand(mean.shape, generator=torch.Generator().manual_seed(4)) * 0.2 + 0.01


def test_without_variance_it_is_the_plain_operator(case: Case) -> None:
    module = OnnxModule(case.model)
    x = row_of(case).unsqueeze(0)
    weight = module.tensors()["w"]
    noisy = module(x, values={"w": GaussianValue(weight, torch.zeros_like(weight))})
    torch.testing.assert_close(noisy, module(x), rtol=1e-6, atol=1e-6)


def test_outputs_are_distributed_as_with_sampled_weights(case: Case) -> None:
    torch.manual_seed(5)
    module = OnnxModule(case.model)
    x = row_of(case)
    mean = module.tensors()["w"].detach()
    var = variance_of(mean)

    weights = mean + var.sqrt() * torch.randn(DRAWS, *mean.shape)
    direct = torch.func.vmap(lambda weight: module(x.unsqueeze(0), values={"w": weight}).squeeze(0))(weights)
    gaussian = {"w": GaussianValue(mean, var)}
    rows = x.expand(DRAWS, *case.row)
    if case.shared:
        alone = torch.func.vmap(lambda row: module(row.unsqueeze(0), values=gaussian).squeeze(0), randomness="different")
        assert torch.equal(*module(rows[:2], values=gaussian))
    local = alone(rows) if case.shared else module(rows, values=gaussian)

    deviation = direct.std(0).clamp_min(1e-6)
    assert direct.shape == local.shape
    assert ((direct.mean(0) - local.mean(0)).abs() / deviation).max() < 5 * (2 / DRAWS) ** 0.5
    inside = direct.std(0) > 1e-6  # a window that lies in the padding sees no weight
    ratio = local.var(0)[inside] / direct.var(0)[inside]
    assert inside.any()
    assert local.std(0)[~inside].numel() == 0 or local.std(0)[~inside].max() < 1e-6
    assert ratio.min() > 0.84
    assert ratio.max() < 1.19


def test_mean_and_variance_both_get_gradients(case: Case) -> None:
    module = OnnxModule(case.model)
    mean = module.tensors()["w"]
    log_sigma2 = torch.full_like(mean, -3.0, requires_grad=True)
    module(row_of(case).unsqueeze(0), values={"w": GaussianValue(mean, log_sigma2.exp())}).square().sum().backward()
    assert mean.grad is not None
    assert log_sigma2.grad is not None
    assert mean.grad.isfinite().all()
    assert log_sigma2.grad.isfinite().all()
    assert log_sigma2.grad.abs().sum() > 0


def test_inputs_of_zero_give_finite_gradients() -> None:
    module = OnnxModule(matmul_right().model)
    mean = module.tensors()["w"]
    log_sigma2 = torch.full_like(mean, -8.0, requires_grad=True)
    x = torch.zeros(1, 2, 6, requires_grad=True)
    module(x, values={"w": GaussianValue(mean, log_sigma2.exp())}).sum().backward()
    assert x.grad is not None
    assert log_sigma2.grad is not None
    assert x.grad.isfinite().all()
    assert (log_sigma2.grad == 0).all()


def test_a_lookup_draws_noise_for_every_row_that_it_takes() -> None:
    nodes = [node("Gather", ["w", "x"], "y")]
    module = OnnxModule(model_of(nodes, {"x": ["n", 2]}, {"y": ["n", 2, 3]}, {"w": values(7, 3)}, types={"x": TensorProto.INT64}))
    assert module.weight_names == ("w",)
    weight = module.tensors()["w"].detach()
    var = variance_of(weight)
    torch.manual_seed(6)
    rows = module(torch.tensor([[2, -1]]).expand(DRAWS, 2), values={"w": GaussianValue(weight, var)})
    torch.testing.assert_close(rows.mean(0), weight[[2, -1]], rtol=0, atol=0.05)
    torch.testing.assert_close(rows.var(0), var[[2, -1]], rtol=0.15, atol=0)
    assert not torch.equal(rows[0], rows[1])


def test_any_other_operator_samples_the_weight() -> None:
    nodes = [node("Tanh", ["w"], "bounded"), node("MatMul", ["x", "bounded"], "z"), node("MatMul", ["z", "v"], "y")]
    module = OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": values(4, 3), "v": values(3, 2)}))
    assert module.weight_names == ("w", "v")
    weight = module.tensors()["w"]
    torch.manual_seed(7)
    first = module(torch.ones(2, 4), values={"w": GaussianValue(weight, torch.ones_like(weight))})
    second = module(torch.ones(2, 4), values={"w": GaussianValue(weight, torch.ones_like(weight))})
    # One draw for all rows, another draw the next time.
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    first.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_a_tied_weight_is_one_tensor_in_both_places() -> None:
    nodes = [
        node("Gather", ["w", "x"], "row"),
        node("Transpose", ["w"], "turned"),
        node("MatMul", ["row", "turned"], "y"),
    ]
    module = OnnxModule(model_of(nodes, {"x": ["n"]}, {"y": ["n", 7]}, {"w": values(7, 3)}, types={"x": TensorProto.INT64}))
    weight = module.tensors()["w"]
    assert module.weight_names == ("w",)
    assert list(module.parameters()) == [weight]
    plain = module(torch.tensor([1, 3]))
    torch.testing.assert_close(plain, weight[[1, 3]] @ weight.t())
    noisy = module(torch.tensor([1, 3]), values={"w": GaussianValue(weight, torch.full_like(weight, 0.1))})
    noisy.sum().backward()
    assert weight.grad is not None
    assert not torch.allclose(noisy, plain)


def test_a_weight_that_is_computed_with_is_drawn_once_for_all_that_read_it() -> None:
    """Centred columns add up to 0 only where the mean that is taken off is that of the same draw."""
    module = OnnxModule(standardised().model)
    weight = module.tensors()["w"]
    drawn = {"w": GaussianValue(weight, torch.ones_like(weight))}
    torch.testing.assert_close(module(torch.ones(2, 6), values=drawn), torch.zeros(2, 3), rtol=0, atol=1e-5)
    x = torch.randn(2, 6)
    assert not torch.allclose(module(x, values=drawn), module(x, values=drawn))


def convolution_of_many_positions() -> OnnxModule:
    """32 rows of 16 positions: as many as make it worth while to draw the weight."""
    return OnnxModule(convolution((3, 2, 3, 3), (2, 6, 6), (3, 4, 4)).model)


def in_halves(weight: torch.Tensor, var: torch.Tensor) -> dict[str, GaussianValue]:
    return {"w": GaussianValue(weight, var, in_halves=True)}


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_convolution_may_draw_its_weight_for_each_half_of_the_batch(operator: str) -> None:
    nodes = [node(operator, ["x", "w", "b"], "y")]
    arrays = {"w": values(2, 2, 3, 3), "b": values(2, seed=1)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 2, 7, 7]}, {"y": ["n", 2, "h", "v"]}, arrays))
    weight = module.tensors()["w"].detach()
    torch.manual_seed(8)
    rows = torch.randn(1, 2, 7, 7).expand(33, 2, 7, 7)
    noisy = module(rows, values=in_halves(weight, torch.ones_like(weight)))
    first, second = noisy[:17], noisy[17:]
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(second, second[:1].expand_as(second))
    assert not torch.allclose(first[0], second[0])
    torch.testing.assert_close(module(rows, values=in_halves(weight, torch.zeros_like(weight))), module(rows))


@torch.no_grad()
def test_outputs_of_drawn_halves_have_the_closed_mean_and_variance() -> None:
    module = convolution_of_many_positions()
    weight = module.tensors()["w"].detach()
    var = variance_of(weight)
    x = torch.randn(32, 2, 6, 6, generator=torch.Generator().manual_seed(9))
    torch.manual_seed(10)
    drawn = torch.stack([module(x, values=in_halves(weight, var)) for _ in range(DRAWS // 4)])
    variance = torch.nn.functional.conv2d(x * x, var)
    assert ((drawn.mean(0) - module(x)).abs() / variance.sqrt()).max() < 6 * (4 / DRAWS) ** 0.5
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.3, atol=0)
    assert float((drawn.var(0) / variance).mean()) == pytest.approx(1.0, abs=0.03)


def test_a_convolution_of_few_positions_or_a_single_row_draws_as_it_is_cheaper() -> None:
    module = convolution_of_many_positions()
    weight = module.tensors()["w"].detach()
    noise = in_halves(weight, torch.ones_like(weight))
    few = module(torch.ones(8, 2, 6, 6), values=noise)
    assert not torch.allclose(few[0], few[1])
    alone = module(torch.ones(1, 2, 40, 40), values=noise)  # one draw, the same at every position
    torch.testing.assert_close(alone, alone[..., :1, :1].expand_as(alone))
    assert module(torch.ones(0, 2, 6, 6), values=noise).shape == (0, 3, 4, 4)


def test_a_convolution_in_batches_of_a_built_in_size_draws_outputs() -> None:
    module = convolution_of_many_positions()
    module.built_in_batch = 32
    weight = module.tensors()["w"].detach()
    noisy = module(torch.ones(64, 2, 6, 6), values=in_halves(weight, torch.ones_like(weight)))
    assert noisy.flatten(1).unique(dim=0).shape[0] == 64


def test_a_layout_operator_leaves_a_weight_to_be_drawn_in_halves() -> None:
    nodes = [node("Transpose", ["w"], "turned", perm=[1, 0, 2, 3]), node("Conv", ["x", "turned"], "y")]
    module = OnnxModule(model_of(nodes, {"x": ["n", 2, 6, 6]}, {"y": ["n", 3, 4, 4]}, {"w": values(2, 3, 3, 3)}))
    weight = module.tensors()["w"].detach()
    noisy = module(torch.ones(32, 2, 6, 6), values=in_halves(weight, torch.ones_like(weight)))
    assert torch.equal(noisy[0], noisy[15])


def test_channels_last_change_no_result_and_noise_is_drawn_in_their_order() -> None:
    module = convolution_of_many_positions()
    x = torch.randn(32, 2, 6, 6)
    found = module(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    weights = module.tensors()
    torch.testing.assert_close(found, torch.nn.functional.conv2d(x, weights["w"], weights["b"]))
    torch.manual_seed(11)
    noise = noise_like(found)
    torch.manual_seed(11)
    assert noise.stride() == found.stride()
    assert torch.equal(noise.permute(0, 2, 3, 1), torch.randn(32, 4, 4, 3))
