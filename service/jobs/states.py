"""The states of a job and the one table of allowed transitions. Every write to the jobs table is guarded by it."""

from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    FAILED_GATE = "failed_gate"


_ATTEMPTED = frozenset(
    {
        Status.VALIDATING,
        Status.RUNNING,
        Status.QUEUED,
        Status.PAUSING,
        Status.CANCELLING,
        Status.SUCCEEDED,
        Status.FAILED,
        Status.FAILED_GATE,
    }
)

ALLOWED: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.VALIDATING, Status.PAUSED, Status.CANCELLED}),
    # Back to queued: the attempt was given up (shutdown, crash). To validating again: another attempt took over.
    # To an end with a result: the report of its progress may be written late, or never, and must not cost the result.
    Status.VALIDATING: _ATTEMPTED,
    Status.RUNNING: _ATTEMPTED,
    Status.PAUSING: frozenset({Status.PAUSED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED, Status.FAILED_GATE}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.CANCELLING: frozenset({Status.CANCELLED}),
    Status.CANCELLED: frozenset(),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.FAILED_GATE: frozenset(),
}

TERMINAL = frozenset(status for status, targets in ALLOWED.items() if not targets)

# States in which a runner holds the job's lease.
LEASED = frozenset({Status.VALIDATING, Status.RUNNING, Status.PAUSING, Status.CANCELLING})

# States from which an expired lease lets another attempt take over.
RESUMABLE = frozenset({Status.VALIDATING, Status.RUNNING})


def sources(target: Status) -> frozenset[Status]:
    """The states from which `target` may be entered."""
    return frozenset(status for status, targets in ALLOWED.items() if target in targets)
