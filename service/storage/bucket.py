"""`Bucket`: files that lie in an S3 bucket which the settings open to references. Read only."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from service.storage.store import CHUNK_BYTES

if TYPE_CHECKING:
    # The stubs have these; the modules have not.
    from obstore import GetResult
    from obstore.store import S3Config

# Of each the module has a class and the store may raise the built-in one.
_NOT_THERE = (NotFoundError, FileNotFoundError)
_NOT_ALLOWED = (PermissionDeniedError, UnauthenticatedError, PermissionError)


class BucketError(Exception):
    """The object cannot be had; the text is for clients. `transient` where it may be another time."""

    def __init__(self, detail: str, *, transient: bool) -> None:
        super().__init__(detail)
        self.transient = transient


class Bucket:
    """Credentials are those of the usual AWS_... variables, of a profile's role or of the machine: obstore looks for them itself."""

    def __init__(self, name: str, *, endpoint: str | None = None, region: str | None = None) -> None:
        config: S3Config = {}
        if endpoint is not None:
            config["endpoint"] = endpoint
        if region is not None:
            config["region"] = region
        self._store = S3Store(
            name,
            config=config,
            client_options={"allow_http": (endpoint or "").startswith("http:"), "connect_timeout": "10s", "read_timeout": "30s"},
            retry_config={"max_retries": 2},
        )

    async def read(self, key: str) -> tuple[int, AsyncIterator[bytes]]:
        """The size of the object and its bytes. Raises BucketError, the bytes too."""
        try:
            result = await obstore.get_async(self._store, key)
        except (BaseError, OSError) as error:
            raise _to_bucket_error(error) from error
        return result.meta["size"], _chunks(result)


async def _chunks(result: "GetResult") -> AsyncIterator[bytes]:
    try:
        async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)
    except (BaseError, OSError) as error:
        raise _to_bucket_error(error) from error


def _to_bucket_error(error: Exception) -> BucketError:
    """What the store itself says may hold addresses and credentials' names: it goes to the log alone."""
    if isinstance(error, _NOT_THERE):
        return BucketError("There is no such object.", transient=False)
    if isinstance(error, _NOT_ALLOWED):
        return BucketError("The service may not read it.", transient=False)
    return BucketError("The store did not answer as it should.", transient=True)
