"""The exporters' environments: a virtual environment each, made under the cache folder from pinned requirements and kept."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import threading
import tomllib
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_KERAS_REQUIREMENTS = Path(__file__).with_name("keras-requirements.txt")
_SHARED = ("torch", "onnx", "onnxscript", "numpy", "scikit-learn")
_MAKING = threading.Lock()


@dataclass(frozen=True)
class Environment:
    """Where builders run.

    Args:
        name: of its folder.
        install: what pip is given.
        versions: what else its files depend on.
        over_project: whether the packages of the running environment are seen from it too, torch above all: a second one is a gigabyte,
            and pip might take a CUDA build where this one is not.
    """

    name: str
    install: tuple[str, ...]
    versions: tuple[str, ...]
    over_project: bool

    @property
    def key(self) -> str:
        """Of everything that decides what the exporters in it write."""
        parts = (self.name, *self.install, *self.versions, sys.version)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def python(self, cache: Path) -> Path:
        """The interpreter; made where it is missing.

        Raises: subprocess.CalledProcessError where pip fails.
        """
        folder = cache / "environments" / f"{self.name}-{self.key}"
        python, done = folder / "bin" / "python", folder / "installed"
        with _MAKING:
            if not done.exists():
                print(f"making the environment {folder}", file=sys.stderr, flush=True)
                self._make(folder, python)
                done.touch()
        return python

    def _make(self, folder: Path, python: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, symlinks=True)
        if self.over_project:
            own = sysconfig.get_path("purelib", vars={"base": str(folder)})
            seen = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
            (Path(own) / "project.pth").write_text("\n".join(seen) + "\n", encoding="utf-8")
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *self.install], cwd=ROOT, check=True)


def exporters() -> Environment:
    """The running environment, with the extra `zoo` over it, at the versions of constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [line for line in project["optional-dependencies"]["zoo"] if not line.startswith(project["name"])]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    own = [pin for pin in pins if any(line.startswith(pin.partition("==")[0] + ">") for line in wanted)]
    versions = (*own, *(f"{name}=={version(name)}" for name in _SHARED))
    return Environment("exporters", ("--constraint", "constraints.txt", *wanted), versions, over_project=True)


def keras() -> Environment:
    """Keras over TensorFlow, which pins much that others pin otherwise; nothing is shared with it."""
    pins = tuple(_KERAS_REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return Environment("keras", ("--requirement", str(_KERAS_REQUIREMENTS)), pins, over_project=False)
