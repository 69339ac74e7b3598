""".github/SECURITY.md: every row of its table is a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / ".github" / "SECURITY.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip()[:50] for row in ROWS])
def test_a_row_names_tests_that_are_there(row: str) -> None:
    named = TEST.findall(row)
    assert named, row
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_there_are_rows() -> None:
    assert len(ROWS) > 15
