"""/v1/models: models that are uploaded once and named by any number of jobs, as `model_ref: id:…`."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.api.caller import CallerDep
from service.api.dependencies import ServicesDep
from service.api.problems import document
from service.api.schemas import ModelList, ModelUpload, to_model_upload
from service.api.uploads.raw import FILE_BODY, OCTETS, RawOptionsDep, check_media_type, receive_raw
from service.api.uploads.receiving import MODEL, declared_bytes, model_too_large
from service.api.uploads.resources import After, Files, Limit, find_upload, list_uploads, receive_upload, remove_upload, to_response
from service.storage.keys import upload_key

router = APIRouter(prefix="/v1/models", tags=["uploads"])

MEDIA_TYPES = (OCTETS, "application/x-protobuf")
LOCATION = {"Location": {"description": "Path of the upload.", "schema": {"type": "string"}}}
REQUEST_BODY = {"requestBody": {"required": True, "content": dict.fromkeys(MEDIA_TYPES, FILE_BODY)}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "These bytes were there already; they are kept for longer.", "model": ModelUpload, "headers": LOCATION},
    201: {"description": "The model.", "model": ModelUpload, "headers": LOCATION},
    **document(400, 403, 410, 413, 415, 422, 429),
}
ModelId = Annotated[str, Path(description="the `id` of a model")]


@router.post("", operation_id="upload_model", status_code=201, responses=RESPONSES, response_model=ModelUpload, openapi_extra=REQUEST_BODY)
async def upload_model(request: Request, services: ServicesDep, caller: CallerDep, options: RawOptionsDep) -> Response:
    """Takes a model, ONNX or safetensors, as the body itself. The same bytes sent again are the same model."""
    check_media_type(request, MEDIA_TYPES, "model.onnx")
    settings = caller.limit(services.settings)
    if declared_bytes(request) > settings.max_model_bytes:
        raise model_too_large(settings.max_model_bytes, MODEL)

    async def receive(receipt: str) -> Files:
        to_key = partial(upload_key, receipt, MODEL)
        return {MODEL: await receive_raw(request, MODEL, to_key, options, services.store, settings, settings.max_model_bytes)}

    upload, created = await receive_upload("model", receive, caller, services)
    return to_response(to_model_upload(upload, settings.retain_uploads_s), created)


@router.get("", operation_id="list_models", responses=document(422))
def list_models(services: ServicesDep, caller: CallerDep, limit: Limit = 20, after: After = None) -> ModelList:
    """The models, the newest first."""
    page, following = list_uploads("model", limit, after, caller.owner, services)
    return ModelList(data=[to_model_upload(upload, services.settings.retain_uploads_s) for upload in page], next=following)


@router.get("/{model_id}", operation_id="get_model", responses=document(404, 422))
def get_model(services: ServicesDep, caller: CallerDep, model_id: ModelId) -> ModelUpload:
    """One model. To look at it is no use that keeps it for longer."""
    return to_model_upload(find_upload("model", model_id, caller.owner, services), services.settings.retain_uploads_s)


@router.delete("/{model_id}", status_code=204, operation_id="delete_model", responses=document(403, 404, 422))
def delete_model(services: ServicesDep, caller: CallerDep, model_id: ModelId) -> None:
    """Removes the model. Jobs that took it, and retries of these, have copies of their own."""
    remove_upload("model", model_id, caller.owner, services)
