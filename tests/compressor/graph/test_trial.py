"""How much the first run of a graph may take. What comes of too much is in test_hostile.py, what runs in which batch in test_module.py."""

import pytest

from compressor.errors import GraphTooLarge
from compressor.graph import trial
from compressor.graph.meter import RunLimits
from compressor.graph.module import OnnxModule
from compressor.graph.trial import trial_limits
from tests.compressor.graph.models import linear_model

NOTHING = RunLimits(bytes=0, live_bytes=0, flops=0, elements=0, seconds=2.0)


def test_who_brings_parameters_may_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_LIMITS", NOTHING)
    module = OnnxModule(linear_model())
    assert module.example is not None
    monkeypatch.setattr(trial, "_PER_PARAMETER", RunLimits(bytes=1, live_bytes=1, flops=1, elements=1))
    with pytest.raises(GraphTooLarge):
        OnnxModule(linear_model())


def test_limits_are_those_of_the_rows_and_the_time_stays() -> None:
    one, three = (trial_limits(OnnxModule(linear_model()), times) for times in (1, 3))
    assert (three.bytes, three.live_bytes, three.flops, three.elements) == tuple(
        3 * limit for limit in (one.bytes, one.live_bytes or 0, one.flops or 0, one.elements or 0)
    )
    assert three.seconds == one.seconds


def test_no_limit_stays_none() -> None:
    unlimited = RunLimits(bytes=7)
    assert unlimited.times(2) == RunLimits(bytes=14)
    assert unlimited.plus(RunLimits(bytes=1, flops=1)) == RunLimits(bytes=8)
