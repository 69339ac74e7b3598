"""The checkpoint that a killed run goes on from: one safetensors file, its state as JSON in the header, replaced atomically."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressor.atomic import replacing

_FORMAT_VERSION = 1
_SAVE_EVERY_S = 5.0


State = dict[str, Any]


class CheckpointFile:
    """Reads and writes the checkpoint of one run.

    Args:
        path: where it lies; None keeps none.
        fingerprint: of the model, the data and the configuration; a checkpoint of anything else is not resumed.
        device: where its tensors go.
        on_saved: called when the file at `path` has just been replaced.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        path: Path | None,
        fingerprint: str,
        device: torch.device,
        on_saved: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._device = device
        self._on_saved = on_saved
        self._clock = clock
        self._started = self._last_save = clock()
        self.seconds_before = 0.0  # spent by the attempts that this one goes on from

    def is_due(self) -> bool:
        """Whether the last one is old enough for the next to be worth its time."""
        return self._path is not None and self._clock() - self._last_save >= _SAVE_EVERY_S

    def save(self, state: State, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the file in one step: a reader, or a crash, sees the old one or the new one.

        Args:
            state: JSON-serialisable position in the run.
            tensors: by names of the run's own making, never by names of the client's file.
        """
        if self._path is None:
            return
        seconds = self.seconds_before + self._clock() - self._started
        header = {"format_version": _FORMAT_VERSION, "fingerprint": self._fingerprint, "state": state, "seconds": seconds}
        with replacing(self._path) as partial:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {"checkpoint": json.dumps(header)})
        self._last_save = self._clock()
        self._on_saved()

    def load(self) -> tuple[State, dict[str, Tensor]] | None:
        """State and tensors; None where there is no checkpoint, or one of another run or version."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt", device=str(self._device)) as file:
                header = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
                if header.get("format_version") != _FORMAT_VERSION or header.get("fingerprint") != self._fingerprint:
                    return None
                self.seconds_before = header["seconds"]
                return header["state"], {name: file.get_tensor(name) for name in list(file.keys())}
        except SafetensorError:
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
