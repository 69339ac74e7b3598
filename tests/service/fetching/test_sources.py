"""Where references lead: buckets, repositories of the hub, URLs; and what the settings close."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.fetching.address import AddressRefused
from service.fetching.hf import to_url
from service.fetching.sources import HttpSource, S3Source, open_schemes, to_source
from service.references import parse
from service.settings import Settings

HUB = "https://huggingface.co"


def settings(**values: Any) -> Settings:
    return Settings(**({"reference_schemes": ("https", "s3", "hf"), "s3_buckets": ("models",)} | values))


def source(text: str, **values: Any) -> HttpSource | S3Source:
    return to_source(parse(text), settings(**values))


def test_schemes_are_off_until_they_are_named(tmp_path: Path) -> None:
    assert open_schemes(Settings()) == ["builtin", "id"]
    assert open_schemes(Settings(data_roots=(tmp_path,))) == ["builtin", "id", "file"]
    assert open_schemes(Settings(reference_schemes=("s3", "https", "hf"))) == ["https", "hf"]
    assert open_schemes(settings()) == ["https", "s3", "hf"]
    assert open_schemes(Settings(reference_schemes=())) == []


@pytest.mark.parametrize("text", ["https://example.org/a", "http://example.org/a", "s3://models/a", "hf://a/b/c.onnx"])
def test_what_is_off_is_refused(text: str) -> None:
    with pytest.raises(AddressRefused, match="off here"):
        to_source(parse(text), Settings())


def test_urls() -> None:
    assert source("https://example.org/a.onnx?b=c") == HttpSource(httpx.URL("https://example.org/a.onnx?b=c"))
    assert source("http://minio.internal:9000/a", reference_hosts=("minio.internal:9000",)) == HttpSource(
        httpx.URL("http://minio.internal:9000/a")
    )


@pytest.mark.parametrize(
    "text",
    ["http://example.org/", "https://127.0.0.1/", "https://2130706433/", "https://[::1]/", "https://u:p@example.org/", "https:///a",
     "https:a", "https:", "https://%31%32%37.0.0.1/", "http://minio.internal:9001/"],
)  # fmt: skip
def test_urls_that_lead_nowhere_are_refused_without_asking_anybody(text: str) -> None:
    with pytest.raises(AddressRefused):
        source(text, reference_hosts=("minio.internal:9000",))


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a b",
        "https://exämple.org/",
        "https://example.org/\r\nHost: x",
        "https://[::1",
        "https://a/b#c",
        "https://a\\@b/",
    ],
)
def test_urls_that_are_none_are_invalid(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        source(text)


def test_keys_of_buckets() -> None:
    assert source("s3://models/a/b c?.onnx") == S3Source("models", "a/b c?.onnx")


@pytest.mark.parametrize("text", ["s3:", "s3://", "s3://models", "s3://models/", "s3:/models/a", "s3://models//a", "s3://models/../a", "s3://127.0.0.1:80/a",
                                  "s3://models/a/..", "s3://models/./a", "s3://models/a\n", "s3://Models/a", "s3://a/b"])  # fmt: skip
def test_keys_that_could_lead_elsewhere_are_invalid(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        source(text)


def test_other_buckets_are_refused() -> None:
    with pytest.raises(AddressRefused, match="not open"):
        source("s3://secrets/a")


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("//datasets/ylecun/mnist@main/mnist/train.parquet", "/datasets/ylecun/mnist/resolve/main/mnist/train.parquet"),
        ("//onnx-community/resnet-18/onnx/model.onnx", "/onnx-community/resnet-18/resolve/main/onnx/model.onnx"),
        ("//a/b@refs/convert/parquet/default/0.parquet", "/a/b/resolve/refs%2Fconvert%2Fparquet/default/0.parquet"),
        ("//a/b@refs/pr/12/x", "/a/b/resolve/refs%2Fpr%2F12/x"),
        ("//a/b@v1.0/x y/ü%3F?#.onnx", "/a/b/resolve/v1.0/x%20y/%C3%BC%253F%3F%23.onnx"),
    ],
)
def test_places_of_the_hub(rest: str, path: str) -> None:
    assert to_url(rest, f"{HUB}/") == httpx.URL(HUB + path)
    assert to_url(rest, HUB).raw_path.decode() == path


@pytest.mark.parametrize("rest", ["", "//a/b", "//a/b/", "//a/b@/x", "//a/b@../x", "//a/b@main/../x", "//a/b@main//x", "//../b/x",
                                  "/a/b/x", "//a/b@main/x\n", "//a/b@refs/heads/x\0", "//a@b/c", "//a/b/./x", "//a/b/x/.."])  # fmt: skip
def test_places_that_are_none_are_invalid(rest: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        to_url(rest, HUB)


@given(st.text(max_size=60), st.sampled_from(["", "datasets/"]))
def test_no_path_leaves_its_repository(path: str, datasets: str) -> None:
    try:
        url = to_url(f"//{datasets}a/b@main/{path}", HUB)
    except ValueError:
        return
    assert url.raw_path.decode().startswith(f"/{datasets}a/b/resolve/main/")
    assert (url.host, url.fragment, url.query) == ("huggingface.co", "", b"")
    assert not {"", ".", ".."} & set(url.path.split("/")[1:])


def test_a_token_is_for_the_endpoint_alone() -> None:
    found = source("hf://a/b/c.onnx", hf_token=SecretStr("hf_secret"))
    assert isinstance(found, HttpSource)
    assert found.headers_for(found.url) == {"Authorization": "Bearer hf_secret"}
    assert found.headers_for(httpx.URL("https://huggingface.co:443/x")) == {"Authorization": "Bearer hf_secret"}
    for other in (
        "https://cdn.huggingface.co/x",
        "http://huggingface.co/x",
        "https://huggingface.co:8443/x",
        "https://huggingface.co.evil.org/x",
    ):
        assert found.headers_for(httpx.URL(other)) == {}
    assert "hf_secret" not in repr(found)


def test_a_private_mirror_of_the_hub_has_to_be_named() -> None:
    with pytest.raises(AddressRefused):
        source("hf://a/b/c.onnx", hf_endpoint="http://127.0.0.1:8080")
    found = source("hf://a/b/c.onnx", hf_endpoint="http://127.0.0.1:8080", reference_hosts=("127.0.0.1:8080",))
    assert found == HttpSource(httpx.URL("http://127.0.0.1:8080/a/b/resolve/main/c.onnx"))
