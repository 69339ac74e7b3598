"""The README says what the code says."""

import re

import pytest

from compressor.config import MAX_OPSET, MIN_OPSET
from tests.architecture.readme_tables import README, TABLES, block

ROOT = README.parent


@pytest.mark.parametrize("name", TABLES)
def test_table_is_the_one_that_the_code_gives(name: str) -> None:
    readme = README.read_text(encoding="utf-8")
    assert block(readme, name) == TABLES[name](), "stale: run python -m tests.architecture.readme_tables"


def test_opsets_are_those_that_are_taken() -> None:
    assert f"opsets {MIN_OPSET} to {MAX_OPSET}." in README.read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("https://")]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_named_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`| {4})make ([a-z]+)", README.read_text(encoding="utf-8")))
    assert {"demo", "test", "install", "serve"} <= named
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
