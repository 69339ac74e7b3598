"""Names of files: a file says which room it is, never that it is a drawer."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DRAWERS = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "base", "tools"}
TOP_LEVEL = {
    "pyproject.toml", "Dockerfile", "README.md", "service", "compressor", "tests", "deploy",
    "Makefile", "constraints.txt", "LICENSE", "THIRD_PARTY_NOTICES", "CHANGELOG.md",
}  # fmt: skip
SOURCES = [path for folder in ("compressor", "service", "tests") for path in (ROOT / folder).rglob("*.py")]


def test_no_drawers() -> None:
    assert SOURCES
    assert [str(path.relative_to(ROOT)) for path in SOURCES if DRAWERS & {*path.relative_to(ROOT).parts[:-1], path.stem}] == []


def test_files_say_what_room_they_are() -> None:
    def starts_with_docstring(path: Path) -> bool:
        text = path.read_text(encoding="utf-8").lstrip()
        return not text or text.startswith(('"""', 'r"""'))

    assert [str(path.relative_to(ROOT)) for path in SOURCES if not starts_with_docstring(path)] == []


def test_top_level_is_the_house_as_it_was_drawn() -> None:
    generated = {"build", "dist", "bayespress.egg-info", "shared"}
    seen = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - generated
    assert seen <= TOP_LEVEL, seen - TOP_LEVEL
    assert seen >= TOP_LEVEL, TOP_LEVEL - seen


def test_tests_mirror_the_trees() -> None:
    def rooms(folder: Path) -> set[str]:
        return {path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}

    for package in ("compressor", "service"):
        assert rooms(ROOT / "tests" / package) <= rooms(ROOT / package)
