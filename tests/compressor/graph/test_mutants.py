"""What the fuzzer has found once (python -m tests.benchmarks.fuzz): refused or let in rightly from then on."""

from pathlib import Path

import pytest

from tests.benchmarks.fuzz.judge import judge

CODES = {
    "cast-that-saturates": "unsupported_model",  # let in where the memory that ONNX Runtime left as it was happened to fit
    "split-into-2-to-the-31": "invalid_model",  # took minutes
}


@pytest.mark.parametrize("path", sorted(Path(__file__).with_name("mutants").glob("*.onnx")), ids=lambda path: path.stem)
def test_a_mutant_that_was_a_finding(path: Path) -> None:
    assert judge(path) == CODES[path.stem]


def test_every_mutant_is_there() -> None:
    assert {path.stem for path in Path(__file__).with_name("mutants").glob("*.onnx")} == CODES.keys()
