"""The wheel alone, in an empty environment, carries the demo: templates, migrations and schemas are what gets lost otherwise."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.served import served
from tests.service.api.sample_files import MODEL, PARQUET_FILE

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES", "compressor", "service")
LAST_LINE = re.compile(
    r"demo: accuracy_dense=0\.\d+ accuracy_compressed=0\.\d+ compression_ratio=\d+\.\d size_ratio=\d+\.\d job_seconds=\d+\.\d"
)


def run(*command: str | Path, cwd: Path, timeout_s: int) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BAYESPRESS", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: setuptools would put files that no longer exist in the checkout into the wheel, out of an older build/.
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, source, cwd=source, timeout_s=120)
    (built,) = dist.glob("*.whl")
    return built


def test_wheel_holds_every_file_of_both_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("compressor", "service")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"compressor/py.typed", "service/py.typed"} <= files
    assert files - packed == set()
    assert {name.rpartition("/")[2] for name in packed if ".dist-info/licenses/" in name} == {"LICENSE", "THIRD_PARTY_NOTICES"}


def install(environment: Path, requirement: str) -> None:
    """Into a new environment that holds nothing else."""
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment.parent, timeout_s=60)
    # --no-compile: half of the time would go into byte code that is read once.
    options = ["--python", environment / "bin" / "python", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt"]
    run(sys.executable, "-m", "pip", *options, requirement, cwd=environment.parent, timeout_s=300)


def test_core_without_torch_takes_requests(wheel: Path, tmp_path: Path) -> None:
    install(tmp_path / "environment", str(wheel))
    script = tmp_path / "environment" / "bin" / "bayespress"
    with served(tmp_path / "home", variables={"BAYESPRESS_WORKERS": "0"}, script=str(script)) as service:
        assert service.client.get("/readyz").json()["status"] == "ok"
        files = {"model": ("model.onnx", MODEL), "dataset": ("rows.parquet", PARQUET_FILE)}
        answer = service.client.post("/compress", files=files)
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert service.stop() == 0
    listed = run(sys.executable, "-m", "pip", "--python", script.with_name("python"), "list", cwd=tmp_path, timeout_s=60)
    assert "bayespress" in listed
    assert "torch" not in listed


@pytest.mark.timeout(420)
def test_demo_runs_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install(environment, f"{wheel}[worker]")
    demo = shutil.copy(ROOT / "tests" / "demo.py", elsewhere)

    output = run(environment / "bin" / "python", "-I", demo, cwd=elsewhere, timeout_s=240)
    assert LAST_LINE.fullmatch(output.splitlines()[-1])
    assert run(environment / "bin" / "bayespress", "--version", cwd=elsewhere, timeout_s=60).split()[-1] == wheel.name.split("-")[1]
