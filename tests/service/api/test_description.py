"""openapi.json and its neighbours: nothing nameless, nothing stale, examples that are taken; /v1/config/schema and /v1/info."""

import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from compressor import __version__
from compressor.config import CompressionConfig
from service.api import examples
from service.api.schemas import ArtifactList, DatasetList, DatasetUpload, EventList, Info, JobList, JobView, ModelList, ModelUpload
from service.api.webhook_schemas import DeliveryList, WebhookList, WebhookView, WebhookWithSecret
from service.app import describe_api
from service.jobs.states import Status
from tests.service.api.live import LiveService, service_settings, serving
from tests.service.api.sample_files import MODEL, NPZ_FILE


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return describe_api().openapi()


def test_the_committed_description_is_the_one_that_is_served(service: LiveService, description: dict[str, Any]) -> None:
    served = service.client.get("/openapi.json").json()
    assert served == json.loads(json.dumps(description))
    committed = json.loads(files("service").joinpath("openapi.json").read_text(encoding="utf-8"))
    assert committed == served, "stale: run make schema"


def nameless(node: Any, path: str) -> Iterator[str]:
    """Where an enum or an object with members of its own is described in place."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from nameless(item, f"{path}/{index}")
    elif isinstance(node, dict):
        if "enum" in node or "properties" in node:
            yield path
        for key, value in node.items():
            if key not in {"example", "examples", "enum", "default"}:
                yield from nameless(value, f"{path}/{key}")


def test_every_enum_and_every_object_has_a_name(description: dict[str, Any]) -> None:
    assert list(nameless(description["paths"], "")) == []
    for name, schema in description["components"]["schemas"].items():
        inside = [*schema.get("properties", {}).values(), {key: schema[key] for key in schema if key not in {"enum", "properties"}}]
        assert list(nameless(inside, name)) == []


def test_a_nameless_enum_would_be_seen() -> None:
    assert list(nameless({"anyOf": [{"type": "null"}, {"items": {"enum": ["a"]}}]}, "x")) == ["x/anyOf/1/items"]


def test_operations_are_documented(description: dict[str, Any]) -> None:
    operations = [operation for methods in description["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert [operation["operationId"] for operation in operations if not operation.get("summary")] == []
    assert set(examples.RESPONSES) <= set(names)


ANSWERS: dict[str, type[BaseModel]] = {
    "list_jobs": JobList,
    "list_artifacts": ArtifactList,
    "list_events": EventList,
    "create_webhook": WebhookWithSecret,
    "rotate_webhook_secret": WebhookWithSecret,
    "list_webhooks": WebhookList,
    "get_webhook": WebhookView,
    "change_webhook": WebhookView,
    "list_webhook_deliveries": DeliveryList,
    **dict.fromkeys(("upload_model", "get_model"), ModelUpload),
    **dict.fromkeys(("upload_dataset", "get_dataset"), DatasetUpload),
    "list_models": ModelList,
    "list_datasets": DatasetList,
}


@pytest.mark.parametrize("name", examples.RESPONSES)
def test_examples_of_answers_are_in_place_and_read_back(description: dict[str, Any], name: str) -> None:
    operations = {operation["operationId"]: operation for methods in description["paths"].values() for operation in methods.values()}
    status, example = examples.RESPONSES[name]
    written = operations[name]["responses"][status]["content"]["application/json"]["example"]
    assert ANSWERS.get(name, JobView).model_validate_json(json.dumps(written)) == example


@pytest.mark.parametrize("path", ["/compress", "/v1/jobs"])
@pytest.mark.parametrize("name", examples.REQUESTS["multipart/form-data"])
def test_examples_of_forms_are_taken(service: LiveService, description: dict[str, Any], path: str, name: str) -> None:
    content = description["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
    example = content["examples"][name]["value"]
    assert set(example) <= set(description["components"]["schemas"]["JobForm"]["properties"])
    parent = service.insert_finished(Status.SUCCEEDED, {"curve.safetensors": b"points"})
    sent = {
        "model": lambda _: ("model.onnx", MODEL),
        "parent_id": lambda _: (None, parent.id.encode()),
        "config": lambda value: (None, json.dumps(value).encode()),
    }
    parts = {part: sent.get(part, lambda value: (None, value.encode()))(value) for part, value in example.items()}
    response = service.client.post(path, files=parts)
    assert (response.status_code, response.json()["kind"]) == (202, name), response.text


@pytest.mark.parametrize("name", examples.REQUESTS["application/json"])
def test_examples_of_json_bodies_are_taken(service: LiveService, data_root: Path, description: dict[str, Any], name: str) -> None:
    content = description["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    example = dict(content["examples"][name]["value"])
    assert set(example) <= set(description["components"]["schemas"]["JobRequest"]["properties"])
    (data_root / "model.onnx").write_bytes(MODEL)
    if "model_ref" in example:
        example["model_ref"] = f"file:{data_root / 'model.onnx'}"
    if "parent_id" in example:
        example["parent_id"] = service.insert_finished(Status.SUCCEEDED, {"curve.safetensors": b"points"}).id
    response = service.client.post("/v1/jobs", json=example)
    assert (response.status_code, response.json()["kind"]) == (202, name), response.text


@pytest.mark.parametrize("name", examples.REQUESTS_OF["create_webhook"])
def test_examples_of_webhooks_are_taken(service: LiveService, description: dict[str, Any], name: str) -> None:
    content = description["paths"]["/v1/webhooks"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/NewWebhook"}
    created = service.client.post("/v1/webhooks", json=content["examples"][name]["value"])
    assert created.status_code == 201, created.text
    for change in examples.REQUESTS_OF["change_webhook"].values():
        assert service.client.patch(created.headers["location"], json=change["value"]).status_code == 200


def test_messages_are_described(description: dict[str, Any]) -> None:
    (operation,) = (operation for methods in description["webhooks"].values() for operation in methods.values())
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/WebhookMessage"}
    assert list(nameless(description["webhooks"], "")) == []
    assert {parameter["name"] for parameter in operation["parameters"]} == {"webhook-id", "webhook-timestamp", "webhook-signature"}


def test_the_schema_of_a_configuration_has_its_defaults_and_texts(service: LiveService) -> None:
    response = service.client.get("/v1/config/schema")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/schema+json")
    schema = response.json()
    assert schema == json.loads(json.dumps(CompressionConfig.model_json_schema()))
    for name, field in CompressionConfig.model_fields.items():
        described = schema["properties"][name]
        assert described["description"] == field.description
        assert described["default"] == json.loads(json.dumps(field.default))


def test_the_schema_of_a_configuration_has_a_strong_etag(service: LiveService) -> None:
    response = service.client.get("/v1/config/schema")
    etag = response.headers["etag"]
    assert etag == f'"{hashlib.sha256(response.content).hexdigest()}"'
    unchanged = service.client.get("/v1/config/schema", headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    assert service.client.get("/v1/config/schema", headers={"If-Match": '"a"'}).json()["code"] == "precondition_failed"
    head = service.client.head("/v1/config/schema")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(response.content)))


def test_info_says_what_the_settings_say(service: LiveService) -> None:
    info = Info.model_validate_json(service.client.get("/v1/info").content)
    assert (info.version, info.kinds, info.reference_schemes) == (__version__, ["compress", "inspect", "select"], ["builtin", "id", "file"])
    limits = info.limits.model_dump()
    assert limits == {name: getattr(service.settings, name) for name in limits}
    assert info.devices[0] == "cpu"  # torch is here


def test_info_names_file_only_where_a_data_root_is_open(tmp_path: Path) -> None:
    with serving(service_settings(tmp_path / "home")) as live:
        assert live.client.get("/v1/info").json()["reference_schemes"] == ["builtin", "id"]


def test_formats_of_info_are_those_that_are_taken(service: LiveService) -> None:
    formats = Info.model_validate_json(service.client.get("/v1/info").content).formats
    assert (formats.model, formats.dataset) == ([".onnx", ".safetensors"], [".parquet", ".npz"])
    parts = {"model": ("model.onnx", MODEL), "dataset": ("rows.npz", NPZ_FILE)}
    for delivered in formats.delivered:
        config = (None, json.dumps({"formats": [delivered]}).encode())
        assert service.client.post("/compress", files={**parts, "config": config}).status_code == 202
