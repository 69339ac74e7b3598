"""openapi.json: what FastAPI reads off the routes, and what it cannot know: the problem objects and their codes, forms, examples."""

from copy import deepcopy
from functools import cache
from typing import Any

from fastapi import FastAPI

from service.api import examples
from service.api.problems import RequestProblem, raised_errors
from service.api.request_id import HEADER
from service.api.schemas import ConfigSchema

_SCHEMAS = "#/components/schemas/"


def install(app: FastAPI) -> None:
    generate = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        return _complete(deepcopy(generate()))

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(description: dict[str, Any]) -> dict[str, Any]:
    components = description["components"]
    schemas = components["schemas"]
    for model in (RequestProblem, ConfigSchema):
        schemas[model.__name__] = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas[RequestProblem.__name__]["examples"] = [examples.PROBLEM.model_dump(mode="json")]
    schemas["ErrorCode"] = _error_codes()
    for name in ("Problem", RequestProblem.__name__):
        schemas[name]["properties"]["code"] = {"$ref": f"{_SCHEMAS}ErrorCode"}
    components["headers"] = {
        "RequestId": {"description": "The request's own X-Request-ID where it is sane, else a new one.", "schema": {"type": "string"}}
    }
    for operations in description["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                response.setdefault("headers", {})[HEADER] = {"$ref": "#/components/headers/RequestId"}
            _name_forms(operation, schemas)
            _add_examples(operation)
    return description


def _name_forms(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Bodies that a route describes by hand become components by their titles."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        title = content["schema"].get("title")
        if title:
            schemas[title] = content["schema"]
            content["schema"] = {"$ref": _SCHEMAS + title}


def _add_examples(operation: dict[str, Any]) -> None:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if operation["operationId"] in examples.CREATIONS:
            content["examples"] = examples.REQUESTS[media_type]
    if operation["operationId"] in examples.RESPONSES:
        status, example = examples.RESPONSES[operation["operationId"]]
        operation["responses"][status]["content"]["application/json"]["example"] = example.model_dump(mode="json")


def _error_codes() -> dict[str, Any]:
    errors = raised_errors()
    lines = [f"- `{cls.code}` ({cls.status}): {cls.title}" for cls in errors]
    return {
        "type": "string",
        "title": "ErrorCode",
        "enum": [cls.code for cls in errors],
        "description": "\n".join(["What went wrong, for programs. A later version may have more.", "", *lines]),
    }
