"""`Settings`: the only reader of the environment. Each field is a BAYESPRESS_... variable, and what `serve` changes is an option of it."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENV_PREFIX = "BAYESPRESS_"
MIB = 1024 * 1024
DAY_S = 86400.0
# What any database can count back from now.
LONGEST_S = 36500 * DAY_S


class Settings(BaseSettings):
    """Options of the service. In the environment, folders are separated as in PATH and names by commas."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    # Where things are
    home: Path = Field(default=Path("~/.bayespress"), description="Folder of the database and of all files; on a local disk.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL. Unset: SQLite under the home folder.")
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Folders whose files a request may name as file:PATH. None by default."
    )

    # What is listened to
    host: str = Field(default="127.0.0.1", description="Address to listen on; a loopback address.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("localhost", "127.0.0.1", "[::1]"), description="Names by which the service may be addressed (Host header, without port)."
    )

    # What an upload may weigh
    max_model_bytes: int = Field(default=512 * MIB, ge=1, description="Largest model file.")
    max_upload_bytes: int = Field(default=2048 * MIB, ge=1, description="Largest request body: model and data together.")

    idempotency_ttl_s: float = Field(default=86400.0, gt=0.0, description="An Idempotency-Key is remembered for so long.")

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

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(name.strip().lower() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

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

    @model_validator(mode="after")
    def _renews_before_expiry(self) -> "Settings":
        if self.renew_s >= self.lease_s:
            raise ValueError("renew_s must be smaller than lease_s")
        return self

    def to_environment(self) -> dict[str, str]:
        """The variables that give a child process the same settings."""
        separators = {"data_roots": os.pathsep, "allowed_hosts": ","}
        values = self.model_dump(exclude_none=True)
        return {
            f"{ENV_PREFIX}{name.upper()}": separators[name].join(map(str, value)) if name in separators else str(value)
            for name, value in values.items()
        }

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
