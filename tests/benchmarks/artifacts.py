"""`python -m tests.benchmarks.artifacts [--nets lenet-300-100,lenet-5]`: how small the files of a network are, and what they cost.

Of one run of `compress` for each network and seed, at the ratios of `lenet`: bytes of every file beside the dense network's, which is
counted without its exporter's notes; its error on the test images, by a process that reads the file without our writers; loading, and
latency against the dense network, in ONNX Runtime. `lenet-300-100-80` keeps more weights, for an error below that of the literature;
`lenet-300-100-groups` has ARD over its neurons, too, of which fewer are left: for the latency of the dense form. Beside each figure of the
literature stand the smallest file with its own error, and the smallest one of no larger error. Exits 1 where a figure misses its line.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from compressor.graph.write import drop_notes
from tests.benchmarks.lenet import PLANS
from tests.benchmarks.mnist import find_data
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import run_seed

# As in `lenet`, of which network and with which options.
_FORMATS = {"curve_ratios": [], "formats": ["packed", "bp"]}
_PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "lenet-300-100": ("300-100", PLANS["300-100"][0] | _FORMATS),
    "lenet-300-100-80": ("300-100", PLANS["300-100"][0] | _FORMATS | {"target_ratio": 80, "posterior_sigma": True}),
    "lenet-5": ("5", PLANS["5"][0] | _FORMATS),
    "lenet-300-100-groups": ("300-100", {"group_prior": "ard", "beta": 0.3, "target_ratio": 40}),
}
# The largest error of model.onnx, and by how many times each file is to be smaller than the dense one.
_ERRORS = {"lenet-300-100": 1.90, "lenet-300-100-80": 1.90, "lenet-5": 0.95, "lenet-300-100-groups": 1.90}
_RATIOS = {
    "lenet-300-100": {"model.onnx": 45, "model.packed.onnx": 110, "model.bp": 240},
    "lenet-5": {"model.onnx": 120, "model.packed.onnx": 240, "model.bp": 500},
}
# How many times faster the dense form is, one row at a time.
_SPEED_UPS = {"lenet-300-100-groups": 1.8}
_QUANTISED = ("model.packed.onnx", "model.bp")
_LARGEST_LOSS = 0.15  # points, by quantisation
_SLACK = 1e-9  # of an error that is 100 times one minus a share
# By network, times smaller at an error in %, of the literature: whole files, with everything that is needed to decode them, as far as the
# papers count it.
_ANCHORS = {
    "300-100": {"Sparse VD (Molchanov et al. 2017), as in Louizos et al. 2017": (113, 1.8), "Bayesian Compression (2017)": (59, 2.0)},
    "5": {
        "Sparse VD (Molchanov et al. 2017), as in Louizos et al. 2017": (365, 1.0),
        "Bayesian Compression (2017)": (771, 1.0),
        "MIRACLE (Havasi et al. 2019)": (1110, 0.96),
    },
}


def run(network: str, data: Path, seed: int) -> dict[str, Any]:
    name, options = _PLANS[network]
    with run_seed(name, data, seed, options) as finished:
        dense = onnx.load(finished.dense)
        drop_notes(dense)
        dense_bytes = dense.ByteSize()
        files = finished.files
        for file in files.values():
            file["size_ratio"] = dense_bytes / file["bytes"]
            if "error" in file:
                file["error"] *= 100
        report = finished.report
        for cost in report.files:
            if cost.latency:
                files[cost.name]["speed_up"] = cost.latency[0].dense.median_ms / cost.latency[0].delivered.median_ms
        return {
            "seed": seed,
            "dense_bytes": dense_bytes,
            "dense_gzip": report.bytes.dense_gzip,
            "dense_zstd": report.bytes.dense_zstd,
            "entropy_bound": report.bytes.entropy_bound,
            "compression_ratio": report.weights.compression_ratio,
            "files": files,
            "costs": [file.model_dump(mode="json") for file in report.files],
            "quantisation": None if report.quantisation is None else report.quantisation.model_dump(mode="json"),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(_PLANS), help=f"of {', '.join(_PLANS)}, with a comma in between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    found: dict[str, Any] = {}
    lines: list[Line] = []
    for network in arguments.nets.split(","):
        runs = [run(network, data, seed) for seed in range(arguments.seeds)]
        medians = _medians([one["files"] for one in runs])
        found[network] = {**medians, "runs": runs}
        write_json(arguments.json, found | {"anchors": distances(found)})
        _print(network, runs, medians)
        lines += _lines(network, medians)
    _print_distances(distances(found))
    return check(lines)


def distances(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How far from each figure of the literature, by network and its name there.

    Args:   found: by plan, the files with size_ratio and, where they are models, error in %.
    Returns: `size_ratio` and `error` of the literature; `smallest`, the smallest file; `at_its_error`, the smallest one whose error
        is not larger than the literature's, None where there is none; both with their own error, and `factor`, size_ratio by size_ratio.
    """
    result: dict[str, dict[str, Any]] = {}
    for network, anchors in _ANCHORS.items():
        files = [
            {"plan": plan, "file": name, "size_ratio": file["size_ratio"], "error": file["error"]}
            for plan, of_plan in found.items()
            if _PLANS[plan][0] == network
            for name, file in of_plan.items()
            if "error" in file
        ]
        for anchor, (ratio, error) in anchors.items() if files else ():
            inside = [file for file in files if file["error"] <= error + _SLACK]
            result.setdefault(network, {})[anchor] = {
                "size_ratio": ratio,
                "error": error,
                "smallest": _beside(ratio, files),
                "at_its_error": _beside(ratio, inside) if inside else None,
            }
    return result


def _beside(ratio: float, files: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(files, key=lambda file: file["size_ratio"])
    return best | {"factor": best["size_ratio"] / ratio}


def _print_distances(found: dict[str, dict[str, Any]]) -> None:
    for network, anchors in found.items():
        print(f"\nLeNet-{network} beside the literature:")
        for name, anchor in anchors.items():
            print(f"  {name}: {anchor['size_ratio']} times smaller at {anchor['error']} %")
            print(f"    our smallest:              {_sentence(anchor['smallest'])}")
            print(f"    at no larger error, ours:  {_sentence(anchor['at_its_error'])}")


def _sentence(ours: dict[str, Any] | None) -> str:
    if ours is None:
        return "none"
    return f"{ours['size_ratio']:.0f} times at {ours['error']:.2f} %, a factor of {ours['factor']:.2f} ({ours['file']} of {ours['plan']})"


def _medians(runs: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    return {name: {key: median(one[name][key] for one in runs) for key in file} for name, file in runs[0].items()}


def _print(network: str, runs: list[dict[str, Any]], medians: dict[str, dict[str, float]]) -> None:
    dense = median(one["dense_bytes"] for one in runs)
    print(f"\n{network}, median of {len(runs)} seeds; the dense file has {dense:,} bytes, {runs[0]['dense_gzip']:,} under gzip, and ")
    print(f"{runs[0]['dense_zstd']:,} under zstd -19; the bound of the entropy is {median(one['entropy_bound'] for one in runs):,}")
    print(f"{'':22}{'bytes':>9} {'ratio':>7} {'error':>7} {'load':>9} {'peak':>9} {'faster: one row':>16} {'64 rows':>8}")
    costs = {cost["name"]: cost for cost in runs[0]["costs"]}
    for name, file in medians.items():
        error = f"{file['error']:.2f} %" if "error" in file else ""
        cost = costs.get(name, {"load": None, "latency": []})
        load = cost["load"] and (f"{cost['load']['median_ms']:.1f} ms", f"{cost['load']['peak_bytes'] / 2**20:.1f} MiB")
        faster = [f"{one['dense']['median_ms'] / one['delivered']['median_ms']:.2f}" for one in cost["latency"]] or ["", ""]
        cells = f"{(load or ('', ''))[0]:>9} {(load or ('', ''))[1]:>9} {faster[0]:>16} {faster[-1]:>8}"
        print(f"{name:22}{file['bytes']:>9,.0f} {file['size_ratio']:>7.1f} {error:>7} {cells}")


def _lines(network: str, medians: dict[str, dict[str, float]]) -> list[Line]:
    lines = [Line(f"{network}: error of model.onnx in %", medians["model.onnx"]["error"], "at most", _ERRORS[network])]
    if network in _SPEED_UPS:
        speed_up = medians["model.dense.onnx"]["speed_up"]
        lines.append(Line(f"{network}: model.dense.onnx, times faster on one row", speed_up, "at least", _SPEED_UPS[network]))
    for name, ratio in _RATIOS.get(network, {}).items():
        lines.append(Line(f"{network}: {name}, times smaller", medians[name]["size_ratio"], "at least", ratio))
    for name in (name for name in _QUANTISED if name in medians):
        loss = medians[name]["error"] - medians["model.onnx"]["error"]
        lines.append(Line(f"{network}: points lost by the values of {name}", loss, "at most", _LARGEST_LOSS))
    return lines


if __name__ == "__main__":
    sys.exit(main())
