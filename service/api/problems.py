"""Every error of the HTTP interface as an RFC 9457 problem object.

    ApiError
    ├── InvalidRequest            422  a parameter of the path or the query
    ├── NotFound                  404  of the router: no such path
    ├── MethodNotAllowed          405  of the router: the path has other methods
    ├── InvalidMultipart          400  the body is not what its Content-Type says
    ├── InvalidJson               400
    ├── ClientDisconnected        400  nobody reads it
    ├── UnsupportedMediaType      415
    ├── PayloadTooLarge           413
    ├── MissingPart               422
    ├── UnknownPart               422
    ├── DuplicatePart             422
    ├── ConflictingParts          422
    ├── UnexpectedPart            422
    ├── InvalidKind               422
    ├── InvalidModelRef           422
    ├── InvalidDatasetRef         422
    ├── InvalidMetadata           422
    ├── ParentNotFound            422
    ├── IdempotencyKeyReused      422
    ├── IdempotencyKeyInUse       409
    ├── UploadNotFound            404
    ├── JobNotFound               404
    ├── ArtifactNotFound          404
    ├── JobNotFinished            409
    ├── JobAlreadyFinished        409
    ├── JobBeingCancelled         409
    ├── JobBeingPaused            409
    ├── JobInUse                  409
    ├── InputsGone                410
    ├── WebhookUrlNotAllowed      422
    ├── WebhookNotFound           404
    ├── WebhookDisabled           409
    ├── TooManyWebhooks           409
    ├── PreconditionFailed        412
    ├── RangeNotSatisfiable       416
    ├── MissingKey                401
    ├── InvalidKey                401
    ├── ScopeTooSmall             403
    ├── QuotaExceeded             429
    ├── HostNotAllowed            421
    ├── OriginNotAllowed          403
    └── NotReady                  503

The library's own errors (`compressor.errors`) and those of `service.data_roots`, `service.digests` and `service.fetching` keep their
codes, and what nobody expected is `internal_error`. `raised_errors` is the one table of them, which the README and openapi.json are
written from.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from compressor.errors import CompressionError, DatasetError, ModelError, Problem, error_classes
from service.api.request_id import request_id
from service.data_roots import DatasetRefNotAllowed, ModelRefNotAllowed
from service.digests import DigestMismatch
from service.fetching.errors import ReferenceRefused, ReferenceTooLarge, ReferenceUnreachable
from service.jobs.quotas.quota import QuotaReached

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class RequestProblem(Problem):
    """The problem object of a response; `request_id` is that of its header X-Request-ID, and of the line in the service's log."""

    request_id: str


class ApiError(Exception):
    """Base of the errors of the HTTP interface; `headers` go out with the response."""

    code: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def __init__(
        self, detail: str, *, param: str | None = None, suggestion: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.suggestion = suggestion
        self.headers = headers

    def to_problem(self) -> Problem:
        return make_problem(self.status, self.code, self.title, self.detail, self.param, self.suggestion)


class InvalidRequest(ApiError):
    code, title, status = "invalid_request", "The request is not valid", 422


class NotFound(ApiError):
    code, title, status = "not_found", "There is no such path", 404


class MethodNotAllowed(ApiError):
    code, title, status = "method_not_allowed", "The path has no such method", 405


class InvalidMultipart(ApiError):
    code, title, status = "invalid_multipart", "The multipart body is malformed", 400


class InvalidJson(ApiError):
    code, title, status = "invalid_json", "The JSON body is malformed", 400


class ClientDisconnected(ApiError):
    code, title, status = "client_disconnected", "The client went away", 400


class UnsupportedMediaType(ApiError):
    code, title, status = "unsupported_media_type", "The body has a content type that is not taken here", 415


class PayloadTooLarge(ApiError):
    code, title, status = "payload_too_large", "The upload exceeds a size limit", 413


class MissingPart(ApiError):
    code, title, status = "missing_part", "A part of the form is missing", 422


class UnknownPart(ApiError):
    code, title, status = "unknown_part", "The form has a part that is not known", 422


class DuplicatePart(ApiError):
    code, title, status = "duplicate_part", "The form has a part twice", 422


class ConflictingParts(ApiError):
    code, title, status = "conflicting_parts", "Two parts of the form say the same thing", 422


class UnexpectedPart(ApiError):
    code, title, status = "unexpected_part", "A job of this kind takes no such part", 422


class InvalidKind(ApiError):
    code, title, status = "invalid_kind", "There is no such kind of job", 422


class InvalidModelRef(ApiError):
    code, title, status = "invalid_model_ref", "The model reference is not valid", 422


class InvalidDatasetRef(ApiError):
    code, title, status = "invalid_dataset_ref", "The dataset reference is not valid", 422


class InvalidMetadata(ApiError):
    code, title, status = "invalid_metadata", "The metadata are not valid", 422


class ParentNotFound(ApiError):
    code, title, status = "parent_not_found", "There is no such job to select from", 422


class IdempotencyKeyReused(ApiError):
    code, title, status = "idempotency_key_reused", "The Idempotency-Key belongs to another request", 422


class IdempotencyKeyInUse(ApiError):
    code, title, status = "idempotency_key_in_use", "The first request with this Idempotency-Key is still being received", 409


class UploadNotFound(ApiError):
    code, title, status = "upload_not_found", "There is no such model or dataset", 404


class JobNotFound(ApiError):
    code, title, status = "job_not_found", "There is no such job", 404


class ArtifactNotFound(ApiError):
    code, title, status = "artifact_not_found", "The job has no such artifact", 404


class JobNotFinished(ApiError):
    code, title, status = "job_not_finished", "The job has not finished", 409


class JobAlreadyFinished(ApiError):
    code, title, status = "job_already_finished", "The job has already finished", 409


class JobBeingCancelled(ApiError):
    code, title, status = "job_being_cancelled", "The job is being cancelled", 409


class JobBeingPaused(ApiError):
    code, title, status = "job_being_paused", "The job has not come to its pause yet", 409


class JobInUse(ApiError):
    code, title, status = "job_in_use", "Another job needs the files of this one", 409


class InputsGone(ApiError):
    code, title, status = "inputs_gone", "The files of the job are no longer stored", 410


class WebhookUrlNotAllowed(ApiError):
    code, title, status = "webhook_url_not_allowed", "The webhook's address is not allowed", 422


class WebhookNotFound(ApiError):
    code, title, status = "webhook_not_found", "There is no such webhook", 404


class WebhookDisabled(ApiError):
    code, title, status = "webhook_disabled", "The webhook is disabled", 409


class TooManyWebhooks(ApiError):
    code, title, status = "too_many_webhooks", "There are as many webhooks as there may be", 409


class PreconditionFailed(ApiError):
    code, title, status = "precondition_failed", "The file is another version than was asked for", 412


class RangeNotSatisfiable(ApiError):
    code, title, status = "range_not_satisfiable", "The range is outside the file", 416


class MissingKey(ApiError):
    code, title, status = "missing_key", "The request needs a key", 401


class InvalidKey(ApiError):
    code, title, status = "invalid_key", "The key is not valid", 401


class ScopeTooSmall(ApiError):
    code, title, status = "scope_too_small", "The key may not do this", 403


class QuotaExceeded(ApiError):
    code, title, status = "quota_exceeded", "The owner of the key has as much as they may", 429


class HostNotAllowed(ApiError):
    code, title, status = "host_not_allowed", "The service is not addressed by this name", 421


class OriginNotAllowed(ApiError):
    code, title, status = "origin_not_allowed", "A page of another site may not do this", 403


class NotReady(ApiError):
    code, title, status = "not_ready", "The service is not ready", 503


def raised_errors() -> list[type[CompressionError] | type[ApiError]]:
    """Every error that a client can meet: the library's, then those of the service."""
    # The two only hold their subclasses together.
    library = [cls for cls in error_classes() if cls.__module__ == "compressor.errors" and cls not in {ModelError, DatasetError}]
    fetching = [ReferenceRefused, ReferenceUnreachable, ReferenceTooLarge, DigestMismatch]
    return [*library, ModelRefNotAllowed, DatasetRefNotAllowed, *fetching, *ApiError.__subclasses__()]


def make_problem(status: int, code: str, title: str, detail: str, param: str | None = None, suggestion: str | None = None) -> Problem:
    return Problem(
        type=f"urn:bayespress:problem:{code}", title=title, status=status, detail=detail, code=code, param=param, suggestion=suggestion
    )


def internal_error(method: str) -> Problem:
    """What a client learns of a failure that nobody expected."""
    detail = f"{method} failed inside the service; its log has the cause."
    return make_problem(500, "internal_error", "Internal error", detail, suggestion="Try again; report it if it stays.")


def to_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    content = RequestProblem(**problem.model_dump(), request_id=request_id.get())
    return Response(content.model_dump_json(), problem.status, headers, MEDIA_TYPE)


def document(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with problem objects of these statuses; 421 and 500 are possible on all."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{RequestProblem.__name__}"}}},
        }
        for status in sorted({*statuses, 421, 500})
    }


async def _on_api_error(_request: Request, error: ApiError) -> Response:
    return to_response(error.to_problem(), error.headers)


async def _on_quota_reached(request: Request, error: QuotaReached) -> Response:
    exceeded = QuotaExceeded(
        f"{error.quota} is {error.limit:,}, of which {error.used:,} are used.",
        param=error.quota,
        suggestion="Wait until jobs have finished, or delete finished ones; /v1/info has all limits.",
        headers={"Retry-After": "30"},
    )
    return await _on_api_error(request, exceeded)


async def _on_compression_error(_request: Request, error: CompressionError) -> Response:
    return to_response(error.to_problem())


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    """What the router itself answers."""
    if error.status_code == 404:
        suggestion = "The paths are listed in /openapi.json."
        return await _on_api_error(request, NotFound("Nothing is at this path.", param="path", suggestion=suggestion))
    if error.status_code == 405:
        # The router names the methods of one route; the path may have several.
        allowed = ", ".join(method for method in METHODS if _leads_somewhere(request, method))
        detail, suggestion = f"{request.method[:20]} is no method of this path.", f"The path has {allowed}."
        return await _on_api_error(request, MethodNotAllowed(detail, param="method", suggestion=suggestion, headers={"Allow": allowed}))
    raise error


def _leads_somewhere(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def _on_validation_error(_request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return to_response(InvalidRequest(f"{param}: {first['msg']}.", param=param, suggestion="Correct the value.").to_problem())


async def _on_disconnect(request: Request, _error: ClientDisconnect) -> Response:
    # Nobody reads this; it only ends the request without a traceback.
    gone = ClientDisconnected("The request was not received whole.", param="body", suggestion="Send it again.")
    return await _on_api_error(request, gone)


def install(app: FastAPI) -> None:
    """Makes every error that a route or the router raises a problem object; `guard.LogRequests` does so for what nobody expected."""
    app.exception_handler(ApiError)(_on_api_error)
    app.exception_handler(QuotaReached)(_on_quota_reached)
    app.exception_handler(CompressionError)(_on_compression_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(ClientDisconnect)(_on_disconnect)
