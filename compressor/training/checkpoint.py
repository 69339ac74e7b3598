"""The checkpoint that a killed run goes on from: one safetensors file, its state as JSON in the header, replaced atomically."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        fingerprint: of the model, the data and the configuration; a checkpoint of anything else is not resumed.
        state: JSON-serialisable position in the run.
        tensors: by names of the run's own making, never by names of the client's file.
    """

    fingerprint: str
    state: dict[str, Any]
    tensors: Mapping[str, Tensor]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the file at `path` in one step: a reader, or a crash, sees the old one or the new one."""
    header = {"format_version": _FORMAT_VERSION, "fingerprint": checkpoint.fingerprint, "state": checkpoint.state}
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, partial, {"checkpoint": json.dumps(header)})
    os.replace(partial, path)


def read_checkpoint(path: Path, fingerprint: str, device: torch.device) -> Checkpoint | None:
    """The checkpoint at `path`; None where there is none, or only one of another run or version."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
            if header.get("format_version") != _FORMAT_VERSION or header.get("fingerprint") != fingerprint:
                return None
            return Checkpoint(fingerprint, header["state"], {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None


def optimizer_tensors(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's moments and step counts, by position of their parameter."""
    states = optimizer.state_dict()["state"]
    return {f"adam/{index}/{key}": value for index, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
