"""Sparse variational dropout for ONNX models: `compress` is the whole library in one call.

    from compressor import CompressionConfig, DataReference, compress
    report = compress("model.onnx", DataReference(train="train.parquet"), CompressionConfig(), "out")

`inspect("model.onnx")` says what a run would do with a model, without training it.
`select("model.onnx", "out/curve.safetensors", CompressionConfig(point=0), "smaller")` exports another point of a run's curve.

Importing this package imports no torch: `compress`, `inspect`, `select` and `load_csr` are resolved on first use, so that the service can
import `compressor.config`, `errors`, `inspection`, `report` and `protocol` in an environment without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from compressor.config import CompressionConfig
from compressor.errors import CompressionError
from compressor.inspection import Inspection
from compressor.protocol import DataReference, Progress
from compressor.report import Report, Selection

if TYPE_CHECKING:
    from compressor.artifacts.csr import load_csr
    from compressor.artifacts.unpack import unpack
    from compressor.export import select
    from compressor.pipeline import compress
    from compressor.survey import inspect

__version__ = "0.1.0"

_NEEDS_TORCH = {
    "compress": "compressor.pipeline",
    "inspect": "compressor.survey",
    "load_csr": "compressor.artifacts.csr",
    "select": "compressor.export",
    "unpack": "compressor.artifacts.unpack",
}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module(_NEEDS_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CompressionConfig",
    "CompressionError",
    "DataReference",
    "Inspection",
    "Progress",
    "Report",
    "Selection",
    "__version__",
    "compress",
    "inspect",
    "load_csr",
    "select",
    "unpack",
]
