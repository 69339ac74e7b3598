"""`UploadRepository`: all SQL about uploads.

A row of `upload_objects` stands for bytes in the store, and lives as long as a file of anybody's upload has them. The key of an object is
that of the request which brought it, and is never given to anything else: what has gone from the table can go from the store at leisure,
whoever sends the same bytes anew meanwhile. Locks are taken in one order: the upload, then its objects by their digests.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, delete, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.jobs.clock import DatabaseClock, utc_now
from service.jobs.quotas.quota import NO_QUOTAS, Quotas
from service.jobs.quotas.repository import check_uploaded, lock_owner
from service.jobs.tables import upload_files as files
from service.jobs.tables import upload_objects as objects
from service.jobs.tables import uploads
from service.jobs.uploads.upload import Upload, UploadedFile, UploadKind, new_serial, upload_id

SWEPT_AT_ONCE = 100


class UploadRepository:
    """Synchronous; safe to use from several threads and processes. `clock` counts on SQLite only, PostgreSQL has its own."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._now = DatabaseClock(engine, clock)

    def keep(
        self,
        owner: str,
        kind: UploadKind,
        received: Mapping[str, UploadedFile],
        is_stored: Callable[[str], bool],
        quotas: Quotas = NO_QUOTAS,
    ) -> tuple[Upload, bool]:
        """The upload of these files, and whether it is new; of bytes that were there already it has the older object.

        `is_stored` is asked whether an object is in the store: where an older one has gone, the new one takes its place.

        Raises: FileNotFoundError where the new one has gone as well; QuotaReached where a new upload is more than its owner may have.
        """
        new_id = upload_id(kind, received)
        with self._engine.begin() as connection:
            lock_owner(connection, owner)
            created = self._open(connection, owner, new_id, kind)
            for file in sorted(received.values(), key=lambda file: file.sha256):
                _keep_object(connection, file, is_stored)
            if created:
                rows = [
                    {"owner": owner, "upload_id": new_id, "part": part, "sha256": file.sha256, "filename": file.filename}
                    for part, file in received.items()
                ]
                connection.execute(files.insert(), rows)
                check_uploaded(connection, owner, sum(file.bytes for file in received.values()), quotas)
            return _read(connection, _is(owner, new_id))[0], created

    def _open(self, connection: Connection, owner: str, new_id: str, kind: UploadKind) -> bool:
        """Locks the upload's row; True where it had to be made."""
        now = self._now()
        values = {"owner": owner, "id": new_id, "kind": kind, "serial": new_serial(), "created_at": now, "used_at": now}
        while not self._touch(connection, owner, new_id):
            made = _insert(connection, uploads).values(values).on_conflict_do_nothing().returning(uploads.c.id)
            if connection.execute(made).one_or_none() is not None:
                return True
        return False

    def _touch(self, connection: Connection, owner: str, known_id: str) -> bool:
        return connection.execute(update(uploads).where(_is(owner, known_id)).values(used_at=self._now())).rowcount == 1

    def get(self, owner: str, known_id: str) -> Upload | None:
        with self._engine.begin() as connection:
            return next(iter(_read(connection, _is(owner, known_id))), None)

    def use(self, owner: str, known_id: str) -> Upload | None:
        """The upload, whose time of retention begins anew."""
        with self._engine.begin() as connection:
            return _read(connection, _is(owner, known_id))[0] if self._touch(connection, owner, known_id) else None

    def list_recent(self, owner: str, kind: UploadKind, limit: int, after: str | None = None) -> list[Upload]:
        """The newest first; `after` is the serial of the last one of the page before."""
        wanted = and_(uploads.c.owner == owner, uploads.c.kind == kind)
        if after is not None:
            wanted = and_(wanted, uploads.c.serial < after)
        with self._engine.begin() as connection:
            return _read(connection, wanted, limit)

    def delete(self, owner: str, known_id: str, unused_s: float | None = None) -> list[str] | None:
        """Removes the upload; with `unused_s` only where it was not used for so long. None where there is no such.

        Returns: the keys of objects that are no longer anybody's, to be removed from the store.
        """
        wanted = _is(owner, known_id)
        if unused_s is not None:
            wanted = and_(wanted, uploads.c.used_at < self._now(-unused_s))
        with self._engine.begin() as connection:
            if connection.execute(update(uploads).where(wanted).values(kind=uploads.c.kind)).rowcount != 1:
                return None
            parts = delete(files).where(files.c.owner == owner, files.c.upload_id == known_id).returning(files.c.sha256)
            digests = sorted(set(connection.execute(parts).scalars()))
            connection.execute(delete(uploads).where(_is(owner, known_id)))
            return [key for digest in digests for key in _release(connection, digest)]

    def unused(self, unused_s: float) -> list[tuple[str, str]]:
        """Owner and id of some of the uploads that were not used for so long."""
        query = select(uploads.c.owner, uploads.c.id).where(uploads.c.used_at < self._now(-unused_s)).limit(SWEPT_AT_ONCE)
        with self._engine.begin() as connection:
            return [(owner, known_id) for owner, known_id in connection.execute(query)]

    def named(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that are an upload's objects."""
        with self._engine.begin() as connection:
            return set(connection.execute(select(objects.c.key).where(objects.c.key.in_(keys))).scalars())


def _is(owner: str, known_id: str) -> ColumnElement[bool]:
    return and_(uploads.c.owner == owner, uploads.c.id == known_id)


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _keep_object(connection: Connection, file: UploadedFile, is_stored: Callable[[str], bool]) -> None:
    """Locks the object of these bytes, so that nobody releases it before this transaction has named it."""
    statement = _insert(connection, objects).values(file.model_dump(include={"sha256", "key", "bytes"}))
    locked = statement.on_conflict_do_update(index_elements=["sha256"], set_={"bytes": statement.excluded.bytes})
    key = connection.execute(locked.returning(objects.c.key)).scalar_one()
    if is_stored(key):
        return
    if not is_stored(file.key):
        raise FileNotFoundError(file.key)
    connection.execute(update(objects).where(objects.c.sha256 == file.sha256).values(key=file.key))


def _release(connection: Connection, digest: str) -> list[str]:
    """The key of the object where no file has its bytes any more; the object is then no longer known."""
    # First the lock, then the look: a statement sees what was there when it began, and it may have waited for who takes the object.
    connection.execute(select(objects.c.sha256).where(objects.c.sha256 == digest).with_for_update())
    unnamed = ~exists().where(files.c.sha256 == digest)
    return list(connection.execute(delete(objects).where(objects.c.sha256 == digest, unnamed).returning(objects.c.key)).scalars())


def _read(connection: Connection, wanted: ColumnElement[bool], limit: int = 1) -> list[Upload]:
    """Uploads of one owner, the newest first."""
    rows = connection.execute(select(uploads).where(wanted).order_by(uploads.c.serial.desc()).limit(limit)).all()
    query = (
        select(files.c.upload_id, files.c.part, files.c.filename, objects.c.sha256, objects.c.key, objects.c.bytes)
        .join(objects, objects.c.sha256 == files.c.sha256)
        .where(files.c.owner.in_([row.owner for row in rows[:1]]), files.c.upload_id.in_([row.id for row in rows]))
        .order_by(files.c.part)
    )
    found: dict[str, dict[str, UploadedFile]] = {row.id: {} for row in rows}
    for file in connection.execute(query):
        found[file.upload_id][file.part] = UploadedFile.model_validate(file, from_attributes=True)
    return [Upload(files=found[row.id], **{name: value for name, value in row._asdict().items() if name != "owner"}) for row in rows]
