"""Settings: read from BAYESPRESS_... variables, and given on to children unchanged."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.serve import CannotServe, read_settings
from service.settings import SECRETS, Settings

KEY = "a key of at least thirty-two characters".replace(" ", "-")


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
        require_keys=True,
        max_queued_jobs=0,
        max_running_jobs=1,
        max_stored_bytes=2**40,
        lease_s=3.5,
        renew_s=0.5,
        trainer_memory_bytes=10**9,
        database_url="sqlite:///x",
        reference_schemes=("builtin", "https", "hf", "s3"),
        reference_hosts=("minio.internal:9000", "[::1]"),
        s3_buckets=("models",),
        hf_token=SecretStr("hf_secret"),
        webhook_senders=3,
        webhook_schedule_s=(0.0, 0.25, 60.0),
        retain_uploads_s=60.5,
        retain_jobs_s=3600,
    )
    assert "hf_secret" not in repr(settings)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize("variable", ["BAYESPRESS_ADMIN_KEY", "bayespress_admin_key"])
def test_a_child_process_gets_no_secret(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("SOMETHING_ELSE", "x")
    settings = Settings()
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == KEY
    environment = settings.child_environment()
    assert environment["SOMETHING_ELSE"] == "x"
    assert KEY not in str(environment)
    assert [name for name in environment if name.upper() == "BAYESPRESS_ADMIN_KEY"] == []
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_every_secret_but_what_a_runner_fetches_with_is_kept_from_children() -> None:
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secrets - {"hf_token"} == SECRETS


@pytest.mark.parametrize("key", ["x" * 31, "x" * 31 + " ", "x" * 31 + "\n", "\u00e9" * 32, " " + "x" * 32])
def test_a_weak_admin_key_is_refused_and_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAYESPRESS_ADMIN_KEY", key)
    with pytest.raises(ValidationError) as refusal:
        Settings()
    assert key not in str(refusal.value)
    with pytest.raises(CannotServe, match="BAYESPRESS_ADMIN_KEY: a key has at least 32") as shown:
        read_settings({})
    assert key not in str(shown.value)


@pytest.mark.parametrize(
    ("host", "required"),
    [
        ("127.0.0.1", False),
        ("127.255.0.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104
        ("::", True),
        ("", True),
        ("192.168.0.1", True),
        ("example.org", True),
        ("localhost.example.org", True),
        ("127.0.0.1.example.org", True),
    ],
)
def test_keys_are_required_beyond_loopback(host: str, required: bool) -> None:
    assert Settings(host=host).keys_required is required
    assert Settings(host=host, require_keys=True).keys_required


@pytest.mark.parametrize(
    "values",
    [
        {"port": 70000},
        {"lease_s": 1.0, "renew_s": 2.0},
        {"workers": -1},
        {"reference_schemes": "ftp"},
        {"webhook_schedule_s": "5,-1"},
        {"retain_jobs_s": 0},
        {"retain_uploads_s": 1e12},
        {"hmoe": "x"},
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def test_a_data_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="is not a folder"):
        Settings(data_roots=(tmp_path / "none",))
