"""openapi.json: what FastAPI reads off the routes, and what it cannot know: the problem objects and their codes, forms, examples."""

from copy import deepcopy
from functools import cache
from typing import Any

from fastapi import FastAPI

from service.api import examples
from service.api.authentication import API_KEY_HEADER, READING
from service.api.guard import OPEN_PATHS
from service.api.problems import RequestProblem, document, raised_errors
from service.api.request_id import HEADER
from service.api.schemas import ConfigSchema
from service.api.webhook_schemas import NewWebhook, WebhookChange
from service.keys.key import Scope

_SCHEMAS = "#/components/schemas/"
_KEY = "A key as `bayespress keys create` shows it. On a loopback address none is needed, unless the service is told to ask for one."
_SECURITY: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": _KEY},
    "apiKey": {"type": "apiKey", "in": "header", "name": API_KEY_HEADER, "description": _KEY},
}


def install(app: FastAPI) -> None:
    generate = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        return _complete(deepcopy(generate()))

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(description: dict[str, Any]) -> dict[str, Any]:
    components = description["components"]
    schemas = components["schemas"]
    for model in (RequestProblem, ConfigSchema, NewWebhook, WebhookChange):
        schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
        schemas.update({**schema.pop("$defs", {}), model.__name__: schema})
    schemas[RequestProblem.__name__]["examples"] = [examples.PROBLEM.model_dump(mode="json")]
    schemas["ErrorCode"] = _error_codes()
    for name in ("Problem", RequestProblem.__name__):
        schemas[name]["properties"]["code"] = {"$ref": f"{_SCHEMAS}ErrorCode"}
    components["securitySchemes"] = _SECURITY
    components["headers"] = {
        "RequestId": {"description": "The request's own X-Request-ID where it is sane, else a new one.", "schema": {"type": "string"}}
    }
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            _add_security(operation, path, method)
            _drop_nulls(operation)
            for response in operation["responses"].values():
                response.setdefault("headers", {})[HEADER] = {"$ref": "#/components/headers/RequestId"}
            _name_forms(operation, schemas)
            _add_examples(operation)
    return description


def _add_security(operation: dict[str, Any], path: str, method: str) -> None:
    if path in OPEN_PATHS:
        operation["security"] = []
        return
    needed = Scope.READ if method.upper() in READING else Scope.SUBMIT
    operation["security"] = [{name: [needed.value]} for name in _SECURITY]
    refused = (401,) if needed is Scope.READ else (401, 403)
    responses = {**{str(status): response for status, response in document(*refused).items()}, **operation["responses"]}
    operation["responses"] = dict(sorted(responses.items()))


def _drop_nulls(operation: dict[str, Any]) -> None:
    """A parameter that may be absent is no parameter that may be null, for which a query and a header have no word."""
    for parameter in operation.get("parameters", ()):
        variants = [variant for variant in parameter["schema"].pop("anyOf", ()) if variant != {"type": "null"}]
        if len(variants) == 1:
            parameter["schema"] |= variants[0]
        elif variants:
            parameter["schema"]["anyOf"] = variants


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
        elif operation["operationId"] in examples.REQUESTS_OF:
            content["examples"] = examples.REQUESTS_OF[operation["operationId"]]
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
