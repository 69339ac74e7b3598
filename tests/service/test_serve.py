"""A service that cannot start says why."""

import socket
from pathlib import Path
from typing import Any

import pytest

from service.jobs.clock import utc_now
from service.jobs.engine import create_engine
from service.jobs.migrate import upgrade
from service.keys.key import ApiKey, Scope, draw_key
from service.keys.repository import KeyRepository
from service.serve import CannotServe, _listening, read_settings, run
from service.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])  # noqa: S104  the refused ones
@pytest.mark.parametrize("state", ["no key", "revoked", "expired"])
def test_beyond_loopback_it_needs_a_key_that_lets_somebody_in(tmp_path: Path, host: str, state: str) -> None:
    settings = Settings(home=tmp_path, host=host, port=0)
    if state != "no key":
        insert_key(settings, **{"revoked_at" if state == "revoked" else "expires_at": utc_now()})
    with pytest.raises(CannotServe, match="every request needs a key, and there is none") as refusal:
        run(settings)
    assert all(way in str(refusal.value) for way in ("bayespress keys create", "BAYESPRESS_ADMIN_KEY", "127.0.0.1"))


def test_on_loopback_it_needs_one_where_it_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(CannotServe, match="BAYESPRESS_REQUIRE_KEYS is set"):
        run(Settings(home=tmp_path, port=0, require_keys=True))


def insert_key(settings: Settings, **values: Any) -> None:
    engine = create_engine(settings.database)
    upgrade(engine)
    drawn = draw_key()
    KeyRepository(engine).insert(ApiKey(drawn.id, "alice", "", Scope.READ, drawn.digest, utc_now(), **values))
    engine.dispose()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=f"port {port} cannot be listened on: Address already in use"):
            run(Settings(home=tmp_path, port=port))


def test_no_part_of_an_answer_waits_for_the_acknowledgement_of_another() -> None:
    with _listening(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_home_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotServe, match="cannot be used as the home folder"):
        run(Settings(home=tmp_path / "file" / "home"))


def test_a_wrong_option_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotServe, match=r"--data-root: .*none is not a folder"):
        read_settings({"data_roots": (tmp_path / "none",)})
    monkeypatch.setenv("BAYESPRESS_WORKERS", "many")
    with pytest.raises(CannotServe, match="BAYESPRESS_WORKERS: "):
        read_settings({})


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAYESPRESS_PORT", "1234")
    monkeypatch.setenv("BAYESPRESS_HOST", "::1")
    settings = read_settings({"port": 0})
    assert (settings.port, settings.host) == (0, "::1")
