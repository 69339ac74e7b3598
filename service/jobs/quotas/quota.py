"""How much an owner may have: limits, and what goes beyond one. What is counted is in `repository`."""

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Quotas:
    """Limits, by the names of the settings that are their defaults; None is no limit."""

    max_queued_jobs: int | None = None
    max_running_jobs: int | None = None
    max_stored_bytes: int | None = None
    max_upload_bytes: int | None = None

    @property
    def limit_jobs(self) -> bool:
        """Whether there is anything to be counted before a job comes in."""
        return self.max_queued_jobs is not None or self.max_stored_bytes is not None

    def over(self, defaults: "Quotas") -> "Quotas":
        """These, and the defaults where there are none. No upload may weigh more than the service takes."""
        own = {name: limit for name, limit in asdict(self).items() if limit is not None}
        sizes = [size for size in (self.max_upload_bytes, defaults.max_upload_bytes) if size is not None]
        return replace(defaults, **own | {"max_upload_bytes": min(sizes, default=None)})

    @classmethod
    def of(cls, source: Any) -> "Quotas":
        """Those that are attributes of `source`: of the settings, of a row."""
        return cls(**{name: getattr(source, name) for name in cls.__dataclass_fields__})


NO_QUOTAS = Quotas()


@dataclass(frozen=True)
class Usage:
    """What an owner has: jobs that have not finished, and bytes of inputs, artifacts and uploads."""

    unfinished_jobs: int
    stored_bytes: int


class QuotaReached(Exception):
    """One more job does not fit into the limit `quota`; `used` is what its owner has without it."""

    def __init__(self, quota: str, used: int, limit: int) -> None:
        super().__init__(f"{quota}: {used} of {limit}")
        self.quota = quota
        self.used = used
        self.limit = limit


def check_room(usage: Usage, quotas: Quotas, new_bytes: int = 0) -> None:
    """Whether one more job with files of that size fits. Raises QuotaReached."""
    wanted = (
        ("max_queued_jobs", usage.unfinished_jobs, 1, quotas.max_queued_jobs),
        ("max_stored_bytes", usage.stored_bytes, new_bytes, quotas.max_stored_bytes),
    )
    for quota, used, new, limit in wanted:
        if limit is not None and used + new > limit:
            raise QuotaReached(quota, used, limit)
