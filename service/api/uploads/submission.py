"""A `POST /compress` body, a form or JSON, part by part, straight into the store: counted, skimmed and hashed on the way."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from compressor.config import WEIGHTS_SUFFIX, CompressionConfig, check_architecture, check_choice
from compressor.errors import InvalidConfig
from compressor.protocol import Kind
from service.api.json_request import read_small
from service.api.problems import (
    ConflictingParts,
    DuplicatePart,
    InvalidKind,
    InvalidMultipart,
    MissingPart,
    UnexpectedPart,
    UnknownPart,
)
from service.api.uploads import json_body
from service.api.uploads.metadata import METADATA, parse_metadata
from service.api.uploads.multipart import Event, FormReader, PartStart, part_chunks, read_events
from service.api.uploads.parents import PARENT
from service.api.uploads.receiving import MODEL, read_body, receive_file, too_large
from service.api.uploads.references import check_reference, read_reference
from service.api.uploads.uploaded import UploadedInputs
from service.data_roots import MODEL_REF
from service.jobs.job import JobInput
from service.settings import Settings
from service.storage.keys import input_key, job_prefix
from service.storage.store import ObjectStore

CONFIG, KIND = "config", "kind"
KINDS: tuple[Kind, ...] = get_args(Kind.__value__)
DATA_PARTS = ("dataset", "validation", "test")
MODELS = (MODEL, MODEL_REF)
ROWS = (*DATA_PARTS, *(f"{part}_ref" for part in DATA_PARTS))
# Part with a reference -> the input that it gives.
REFERENCE_PARTS = {f"{part}_ref": part for part in (MODEL, *DATA_PARTS)}
PARTS = (KIND, *MODELS, *ROWS, PARENT, CONFIG, METADATA)
# What a kind does not take, and inputs that it must have.
NOT_TAKEN: dict[Kind, tuple[str, ...]] = {"compress": (PARENT,), "inspect": (*ROWS, PARENT), "select": (*MODELS, *ROWS)}
NEEDED: dict[Kind, tuple[str, ...]] = {"compress": (MODEL, "dataset"), "inspect": (MODEL,), "select": (PARENT,)}
MAX_TEXT_BYTES = 64 * 1024
UPLOAD_LIMIT = "BAYESPRESS_MAX_UPLOAD_BYTES, or with a key that may send more"


@dataclass(frozen=True)
class Submission:
    """What was asked for; uploaded files are complete in the store.

    `inputs` has `model` and, for a job that compresses, `dataset`, perhaps `validation` and `test`. A selection has a `parent_id` instead,
    which nobody has looked up yet.
    """

    kind: Kind
    config: CompressionConfig
    inputs: dict[str, JobInput]
    parent_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


async def receive_submission(request: Request, job_id: str, store: ObjectStore, settings: Settings, uploaded: UploadedInputs) -> Submission:
    """Reads the whole body. Whatever goes wrong, nothing of it stays in the store.

    Raises: ApiError or CompressionError as soon as the bytes that have come show the fault; ClientDisconnect.
    """
    try:
        async with aclosing(_read_events(request, settings.max_upload_bytes)) as events:
            return await _receive_parts(events, job_id, store, settings, uploaded)
    except BaseException:
        store.delete_prefix(job_prefix(job_id))
        raise


async def _read_events(request: Request, max_bytes: int) -> AsyncGenerator[Event]:
    if parse_options_header(request.headers.get("content-type"))[0].lower() == json_body.MEDIA_TYPE.encode():
        for event in json_body.to_events(await read_small(request, json_body.MAX_BODY_BYTES)):
            yield event
        return
    reader = FormReader(request.headers.get("content-type"))
    async for event in read_events(reader, read_body(request, max_bytes)):
        yield event


async def _receive_parts(
    events: AsyncIterator[Event], job_id: str, store: ObjectStore, settings: Settings, uploaded: UploadedInputs
) -> Submission:
    kind: Kind = "compress"
    config = CompressionConfig()
    inputs: dict[str, JobInput] = {}
    parent_id = None
    metadata: dict[str, str] = {}
    seen: set[str] = set()
    async for event in events:
        if not isinstance(event, PartStart):
            continue
        name, given = event.name, REFERENCE_PARTS.get(event.name, event.name)
        _check_name(name, given, seen, inputs)
        seen.add(name)
        if name == KIND:
            kind = _parse_kind(await _receive_text(events, name))
        if KIND in seen:  # before the next file is received; the parts come in any order
            _check_kind(kind, seen)
        if name == PARENT:
            parent_id = await _receive_text(events, name)
        elif name == CONFIG:
            config = _parse_config(await _receive_text(events, name))
        elif name == METADATA:
            metadata = parse_metadata(await _receive_text(events, name))
        elif name in REFERENCE_PARTS:
            text = await _receive_text(events, name)
            inputs[given] = await run_in_threadpool(_check_reference, text, name, settings, uploaded)
        elif name != KIND:
            inputs[name] = await _receive_file(events, event, job_id, store, settings.max_model_bytes if name == MODEL else None)
    _check_kind(kind, seen)
    _check_complete(kind, seen | inputs.keys())
    inputs = await run_in_threadpool(uploaded.take, inputs, job_id)
    if kind != "select":
        check_architecture(config, str(inputs[MODEL].key or inputs[MODEL].ref).lower().endswith(WEIGHTS_SUFFIX))
    check_choice(config, is_selection=kind == "select")
    return Submission(kind, config, inputs, parent_id, metadata)


def _check_reference(text: str, param: str, settings: Settings, uploaded: UploadedInputs) -> JobInput:
    reference = read_reference(text, param, settings)
    if reference.scheme == "id":
        return uploaded.look_up(reference.text, param, reference.sha256)
    return check_reference(reference, param, settings)


def _check_name(name: str, given: str, seen: set[str], inputs: dict[str, JobInput]) -> None:
    if name not in PARTS:
        raise UnknownPart(f"{name!r} is not a part of this form.", param=name, suggestion=f"The parts are: {', '.join(PARTS)}.")
    if name in seen:
        raise DuplicatePart(f"The part {name!r} comes twice.", param=name, suggestion="Send each part once.")
    if given in inputs:
        raise ConflictingParts(f"Both {given!r} and {given + '_ref'!r} are there.", param=name, suggestion="Send one of the two.")


def _check_kind(kind: Kind, seen: set[str]) -> None:
    part = next((name for name in NOT_TAKEN[kind] if name in seen), None)
    if part is not None:
        others = " or ".join(other for other in KINDS if part not in NOT_TAKEN[other])
        detail = f"A job of kind {kind} does not take the part {part!r}."
        raise UnexpectedPart(detail, param=part, suggestion=f"Leave the part out, or let kind be {others}.")


def _check_complete(kind: Kind, given: set[str]) -> None:
    for name in NEEDED[kind]:
        if name not in given:
            alternative = "" if name == PARENT else f" or {name}_ref"
            value = "JOB" if name == PARENT else "@FILE"
            raise MissingPart(f"The form has no part {name}{alternative}.", param=name, suggestion=f"Add it: curl -F {name}={value}.")


async def _receive_text(events: AsyncIterator[Event], name: str) -> str:
    data = bytearray()
    async for chunk in part_chunks(events):
        data += chunk
        if len(data) > MAX_TEXT_BYTES:
            raise too_large(f"The part {name!r}", MAX_TEXT_BYTES, name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidMultipart(f"The part {name!r} is not UTF-8 text.", param=name, suggestion="Send it as UTF-8.") from None


def _parse_kind(text: str) -> Kind:
    for kind in KINDS:
        if text == kind:
            return kind
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise InvalidKind(f"{shown!r} is no kind of job.", param=KIND, suggestion=f"The kinds are: {', '.join(KINDS)}.")


def _parse_config(text: str) -> CompressionConfig:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = f"The config is not valid JSON: {error}."
        raise InvalidConfig(detail, param=CONFIG, suggestion='Send an object, for example {"max_metric_drop": 0.005}.') from None
    return CompressionConfig.parse(values)


async def _receive_file(events: AsyncIterator[Event], part: PartStart, job_id: str, store: ObjectStore, max_bytes: int | None) -> JobInput:
    received = await receive_file(part_chunks(events), part.name, partial(input_key, job_id, part.name), store, max_bytes)
    return JobInput(key=received.key, filename=part.filename, bytes=received.bytes, sha256=received.sha256)
