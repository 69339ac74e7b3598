"""Program: values are freed as soon as nothing reads them any more, and errors say where they arose."""

import weakref
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from onnx import TensorProto

from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS
from compressor.graph.program import Program

CPU = torch.device("cpu")


def made(operator: str, inputs: tuple[str, ...], output: str) -> Node:
    return Node(operator, "", "", 17, inputs, (output,), {"to": TensorProto.FLOAT} if operator == "Cast" else {})


def test_dead_values_are_freed_while_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watched(x: torch.Tensor) -> torch.Tensor:
        nonlocal most
        result = x + 1
        alive.append(weakref.ref(result))
        most = max(most, sum(reference() is not None for reference in alive))
        return result

    monkeypatch.setitem(OPERATORS, "Exp", replace(OPERATORS["Exp"], build=lambda _node: watched))
    names = [f"v{index}" for index in range(20)]
    nodes = [made("Exp", (before,), after) for before, after in pairwise(names)]
    program = Program([*nodes, made("Add", (names[3], names[-1]), "y")], ["y"])
    result = program.run("y", [(program.slot("v0"), torch.zeros(2))], training=False, device=CPU)
    assert torch.equal(result, torch.full((2,), 22.0))
    assert most == 3  # what is read, what is made, and v3, which the last node still needs


def test_an_error_says_in_which_node_it_arose() -> None:
    program = Program([made("Exp", ("x",), "a"), made("MatMul", ("a", "x"), "y")], ["y"])
    with pytest.raises(RuntimeError) as caught:
        program.run("y", [(program.slot("x"), torch.zeros(2, 3))], training=False, device=CPU)
    assert caught.value.__notes__ == ["in MatMul node 'y'"]


def test_only_the_steps_that_an_output_needs_are_run() -> None:
    nodes = [made("Exp", ("x",), "a"), made("MatMul", ("a", "x"), "y")]
    program = Program(nodes, ["a", "y"])
    assert torch.equal(program.run("a", [(program.slot("x"), torch.zeros(2, 3))], training=False, device=CPU), torch.ones(2, 3))
