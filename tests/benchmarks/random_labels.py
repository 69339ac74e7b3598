"""`python -m tests.benchmarks.random_labels`: there is nothing to learn in shuffled labels, and the evidence says so.

LeNet-300-100 is trained on 55,000 images of MNIST whose labels are in random order, and compressed with the guards off: without the check
against guessing, and without its own outputs as targets, which are signal enough. Exits 1 where less than 99 % of all weights go.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.mnist import find_data
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import run_seed

_OPTIONS = {"require_better_than_guessing": False, "distillation_weight": 0.0, "beta": 1.0, "max_branches": 1, "fine_tune_epochs": 1}
_SPARSITY = 0.99


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    runs = []
    for seed in range(arguments.seeds):
        with run_seed("300-100", data, seed, _OPTIONS, shuffled=True) as finished:
            weights = finished.report.weights
            # The least strict threshold: what log_alpha itself says, whatever a point was picked for.
            kept = max(point.nnz for point in finished.report.curve)
            runs.append({"seed": seed, "sparsity": 1 - kept / weights.numel, "nnz": kept, "seconds": finished.report.provenance.seconds})
            print(f"seed {seed}: {kept} of {weights.numel} weights are left at the least strict threshold", flush=True)
    medians = {key: median(run[key] for run in runs) for key in ("sparsity", "nnz", "seconds")}
    write_json(arguments.json, {"config": _OPTIONS, "runs": runs, "median": medians})
    return check([Line("sparsity", medians["sparsity"], "at least", _SPARSITY)])


if __name__ == "__main__":
    sys.exit(main())
