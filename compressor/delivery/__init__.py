"""From the search's outcome to files and report: a smaller graph, files written and read back, one look at the test rows, the sum of it."""

from compressor.delivery.files import MODEL, Delivered, deliver, file_sha256, finite_outputs, quantise, verify_files, write_model
from compressor.delivery.measuring import measure, measure_bytes
from compressor.delivery.report import count_weights, describe_size, make_report, show_metric
from compressor.delivery.writing import validation_rows, verify, write_artifacts

__all__ = [
    "MODEL",
    "Delivered",
    "count_weights",
    "deliver",
    "describe_size",
    "file_sha256",
    "finite_outputs",
    "make_report",
    "measure",
    "measure_bytes",
    "quantise",
    "show_metric",
    "validation_rows",
    "verify",
    "verify_files",
    "write_artifacts",
    "write_model",
]
