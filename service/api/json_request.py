"""A small JSON body as a pydantic model: the same refusals as everywhere, where the framework would read a body of any size."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.api.problems import InvalidJson, InvalidRequest, PayloadTooLarge, UnsupportedMediaType

MEDIA_TYPE = "application/json"
MAX_BYTES = 64 * 1024
Model = TypeVar("Model", bound=BaseModel)


def body_of(model: type[Model], example: str) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body as `model`, and shows `example` where it is none."""

    async def read(request: Request) -> Model:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise UnsupportedMediaType("The body is no JSON.", param="Content-Type", suggestion=f"Send {MEDIA_TYPE}, {example}.")
        try:
            return model.model_validate_json(await read_small(request, MAX_BYTES))
        except ValidationError as error:
            raise _to_problem(error, example) from None

    return read


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body so."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": schema}}}}


async def read_small(request: Request, max_bytes: int) -> bytes:
    """Raises PayloadTooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise PayloadTooLarge(f"The JSON body has more than {max_bytes:,} bytes.", param="body", suggestion="Send less.")
    return bytes(body)


def _to_problem(error: ValidationError, example: str) -> InvalidJson | InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])[:80] or "body"
    suggestion = f"For example {example}."
    if first["type"] == "json_invalid":
        return InvalidJson(f"The body is not valid JSON: {first['msg']}.", param=param, suggestion=suggestion)
    return InvalidRequest(f"{param}: {first['msg'].removeprefix('Value error, ')}.", param=param, suggestion=suggestion)
