"""`Fetcher`: the file that a remote reference names, whole and checked, on the local disk."""

import asyncio
import logging
import ssl
from pathlib import Path

from service.data_roots import MODEL_REF
from service.fetching.address import AddressRefused, Resolver, resolve_by_system
from service.fetching.client import guarded_client
from service.fetching.download import Pause, download, refused, unreachable
from service.fetching.receiving import Fetched, Receiver, Wanted
from service.fetching.sources import HttpSource, S3Source, to_source
from service.references import Reference, to_shown
from service.settings import Settings
from service.storage.bucket import Bucket, BucketError

logger = logging.getLogger(__name__)


class Fetcher:
    """`resolve` and `tls` are the outside world: the system's, where they are not given."""

    def __init__(
        self, settings: Settings, *, resolve: Resolver = resolve_by_system, tls: ssl.SSLContext | None = None, pause: Pause = asyncio.sleep
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._tls = tls
        self._pause = pause

    async def fetch(self, reference: Reference, param: str, path: Path) -> Fetched:
        """The file at `path`, framed as what `param` stands for, and what it is.

        Raises: ReferenceRefused, ReferenceUnreachable, ReferenceTooLarge, DigestMismatch, InvalidModel, InvalidDataset.
        """
        max_bytes = self._settings.max_model_bytes if param == MODEL_REF else self._settings.max_upload_bytes
        wanted = Wanted(param, to_shown(reference.text), max_bytes, reference.sha256)
        try:
            source = to_source(reference, self._settings)
        except (AddressRefused, ValueError) as error:
            # It was let through when it came; the settings have changed.
            raise refused(wanted, str(error)) from error
        timeout_s = self._settings.reference_timeout_s
        with Receiver(wanted, path) as receiver:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._receive(source, receiver)
            except TimeoutError as error:
                raise unreachable(wanted, f"It took longer than {timeout_s:g} s.", transient=False) from error
            return receiver.finish()

    async def _receive(self, source: HttpSource | S3Source, receiver: Receiver) -> None:
        if isinstance(source, S3Source):
            await self._read_bucket(source, receiver)
            return
        # The certificates of a whole system take a moment to load, in which nobody would renew the lease.
        tls = self._tls or await asyncio.to_thread(ssl.create_default_context)
        async with guarded_client(self._settings.reference_hosts, resolve=self._resolve, tls=tls) as client:
            await download(client, source, receiver, self._pause)

    async def _read_bucket(self, source: S3Source, receiver: Receiver) -> None:
        bucket = Bucket(source.bucket, endpoint=self._settings.s3_endpoint, region=self._settings.s3_region)
        try:
            size, chunks = await bucket.read(source.key)
            receiver.check_size(size)
            async for chunk in chunks:
                receiver.take(chunk)
        except BucketError as error:
            logger.warning("%s: %s", receiver.wanted.shown, error.__cause__)
            raise unreachable(receiver.wanted, str(error), transient=error.transient) from error
