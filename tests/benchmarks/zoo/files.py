"""The exported files of an architecture: built in the exporters' environment where the cache has none."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.zoo import environments
from tests.benchmarks.zoo.catalogue import FAMILY_OF
from tests.benchmarks.zoo.environments import ROOT, Environment
from tests.benchmarks.zoo.results import NotExported

_BUILDERS = Path(__file__).with_name("builders")
_BUILD_SECONDS = 900


@dataclass(frozen=True)
class Exported:
    """What one architecture has: its files, the exports that failed, the versions that wrote it."""

    paths: list[Path]
    failed: list[NotExported]
    versions: dict[str, str]


def exports_of(name: str, cache: Path) -> Exported:
    """From the cache where builder and versions are the same, else built now."""
    family = FAMILY_OF[name]
    environment = environments.keras() if family == "keras_models" else environments.exporters()
    folder = cache / "files" / f"{family}-{_key(family, environment)}"
    note = folder / f"{name}.json"
    if not note.exists():
        reason = _build(family, name, folder, environment.python(cache))
        if reason:
            return Exported([], [NotExported(name, reason)], {})
    found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    paths = [folder / f"{name}.{export}.onnx" for export, reason in found["exports"].items() if not reason]
    failed = [NotExported(f"{name}.{export}", reason) for export, reason in found["exports"].items() if reason]
    return Exported(paths, failed, found["versions"])


def _key(family: str, environment: Environment) -> str:
    """Of all sources that a file depends on; those of other families are not among them."""
    others = {f"{other}.py" for other in set(FAMILY_OF.values()) - {family}}
    sources = [path.read_bytes() for path in sorted(_BUILDERS.glob("*.py")) if path.name not in others]
    return hashlib.sha256(b"\n".join([environment.key.encode(), *sources])).hexdigest()[:12]


def _build(family: str, name: str, folder: Path, python: Path) -> str:
    """Runs the builder; the reason where it left no files."""
    print(f"exporting {name}", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    command = [python, "-m", "tests.benchmarks.zoo.builders", family, name, folder]
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=one_thread(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_BUILD_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"took more than {_BUILD_SECONDS} s"
    return "" if code == 0 else f"the builder ended with {code}; see {log}"


def one_thread() -> Mapping[str, str]:
    """The environment variables of a child: as many children as cores run, and no hub is asked for anything."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
