"""Settings: read from BAYESPRESS_... variables, and given on to children unchanged."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_defaults_listen_on_loopback_and_open_no_folder() -> None:
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.data_roots == ()
    assert settings.home.is_absolute()


def test_every_field_survives_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = (tmp_path / "a, b", tmp_path / "c")
    for root in roots:
        root.mkdir()
    settings = Settings(
        home=tmp_path / "home",
        data_roots=roots,
        allowed_hosts=("example.org", "[::1]"),
        port=0,
        workers=2,
        lease_s=3.5,
        renew_s=0.5,
        trainer_memory_bytes=10**9,
        database_url="sqlite:///x",
        retain_uploads_s=60.5,
        retain_jobs_s=3600,
    )
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    "values",
    [{"port": 70000}, {"lease_s": 1.0, "renew_s": 2.0}, {"workers": -1}, {"retain_jobs_s": 0}, {"retain_uploads_s": 1e12}, {"hmoe": "x"}],
)
def test_a_wrong_value_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def test_a_data_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="is not a folder"):
        Settings(data_roots=(tmp_path / "none",))
