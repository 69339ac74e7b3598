"""The operators: one handler for each, a file per family."""

from dataclasses import dataclass

from compressor.graph.ops import (
    activation,
    arithmetic,
    attention,
    bitwise,
    comparison,
    contraction,
    folding,
    indexing,
    layout,
    linear,
    normalization,
    padding,
    pooling,
    recurrent,
    reduction,
    resize,
    sampling,
    scatter,
    sequence,
    shape,
)
from compressor.graph.ops.table import OPERATORS, Flow, Operator

FAMILIES = (
    linear,
    contraction,
    recurrent,
    layout,
    arithmetic,
    activation,
    comparison,
    bitwise,
    pooling,
    normalization,
    attention,
    reduction,
    shape,
    indexing,
    scatter,
    padding,
    folding,
    resize,
    sampling,
    sequence,
)


@dataclass(frozen=True)
class SupportedOperator:
    """A row of the README's operator table."""

    family: str
    weights: str


def supported_operators() -> dict[str, SupportedOperator]:
    """Every operator that a model may use, by name, with its family and what happens to a variational weight that reaches it."""
    rows = {name: SupportedOperator(found.family, found.flow.value) for name, found in OPERATORS.items()}
    rows["Constant"] = SupportedOperator("shape", "may hold one")
    return dict(sorted(rows.items()))


__all__ = ["FAMILIES", "OPERATORS", "Flow", "Operator", "SupportedOperator", "supported_operators"]
