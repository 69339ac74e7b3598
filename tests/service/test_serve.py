"""A service that cannot start says why, before it has touched anything."""

import socket
from pathlib import Path

import pytest

from service.serve import CannotServe, _listening, read_settings, run
from service.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])  # noqa: S104  the refused ones
def test_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(CannotServe, match="not a loopback address"):
        run(Settings(home=tmp_path / "home", host=host))
    assert not (tmp_path / "home").exists()


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
