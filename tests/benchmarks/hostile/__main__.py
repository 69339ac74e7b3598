"""`python -m tests.benchmarks.hostile`: each of the hostile files in the trainer's own child process, as an upload would be.

Each is to be refused with the right code in under 5 s after imports and under 1 GiB of memory, with no file opened beside the model, no
connection, and no process left; a few are to be let in and do nothing. Exits 1 where one does not.
"""

import argparse
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.hostile import CASES
from tests.benchmarks.hostile.attempt import MAX_BYTES, MAX_SECONDS, Attempt, attempt
from tests.benchmarks.hostile.case import HARMLESS

MIN_REFUSED = 40
_AT_A_TIME = 10  # files in one child, which takes four seconds to import everything


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    parser.add_argument("--at-once", type=int, default=2, help="how many children run at the same time")
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed: what libraries open outside of Python is not seen")
    cases = [case for case in CASES if arguments.only in case.name]
    attempts = []
    with ThreadPoolExecutor(arguments.at_once) as pool:
        for group in pool.map(attempt, [cases[start : start + _AT_A_TIME] for start in range(0, len(cases), _AT_A_TIME)]):
            attempts += group
            for done in group:
                _print_row(done)
    refused = [done for done in attempts if done.case.code != HARMLESS]
    faults = [f"{done.case.name}: {fault}" for done in attempts for fault in done.faults]
    if not arguments.only and len(refused) < MIN_REFUSED:
        faults.append(f"only {len(refused)} files to refuse")
    summary = {
        "files": len(attempts),
        "refused": len(refused),
        "harmless": len(attempts) - len(refused),
        "max_seconds": max(done.seconds for done in attempts),
        "max_peak_bytes": max(done.peak_bytes for done in attempts),
        "strace": shutil.which("strace") is not None,
        "faults": faults,
    }
    print(
        f"\n{len(refused)} files refused and {summary['harmless']} harmless ones let in; the slowest took {summary['max_seconds']:.1f} s "
        f"of {MAX_SECONDS:g}, the largest {summary['max_peak_bytes'] / 2**20:.0f} MiB of {MAX_BYTES / 2**20:.0f}"
    )
    print("\n".join(faults) if faults else "every line is met")
    if arguments.json:
        arguments.json.write_text(json.dumps({**summary, "cases": [done.row() for done in attempts]}, indent=1) + "\n")
    return 1 if faults else 0


def _print_row(done: Attempt) -> None:
    mark = "!!" if done.faults else "  "
    figures = f"{done.seconds:5.2f} s {done.peak_bytes / 2**20:5.0f} MiB"
    print(f"{mark} {done.case.name:48} {done.code:22} {figures}  {'; '.join(done.faults)[:200]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
