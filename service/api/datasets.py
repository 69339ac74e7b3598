"""/v1/datasets: rows that are uploaded once and named by any number of jobs, as `dataset_ref: id:…`."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from python_multipart.multipart import parse_options_header

from service.api.caller import CallerDep
from service.api.dependencies import ServicesDep
from service.api.models import LOCATION
from service.api.problems import DuplicatePart, InvalidRequest, MissingPart, UnknownPart, document
from service.api.schemas import DatasetList, DatasetUpload, to_dataset_upload
from service.api.uploads.multipart import MEDIA_TYPE as FORM
from service.api.uploads.multipart import Event, FormReader, PartStart, part_chunks, read_events
from service.api.uploads.raw import FILE_BODY, OCTETS, RawOptions, RawOptionsDep, check_media_type, receive_raw
from service.api.uploads.receiving import read_body, receive_file
from service.api.uploads.resources import After, Files, Limit, find_upload, list_uploads, receive_upload, remove_upload, to_response
from service.jobs.uploads.upload import UploadedFile
from service.settings import Settings
from service.storage.keys import upload_key
from service.storage.store import ObjectStore

router = APIRouter(prefix="/v1/datasets", tags=["uploads"])

TRAIN = "train"
PARTS = {
    TRAIN: "Training rows: parquet, or .npz with x and y.",
    "validation": "Rows that choose the point. Absent: a tenth of the training rows.",
    "test": "Rows for the reported metric. Absent: a tenth of the training rows.",
}
MEDIA_TYPES = (OCTETS, "application/vnd.apache.parquet")
_FORM = {
    "title": "DatasetForm",
    "type": "object",
    "additionalProperties": False,
    "required": [TRAIN],
    "properties": {name: {**FILE_BODY["schema"], "description": text} for name, text in PARTS.items()},
}
REQUEST_BODY = {"requestBody": {"required": True, "content": {**dict.fromkeys(MEDIA_TYPES, FILE_BODY), FORM: {"schema": _FORM}}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "These bytes were there already; they are kept for longer.", "model": DatasetUpload, "headers": LOCATION},
    201: {"description": "The dataset.", "model": DatasetUpload, "headers": LOCATION},
    **document(400, 403, 410, 413, 415, 422, 429),
}
DatasetId = Annotated[str, Path(description="the `id` of a dataset")]


@router.post(
    "", operation_id="upload_dataset", status_code=201, responses=RESPONSES, response_model=DatasetUpload, openapi_extra=REQUEST_BODY
)
async def upload_dataset(request: Request, services: ServicesDep, caller: CallerDep, options: RawOptionsDep) -> Response:
    """Takes training rows as the body itself, or a form with `train`, `validation` and `test`. The same files are the same dataset."""
    is_form = parse_options_header(request.headers.get("content-type"))[0].lower() == FORM.encode()
    if not is_form:
        check_media_type(request, (*MEDIA_TYPES, FORM), "rows.parquet")
    elif "sha256" in options.expected:
        detail = "A sha256 is that of one file, and the body is a form."
        raise InvalidRequest(detail, param="sha256", suggestion="Leave it out, or send the training rows as the body itself.")

    settings = caller.limit(services.settings)

    async def receive(receipt: str) -> Files:
        return await (
            _receive_form(request, receipt, services.store, settings)
            if is_form
            else _receive_train(request, receipt, options, services.store, settings)
        )

    upload, created = await receive_upload("dataset", receive, caller, services)
    return to_response(to_dataset_upload(upload, services.settings.retain_uploads_s), created)


async def _receive_train(request: Request, receipt: str, options: RawOptions, store: ObjectStore, settings: Settings) -> Files:
    to_key = partial(upload_key, receipt, TRAIN)
    return {TRAIN: await receive_raw(request, TRAIN, to_key, options, store, settings)}


async def _receive_form(request: Request, receipt: str, store: ObjectStore, settings: Settings) -> Files:
    files: Files = {}
    reader = FormReader(request.headers.get("content-type"))
    async with aclosing(read_events(reader, read_body(request, settings.max_upload_bytes))) as events:
        async for event in events:
            if isinstance(event, PartStart):
                _check_name(event.name, files)
                files[event.name] = await _receive_part(event, events, receipt, store)
    if TRAIN not in files:
        raise MissingPart("The form has no part train.", param=TRAIN, suggestion="Add it: curl -F train=@FILE.")
    return files


def _check_name(name: str, files: Files) -> None:
    if name not in PARTS:
        raise UnknownPart(f"{name!r} is not a part of this form.", param=name, suggestion=f"The parts are: {', '.join(PARTS)}.")
    if name in files:
        raise DuplicatePart(f"The part {name!r} comes twice.", param=name, suggestion="Send each part once.")


async def _receive_part(part: PartStart, events: AsyncIterator[Event], receipt: str, store: ObjectStore) -> UploadedFile:
    received = await receive_file(part_chunks(events), part.name, partial(upload_key, receipt, part.name), store)
    return UploadedFile(key=received.key, sha256=received.sha256, bytes=received.bytes, filename=part.filename)


@router.get("", operation_id="list_datasets", responses=document(422))
def list_datasets(services: ServicesDep, caller: CallerDep, limit: Limit = 20, after: After = None) -> DatasetList:
    """The datasets, the newest first."""
    page, following = list_uploads("dataset", limit, after, caller.owner, services)
    return DatasetList(data=[to_dataset_upload(upload, services.settings.retain_uploads_s) for upload in page], next=following)


@router.get("/{dataset_id}", operation_id="get_dataset", responses=document(404, 422))
def get_dataset(services: ServicesDep, caller: CallerDep, dataset_id: DatasetId) -> DatasetUpload:
    """One dataset. To look at it is no use that keeps it for longer."""
    return to_dataset_upload(find_upload("dataset", dataset_id, caller.owner, services), services.settings.retain_uploads_s)


@router.delete("/{dataset_id}", status_code=204, operation_id="delete_dataset", responses=document(403, 404, 422))
def delete_dataset(services: ServicesDep, caller: CallerDep, dataset_id: DatasetId) -> None:
    """Removes the dataset. Jobs that took it, and retries of these, have copies of their own."""
    remove_upload("dataset", dataset_id, caller.owner, services)
