"""Recurrent layers: LSTM, GRU and RNN.

The input projections of all time steps and directions are one product, so a Gaussian input matrix gets the local reparameterisation. A
Gaussian recurrent matrix is drawn once, and the draw serves every row and every time step.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_batchedtensor  # whether a tensor is inside vmap; torch.func has no name for it

from compressor.graph.gaussian import GaussianValue, Run, lift_layout, lift_linear, sampled
from compressor.graph.node import Node
from compressor.graph.ops.recurrent_activations import Function, recurrent_activations, uses_default_activations
from compressor.graph.ops.table import Flow, operator

State = tuple[Tensor, ...]

# cell(projection of the step's input, *state) -> the next state; the hidden state comes first.
Cell = Callable[..., State]

# make(functions, recurrent matrix, recurrent bias, peepholes) -> the cell of one direction.
MakeCell = Callable[[Sequence[Function], Tensor, Tensor | None, Tensor | None], Cell]

_BACKWARD = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

# torch has the gates input, forget, cell, output where ONNX has input, output, forget, cell.
_TORCH_GATES = (0, 2, 3, 1)

_project = lift_linear(F.linear, F.linear, (1,))
_of_all_directions = lift_layout(lambda w: w.flatten(0, 1))


def _treatment(node: Node, slot: int, gaussian: Collection[str]) -> Flow:
    del node, gaussian
    return Flow.LINEAR if slot == 1 else Flow.SAMPLED


@operator("LSTM", flow=Flow.RECURRENT, weights=(1, 2), parameters=(3, 7), frozen=(4,), multiple=True, treatment=_treatment)
def lstm(node: Node) -> Run:
    coupled = bool(node.int("input_forget", 0))
    plain = uses_default_activations(node) and "clip" not in node.attributes and not coupled
    return _layer(node, partial(_lstm_cell, _clip(node), coupled), states=2, has_torch_form=plain)


@operator("GRU", flow=Flow.RECURRENT, weights=(1, 2), parameters=(3,), frozen=(4,), multiple=True, treatment=_treatment)
def gru(node: Node) -> Run:
    if node.int("linear_before_reset", 0):
        return _layer(node, partial(_gru_cell_reset_last, _clip(node)), joins_biases=False)
    return _layer(node, partial(_gru_cell_reset_first, _clip(node)))


@operator("RNN", flow=Flow.RECURRENT, weights=(1, 2), parameters=(3,), frozen=(4,), multiple=True, treatment=_treatment)
def rnn(node: Node) -> Run:
    return _layer(node, partial(_rnn_cell, _clip(node)))


def _layer(node: Node, make_cell: MakeCell, *, states: int = 1, joins_biases: bool = True, has_torch_form: bool = False) -> Run:
    """The function of a recurrent node.

    Args:
        make_cell: builds the cell of one direction.
        states: 2 where there is a cell state beside the hidden one.
        joins_biases: whether the recurrent bias may be added to the input's.
        has_torch_form: whether torch.lstm computes the same.
    """
    backward = _BACKWARD[node.string("direction", "forward")]
    functions = recurrent_activations(node, len(backward))
    batch_first = bool(node.int("layout", 0))
    has_torch_form = has_torch_form and backward != (True,)

    def run(
        x: Tensor,
        w: Tensor | GaussianValue,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Tensor | None = None,
        h: Tensor | None = None,
        c: Tensor | None = None,
        peepholes: Tensor | None = None,
    ) -> State:
        x, r, b, h, c, peepholes = (sampled(value) for value in (x, r, b, h, c, peepholes))
        if x.dim() != 3:
            raise ValueError(f"an input of {x.dim()} dimensions, not 3")
        if batch_first:
            x = x.transpose(0, 1)
            h, c = (None if value is None else value.transpose(0, 1) for value in (h, c))
        zeros = x.new_zeros(len(backward), x.shape[1], r.shape[-1])
        state = tuple(zeros if value is None else value for value in (h, c)[:states])
        plain = has_torch_form and lengths is None and peepholes is None
        if plain and isinstance(w, Tensor) and _suits_torch(len(backward), x, w, r, b, state):
            y, state = _torch_lstm(x, w, r, b, state)
        else:
            inside = None if lengths is None else _inside(len(x), lengths)
            of_input, of_state = _biases(b, joins_biases)
            projected = _project(x, _of_all_directions(w), None if of_input is None else of_input.flatten())
            made, ends = [], []
            for index, steps in enumerate(projected.chunk(len(backward), -1)):
                cell = make_cell(functions[index], r[index], _item(of_state, index), _item(peepholes, index))
                hidden, end = _unroll(cell, steps, tuple(value[index] for value in state), inside, backward[index])
                made.append(hidden)
                ends.append(end)
            y, state = torch.stack(made, 1), tuple(torch.stack(values) for values in zip(*ends, strict=True))
        if batch_first:
            return y.permute(2, 0, 1, 3), *(value.transpose(0, 1) for value in state)
        return y, *state

    return run


def _unroll(cell: Cell, steps: Tensor, state: State, inside: Sequence[Tensor] | None, backward: bool) -> tuple[Tensor, State]:
    """The hidden states of all steps, in the order of time, and the last state of each row.

    Args:
        steps: input projections, (time, batch, gates).
        inside: for each step which rows have not ended; where one has, its state stays and its output is 0.
        backward: whether time runs from the end to the start.
    """
    projected = steps.unbind(0)
    hidden = []
    for time in reversed(range(len(projected))) if backward else range(len(projected)):
        after = cell(projected[time], *state)
        if inside is None:
            hidden.append(after[0])
        else:
            hidden.append(after[0].masked_fill(~inside[time], 0.0))
            after = tuple(torch.where(inside[time], new, old) for new, old in zip(after, state, strict=True))
        state = after
    return torch.stack(hidden[::-1] if backward else hidden), state


def _lstm_cell(clip: Function, coupled: bool, functions: Sequence[Function], r: Tensor, bias: None, peepholes: Tensor | None) -> Cell:
    del bias  # it came with the input projection
    f, g, h_of = functions
    r = r.t()

    def cell(projected: Tensor, hidden: Tensor, state: Tensor) -> State:
        i, o, forget, candidate = torch.addmm(projected, hidden, r).chunk(4, -1)
        if peepholes is not None:
            p_i, p_o, p_f = peepholes.chunk(3)
            i, forget = i + p_i * state, forget + p_f * state
        i = f(clip(i))
        kept = (1.0 - i) if coupled else f(clip(forget))
        state = kept * state + i * g(clip(candidate))
        if peepholes is not None:
            o = o + p_o * state
        return f(clip(o)) * h_of(state), state

    return cell


def _gru_cell_reset_last(clip: Function, functions: Sequence[Function], r: Tensor, bias: Tensor | None, peepholes: None) -> Cell:
    """Where the reset gate acts after the recurrent product: what torch and cuDNN compute."""
    del peepholes
    f, g = functions
    size = r.shape[-1]

    def cell(projected: Tensor, hidden: Tensor) -> State:
        x_gates, x_candidate = torch.split_with_sizes(projected, [2 * size, size], -1)
        h_gates, h_candidate = torch.split_with_sizes(F.linear(hidden, r, bias), [2 * size, size], -1)
        update, reset = f(clip(x_gates + h_gates)).chunk(2, -1)
        return (torch.lerp(g(clip(torch.addcmul(x_candidate, reset, h_candidate))), hidden, update),)

    return cell


def _gru_cell_reset_first(clip: Function, functions: Sequence[Function], r: Tensor, bias: None, peepholes: None) -> Cell:
    del bias, peepholes
    f, g = functions
    size = r.shape[-1]
    r_gates, r_candidate = (part.t() for part in torch.split_with_sizes(r, [2 * size, size]))

    def cell(projected: Tensor, hidden: Tensor) -> State:
        x_gates, x_candidate = torch.split_with_sizes(projected, [2 * size, size], -1)
        update, reset = f(clip(torch.addmm(x_gates, hidden, r_gates))).chunk(2, -1)
        return (torch.lerp(g(clip(torch.addmm(x_candidate, reset * hidden, r_candidate))), hidden, update),)

    return cell


def _rnn_cell(clip: Function, functions: Sequence[Function], r: Tensor, bias: None, peepholes: None) -> Cell:
    del bias, peepholes
    f, r = functions[0], r.t()
    return lambda projected, hidden: (f(clip(torch.addmm(projected, hidden, r))),)


def _suits_torch(directions: int, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, state: State) -> bool:
    """Whether torch.lstm runs, and is worth it.

    On a CPU it takes a half to a quarter of the time of the loop, backwards included; inside vmap it does not run. Of GRU and RNN the
    loop is as fast as torch's own (seq 32, batch 128, hidden 64). The shapes are the file's: torch.lstm does not check them, and a wrong
    one ends the process.
    """
    (_, batch, inputs), size = x.shape, r.shape[-1]
    wanted: list[tuple[Tensor, tuple[int, ...]]] = [(w, (directions, 4 * size, inputs)), (r, (directions, 4 * size, size))]
    wanted += [(value, (directions, batch, size)) for value in state]
    wanted += [] if b is None else [(b, (directions, 8 * size))]
    alike = all(value.shape == shape and value.dtype == x.dtype for value, shape in wanted)
    return alike and all(
        value.numel() > 0 and value.device.type == "cpu" and not is_batchedtensor(value) for value, _ in [*wanted, (x, ())]
    )


def _torch_lstm(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, state: State) -> tuple[Tensor, State]:
    directions, size = len(r), r.shape[-1]
    biases = () if b is None else b.chunk(2, 1)
    parameters = [_in_torch_order(part[index]) for index in range(directions) for part in (w, r, *biases)]
    y, h, c = torch.lstm(x, state, parameters, b is not None, 1, 0.0, True, directions == 2, False)
    return y.reshape(*y.shape[:2], directions, size).transpose(1, 2), (h, c)


def _in_torch_order(gates: Tensor) -> Tensor:
    parts = gates.chunk(4)
    return torch.cat([parts[place] for place in _TORCH_GATES])


def _biases(b: Tensor | None, joined: bool) -> tuple[Tensor | None, Tensor | None]:
    """The biases of the input projection and of the recurrent product, (directions, gates)."""
    if b is None:
        return None, None
    of_input, of_state = b.chunk(2, 1)
    return (of_input + of_state, None) if joined else (of_input, of_state)


def _inside(steps: int, lengths: Tensor) -> Sequence[Tensor]:
    """For each step, (batch, 1): whether the row's sequence is longer."""
    return (torch.arange(steps, device=lengths.device)[:, None, None] < lengths[:, None]).unbind(0)


def _item(values: Tensor | None, index: int) -> Tensor | None:
    return None if values is None else values[index]


def _clip(node: Node) -> Function:
    bound = node.attributes.get("clip")
    return (lambda x: x) if bound is None else (lambda x: x.clamp(-bound, bound))
