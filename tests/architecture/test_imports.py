"""What import-linter cannot see: what is really loaded, and which file calls which library."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "onnx", "onnxruntime", "numpy", "scipy", "pandas", "pyarrow", "datasets", "sklearn", "PIL", "safetensors"}
IMPORT_ALL = "import importlib, json, sys; [importlib.import_module(m) for m in sys.argv[1:]]; print(json.dumps(sorted(sys.modules)))"


def module_names(package: str) -> list[str]:
    """Every module of `package`; Alembic runs the files under migrations/ itself."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "migrations" not in parts:
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def top_level_after_importing(modules: list[str]) -> set[str]:
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_whole_service_loads_no_torch() -> None:
    modules = module_names("service")
    assert "service.settings" in modules
    assert top_level_after_importing(modules) & HEAVY == set()


@pytest.mark.parametrize(
    "module", ["compressor", "compressor.config", "compressor.errors", "compressor.inspection", "compressor.protocol", "compressor.report"]
)
def test_torch_free_module_of_the_library_loads_no_torch(module: str) -> None:
    assert top_level_after_importing([module]) & HEAVY == set()


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files_importing(library: str) -> set[str]:
    paths = [*(ROOT / "service").rglob("*.py"), *(ROOT / "compressor").rglob("*.py")]
    return {path.relative_to(ROOT).as_posix() for path in paths if any(name.partition(".")[0] == library for name in imports_of(path))}


def test_object_store_is_called_in_its_room_only() -> None:
    files = files_importing("obstore")
    assert files
    assert {file for file in files if not file.startswith("service/storage/")} == set()


def test_library_reads_no_environment() -> None:
    def reads_environment(path: Path) -> bool:
        text = path.read_text(encoding="utf-8")
        return "os.environ" in text or "getenv" in text

    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "compressor").rglob("*.py") if reads_environment(path)}
    # Which sets a variable for ONNX Runtime, and goes by none.
    assert files == {"compressor/artifacts/__init__.py"}


def test_nothing_unpickles() -> None:
    assert {library: files_importing(library) for library in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")} == {
        library: set() for library in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
    }


def test_rows_are_read_and_written_in_repositories_only() -> None:
    statements = {"select", "insert", "update", "delete"}

    def writes_sql(path: Path) -> bool:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")]
        return any(alias.name in statements for node in imports for alias in node.names)

    files = {path for path in (ROOT / "service").rglob("*.py") if writes_sql(path)}
    assert ROOT / "service" / "jobs" / "repository.py" in files
    assert {str(path.relative_to(ROOT)) for path in files if path.name != "repository.py" and "migrations" not in path.parts} == set()
