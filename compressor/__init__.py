"""Sparse variational dropout for ONNX models: `compress` is the whole library in one call.

    from compressor import CompressionConfig, DataReference, compress
    report = compress("model.onnx", DataReference(train="train.parquet"), CompressionConfig(), "out")

Importing this package imports no torch: `compress` and `load_csr` are resolved on first use, so that the service can import
`compressor.config`, `compressor.errors`, `compressor.report` and `compressor.protocol` in an environment without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from compressor.config import CompressionConfig
from compressor.errors import CompressionError
from compressor.protocol import DataReference, Progress
from compressor.report import Report

if TYPE_CHECKING:
    from compressor.artifacts.csr import load_csr
    from compressor.pipeline import compress

__version__ = "0.1.0"

_NEEDS_TORCH = {"compress": "compressor.pipeline", "load_csr": "compressor.artifacts.csr"}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module(_NEEDS_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CompressionConfig",
    "CompressionError",
    "DataReference",
    "Progress",
    "Report",
    "__version__",
    "compress",
    "load_csr",
]
