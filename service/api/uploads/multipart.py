"""multipart/form-data as a stream of events, over python-multipart's push parser; no part is ever held whole."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from service.api.problems import InvalidMultipart, UnsupportedMediaType

MEDIA_TYPE = "multipart/form-data"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SUGGESTION = "Let an HTTP client build the form, for example curl -F model=@model.onnx."


@dataclass(frozen=True)
class PartStart:
    """A part begins. `filename` is what the client calls the file; None for a plain field."""

    name: str
    filename: str | None


class PartEnd:
    """The part that began last is complete."""


Event = PartStart | bytes | PartEnd


class FormReader:
    """Turns the chunks of a body into events: a PartStart, its bytes, a PartEnd, and so on.

    Raises UnsupportedMediaType for another content type, InvalidMultipart for a body that does not keep to its own.
    """

    def __init__(self, content_type: str | None) -> None:
        media_type, options = parse_options_header(content_type)
        if media_type.lower() != MEDIA_TYPE.encode():
            sent = f"It is {content_type!r}." if content_type else "There is none."
            detail = f"The Content-Type must be {MEDIA_TYPE} or application/json. {sent}"
            raise UnsupportedMediaType(detail, param="Content-Type", suggestion=_SUGGESTION)
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            detail = "The Content-Type names no boundary of 1 to 70 characters."
            raise InvalidMultipart(detail, param="Content-Type", suggestion=_SUGGESTION)
        self._events: list[Event] = []
        self._header_field = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers_begin,
                "on_header_field": lambda data, start, end: self._header_field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                "on_part_end": lambda: self._events.append(PartEnd()),
            },
        )

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidMultipart(f"{error}.", param="body", suggestion=_SUGGESTION) from None
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """The body is over: it must have come to its closing boundary."""
        if self._parser.state != MultipartState.END:
            raise InvalidMultipart("The body ends before its closing boundary.", param="body", suggestion=_SUGGESTION)

    def _headers_begin(self) -> None:
        self._headers = {}

    def _header_ends(self) -> None:
        self._headers[bytes(self._header_field).lower()] = bytes(self._header_value)
        self._header_field.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition.lower() != b"form-data" or b"name" not in options:
            raise InvalidMultipart("A part has no Content-Disposition with a name.", param="Content-Disposition", suggestion=_SUGGESTION)
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise InvalidMultipart(
                "A part has a Content-Transfer-Encoding.", param="Content-Transfer-Encoding", suggestion="Send the bytes as they are."
            )
        filename = options.get(b"filename")
        self._events.append(PartStart(_to_text(options[b"name"]), None if filename is None else _to_text(filename)))


async def read_events(reader: FormReader, chunks: AsyncIterator[bytes]) -> AsyncGenerator[Event]:
    """The events of a body, to its end. Raises InvalidMultipart."""
    async for chunk in chunks:
        for event in reader.feed(chunk):
            yield event
    reader.finish()


async def part_chunks(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The bytes of the part that has just begun."""
    async for event in events:
        if isinstance(event, PartEnd):
            return
        if isinstance(event, bytes):
            yield event


def _to_text(value: bytes) -> str:
    """A name from a header, fit for a log line and a JSON field."""
    return _CONTROL.sub("", value.decode("utf-8", "replace"))[:255]
