"""The zoo's own parts, and its columns on LeNet-5, which is built here without the extra."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compressor.artifacts import runtime
from tests.benchmarks.stock import run_alone
from tests.benchmarks.zoo import __main__ as zoo
from tests.benchmarks.zoo.builders.__main__ import write_exports
from tests.benchmarks.zoo.catalogue import FAMILIES, FAMILY_OF
from tests.benchmarks.zoo.columns import COLUMNS, Column, columns_of
from tests.benchmarks.zoo.environments import exporters, keras
from tests.benchmarks.zoo.results import FileResult, NotExported, exit_code, header, row, summary

PASSED = [Column(name, True, "1") for name in COLUMNS]
FAILED = [*PASSED[:2], Column("coverage", False, "2.0%", "coverage is 2.0%")]
EXPORTS = ["dynamo", "dynamo-unoptimised", "legacy", "legacy-static"]


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_exports("plain_networks", "lenet", folder)
    return folder


@pytest.fixture
def changed(lenet: Path, tmp_path: Path) -> tuple[onnx.ModelProto, Path]:
    """LeNet to change, and where to save it, beside the rows."""
    path = tmp_path / "changed.legacy.onnx"
    shutil.copy(lenet / "lenet.legacy.npz", path.with_suffix(".npz"))
    return onnx.load(lenet / "lenet.legacy.onnx"), path


def failing(path: Path) -> dict[str, str]:
    return {column.name: column.reason for column in columns_of(path) if not column.passed}


@pytest.mark.parametrize("export", EXPORTS)
def test_lenet_passes_every_column(lenet: Path, export: str) -> None:
    columns = list(columns_of(lenet / f"lenet.{export}.onnx"))
    assert [column.name for column in columns] == list(COLUMNS)
    assert [column for column in columns if not column.passed] == []


def test_an_operator_that_is_missing_is_the_reason(changed: tuple[onnx.ModelProto, Path]) -> None:
    model, path = changed
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "StringNormalizer"
    onnx.save(model, path)
    assert re.search("StringNormalizer", failing(path)["import"])
    assert len(list(columns_of(path))) == 1


def test_a_tensor_that_no_operator_takes_as_a_weight_lowers_the_coverage(changed: tuple[onnx.ModelProto, Path]) -> None:
    model, path = changed
    model.graph.initializer.append(numpy_helper.from_array(np.ones((500, 500), np.float32), "table"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["table"], ["unread"]))
    onnx.save(model, path)
    assert failing(path) == {"coverage": "coverage is 63.3%"}


def test_an_output_that_differs_by_a_hundred_thousandth_and_more_is_no_parity(lenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runtime.run
    monkeypatch.setattr(runtime, "run", lambda *args, **options: run(*args, **options) * np.float32(1.00003))
    monkeypatch.setattr("tests.benchmarks.zoo.columns.run_alone", lambda *args: (run_alone(*args)[0] * np.float32(1.00003), ""))
    assert failing(lenet / "lenet.legacy.onnx") == {"parity": "parity is 3.0e-05", "parity pruned": "parity pruned is 3.0e-05"}


def test_a_loss_that_stays_is_no_fall(lenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.zoo.recipe.NUM_STEPS", 0)
    assert list(failing(lenet / "lenet.legacy.onnx")) == ["loss"]


def test_a_process_that_dies_is_named(lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "python"
    killed.write_text('#!/bin/sh\necho \'{"name": "import", "passed": true}\'\necho no room >&2\nkill -9 $$\n')
    killed.chmod(0o755)
    monkeypatch.setattr(zoo.sys, "executable", str(killed))
    result = zoo.check_file(lenet / "lenet.legacy.onnx")
    assert not result.passed
    assert result.reasons == ["the process ended with -9: no room"]
    assert [column.name for column in result.columns] == ["import"]


@pytest.mark.parametrize(
    ("passed", "failed", "names", "code"),
    [(19, 1, ["a"], 0), (18, 2, ["a"], 1), (1, 0, ["a", "b"], 1), (0, 0, [], 1), (0, 0, ["a"], 1)],
)
def test_exit_code_says_whether_enough_files_pass(passed: int, failed: int, names: list[str], code: int) -> None:
    results = [FileResult(f"a.{index}", PASSED, 1.0) for index in range(passed)]
    results += [FileResult(f"a.x{index}", FAILED, 1.0) for index in range(failed)]
    assert exit_code(names, results) == code


def test_a_file_passes_with_all_columns_and_a_process_that_ended_well() -> None:
    assert FileResult("a.b", PASSED, 1.0).passed
    assert not FileResult("a.b", PASSED[:-1], 1.0).passed
    assert not FileResult("a.b", PASSED, 1.0, "took more than 600 s").passed


def test_the_table_marks_what_fails_and_what_was_not_reached() -> None:
    line = row(FileResult("tcn.dynamo", FAILED, 2.0))
    assert len(line) == len(header())
    assert line.split() == ["tcn.dynamo", "1", "1", "2.0%!", "-", "-", "-", "-", "2"]


def test_the_summary_names_what_fails_and_what_has_no_file() -> None:
    results = [FileResult("tcn.legacy", PASSED, 1.0), FileResult("tcn.dynamo", FAILED, 1.0)]
    assert summary(["tcn", "gpt2"], results, [NotExported("gpt2.legacy", "no aten::diff")]).splitlines() == [
        "2 architectures, 2 files; 1 pass every column (50.0%; 95% are due)",
        "  tcn.dynamo: coverage is 2.0%",
        "not exported, so not counted:",
        "  gpt2.legacy: no aten::diff",
        "no file of gpt2",
    ]


def test_the_catalogue_has_a_builder_for_every_name() -> None:
    assert len(FAMILY_OF) >= 24
    assert len(FAMILY_OF) == sum(map(len, FAMILIES.values())), "a name stands in two families"
    folder = Path(zoo.__file__).with_name("builders")
    for family, names in FAMILIES.items():
        functions = re.findall(r"^def ([a-z]\w*)\(\) -> Built:$", (folder / f"{family}.py").read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(functions) == sorted(names)


def test_the_exporters_are_pinned() -> None:
    assert {"timm", "torchvision", "transformers", "skl2onnx"} <= {pin.partition("==")[0] for pin in exporters().versions if "==" in pin}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==[0-9a-z.]+", pin) for pin in keras().versions)
    assert exporters().key != keras().key
