"""`bayespress compress` without a run: its options, its target folder, its exit codes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from compressor.config import CompressionConfig
from compressor.errors import ClientError, GateNotMet, InvalidConfig, Problem, error_classes
from service.cli import main
from service.foreground import exit_code, read_config
from tests.compressor.graph.models import linear_model


def to_problem(code: str) -> Problem:
    return Problem(type="urn:x", title="t", status=500, detail="d", code=code)


def test_exit_codes_of_the_whole_error_tree() -> None:
    codes = {cls: exit_code(to_problem(cls.code)) for cls in error_classes()}
    assert {cls for cls, code in codes.items() if code == 2} == {cls for cls in codes if issubclass(cls, ClientError)}
    assert {cls for cls, code in codes.items() if code == 3} == {GateNotMet}
    assert exit_code(to_problem("from_a_newer_version")) == 1


@pytest.mark.parametrize(("name", "text"), [("c.json", '{"seed": 5, "epochs": 2}'), ("c.toml", "seed = 5\nepochs = 2\n")])
def test_set_wins_over_the_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = read_config(tmp_path / name, ["epochs=7", "prior=log_uniform", "thresholds=[1, 2.5]", "max_metric_drop=null"])
    assert config == CompressionConfig(seed=5, epochs=7, prior="log_uniform", thresholds=(1.0, 2.5))


@given(seed=st.integers(0, 2**63 - 1), drop=st.floats(0, 0.99), label=st.text(min_size=1, max_size=50).map(json.dumps))
def test_set_reads_every_json_value_back(seed: int, drop: float, label: str) -> None:
    config = read_config(None, [f"seed={seed}", f"max_metric_drop={drop!r}", f"label_column={label}"])
    assert (config.seed, config.max_metric_drop, config.label_column) == (seed, drop, json.loads(label))


@pytest.mark.parametrize(
    ("name", "text", "settings", "param"),
    [
        ("c.json", "{", [], "config"),
        ("c.json", "[1]", [], "config"),
        ("c.toml", "seed = ", [], "config"),
        ("c.toml", "sparsity = 0.9", [], "sparsity"),
        (None, "", ["seed"], "--set"),
        (None, "", ["seed=-1"], "seed"),
        ("absent.toml", None, [], "config"),
    ],
)
def test_wrong_options_name_their_place(tmp_path: Path, name: str | None, text: str | None, settings: list[str], param: str) -> None:
    path = tmp_path / name if name else None
    if path and text is not None:
        path.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        read_config(path, settings)
    assert caught.value.param == param
    assert caught.value.suggestion


def run(*arguments: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, ["compress", *arguments])
    return result.exit_code, result.stderr.splitlines()


def test_three_lines_say_what_where_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "net.onnx"
    model.write_bytes(linear_model().SerializeToString())
    (tmp_path / "net-compressed").mkdir()
    (tmp_path / "net-compressed" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("")
    wrong = {
        ("absent.onnx", "builtin:digits"): ("invalid_model", "model"),
        ("net.onnx", "absent.parquet"): ("invalid_dataset", "dataset"),
        ("net.onnx", "builtin:digits", "--test", "absent.npz"): ("invalid_dataset", "test"),
        ("net.onnx", "builtin:digits", "--set", "sparsity=0.9"): ("invalid_config", "sparsity"),
        ("net.onnx", "builtin:digits"): ("client_error", "out"),
        ("net.onnx", "builtin:digits", "--out", "file"): ("client_error", "out"),
    }
    for arguments, (code, param) in wrong.items():
        exit_status, (what, where, remedy) = run(*arguments)
        assert exit_status == 2
        assert what.startswith("error: ")
        assert f"({code})" in what
        assert where == f"where: {param}"
        assert remedy.startswith("do:    ")
        assert remedy != "do:    -"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine.txt", "net-compressed", "net.onnx"]


def test_wrong_usage() -> None:
    assert run()[0] == 2
    assert run("a", "b", "--target-sparsity", "0.9")[0] == 2
