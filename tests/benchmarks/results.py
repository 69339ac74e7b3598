"""What every benchmark does with its figures: say where they come from, keep them as JSON, and hold them against their lines."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Line:
    """A figure that must be at least, or at most, so much."""

    name: str
    value: float
    bound: Literal["at least", "at most"]
    limit: float

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.bound == "at least" else self.value <= self.limit


def provenance() -> dict[str, Any]:
    """Machine class, versions and commit."""
    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "torch": torch.__version__,
        },
        "commit": commit.stdout.strip() or None,
    }


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**provenance(), **result}, indent=1) + "\n")


def check(lines: list[Line]) -> int:
    """Prints every line. Returns: 1 where one is missed, else 0."""
    for line in lines:
        print(f"{'met   ' if line.met else 'MISSED'} {line.name}: {line.value:.4g}, {line.bound} {line.limit:g}", flush=True)
    return 0 if all(line.met for line in lines) else 1
