"""Files that somebody might upload to do harm: `python -m tests.benchmarks.hostile`."""

from tests.benchmarks.hostile import external, framing, memory, structure, work
from tests.benchmarks.hostile.case import Case

CASES: tuple[Case, ...] = (*external.CASES, *framing.CASES, *structure.CASES, *memory.CASES, *work.CASES)
