"""What /v1/models and /v1/datasets have in common: how what was received becomes an upload, and how one is found, listed and removed."""

from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Annotated

from fastapi import Query, Response
from starlette.concurrency import run_in_threadpool

from service.api.caller import Caller
from service.api.dependencies import Services
from service.api.problems import InputsGone, UploadNotFound
from service.api.schemas import DatasetUpload, ModelUpload
from service.api.uploads.uploaded import ID
from service.jobs.quotas.quota import QuotaReached
from service.jobs.uploads.upload import Upload, UploadedFile, UploadKind
from service.storage.keys import upload_prefix

Files = dict[str, UploadedFile]
Limit = Annotated[int, Query(ge=1, le=100, description="Uploads on a page.")]
After = Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="The `next` of the page before.")]


async def receive_upload(
    kind: UploadKind, receive: Callable[[str], Awaitable[Files]], caller: Caller, services: Services
) -> tuple[Upload, bool]:
    """The upload of the files that `receive` stores under the receipt it is given, and whether it is new to its owner."""
    receipt = f"upload_{token_hex(16)}"
    try:
        files = await receive(receipt)
    except BaseException:
        services.store.delete_prefix(upload_prefix(receipt))
        raise
    # Where the database fails now, nobody knows what it has kept: such files are left to the sweep.
    return await run_in_threadpool(_keep, kind, files, caller, services)


def _keep(kind: UploadKind, files: Files, caller: Caller, services: Services) -> tuple[Upload, bool]:
    try:
        upload, created = services.uploads.keep(caller.owner, kind, files, services.store.exists, caller.quotas)
    except QuotaReached:
        for file in files.values():
            services.store.delete(file.key)
        raise
    except FileNotFoundError:
        detail = "The upload took so long that its first file has been swept."
        raise InputsGone(detail, param="body", suggestion="Send it again, over a faster connection.") from None
    kept = {file.key for file in upload.files.values()}
    for file in files.values():
        if file.key not in kept:
            services.store.delete(file.key)
    return upload, created


def to_response(view: ModelUpload | DatasetUpload, created: bool) -> Response:
    headers = {"Location": view.links.self}
    return Response(view.model_dump_json(), 201 if created else 200, headers, "application/json")


def find_upload(kind: UploadKind, upload_id: str, owner: str, services: Services) -> Upload:
    """Raises UploadNotFound, also of what is another owner's."""
    upload = services.uploads.get(owner, upload_id) if ID.fullmatch(upload_id) else None
    if upload is None or upload.kind != kind:
        raise _not_found(kind, upload_id)
    return upload


def list_uploads(kind: UploadKind, limit: int, after: str | None, owner: str, services: Services) -> tuple[list[Upload], str | None]:
    """A page, and the `after` of the next one."""
    found = services.uploads.list_recent(owner, kind, limit + 1, after)
    return found[:limit], found[limit - 1].serial if len(found) > limit else None


def remove_upload(kind: UploadKind, upload_id: str, owner: str, services: Services) -> None:
    """Its jobs have copies of their own. Raises UploadNotFound."""
    find_upload(kind, upload_id, owner, services)
    for key in services.uploads.delete(owner, upload_id) or ():
        services.store.delete(key)


def _not_found(kind: UploadKind, upload_id: str) -> UploadNotFound:
    return UploadNotFound(f"There is no {kind} {upload_id[:80]!a}.", param=f"{kind}_id", suggestion=f"GET /v1/{kind}s lists yours.")
