"""From a reference to where its file lies, where the settings let it: asked when a request comes, and again before the file is fetched."""

import re
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from service.fetching.address import AddressGuard, AddressRefused, effective_port
from service.fetching.hf import is_plain_segment, to_url
from service.references import SCHEMES, Reference, Scheme
from service.settings import Settings

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class HttpSource:
    """A URL. The token is for its own origin alone."""

    url: httpx.URL
    token: SecretStr | None = None

    def headers_for(self, url: httpx.URL) -> dict[str, str]:
        if self.token is None or _origin(url) != _origin(self.url):
            return {}
        return {"Authorization": f"Bearer {self.token.get_secret_value()}"}


@dataclass(frozen=True)
class S3Source:
    bucket: str
    key: str


def open_schemes(settings: Settings) -> list[Scheme]:
    """The schemes that a request may use here: switched on, and with something behind them."""
    empty = {"file"} if not settings.data_roots else set()
    if not settings.s3_buckets:
        empty.add("s3")
    return [scheme for scheme in SCHEMES if scheme in settings.reference_schemes and scheme not in empty]


def to_source(reference: Reference, settings: Settings) -> HttpSource | S3Source:
    """Where the file of a remote reference lies.

    Raises: ValueError where there can be no such place, AddressRefused where it is none for clients; their texts are for clients.
    """
    scheme = "https" if reference.scheme == "http" else reference.scheme
    if scheme not in open_schemes(settings):
        raise AddressRefused(f"{reference.scheme}: references are off here.")
    if scheme == "s3":
        return _to_s3_source(reference.rest, settings)
    source = _to_hf_source(reference.rest, settings) if scheme == "hf" else HttpSource(_parse_url(reference.text))
    AddressGuard(settings.reference_hosts).check_url(source.url)
    return source


def _to_hf_source(rest: str, settings: Settings) -> HttpSource:
    return HttpSource(to_url(rest, settings.hf_endpoint), settings.hf_token)


def _parse_url(text: str) -> httpx.URL:
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("A URL has visible ASCII characters alone; write others as %XX.")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"The URL cannot be read: {error}.") from None
    if url.fragment:
        raise ValueError("Of what may follow a # only #sha256= is known.")
    return url


def _to_s3_source(rest: str, settings: Settings) -> S3Source:
    bucket, _, key = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not _BUCKET.fullmatch(bucket) or not all(map(is_plain_segment, key.split("/"))):
        raise ValueError("An s3: reference is s3://BUCKET/KEY, without empty segments, '.' or '..' in the key.")
    if bucket not in settings.s3_buckets:
        raise AddressRefused(f"The bucket {bucket} is not open to references.")
    return S3Source(bucket, key)


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, effective_port(url)
