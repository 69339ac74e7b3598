"""openapi.json: what FastAPI reads off the routes, and what it cannot know: the problem objects, their codes, the id of a request."""

from functools import cache
from typing import Any

from fastapi import FastAPI

from service.api.problems import RequestProblem, raised_errors
from service.api.request_id import HEADER

_SCHEMAS = "#/components/schemas/"


def install(app: FastAPI) -> None:
    generate = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        return _complete(generate())

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(description: dict[str, Any]) -> dict[str, Any]:
    components = description["components"]
    schemas = components["schemas"]
    schemas[RequestProblem.__name__] = RequestProblem.model_json_schema(ref_template=_SCHEMAS + "{model}")
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
    return description


def _error_codes() -> dict[str, Any]:
    errors = raised_errors()
    lines = [f"- `{cls.code}` ({cls.status}): {cls.title}" for cls in errors]
    return {
        "type": "string",
        "title": "ErrorCode",
        "enum": [cls.code for cls in errors],
        "description": "\n".join(["What went wrong, for programs. A later version may have more.", "", *lines]),
    }
