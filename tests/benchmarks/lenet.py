"""`python -m tests.benchmarks.lenet 300-100|5 [--augment]`: the two networks that the literature of sparse training measures itself on.

Trains the dense network on 55,000 images of MNIST and compresses it to fixed ratios; the other 5,000 images pick nothing here but the
better of result and control. Every point is looked at once on the test images. Exits 1 where a median misses its line.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.mnist import find_data
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import run_seed

# What is asked of each network, everything else being the default of the product, and the largest errors in per cent at these ratios.
PLANS: dict[str, tuple[dict[str, Any], dict[float, float]]] = {
    "300-100": ({"target_ratio": 100, "curve_ratios": [120, 80, 60]}, {100: 1.85}),
    "300-100 shifted": ({"target_ratio": 100, "curve_ratios": [150, 120], "augmentation": ["shift"]}, {100: 1.50}),
    "5": ({"target_ratio": 300, "curve_ratios": [400, 280], "batch_size": 128}, {300: 0.95, 280: 0.90}),
}
_LARGEST_DENSE_ERROR = {"5": 0.85}


def run(network: str, data: Path, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    with run_seed(network, data, seed, options) as finished:
        row = finished.to_row()
        points = [
            {"compression_ratio": point.compression_ratio, "error": finished.point_error(number)}
            for number, point in enumerate(finished.report.curve)
        ]
    return {**row, "points": sorted(points, key=lambda point: point["compression_ratio"])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["300-100", "5"])
    parser.add_argument("--augment", action="store_true", help="shift images by up to a pixel, in the dense training too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the compression, as JSON")
    arguments = parser.parse_args()
    name = f"{arguments.network} shifted" if arguments.augment else arguments.network
    if name not in PLANS:
        parser.error(f"there is no plan for {name}")
    asked, errors = PLANS[name]
    options = asked | {key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    data = find_data(arguments.data)
    print(f"LeNet-{name}, compressed with {json.dumps(options)}", flush=True)
    runs = [run(name, data, seed, options) for seed in range(arguments.seeds)]
    numbers = [key for key, value in runs[0].items() if isinstance(value, float)]
    medians = {key: median(run[key] for run in runs) for key in numbers}
    columns = list(zip(*(run["points"] for run in runs), strict=True))
    points = [{key: median(point[key] for point in column) for key in ("compression_ratio", "error")} for column in columns]
    write_json(arguments.json, {"network": name, "config": options, "runs": runs, "median": medians, "points": points})
    _print(runs, medians, points)
    lines = [Line("compression_ratio", medians["compression_ratio"], "at least", options["target_ratio"])]
    for ratio, error in errors.items():
        nearest = min(points, key=lambda point: abs(point["compression_ratio"] - ratio))
        lines.append(Line(f"error in % at {nearest['compression_ratio']:.1f}", 100 * nearest["error"], "at most", error))
    if name in _LARGEST_DENSE_ERROR:
        lines.append(Line("dense error in %", 100 * medians["error_dense"], "at most", _LARGEST_DENSE_ERROR[name]))
    return check(lines)


def _print(runs: list[dict[str, Any]], medians: dict[str, float], points: list[dict[str, float]]) -> None:
    heads = f"{'seed':>6} {'dense error':>11} {'error':>7} {'control':>8} {'ratio':>7} {'all':>6} {'bytes':>6}"
    print(f"{heads} {'dense s':>8} {'seconds':>8} {'dense epochs':>12}")
    for row in [*runs, {"seed": "median", **medians}]:
        print(
            f"{row['seed']:>6} {row['error_dense']:>11.2%} {row['error']:>7.2%} {row['error_control']:>8.2%} "
            f"{row['compression_ratio']:>7.1f} {row['compression_ratio_all_parameters']:>6.1f} {row['size_ratio']:>6.1f} "
            f"{row['seconds_dense']:>8.0f} {row['seconds']:>8.0f} {row['dense_epochs']:>12.0f}"
        )
    print("test error at each ratio, median over the seeds and each of them:")
    for number, point in enumerate(points):
        each = " ".join(f"{run['points'][number]['error']:.2%}" for run in runs)
        print(f"  {point['compression_ratio']:7.1f} {point['error']:.2%}   {each}")


if __name__ == "__main__":
    sys.exit(main())
