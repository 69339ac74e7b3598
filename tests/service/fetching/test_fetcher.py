"""References of every remote scheme, from servers that speak as the real ones do: a stub hub, moto's S3."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from compressor.errors import ClientError, InvalidDataset, InvalidModel
from service.digests import DigestMismatch
from service.fetching.errors import ReferenceRefused, ReferenceTooLarge, ReferenceUnreachable
from service.fetching.fetcher import Fetcher
from service.fetching.receiving import Fetched
from service.references import parse
from service.settings import Settings
from tests.moto_server import CREDENTIALS, moto_server, put_object
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE
from tests.service.fetching.stub import Answer, Request, answering


def fetch(folder: Path, text: str, param: str = "model_ref", **values: Any) -> Fetched:
    settings = Settings(**({"reference_schemes": ("https", "s3", "hf"), "reference_hosts": ("127.0.0.1",)} | values))
    return asyncio.run(Fetcher(settings).fetch(parse(text), param, folder / "fetched"))


def refusal(error: type[ClientError], *arguments: Any, **values: Any) -> ClientError:
    with pytest.raises(error) as caught:
        fetch(*arguments, **values)
    assert caught.value.suggestion
    return caught.value


def fetched(data: bytes, suffix: str) -> Fetched:
    return Fetched(len(data), hashlib.sha256(data).hexdigest(), suffix)


def test_each_part_is_framed_and_capped_as_if_it_had_been_sent(tmp_path: Path) -> None:
    files = {"/model": MODEL, "/rows": PARQUET_FILE, "/npz": NPZ_FILE}
    with answering(lambda request: (200, {}, files[request.path.partition("?")[0]])) as stub:
        assert fetch(tmp_path, f"{stub.url}/model") == fetched(MODEL, ".onnx")
        assert fetch(tmp_path, f"{stub.url}/rows", "dataset_ref") == fetched(PARQUET_FILE, ".parquet")
        assert fetch(tmp_path, f"{stub.url}/npz", "test_ref") == fetched(NPZ_FILE, ".npz")
        refusal(InvalidModel, tmp_path, f"{stub.url}/rows")
        refusal(InvalidDataset, tmp_path, f"{stub.url}/model", "dataset_ref")
        refusal(ReferenceTooLarge, tmp_path, f"{stub.url}/model", max_model_bytes=len(MODEL) - 1)
        refusal(ReferenceTooLarge, tmp_path, f"{stub.url}/rows", "dataset_ref", max_upload_bytes=len(PARQUET_FILE) - 1)
        error = refusal(DigestMismatch, tmp_path, f"{stub.url}/model?signature=secret#sha256={'0' * 64}")
        assert "secret" not in error.detail
        assert (tmp_path / "fetched").read_bytes() == MODEL


def test_settings_that_have_changed_refuse_what_they_once_let_through(tmp_path: Path) -> None:
    error = refusal(ReferenceRefused, tmp_path, "https://example.org/model.onnx", reference_schemes=("builtin",))
    assert (error.code, error.param) == ("reference_refused", "model_ref")
    assert not (tmp_path / "fetched").exists()


def test_a_server_that_drips_is_left_when_the_time_is_over(tmp_path: Path) -> None:
    def drip() -> Iterator[bytes]:
        for byte in MODEL:
            yield bytes([byte])
            time.sleep(0.02)  # the stub's

    with answering(lambda _request: (200, {"Content-Length": str(len(MODEL))}, drip())) as stub:
        error = refusal(ReferenceUnreachable, tmp_path, stub.url, reference_timeout_s=0.3)
    assert isinstance(error, ReferenceUnreachable)
    assert ("longer than 0.3 s" in error.detail, error.transient) == (True, False)


def test_the_hub_sends_on_to_its_files_without_the_token(tmp_path: Path) -> None:
    with answering(lambda _request: (200, {}, PARQUET_FILE)) as files:

        def hub(request: Request) -> Answer:
            if request.headers["authorization"] != "Bearer hf_secret":
                return 401, {}, b""
            return 307, {"Location": f"{files.url}/signed?signature=x"}, b""

        with answering(hub) as stub:
            reference = "hf://datasets/ylecun/mnist@main/mnist/train.parquet"
            given = fetch(tmp_path, reference, "dataset_ref", hf_endpoint=stub.url, hf_token=SecretStr("hf_secret"))
            assert given == fetched(PARQUET_FILE, ".parquet")
            error = refusal(ReferenceUnreachable, tmp_path, reference, "dataset_ref", hf_endpoint=stub.url)
    assert stub.requests[0].path == "/datasets/ylecun/mnist/resolve/main/mnist/train.parquet"
    assert [request.headers["authorization"] for request in files.requests] == [None]
    assert "401" in error.detail


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto_server() as url:
        put_object(url, "models", "a/b c.onnx", MODEL)
        put_object(url, "models", "rows.parquet", PARQUET_FILE)
        put_object(url, "secrets", "model.onnx", MODEL)
        yield url


def test_objects_of_open_buckets(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    values: dict[str, Any] = {"s3_endpoint": s3, "s3_buckets": ("models", "none"), "s3_region": "eu-central-1"}
    assert fetch(tmp_path, "s3://models/a/b c.onnx", **values) == fetched(MODEL, ".onnx")
    assert (tmp_path / "fetched").read_bytes() == MODEL
    sha256 = hashlib.sha256(PARQUET_FILE).hexdigest()
    assert fetch(tmp_path, f"s3://models/rows.parquet#sha256={sha256}", "dataset_ref", **values) == fetched(PARQUET_FILE, ".parquet")
    refusal(ReferenceRefused, tmp_path, "s3://secrets/model.onnx", **values)
    refusal(InvalidModel, tmp_path, "s3://models/rows.parquet", **values)
    refusal(ReferenceTooLarge, tmp_path, "s3://models/a/b c.onnx", **values, max_model_bytes=100)
    refusal(DigestMismatch, tmp_path, f"s3://models/a/b c.onnx#sha256={sha256}", **values)
    for missing in ("s3://models/none", "s3://none/a"):
        error = refusal(ReferenceUnreachable, tmp_path, missing, **values)
        assert isinstance(error, ReferenceUnreachable)
        assert ("no such object" in error.detail, error.transient, s3 in error.detail) == (True, False, False)


def test_a_store_that_does_not_answer_may_do_so_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    error = refusal(ReferenceUnreachable, tmp_path, "s3://models/a", s3_endpoint="http://127.0.0.1:1", s3_buckets=("models",))
    assert isinstance(error, ReferenceUnreachable)
    assert (error.transient, "127.0.0.1" in error.detail) == (True, False)
