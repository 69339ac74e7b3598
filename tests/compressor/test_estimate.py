"""The estimate of a run: what is counted, and how time is put together from it; tests/benchmarks/inspect.py has real steps beside it."""

import onnx
import pytest

from compressor.estimate import Speed, estimate_training, measure_speed
from compressor.graph.module import OnnxModule
from compressor.inspection import Estimate
from tests.compressor.graph.models import linear_model
from tests.compressor.graph.networks import exported


def estimated(module: OnnxModule, batch_size: int, *, on_cpu: bool = True) -> Estimate:
    assert module.example is not None
    found = estimate_training(module, module.example, batch_size, on_cpu=on_cpu)
    assert found is not None
    return found


def seconds(module: OnnxModule, batch_size: int) -> float:
    found = estimated(module, batch_size).seconds_per_1000_rows
    assert found is not None
    return found


@pytest.fixture
def module() -> OnnxModule:
    return OnnxModule(linear_model())


def at_speed(monkeypatch: pytest.MonkeyPatch, flops: float, noise_bytes: float) -> None:
    monkeypatch.setattr("compressor.estimate.measure_speed", lambda: Speed(flops, noise_bytes))


def test_flops_are_those_of_the_products_and_of_their_variance(module: OnnxModule) -> None:
    assert estimated(module, 64).flops_per_row == 2 * 2 * (4 * 5 + 5 * 3)


def test_time_is_that_of_products_noise_and_nodes(module: OnnxModule, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = float("inf")
    at_speed(monkeypatch, flops=1e6, noise_bytes=endless)
    assert seconds(module, 1000) == pytest.approx(2.4 * 1000 * 140 / 1e6 + 4 * 76e-6)
    at_speed(monkeypatch, flops=endless, noise_bytes=endless)
    assert [seconds(module, rows) for rows in (1000, 500, 1)] == pytest.approx([4 * 76e-6 * steps for steps in (1, 2, 1000)])
    at_speed(monkeypatch, flops=endless, noise_bytes=1e3)
    small, large = estimated(module, 500), estimated(module, 1000)
    activations = 2 * (large.training_bytes - small.training_bytes)
    assert large.seconds_per_1000_rows == pytest.approx((0.29 * activations + 1.28 * 4 * 35) / 1e3 + 4 * 76e-6)


def test_without_a_batch_there_are_parameters_gradients_and_the_optimiser(module: OnnxModule) -> None:
    at_one, at_two = (estimated(module, rows).training_bytes for rows in (1, 2))
    assert 2 * at_one - at_two >= 32 * 35 + 16 * 5


def test_no_time_is_given_for_another_device(module: OnnxModule) -> None:
    assert estimated(module, 64, on_cpu=False).seconds_per_1000_rows is None


def test_without_memory_for_a_few_rows_there_is_no_estimate(module: OnnxModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.admission.available_bytes", lambda: 1000)
    assert module.example is not None
    assert estimate_training(module, module.example, 64, on_cpu=True) is None


@pytest.mark.parametrize("name", ["lenet", "lstm", "encoder", "mobilenet"])
def test_a_larger_batch_takes_more_memory_and_no_more_time_for_a_row(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_speed(monkeypatch, flops=1e11, noise_bytes=1e9)
    module = OnnxModule(onnx.load_from_string(exported(name, "dynamo")))
    small, large = estimated(module, 16), estimated(module, 256)
    assert small.training_bytes < large.training_bytes
    assert seconds(module, 256) < seconds(module, 16)
    assert (small.flops_per_row, small.largest_batch_size) == (large.flops_per_row, large.largest_batch_size)


def test_the_speed_of_the_machine_is_one_that_a_machine_may_have() -> None:
    speed = measure_speed()
    assert 1e8 < speed.flops < 1e15
    assert 1e7 < speed.noise_bytes < 1e13
