"""The files of tests.benchmarks.hostile, in this process: each has its code, its place and a remedy, and none does anything else."""

from pathlib import Path

import pytest

from compressor.admission import admit
from compressor.config import CompressionConfig
from compressor.errors import CompressionError
from tests.benchmarks.hostile import CASES
from tests.benchmarks.hostile.case import HARMLESS, Case

# Attacks on readers of ONNX files that are known to have worked somewhere; each has a case, and most have several.
ROWS = {
    "external data absolute or outside cwd",
    "external data INSIDE cwd, model given as BYTES",
    "sparse external bypass, links, traversal",
    "node name with Python in it",
    "ConstantOfShape 160 GB",
    "Concat doubling x40",
    "dims 2^40 with 64 raw bytes",
    "sparse_initializer 200000^2",
    'local functions "billion laughs"',
    "If/Loop/Scan; nested If",
    "custom domains, com.microsoft",
    "2 GiB protobuf",
}


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_slow], ids=lambda case: case.name)
def test_hostile_files_are_refused_or_do_nothing(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.onnx"
    made = case.make(str(tmp_path / "elsewhere" / "planted.bin"))
    with path.open("wb") as file:
        file.write(b"" if isinstance(made, int) else made)
        if isinstance(made, int):
            file.truncate(made)
    if case.code == HARMLESS:
        admit(path, CompressionConfig())
    else:
        with pytest.raises(CompressionError) as caught:
            admit(path, CompressionConfig())
        assert caught.value.code == case.code
        assert caught.value.param
        assert caught.value.suggestion
    assert list(tmp_path.iterdir()) == [path]


def test_every_known_attack_is_among_them() -> None:
    assert {case.row for case in CASES} - {"own"} == ROWS
    assert len({case.name for case in CASES}) == len(CASES)
