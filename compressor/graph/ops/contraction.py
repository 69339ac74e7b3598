"""Einsum. Its variance is the same sum of squares only where no two products of one output element share an element of the weight."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from compressor.graph.gaussian import GaussianValue, Run, sampled, with_noise
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, check_elements, operator

# Any of them may be a weight.
_OPERANDS = tuple(range(16))
_ELLIPSIS = "..."

Labels = tuple[str, ...]


@dataclass(frozen=True)
class _Equation:
    """Subscripts of the operands and of the output; an ellipsis is one of them."""

    operands: tuple[Labels, ...]
    output: Labels

    @classmethod
    def of(cls, node: Node) -> "_Equation":
        terms, arrow, output = node.string("equation", "").replace(" ", "").partition("->")
        operands = tuple(_labels(node, term) for term in terms.split(","))
        return cls(operands, _labels(node, output) if arrow else _implicit_output(operands))

    def __str__(self) -> str:
        return f"{','.join(''.join(labels) for labels in self.operands)}->{''.join(self.output)}"

    def summed(self) -> set[str]:
        return {label for labels in self.operands for label in labels}.difference(self.output)

    def is_exact(self, weight: int) -> bool:
        """Whether contracting squares with the variance of operand `weight` gives the variance of the output."""
        labels, summed = self.operands[weight], self.summed()
        return len(set(labels)) == len(labels) and summed.issubset(labels) and _ELLIPSIS not in summed

    def sizes(self, shapes: Sequence[torch.Size]) -> dict[str, tuple[int, ...]]:
        """What each subscript stands for once the operands are broadcast: one size, or those of the ellipsis."""
        found: dict[str, tuple[int, ...]] = {}
        for labels, shape in zip(self.operands, shapes, strict=True):
            for label, part in _parts(labels, shape).items():
                found[label] = np.broadcast_shapes(found.get(label, ()), part)
        return found


def _treatment(node: Node, slot: int, gaussian: Collection[str]) -> Flow:
    alone = sum(name in gaussian for name in node.inputs) == 1
    return Flow.LINEAR if alone and _Equation.of(node).is_exact(slot) else Flow.SAMPLED


@operator("Einsum", flow=Flow.CONTRACTION, weights=_OPERANDS, treatment=_treatment)
def einsum(node: Node) -> Run:
    equation = _Equation.of(node)
    if len(equation.operands) != len(node.inputs):
        raise ValueError(f"an equation of {len(equation.operands)} operands")
    if len(equation.operands) > len(_OPERANDS):
        raise node.unsupported(f"{len(equation.operands)} operands; at most {len(_OPERANDS)} are taken")
    text = str(equation)

    def run(*operands: Tensor | GaussianValue) -> Tensor:
        gaussian = [index for index, value in enumerate(operands) if isinstance(value, GaussianValue)]
        shapes = [value.mean.shape if isinstance(value, GaussianValue) else value.shape for value in operands]
        sizes = equation.sizes(shapes)
        _check_size(node, equation, sizes)
        if len(gaussian) == 1 and equation.is_exact(gaussian[0]) and _is_whole(equation, gaussian[0], shapes, sizes):
            mean = torch.einsum(text, *(value.mean if isinstance(value, GaussianValue) else value for value in operands))
            var = torch.einsum(text, *(value.var if isinstance(value, GaussianValue) else value * value for value in operands))
            return with_noise(mean, var)
        return torch.einsum(text, *(sampled(value) for value in operands))

    return run


def _check_size(node: Node, equation: _Equation, sizes: dict[str, tuple[int, ...]]) -> None:
    """torch multiplies the operands from left to right and sums what nothing further needs."""
    for count in range(1, len(equation.operands) + 1):
        made = {label for labels in equation.operands[:count] for label in labels}
        needed = {label for labels in equation.operands[count:] for label in labels}.union(equation.output)
        check_elements(node, [prod(sizes[label]) for label in made & needed])


def _is_whole(equation: _Equation, weight: int, shapes: Sequence[torch.Size], sizes: dict[str, tuple[int, ...]]) -> bool:
    """Whether the weight is not broadcast along a subscript that is summed."""
    parts = _parts(equation.operands[weight], shapes[weight])
    return all(parts[label] == sizes[label] for label in equation.summed())


def _labels(node: Node, term: str) -> Labels:
    # Possessive: without, a long term that does not match is tried at every split of it.
    if not re.fullmatch(r"[A-Za-z]*+(\.\.\.)?[A-Za-z]*+", term):
        raise node.unsupported(f"the equation {node.string('equation', '')!r}")
    return tuple(re.findall(r"\.\.\.|[A-Za-z]", term))


def _implicit_output(operands: Sequence[Labels]) -> Labels:
    flat = [label for labels in operands for label in labels]
    ellipsis = (_ELLIPSIS,) if _ELLIPSIS in flat else ()
    return ellipsis + tuple(sorted(label for label in set(flat) - {_ELLIPSIS} if flat.count(label) == 1))


def _parts(labels: Labels, shape: torch.Size) -> dict[str, tuple[int, ...]]:
    """The part of `shape` that each subscript names."""
    if _ELLIPSIS not in labels:
        return {label: (size,) for label, size in zip(labels, shape, strict=True)}
    before = labels.index(_ELLIPSIS)
    after = len(labels) - before - 1
    split = len(shape) - after
    named = zip(labels[:before] + labels[before + 1 :], tuple(shape[:before]) + tuple(shape[split:]), strict=True)
    return {_ELLIPSIS: tuple(shape[before:split])} | {label: (size,) for label, size in named}
