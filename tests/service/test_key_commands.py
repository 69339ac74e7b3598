"""`bayespress keys`: what it prints, what it stores, what it refuses."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import main
from service.jobs.clock import utc_now
from service.jobs.engine import create_engine
from service.jobs.quotas.quota import Quotas
from service.keys.key import ApiKey, Scope, parse_key
from service.keys.repository import KeyRepository

LIMITS = ["--max-queued-jobs", "0", "--max-running-jobs", "1", "--max-stored-bytes", str(2**41), "--max-upload-bytes", "4"]


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments, "--home", str(home)])


def stored(home: Path) -> list[ApiKey]:
    engine = create_engine(f"sqlite:///{home / 'bayespress.sqlite3'}")
    try:
        return KeyRepository(engine).list_all()
    finally:
        engine.dispose()


def test_a_key_is_made_shown_once_listed_and_revoked(tmp_path: Path) -> None:
    made = run(tmp_path, "create", "--owner", "alice", "--scope", "read", "--name", "a\x1b[31m name", *LIMITS, "--expires-days", "2")
    assert made.exit_code == 0, made.output
    text = parse_key(made.stdout.strip())
    assert text is not None
    assert text.secret not in made.stderr
    (key,) = stored(tmp_path)
    assert (key.id, key.owner, key.name, key.scope, key.secret_sha256) == (text.id, "alice", "a[31m name", Scope.READ, text.digest)
    assert key.quotas == Quotas(0, 1, 2**41, 4)
    assert key.expires_at is not None
    assert 1.9 < (key.expires_at - utc_now()).total_seconds() / 86400 <= 2
    listed = run(tmp_path, "list").stdout
    assert re.fullmatch(rf"{key.id} +alice +read +valid +[0-9-]+ +[0-9-]+ +max_queued_jobs=0,.* +a\[31m name\n", listed)
    assert text.secret not in listed
    assert text.digest not in listed
    for _ in range(2):
        assert run(tmp_path, "revoke", key.id).exit_code == 0
    assert " revoked " in run(tmp_path, "list").stdout
    assert text.secret.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_without_limits_and_end(tmp_path: Path) -> None:
    assert run(tmp_path, "create", "--owner", "alice", "--scope", "admin").exit_code == 0
    (key,) = stored(tmp_path)
    assert (key.quotas, key.expires_at, key.scope) == (Quotas(), None, Scope.ADMIN)
    assert " never " in run(tmp_path, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "--owner", "a b", "--scope", "read"], 1, "--owner: 1 to 64 letters"),
        (["create", "--owner", "alice", "--scope", "root"], 2, "scope"),
        (["create", "--owner", "alice"], 2, "scope"),
        (["create", "--scope", "read"], 2, "owner"),
        (["create", "--owner", "alice", "--scope", "read", "--max-running-jobs", "0"], 2, "max-running-jobs"),
        (["create", "--owner", "alice", "--scope", "read", "--expires-days", "0"], 2, "expires-days"),
        (["revoke", "0123456789abcdef"], 1, "There is no key of that id"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    refused = run(tmp_path, *arguments)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.output


def test_a_home_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run(tmp_path / "file" / "home", "list")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("bayespress keys: ")
