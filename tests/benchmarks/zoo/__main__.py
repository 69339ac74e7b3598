"""`python -m tests.benchmarks.zoo`: what exporters write of many architectures, taken through the importer and back.

Each architecture goes through up to four exports, each file through the columns: import, parity with ONNX Runtime (relative, at most
1e-5), coverage of weights, loss on a fixed batch before and after 12 noisy steps of the default recipe, pruning to 80 %, write-back
(how many times fewer bytes), parity of the pruned file. Exits 1 where fewer than 95 % of the files pass every column.

The exporters run in environments of their own, which this makes under the cache folder the first time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.zoo.catalogue import FAMILY_OF
from tests.benchmarks.zoo.columns import Column
from tests.benchmarks.zoo.environments import ROOT
from tests.benchmarks.zoo.files import Exported, exports_of, one_thread
from tests.benchmarks.zoo.results import FileResult, exit_code, header, pass_rate, row, summary

_FILE_SECONDS = 600
_MAX_PROCESSES = 4  # of half a gigabyte each


def check_file(path: Path) -> FileResult:
    """The columns of one file, in a process of its own."""
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.benchmarks.zoo.columns", path]
    process = subprocess.Popen(
        command, cwd=ROOT, env=one_thread(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    reason = ""
    try:
        output, errors = process.communicate(timeout=_FILE_SECONDS)
        last_line = errors.strip().rpartition("\n")[2]
        if process.returncode != 0:
            reason = f"the process ended with {process.returncode}: {last_line}"
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        reason = f"took more than {_FILE_SECONDS} s"
    columns = [Column(**json.loads(line)) for line in output.splitlines()]
    return FileResult(path.stem, columns, time.monotonic() - started, reason)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILY_OF, metavar="NAME", help=f"architectures: {', '.join(FAMILY_OF)}")
    parser.add_argument("--cache", type=Path, default=_default_cache(), help="folder of exported files and environments")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    names: list[str] = arguments.only or list(FAMILY_OF)
    started = time.monotonic()
    with ThreadPoolExecutor(min(_MAX_PROCESSES, os.cpu_count() or 1)) as pool:
        exported = dict(zip(names, pool.map(lambda name: exports_of(name, arguments.cache), names), strict=True))
        print(header(), flush=True)
        results = []
        for result in pool.map(check_file, [path for found in exported.values() for path in found.paths]):
            results.append(result)
            print(row(result), flush=True)
    failed = [item for found in exported.values() for item in found.failed]
    print(summary(names, results, failed))
    print(f"{time.monotonic() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(_to_json(exported, results), indent=1) + "\n", encoding="utf-8")
    return exit_code(names, results)


def _to_json(exported: dict[str, Exported], results: list[FileResult]) -> dict[str, Any]:
    versions = {package: version for found in exported.values() for package, version in found.versions.items()}
    return {
        "versions": versions,
        "pass_rate": pass_rate(results),
        "files": [asdict(result) | {"passed": result.passed} for result in results],
        "not_exported": [asdict(item) for found in exported.values() for item in found.failed],
    }


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "bayespress" / "zoo"


if __name__ == "__main__":
    sys.exit(main())
