"""`python -m tests.benchmarks.fuzz --mutants 20000`: mutants of real files, which are refused with a CompressionError or let in rightly.

Each mutant has a number, and is the same one whenever it is asked for. A crash, a hang, more than 5 s or 1 GiB, any other exception, and
outputs that differ from those of ONNX Runtime are findings; they are kept as files with --keep. Exits 1 where there is one.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.fuzz.batches import Verdict, made, run_batch
from tests.benchmarks.fuzz.seeds import seeds

_BATCH = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the files of findings")
    parser.add_argument("--at-once", type=int, default=2, help="how many processes run at the same time")
    arguments = parser.parse_args()
    originals = seeds()
    started = time.monotonic()
    numbers = range(arguments.start, arguments.start + arguments.mutants)
    batches = [numbers[first : first + _BATCH] for first in range(0, len(numbers), _BATCH)]
    codes: Counter[str] = Counter()
    findings: list[Verdict] = []
    slowest = 0.0
    with multiprocessing.get_context("fork").Pool(arguments.at_once) as pool:
        for done, verdicts in enumerate(pool.imap(_run, batches), 1):
            for verdict in verdicts:
                codes[verdict.code or "finding"] += 1
                slowest = max(slowest, verdict.seconds)
                if verdict.fault:
                    findings.append(verdict)
                    print(f"\n{verdict.number}: {verdict.fault}", flush=True)
                    _keep(arguments.keep, originals, verdict)
            print(f"\r{done * _BATCH} mutants, {len(findings)} findings", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    print(f"\n{len(numbers)} mutants in {seconds:.0f} s ({len(numbers) / seconds:.0f} a second), the slowest {slowest:.1f} s")
    for code, count in codes.most_common():
        print(f"  {code:32} {count:6}")
    print(f"{len(findings)} findings" if findings else "no finding")
    if arguments.json:
        figures = {"mutants": len(numbers), "start": arguments.start, "seconds": seconds, "slowest_s": slowest, "codes": dict(codes)}
        found = [{"number": verdict.number, "fault": verdict.fault} for verdict in findings]
        arguments.json.write_text(json.dumps({**figures, "findings": found}, indent=1) + "\n")
    return 1 if findings else 0


def _run(numbers: Sequence[int]) -> list[Verdict]:
    return list(run_batch(seeds(), numbers))


def _keep(folder: Path | None, originals: Sequence[bytes], verdict: Verdict) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{verdict.number}.onnx").write_bytes(made(originals, verdict.number))


if __name__ == "__main__":
    sys.exit(main())
