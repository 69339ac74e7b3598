"""`python -m tests.benchmarks.groups`: whole neurons and filters that go under ARD over groups, and what is left when they are cut out.

LeNet-5 and LeNet-300-100 with `group_prior: ard`. Dead units are cut out of the delivered graph exactly; here input features are, too. The
parameters that are left are counted as dense ones, beside all of the upload's. Exits 1 where a median misses its line.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors
from compressor.structure import compact
from tests.benchmarks.mnist import find_data
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import Run, run_seed

_OPTIONS: dict[str, dict[str, Any]] = {
    "5": {"group_prior": "ard", "max_metric_drop": 0.003, "batch_size": 128, "max_branches": 2},
    "300-100": {"group_prior": "ard", "max_metric_drop": 0.003, "max_branches": 2},
}
_SMALLER, _ERROR_PERCENT = 2.5, 0.95

# Units alive as others report them, input first where that is known (METHOD: Louizos et al. 2017, 2018; Neklyudov et al. 2017; Dai 2018).
_OTHERS = {
    "5": {"SBP": "3-18-284-283 at 0.86", "BC-GNJ": "8-13-88-13 at 1.0", "BC-GHS": "5-10-76-16 at 1.0", "L0-sep": "9-18-65-25 at 1.0"},
    "300-100": {"Sparse VD": "512-114-72 at 1.8", "BC-GNJ": "278-98-13 at 1.8", "BC-GHS": "311-86-14 at 1.8", "VIBNet": "97-71-33 at 1.6"},
}


def count(run: Run) -> dict[str, Any]:
    """Dense parameters of the upload and of what is left, and the units that are left of every weight."""
    before = sum(array.size for array in float_tensors(parse_model(run.dense.read_bytes())).values())
    delivered = parse_model((run.out / "model.onnx").read_bytes())
    arrays = float_tensors(delivered)
    compaction = compact(delivered, arrays, drop_dead_inputs=True)
    left = compaction.shrink(arrays)
    after = sum(array.size for array in left.values())
    weights = [left[name] for name, array in arrays.items() if array.ndim >= 2 and array.size > 1]
    return {
        **run.to_row(),
        "parameters_before": before,
        "parameters_after": after,
        "times_fewer": before / after,
        "shapes_after": [list(weight.shape) for weight in weights],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=sorted(_OPTIONS), default=["5", "300-100"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    found: dict[str, list[dict[str, Any]]] = {}
    for network in arguments.networks:
        found[network] = []
        for seed in range(arguments.seeds):
            with run_seed(network, data, seed, _OPTIONS[network]) as finished:
                found[network].append(count(finished))
            write_json(arguments.json, {"config": _OPTIONS, "runs": found})
    medians = {
        network: {key: median(row[key] for row in rows) for key in ("times_fewer", "error", "error_dense", "compression_ratio", "seconds")}
        for network, rows in found.items()
    }
    write_json(arguments.json, {"config": _OPTIONS, "runs": found, "median": medians})
    for network, rows in found.items():
        for row in rows:
            shapes = ", ".join("x".join(map(str, shape)) for shape in row["shapes_after"])
            print(f"LeNet-{network} seed {row['seed']}: {row['times_fewer']:.1f} times fewer, {row['error']:.2%}; weights {shapes}")
        print("  others: " + "; ".join(f"{name} {units}" for name, units in _OTHERS[network].items()))
    if "5" not in medians:
        return 0
    return check(
        [
            Line("LeNet-5: times fewer dense parameters", medians["5"]["times_fewer"], "at least", _SMALLER),
            Line("LeNet-5: error in %", 100 * medians["5"]["error"], "at most", _ERROR_PERCENT),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
