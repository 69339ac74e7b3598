"""`Settings`: the only reader of the environment. Each field is a BAYESPRESS_... variable, and what `serve` changes is an option of it."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.references import Scheme
from service.webhooks.schedule import SCHEDULE_S

ENV_PREFIX = "BAYESPRESS_"
MIB = 1024 * 1024
# Which no child process gets.
SECRETS = frozenset({"admin_key"})
# Settings that are names, separated by commas in the environment.
NAMES = ("allowed_hosts", "reference_schemes", "reference_hosts", "s3_buckets")
MAX_WEBHOOK_DELAY_S = 30 * 86400.0
DAY_S = 86400.0
# What any database can count back from now.
LONGEST_S = 36500 * DAY_S


class Settings(BaseSettings):
    """Options of the service. In the environment, folders are separated as in PATH and names by commas."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True)

    # Where things are
    home: Path = Field(default=Path("~/.bayespress"), description="Folder of the database and of all files; on a local disk.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL. Unset: SQLite under the home folder.")
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders whose files a request may name as file:PATH. None by default."
    )

    # What is listened to
    host: str = Field(default="127.0.0.1", description="Address to listen on. Beyond loopback every request needs a key.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("localhost", "127.0.0.1", "[::1]"), description="Names by which the service may be addressed (Host header, without port)."
    )

    # Who may ask
    require_keys: bool = Field(default=False, description="Whether requests on a loopback address need a key, too.")
    admin_key: SecretStr | None = Field(
        default=None, description="A key of scope admin that is in no database; at least 32 printable characters without spaces."
    )

    # What an owner may have, where their key does not say it
    max_queued_jobs: int | None = Field(default=None, ge=0, description="Unfinished jobs of an owner. Unset: no limit.")
    max_running_jobs: int | None = Field(default=None, ge=1, description="Jobs of an owner that run at the same time. Unset: no limit.")
    max_stored_bytes: int | None = Field(
        default=None, ge=0, description="Inputs, artifacts and uploads of an owner with which more is taken. Unset: no limit."
    )

    # What an upload may weigh
    max_model_bytes: int = Field(default=512 * MIB, ge=1, description="Largest model file.")
    max_upload_bytes: int = Field(default=2048 * MIB, ge=1, description="Largest request body: model and data together.")

    # What a request may name instead of sending it
    reference_schemes: Annotated[tuple[Scheme, ...], NoDecode] = Field(
        default=("builtin", "file", "id"),
        description="Kinds of references that are on, of builtin, id, file, https, s3, hf. With the last three the service fetches files.",
    )
    reference_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts, as URLs have them, perhaps with a port, that references and webhooks may lead to although their addresses are "
        "private, also over http:. None by default: public addresses alone, over https:. (Names of this service are ALLOWED_HOSTS.)",
    )
    reference_timeout_s: float = Field(default=1800.0, gt=0.0, description="Longest time that fetching one file may take.")
    s3_buckets: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Buckets that s3://BUCKET/KEY may name. None by default. Credentials are the usual AWS_... variables."
    )
    s3_endpoint: str | None = Field(default=None, description="URL of an S3 service that is not Amazon's; http: is taken.")
    s3_region: str | None = Field(default=None, description="Region of the buckets. Unset: AWS_REGION, or us-east-1.")
    hf_endpoint: str = Field(default="https://huggingface.co", description="Where hf:// leads: the hub, or a mirror with the same paths.")
    hf_token: SecretStr | None = Field(default=None, description="Token for hf://, sent to the endpoint itself and to no other host.")

    idempotency_ttl_s: float = Field(default=86400.0, gt=0.0, description="An Idempotency-Key is remembered for so long.")

    # Webhooks. The connections of one client are ten.
    webhook_senders: int = Field(default=8, ge=0, le=10, description="Webhooks sent at the same time; 0: this process sends none.")
    webhook_schedule_s: Annotated[tuple[Annotated[float, Field(ge=0.0, le=MAX_WEBHOOK_DELAY_S)], ...], NoDecode] = Field(
        default=SCHEDULE_S,
        max_length=100,
        description="Seconds from each failed attempt to send a webhook to the next; after the last one it is given up.",
    )

    # What is kept, and for how long
    retain_uploads_s: float = Field(
        default=7 * DAY_S,
        gt=0.0,
        le=LONGEST_S,
        description="A model or dataset of POST /v1/models or /v1/datasets is kept for so long since its last use.",
    )
    retain_jobs_s: float | None = Field(
        default=None, gt=0.0, le=LONGEST_S, description="A finished job is kept for so long, with its files. Unset: until it is deleted."
    )
    upload_idle_s: float = Field(
        default=3600.0,
        gt=0.0,
        le=LONGEST_S,
        description="Files of a request that was never completed go when nothing has come for so long.",
    )

    # The worker
    workers: int = Field(default=1, ge=0, le=256, description="Jobs that run at the same time; 0 takes requests and runs nothing.")
    lease_s: float = Field(
        default=60.0,
        gt=0.0,
        description="A runner that has not renewed its lease for so long has lost its job, a request its Idempotency-Key.",
    )
    renew_s: float = Field(default=15.0, gt=0.0, description="How often a lease is renewed.")
    max_attempts: int = Field(default=3, ge=1, description="A job that was started so often without coming to an end is failed.")
    trainer_memory_bytes: int | None = Field(default=None, ge=1, description="Address space limit of a trainer. Unset: none.")
    trainer_wall_s: int | None = Field(default=None, ge=1, description="Longest run of a trainer. Unset: none.")

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_folders(cls, value: Any) -> Any:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator(*NAMES, mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(name.strip().lower() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("webhook_schedule_s", mode="before")
    @classmethod
    def _split_numbers(cls, value: Any) -> Any:
        return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("data_roots")
    @classmethod
    def _existing_folders(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        resolved = tuple(root.expanduser().resolve() for root in roots)
        for root in resolved:
            if not root.is_dir():
                raise ValueError(f"{root} is not a folder")
        return resolved

    @field_validator("admin_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{32,}", key.get_secret_value()):
            raise ValueError("a key has at least 32 printable ASCII characters and no spaces")
        return key

    @model_validator(mode="after")
    def _renews_before_expiry(self) -> "Settings":
        if self.renew_s >= self.lease_s:
            raise ValueError("renew_s must be smaller than lease_s")
        return self

    def to_environment(self) -> dict[str, str]:
        """The variables that give a child process the same settings, but for what only we need."""
        separators = {"data_roots": os.pathsep} | dict.fromkeys((*NAMES, "webhook_schedule_s"), ",")
        values = {name: value for name, value in self.model_dump(exclude_none=True).items() if name not in SECRETS}
        return {
            f"{ENV_PREFIX}{name.upper()}": separators[name].join(map(str, value)) if name in separators else _to_text(value)
            for name, value in values.items()
        }

    def child_environment(self) -> dict[str, str]:
        """What a child process of the service gets: the environment of this one with the same settings, and no secret in it."""
        secret = {f"{ENV_PREFIX}{name.upper()}" for name in SECRETS}
        return {name: value for name, value in os.environ.items() if name.upper() not in secret} | self.to_environment()

    @property
    def keys_required(self) -> bool:
        """Whether a request without a key is refused."""
        try:
            is_loopback = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            is_loopback = False
        return self.require_keys or not is_loopback

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the jobs table."""
        return self.database_url or f"sqlite:///{self.home / 'bayespress.sqlite3'}"

    @property
    def store_root(self) -> Path:
        """Folder of the object store."""
        return self.home / "store"

    @property
    def work_root(self) -> Path:
        """Folder of the runners' work directories."""
        return self.home / "work"


def _to_text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
