"""`python -m tests.benchmarks.distil`: LeNet-300-100 compressed without a single label, from its own outputs alone.

Labels are taken out of the training and validation files; those of the test file measure the
result. Exits 1 where a median misses its line.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.mnist import find_data
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import run_seed

_OPTIONS = {"distillation_weight": 1.0, "target_ratio": 60, "image_scaling": "unit"}  # without labels no scaling can be found out
_RATIO, _ERROR_PERCENT = 50.0, 1.95


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    runs = []
    for seed in range(arguments.seeds):
        with run_seed("300-100", data, seed, _OPTIONS, labelled=False) as finished:
            runs.append(finished.to_row())
    medians = {key: median(run[key] for run in runs) for key in ("compression_ratio", "error", "error_dense", "seconds")}
    write_json(arguments.json, {"config": _OPTIONS, "runs": runs, "median": medians})
    for row in [*runs, {"seed": "median", **medians}]:
        print(f"{row['seed']:>6}: dense {row['error_dense']:.2%}, {row['compression_ratio']:.1f} at {row['error']:.2%}")
    return check(
        [
            Line("compression_ratio", medians["compression_ratio"], "at least", _RATIO),
            Line("error in %", 100 * medians["error"], "at most", _ERROR_PERCENT),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
