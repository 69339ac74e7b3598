"""`bayespress inspect` without a run: its options, its exit codes, and what it shows of an inspection."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from compressor.errors import InvalidModel, Problem
from compressor.inspection import (
    Estimate,
    InputTensor,
    Inspection,
    ModelFile,
    OutputTensor,
    ParameterCounts,
    UncoveredTensor,
    VariationalWeight,
)
from service.cli import main
from service.overview import MAX_ROWS, print_inspection
from service.summary import print_problem
from tests.compressor.graph.models import linear_model

MODEL = linear_model().SerializeToString()


def run(*arguments: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, ["inspect", *arguments])
    return result.exit_code, result.stderr.splitlines()


def test_three_lines_say_what_where_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(MODEL)
    wrong = {
        ("absent.onnx",): ("invalid_model", "model"),
        ("net.onnx", "--set", "sparsity=0.9"): ("invalid_config", "sparsity"),
        ("net.onnx", "--output", ""): ("invalid_config", "output"),
        ("net.onnx", "--config", "absent.toml"): ("invalid_config", "config"),
        ("net.onnx", "--out", "."): ("client_error", "out"),
        ("net.onnx", "--out", "absent/a.json"): ("client_error", "out"),
        ("net.onnx", "--out", "net.onnx"): ("client_error", "out"),
    }
    for arguments, (code, param) in wrong.items():
        exit_status, (what, where, remedy) = run(*arguments)
        assert exit_status == 2
        assert what.startswith("error: ")
        assert f"({code})" in what
        assert where == f"where: {param}"
        assert remedy.startswith("do:    ")
        assert remedy != "do:    -"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("net.onnx", MODEL)]


def test_a_problem_is_json_too_where_json_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"model")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "net.onnx"), "--json"])
    assert result.exit_code == 2
    problem = Problem.model_validate_json(result.stdout)
    assert (problem.code, problem.param) == ("invalid_model", "model")
    assert problem.detail in result.stderr


def test_a_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros(3))
    exit_status, (what, *_) = run(str(tmp_path / "rows.npz"))
    assert exit_status == 2
    assert ".npz" in what


def test_a_problem_is_no_command_of_the_terminal() -> None:
    output = io.StringIO()
    error = InvalidModel("Fo\x1b]0;owned\x07\x1b[2Jo", param="\x1b[31m", suggestion="\x9b1m")
    print_problem(error.to_problem(), Console(file=output))
    assert output.getvalue().replace("\n", "").isprintable()


def test_wrong_usage() -> None:
    assert run()[0] == 2
    assert run("a", "builtin:digits")[0] == 2


def inspection(name: str = "w", num_weights: int = 1, estimate: Estimate | None = None) -> Inspection:
    return Inspection(
        verdict="One sentence.",
        warnings=[f"beware of {name}"],
        file=ModelFile(bytes=1000, sha256="0", opset=17, producer="", operators={"MatMul": 2}, num_nodes_left_out=0),
        inputs=[InputTensor(name=name, dtype="float32", shape=(None, 3))],
        outputs=[
            OutputTensor(name="y", dtype="float32", shape=(None, 2), taken=True, selectable=True),
            OutputTensor(name="z", dtype="float32", shape=(None, 4), taken=False, selectable=True),
            OutputTensor(name="map", dtype="sequence_type", shape=None, taken=False, selectable=False),
        ],
        head="softmax",
        tasks=["classification"],
        num_classes=2,
        batch="dynamic",
        parameters=ParameterCounts(numel=10, variational=6, without_noise=4, fixed=0),
        weights=[
            VariationalWeight(name=f"{name}{index}", shape=(3, 2), numel=6, treatments=["sampled once"]) for index in range(num_weights)
        ],
        treatments={"sampled once": 6 * num_weights},
        coverage=0.6,
        not_covered=[UncoveredTensor(name="b", shape=(1, 4), numel=4, trained=True, reason="it is a bias or scale (Add node 'a')")],
        estimate=estimate,
    )


def shown(found: Inspection) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_inspection(found, Path("folder/net.onnx"), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_is_shown() -> None:
    memory = {"batch_size": 64, "training_bytes": 2**30, "largest_batch_size": 1500, "flops_per_row": 1_000_000}
    text = shown(inspection(estimate=Estimate(**memory, seconds_per_1000_rows=1.234, num_threads=2, assumed_shapes={})))
    for part in (
        *("net.onnx: 1,000 B, opset 17, producer unknown", "One sentence.", "taken: softmax, 2 classes", "may be named with --output"),
        *("w0", "[3, 2]", "sampled once", "it is a bias or scale (Add node 'a'); it trains without noise", "MatMul 2", "beware of w"),
        *("batch 64: 1.00 GiB of memory (at most 1,500 rows a batch fit here)", "1.2 s for 1,000 rows, once through, on 2 threads"),
    ):
        assert part in text
    assert " s for 1,000 rows" not in shown(inspection())


def test_names_of_the_file_are_no_commands() -> None:
    text = shown(inspection(name="\x1b]0;title\x07[bold]\x9b2J"))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "]0;title\ufffd[bold]\ufffd2J" in text


def test_a_long_table_ends_with_how_much_more_there_is() -> None:
    text = shown(inspection(num_weights=MAX_ROWS + 7))
    assert f"w{MAX_ROWS - 1} " in text
    assert f"w{MAX_ROWS} " not in text
    assert "and 7 more: --json has them all" in text
