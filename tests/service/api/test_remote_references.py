"""References to elsewhere as requests name them: what is taken, refused at once, shown and told apart."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.api.live import LiveService, service_settings, serving

DIGEST = "ab" * 32
ROWS = {"dataset_ref": "builtin:digits"}
REMOTE: dict[str, Any] = {
    "reference_schemes": ("builtin", "https", "s3", "hf"),
    "reference_hosts": ("127.0.0.1:9000",),
    "s3_buckets": ("models",),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    settings = service_settings(tmp_path_factory.mktemp("home"))
    with serving(settings.model_copy(update=REMOTE)) as live:
        yield live


TAKEN = {
    "https://example.org/a/model.onnx": "model.onnx",
    f"https://example.org/model.onnx#sha256={DIGEST}": "model.onnx",
    "http://127.0.0.1:9000/model.onnx": "model.onnx",
    "s3://models/a/model.onnx": "model.onnx",
    "hf://a/b@main/onnx/model.onnx": "model.onnx",
    "HTTPS://example.org": None,
}


@pytest.mark.parametrize("text", TAKEN)
def test_a_reference_is_taken_without_asking_anybody(service: LiveService, text: str) -> None:
    response = service.client.post("/v1/jobs", json=ROWS | {"model_ref": text})
    assert response.status_code == 202, response.text
    given = response.json()["inputs"]["model"]
    reference, _, digest = text.partition("#sha256=")
    assert given == {"filename": TAKEN[text], "ref": reference.replace("HTTPS:", "https:"), "bytes": None, "sha256": digest or None}


REFUSED = {
    "https://127.0.0.1/model.onnx": "not_allowed",
    "https://2130706433/model.onnx": "not_allowed",
    "https://0x7f.0.0.1/": "not_allowed",
    "https://169.254.169.254/latest/meta-data/": "not_allowed",
    "https://[::1]/": "not_allowed",
    "https://[::ffff:10.0.0.1]/": "not_allowed",
    "http://127.0.0.1:9001/": "not_allowed",
    "http://example.org/": "not_allowed",
    "https://user:password@example.org/": "not_allowed",
    "https://example.org/#fragment": "invalid",
    f"https://example.org/#sha256={DIGEST}0": "invalid",
    "https://exam ple.org/": "invalid",
    "s3://secrets/model.onnx": "not_allowed",
    "s3://models/../secrets/model.onnx": "invalid",
    "s3://models": "invalid",
    "hf://a/b/../../c/d/model.onnx": "invalid",
    "hf://a": "invalid",
    "file:/etc/passwd": "not_allowed",
    "gs://a/b": "invalid",
    "": "invalid",
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("param", ["model_ref", "dataset_ref", "test_ref"])
def test_what_leads_nowhere_is_refused_at_once(service: LiveService, text: str, param: str) -> None:
    before = service.left_behind()
    body = {"model_ref": "hf://a/b/c.onnx"} | ROWS | {param: text}
    response = service.client.post("/v1/jobs", json=body)
    problem = response.json()
    kind = "model" if param == "model_ref" else "dataset"
    code = f"invalid_{kind}_ref" if REFUSED[text] == "invalid" else f"{kind}_ref_not_allowed"
    assert (response.status_code, problem["code"], problem["param"]) == (422, code, param), problem
    assert problem["suggestion"]
    assert service.left_behind() == before


def test_a_scheme_that_is_off_says_which_are_on(service: LiveService) -> None:
    problem = service.client.post("/v1/jobs", json=ROWS | {"model_ref": "file:/a"}).json()
    assert "builtin:, https:, s3:, hf:" in problem["suggestion"]
    assert service.client.get("/v1/info").json()["reference_schemes"] == ["builtin", "https", "s3", "hf"]


def test_a_signature_is_kept_for_the_runner_and_shown_to_nobody(service: LiveService) -> None:
    text = "https://example.org/model.onnx?X-Amz-Signature=secret"
    response = service.client.post("/v1/jobs", json=ROWS | {"model_ref": text})
    job = response.json()
    assert job["inputs"]["model"]["ref"] == "https://example.org/model.onnx?…"
    assert "secret" not in response.text + service.client.get(job["links"]["self"]).text
    row = service.jobs.get(job["id"])
    assert row is not None
    assert row.inputs["model"].ref == text


def test_the_same_url_with_another_digest_is_another_request(service: LiveService) -> None:
    text, headers = "https://example.org/model.onnx", {"Idempotency-Key": "digests"}

    def post(model_ref: str) -> Any:
        return service.client.post("/v1/jobs", json=ROWS | {"model_ref": model_ref}, headers=headers)

    first = post(f"{text}#sha256={DIGEST}")
    assert post(f"{text}#sha256={DIGEST.upper()}").json() == first.json()
    for other in (text, f"{text}#sha256={DIGEST[::-1]}"):
        assert post(other).json()["code"] == "idempotency_key_reused"
