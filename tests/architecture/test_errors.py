"""Every error that a client can mend says where it is and what to do: on the terminal these are its second and third line."""

import ast
from collections.abc import Iterator
from pathlib import Path

from compressor.errors import ClientError, error_classes
from service.api.problems import ApiError

ROOT = Path(__file__).parents[2]
OF_THE_LIBRARY = {cls.__name__ for cls in error_classes() if issubclass(cls, ClientError)}
OF_THE_API = {cls.__name__ for cls in ApiError.__subclasses__()}
TREES = [(path, ast.parse(path.read_text(encoding="utf-8"))) for room in ("compressor", "service") for path in (ROOT / room).rglob("*.py")]


def name_of(node: ast.expr | None) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def errors_made(names: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """The calls that make such an error, which need not stand where it is raised, and their places."""
    for path, tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) in names:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def may_be_empty(value: ast.expr) -> bool:
    """None or "", or what ends in one of them: `name or None`, `name if known else None`."""
    if isinstance(value, ast.BoolOp):
        return may_be_empty(value.values[-1])
    if isinstance(value, ast.IfExp):
        return may_be_empty(value.body) or may_be_empty(value.orelse)
    return isinstance(value, ast.Constant) and not value.value


def says_where_and_what_to_do(call: ast.Call) -> bool:
    return {"param", "suggestion"} <= {keyword.arg for keyword in call.keywords if not may_be_empty(keyword.value)}


def test_errors_of_the_library_say_where_and_what_to_do() -> None:
    made = list(errors_made(OF_THE_LIBRARY))
    assert len(made) > 80
    assert [place for place, call in made if not says_where_and_what_to_do(call)] == []


def test_errors_of_the_api_say_where_and_what_to_do() -> None:
    made = list(errors_made(OF_THE_API))
    assert len(made) > 20
    assert [place for place, call in made if not says_where_and_what_to_do(call)] == []


def test_none_is_raised_as_a_bare_class() -> None:
    raised = [(path, node) for path, tree in TREES for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    assert raised
    bare = [f"{path.relative_to(ROOT)}:{node.lineno}" for path, node in raised if name_of(node.exc) in OF_THE_LIBRARY | OF_THE_API]
    assert bare == []
