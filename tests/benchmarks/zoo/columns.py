"""The columns of one file: `python -m tests.benchmarks.zoo.columns FILE.onnx` prints each as a line of JSON when it is known.

In a process of its own for each file, so that a crash, too, is one column of one file.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.admission import admit
from compressor.artifacts import runtime, sparse_onnx
from compressor.config import CompressionConfig
from compressor.graph.write import float_tensors
from compressor.variational.posterior import Posterior
from tests.benchmarks.stock import run_alone
from tests.benchmarks.zoo.recipe import RandomTarget, fit_posterior_briefly

PARITY = 1e-5  # max|difference| / max|ONNX Runtime's|
COVERAGE = 0.9  # what is left are tables of positions and the like, which reach no linear operator
SPARSITY = 0.8


@dataclass(frozen=True)
class Column:
    """`value` is what the table shows; `reason` says why it did not pass."""

    name: str
    passed: bool
    value: str = ""
    reason: str = ""


class FileCheck:
    """The steps over one file, in the order of COLUMNS; each gives whether it passed and what to show."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path = path
        self._pruned = scratch / "pruned.onnx"
        self._masks: dict[str, Tensor] = {}

    def import_file(self) -> tuple[bool, str]:
        admitted = admit(self._path, CompressionConfig())
        self._model, self._module = admitted.proto, admitted.module.eval()
        with np.load(self._path.with_suffix(".npz")) as rows:
            self._rows = [rows[spec.name] for spec in self._module.inputs]
        self._inputs = [torch.from_numpy(array) for array in self._rows]
        return True, f"{len(self._module.weight_names)}"

    def parity(self) -> tuple[bool, str]:
        return self._parity(runtime.run(self._path, self._rows, output=self._module.output.name, batch_size=len(self._rows[0])))

    def coverage(self) -> tuple[bool, str]:
        """Elements of the weights among those of all float tensors of two or more dimensions."""
        tensors = self._module.tensors()
        covered = sum(tensors[name].numel() for name in self._module.weight_names)
        part = covered / sum(array.size for array in float_tensors(self._model).values() if array.ndim >= 2)
        return COVERAGE <= part <= 1.0, f"{part:.1%}"

    def loss(self) -> tuple[bool, str]:
        with torch.no_grad():
            readout = RandomTarget.like(self._module(*self._inputs, logits=True))
        before = self._mean_nll(readout)
        self._posterior: Posterior = fit_posterior_briefly(self._module, self._inputs, readout)
        after = self._mean_nll(readout)
        return after < before, f"{before:.3g} > {after:.3g}"

    def prune(self) -> tuple[bool, str]:
        """The weights of highest log_alpha over all tensors together, set to 0."""
        log_alpha = torch.cat([values.flatten() for values in self._posterior.log_alpha().values()])
        kept = int((1 - SPARSITY) * log_alpha.numel())
        self._masks = self._posterior.keep_masks(float(log_alpha.kthvalue(kept + 1).values))
        tensors = self._module.tensors()
        with torch.no_grad():
            for name, mask in self._masks.items():
                tensors[name].mul_(mask)
        zeros = sum(int((tensors[name] == 0).sum()) for name in self._masks) / log_alpha.numel()
        return SPARSITY <= zeros < SPARSITY + 0.01, f"{zeros:.1%}"

    def write_back(self) -> tuple[bool, str]:
        """Into the file's own graph, and every tensor read again as it was written."""
        arrays = {name: tensor.detach().numpy() for name, tensor in self._module.tensors().items()}
        sparse_onnx.write(self._pruned, self._model, arrays)
        found = sparse_onnx.read(self._pruned)
        same = all(np.array_equal(found[name], array.astype(found[name].dtype)) for name, array in arrays.items())
        return same, f"{self._path.stat().st_size / self._pruned.stat().st_size:.1f}x"

    def parity_of_pruned(self) -> tuple[bool, str]:
        """In a process that has none of our writers."""
        names = [spec.name for spec in self._module.inputs]
        return self._parity(run_alone(self._pruned, dict(zip(names, self._rows, strict=True)), self._module.output.name)[0])

    def _parity(self, theirs: np.ndarray) -> tuple[bool, str]:
        with torch.no_grad():
            ours = self._module(*self._inputs).numpy()
        if ours.shape != theirs.shape:
            return False, f"{ours.shape} against {theirs.shape}"
        difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        return difference <= PARITY, f"{difference:.1e}"  # NaN does not pass

    @torch.no_grad()
    def _mean_nll(self, readout: RandomTarget) -> float:
        return float(readout.mean_nll(self._module(*self._inputs, logits=True), torch.arange(len(readout.target))))


COLUMNS: dict[str, Callable[[FileCheck], tuple[bool, str]]] = {
    "import": FileCheck.import_file,
    "parity": FileCheck.parity,
    "coverage": FileCheck.coverage,
    "loss": FileCheck.loss,
    "pruned": FileCheck.prune,
    "written": FileCheck.write_back,
    "parity pruned": FileCheck.parity_of_pruned,
}


def columns_of(path: Path) -> Iterator[Column]:
    """The columns of one file in order; what raises is the last one."""
    with tempfile.TemporaryDirectory() as scratch:
        check = FileCheck(path, Path(scratch))
        for name, step in COLUMNS.items():
            try:
                passed, value = step(check)
            except Exception as error:  # the table names it
                yield Column(name, False, reason=f"{type(error).__name__}: {error}"[:500])
                return
            yield Column(name, passed, value, "" if passed else f"{name} is {value}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for column in columns_of(Path(sys.argv[1])):
        print(json.dumps(asdict(column)), flush=True)
