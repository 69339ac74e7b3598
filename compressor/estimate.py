"""What training a model would take, without training it: memory and work counted, the machine's speed measured, the time put together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.admission import training_cost
from compressor.errors import GraphTooLarge
from compressor.graph.gaussian import with_noise
from compressor.graph.module import OnnxModule
from compressor.inspection import Estimate
from compressor.machine import available_bytes
from compressor.training.schedule import LARGEST_DEFAULT_BATCH_SIZE, SMALLEST_DEFAULT_BATCH_SIZE
from compressor.training.threads import sensible_threads

# Rows that the cost is counted for: two points of a straight line. One row alone has no batch statistics.
_FEW, _MORE = 2, 4
_MAX_BATCH_SIZE = 65_536  # of CompressionConfig

# Seconds of a step, fitted to 27 measured ones of twelve networks (tests/benchmarks/inspect.py has four of them): what the matrix
# products take in forward passes at the speed of a square one; what goes with each byte of activations, and of weights, in times that
# noise for a byte takes; and what a node takes in Python, forth and back.
_PASSES = 2.4
_PER_ACTIVATION_BYTE = 0.29
_PER_WEIGHT_BYTE = 1.28
_SECONDS_PER_NODE = 76e-6

_PRODUCT_SIDE = 512
_NOISE_ELEMENTS = 2**20
_ELEMENT_BYTES = 4


@dataclass(frozen=True)
class Speed:
    """What this machine does in a second with the threads that torch has now: flops of a square product, bytes of noise."""

    flops: float
    noise_bytes: float


def estimate_training(module: OnnxModule, example: Sequence[Tensor], batch_size: int | None, *, on_cpu: bool) -> Estimate | None:
    """Memory and time of fitting the posterior.

    Args:
        module: on the CPU.
        example: rows on which it runs, as `module.example`.
        batch_size: rows of a step; None where the run is to find out how many of its default fit.
        on_cpu: whether the run would train on the CPU; the time is only estimated for that.
    Returns: None where not even a few rows fit.
    Raises: InvalidModel, UnsupportedModel as `training_cost`.
    Accuracy:
        Time: 0.6 to 1.45 of that measured, on one thread and on two, of MLPs, LeNets, a ResNet-18 at 32 and 64 pixels, a VGG, a MobileNet,
        an LSTM and two transformers, on one idle x86-64 machine. Other work on the machine is not foreseen. Up to 2.2 times
        that measured of convolutional networks in large batches, since it counts outputs drawn where the run draws weights (`conv_noise`).
        Memory: 0.8 to 1.1 of the peak of convolutional networks and MLPs; up to 2.7 times that of transformers, of whose tensors many
        are gone before the last is made. A run refuses a batch by the same count.
    """
    try:
        few, more = (training_cost(module, [tensor[:1].expand(rows, *tensor.shape[1:]) for tensor in example]) for rows in (_FEW, _MORE))
    except GraphTooLarge:
        return None
    row_bytes = (more.bytes - few.bytes) / (_MORE - _FEW)
    fixed_bytes = few.bytes - _FEW * row_bytes
    row_flops = (more.flops - few.flops) / (_MORE - _FEW)
    largest = max(0, min(_MAX_BATCH_SIZE, int((available_bytes() - fixed_bytes) / max(1.0, row_bytes))))
    batch_size = _default_that_fits(largest) if batch_size is None else batch_size
    with sensible_threads(row_flops * batch_size) as threads:
        seconds = _step_seconds(module, row_flops * batch_size, row_bytes * batch_size) if on_cpu else None
    return Estimate(
        batch_size=batch_size,
        training_bytes=round(fixed_bytes + row_bytes * batch_size),
        largest_batch_size=largest,
        flops_per_row=round(row_flops),
        seconds_per_1000_rows=None if seconds is None else seconds * 1000 / batch_size,
        num_threads=threads,
        assumed_shapes={
            spec.name: tuple(tensor.shape[1:]) for spec, tensor in zip(module.inputs, example, strict=True) if None in spec.shape[1:]
        },
    )


def _default_that_fits(largest: int) -> int:
    rows = LARGEST_DEFAULT_BATCH_SIZE
    while rows > max(largest, SMALLEST_DEFAULT_BATCH_SIZE):
        rows //= 2
    return rows


def _step_seconds(module: OnnxModule, flops: float, activation_bytes: float) -> float:
    speed = measure_speed()
    tensors = module.tensors()
    weight_bytes = _ELEMENT_BYTES * sum(tensors[name].numel() for name in module.weight_names)
    noise = _PER_ACTIVATION_BYTE * activation_bytes + _PER_WEIGHT_BYTE * weight_bytes
    return _PASSES * flops / speed.flops + noise / speed.noise_bytes + _SECONDS_PER_NODE * sum(module.operators.values())


def measure_speed() -> Speed:
    """The best of a few short runs, 0.04 seconds together: whatever else the machine does must not count."""
    square = torch.ones(_PRODUCT_SIDE, _PRODUCT_SIDE)
    product = torch.empty_like(square)
    vector = torch.ones(_NOISE_ELEMENTS)
    with torch.random.fork_rng(devices=[]):
        seconds_of_noise = _best_seconds(lambda: with_noise(vector, vector), 4)
    return Speed(
        flops=2 * _PRODUCT_SIDE**3 / _best_seconds(lambda: torch.mm(square, square, out=product), 8),
        noise_bytes=_ELEMENT_BYTES * _NOISE_ELEMENTS / seconds_of_noise,
    )


def _best_seconds(run: Callable[[], object], times: int) -> float:
    def seconds() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return min(seconds() for _ in range(times))
