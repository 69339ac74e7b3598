"""Stock ONNX Runtime on the CPU: the outputs of a model file, and how long they take."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from compressor.errors import UnsupportedModel
from compressor.report import Latency, LatencyValue

Array = npt.NDArray[Any]

# What ONNX Runtime takes from numpy, which has no bfloat16 of its own.
_TYPES: dict[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def run(model: Path | bytes, inputs: Sequence[Array], *, output: str | None = None, batch_size: int = 32, num_threads: int = 1) -> Array:
    """The output of `model` for all rows, in batches.

    Args:
        model: an ONNX file, or its bytes.
        inputs: an array [N, ...] per input of the model, in order; cast to the input's type.
        output: name of the output; the first where it is absent.
        batch_size: rows per run at most, where the graph has not its own number baked in; then the last batch is padded. No more than a
            step of training has, whose memory has been looked at before.
        num_threads: threads of ONNX Runtime.
    Returns: the output's rows [N, ...].
    Raises: UnsupportedModel where ONNX Runtime cannot load or run the model, or takes no numpy array for an input.
    """
    num_rows = len(inputs[0])
    session = _Session(model, output, max(1, min(batch_size, num_rows)), num_threads)
    starts = range(0, num_rows, session.size)
    return np.concatenate([session.run(_batch(inputs, start, session.size))[: num_rows - start] for start in starts])


def measure_latency(
    dense: Path | bytes,
    delivered: Path | bytes,
    inputs: Sequence[Array],
    *,
    output: str | None = None,
    batch_size: int = 1,
    num_threads: int = 1,
    num_runs: int = 200,
    max_seconds: float = 10.0,
) -> Latency:
    """How long one run takes, dense and delivered in turn, so that a slow moment of the machine hits both.

    Inputs and output are bound before: what Python would take to hand them over, some microseconds, is not counted.

    Args:
        dense: the uploaded model.
        delivered: the compressed model.
        inputs: rows to run on, as for `run`.
        output: name of the output; the first where it is absent.
        batch_size: rows per run, where the graph has not its own number baked in.
        num_threads: threads of ONNX Runtime.
        num_runs: timed runs of each model, after a tenth as many that are not timed.
        max_seconds: after this time no further pair is started, once there are three.
    Returns: median, 5 % and 95 % quantile in milliseconds.
    Raises: UnsupportedModel where ONNX Runtime cannot load or run one of them.
    """
    dense_session, delivered_session = (_Session(model, output, batch_size, num_threads) for model in (dense, delivered))
    batch = _batch(inputs, 0, dense_session.size)
    run_dense, run_delivered = dense_session.bind(batch), delivered_session.bind(batch)
    deadline = time.perf_counter() + max_seconds
    times: list[tuple[float, float]] = []
    for index in range(-(num_runs // 10), num_runs):
        pair = (_milliseconds(run_dense), _milliseconds(run_delivered))
        if index >= 0:
            times.append(pair)
        if len(times) >= 3 and time.perf_counter() > deadline:
            break
    of_dense, of_delivered = zip(*times, strict=True)
    return Latency(
        dense=_to_value(of_dense),
        delivered=_to_value(of_delivered),
        batch_size=dense_session.size,
        num_runs=len(times),
        num_threads=num_threads,
    )


class _Session:
    """A model in ONNX Runtime, and how many rows a batch of it has. Whatever it refuses is an UnsupportedModel."""

    def __init__(self, model: Path | bytes, output: str | None, batch_size: int, num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        # Errors are raised; its warnings on stderr are about optimisations.
        options.log_severity_level = 4
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _cannot(error, "load") from error
        self._specs = self._session.get_inputs()
        for spec in self._specs:
            if spec.type not in _TYPES:
                raise UnsupportedModel(
                    f"The input {spec.name!r} is a {spec.type}, which cannot be fed to ONNX Runtime from numpy.",
                    param=spec.name,
                    suggestion="Export the model with inputs of float32, float16 or integers, and a Cast behind them where needed.",
                )
        self._output = output or self._session.get_outputs()[0].name
        static = next((spec.shape[0] for spec in self._specs if spec.shape and isinstance(spec.shape[0], int)), None)
        self.size: int = static or batch_size

    def run(self, batch: Sequence[Array]) -> Array:
        try:
            return np.asarray(self._session.run([self._output], self._feeds(batch))[0])
        except Exception as error:
            raise _cannot(error, "run") from error

    def bind(self, batch: Sequence[Array]) -> Callable[[], None]:
        """A function that runs the model on `batch`, and has run it once."""
        binding = self._session.io_binding()
        for name, rows in self._feeds(batch).items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(rows))
        binding.bind_output(self._output)

        def run_bound() -> None:
            self._session.run_with_iobinding(binding)

        try:
            run_bound()
        except Exception as error:
            raise _cannot(error, "run") from error
        return run_bound

    def _feeds(self, batch: Sequence[Array]) -> dict[str, Array]:
        return {spec.name: rows.astype(_TYPES[spec.type], copy=False) for spec, rows in zip(self._specs, batch, strict=True)}


def _batch(inputs: Sequence[Array], start: int, size: int) -> list[Array]:
    """Rows `start` to `start + size` of every input, the last row repeated where there are not so many."""
    rows = np.minimum(np.arange(start, start + size), len(inputs[0]) - 1)
    return [array[rows] for array in inputs]


def _cannot(error: Exception, verb: str) -> UnsupportedModel:
    # ONNX Runtime's exceptions have no base class of their own.
    return UnsupportedModel(
        f"ONNX Runtime cannot {verb} the model: {str(error)[:300]}",
        param="model",
        suggestion=f"Check that ONNX Runtime {onnxruntime.__version__} runs the file on the CPU; export it again where it does not.",
    )


def _milliseconds(run: Callable[[], None]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


def _to_value(times: Sequence[float]) -> LatencyValue:
    low, median, high = np.quantile(times, (0.05, 0.5, 0.95))
    return LatencyValue(median_ms=float(median), p05_ms=float(low), p95_ms=float(high))
