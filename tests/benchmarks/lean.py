"""`python -m tests.benchmarks.lean`: networks without anything to spare are told so, and are not harmed.

A 784-16-10 network and a logistic regression on MNIST, with the defaults of the product. Exits 1 where a run does not say "not
over-parameterised", or the test error rises by more than the budget.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.mnist import find_data
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import run_seed

_NETWORKS = ("784-16-10", "784-10")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    runs, lines = [], []
    for network in _NETWORKS:
        rows = []
        for seed in range(arguments.seeds):
            with run_seed(network, data, seed, {}) as finished:
                report = finished.report
                drop = report.metric.dense.value - report.metric.compressed.value
                over = report.redundancy.over_parameterised
                rows.append({"network": network, **finished.to_row(), "drop": drop, "budget": report.budget.max_metric_drop, "over": over})
        runs += rows
        lines.append(Line(f"{network}: runs said to be over-parameterised", sum(row["over"] for row in rows), "at most", 0))
        excess = median(row["drop"] - row["budget"] for row in rows)
        lines.append(Line(f"{network}: test accuracy lost beyond the budget", excess, "at most", 0.0))
        for row in rows:
            print(
                f"{network} seed {row['seed']}: {row['compression_ratio']:.1f} at {row['error']:.2%}, dense {row['error_dense']:.2%}",
                flush=True,
            )
    write_json(arguments.json, {"config": {}, "runs": runs})
    return check(lines)


if __name__ == "__main__":
    sys.exit(main())
