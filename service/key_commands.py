"""`bayespress keys create`, `list` and `revoke`: the keys of the service, in its database, whether it runs or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from service.jobs.clock import utc_now
from service.jobs.engine import create_engine
from service.jobs.migrate import upgrade
from service.jobs.quotas.quota import Quotas
from service.keys.key import ApiKey, Scope, draw_key, is_owner
from service.keys.repository import KeyRepository
from service.serve import CannotServe, make_home, read_settings

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys that clients of the service send.")

HomeOption = Annotated[Path | None, typer.Option(help="Folder of the service's database.", show_default="~/.bayespress")]
_LIMIT = "; the setting of the same name where it is not given."


@keys.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose jobs and files the key may see: letters, digits and . _ @ -")],
    scope: Annotated[Scope, typer.Option(help="read: look and fetch; submit: send and change jobs, too; admin: those of every owner.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    max_queued_jobs: Annotated[int | None, typer.Option(min=0, help=f"Unfinished jobs of the owner{_LIMIT}")] = None,
    max_running_jobs: Annotated[int | None, typer.Option(min=1, help=f"Jobs of the owner that run at the same time{_LIMIT}")] = None,
    max_stored_bytes: Annotated[int | None, typer.Option(min=0, help=f"Inputs, artifacts and uploads of the owner{_LIMIT}")] = None,
    max_upload_bytes: Annotated[int | None, typer.Option(min=1, help="Largest request body; at most that of the service.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days for which the key is valid; for ever without.")] = None,
    home: HomeOption = None,
) -> None:
    """Make a key and print it. It is shown this once: the database has only its digest."""
    now, text = utc_now(), draw_key()
    with _repository(home) as repository:
        key = ApiKey(
            id=text.id,
            owner=_checked(owner),
            name="".join(filter(str.isprintable, name))[:255],
            scope=scope,
            secret_sha256=text.digest,
            created_at=now,
            quotas=Quotas(max_queued_jobs, max_running_jobs, max_stored_bytes, max_upload_bytes),
            expires_at=now + timedelta(days=expires_days) if expires_days else None,
        )
        repository.insert(key)
    typer.echo(f"Key {key.id} of {key.owner}, scope {key.scope}. It is not shown again:", err=True)
    typer.echo(text.reveal())


@keys.command("list")
def list_keys(home: HomeOption = None) -> None:
    """List all keys: id, owner, scope, state, dates, limits, name."""
    with _repository(home) as repository:
        for key in repository.list_all():
            typer.echo("  ".join((key.id, *_describe(key))))


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it: what stands between bp_ and the second _.")],
    home: HomeOption = None,
) -> None:
    """Make a key worthless from the next request on. Its owner's jobs stay."""
    with _repository(home) as repository:
        if repository.revoke(key_id) is None:
            raise CannotServe("There is no key of that id; `bayespress keys list` has all of them.")
    typer.echo(f"Key {key_id} is revoked.", err=True)


@contextmanager
def _repository(home: Path | None) -> Iterator[KeyRepository]:
    """Over the database of the settings; what goes wrong is said in one line, with exit code 1."""
    try:
        settings = read_settings({} if home is None else {"home": home})
        make_home(settings.home)
        engine = create_engine(settings.database)
        try:
            upgrade(engine)
            yield KeyRepository(engine)
        finally:
            engine.dispose()
    except CannotServe as error:
        typer.echo(f"bayespress keys: {error}", err=True)
        raise typer.Exit(1) from None


def _checked(owner: str) -> str:
    if not is_owner(owner):
        raise CannotServe("--owner: 1 to 64 letters, digits and . _ @ -, the first of them a letter or a digit.")
    return owner


def _describe(key: ApiKey) -> Iterator[str]:
    yield f"{key.owner:<16}"
    yield f"{key.scope:<6}"
    yield f"{key.state(utc_now()):<7}"
    yield _to_date(key.created_at)
    yield _to_date(key.expires_at)
    limits = {name: limit for name, limit in vars(key.quotas).items() if limit is not None}
    yield ",".join(f"{name}={limit}" for name, limit in limits.items()) or "-"
    yield key.name


def _to_date(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "never     "
