"""A PostgreSQL server of our own for tests: a fresh cluster in a temporary folder, reached through a socket in it, no port."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.debian import require_debian


@contextmanager
def postgres_server() -> Iterator[str]:
    """URL of the server's empty database. Skips, or fails under CI, where the Debian package postgresql is missing."""
    pg_ctl = require_debian("postgresql", "/usr/lib/postgresql/*/bin/pg_ctl")
    # Not below pytest's folder, which the user postgres may not enter; and short, since a socket's path may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bayespress-pg-"))
    as_owner: list[str] = []
    if os.geteuid() == 0:
        # initdb refuses root.
        postgres = pwd.getpwnam("postgres")
        os.chown(folder, postgres.pw_uid, postgres.pw_gid)
        as_owner = ["runuser", "-u", "postgres", "--"]

    def run(*arguments: str) -> None:
        command = [*as_owner, str(pg_ctl), *arguments, "-D", str(folder / "data")]
        # The server inherits the output, so a pipe would stay open as long as it lives.
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60)

    try:
        run("initdb", "-s", "-o", "--no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8")
        run("start", "-w", "-s", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run("stop", "-m", "immediate", "-s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.joinpath(f"{folder.name}.log").unlink(missing_ok=True)
