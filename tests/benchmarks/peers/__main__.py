"""`python -m tests.benchmarks.peers [--networks 300-100 5]`: test errors of ours and of others at the same ratios.

All start from the same dense network of a seed and take as many epochs over the same 55,000 images of MNIST:
- bayespress: the points of one run of `compress`;
- cplxmodule VD and ARD, pytorch-ard: their layers for as long as our rounds, with Adam's 1e-3 and from a log_sigma2 of -10, which are their
  own, and KL / N, which rises over 30 % of the steps; then the weights of lowest log_alpha, fine-tuned for as long as ours;
- cplxmodule with our rates: the same with a high one for the means and a low one for log_sigma2, which starts at -8. pytorch-ard has the
  mathematics of cplxmodule VD, and no such row;
- torch.nn.utils.prune: global magnitude, by a cubic schedule over all these epochs.
The whole takes three hours. It can be had in parts (`--networks`, `--only`): methods that are already in the file of `--json`, under the
same options, stay there, each row with the commit that it ran on. Exits 1 where another method has a lower median error than ours at any
ratio.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from compressor import CompressionConfig, DataReference, compress
from compressor.training.schedule import default_batch_size, resolve_schedule
from tests.benchmarks.dense import RECIPES, export, train_dense
from tests.benchmarks.mnist import TEST, find_data, read_arrays, write_parts
from tests.benchmarks.peer_packages import CACHE, load_peers, peers_installed
from tests.benchmarks.peers.methods import Point, Settings, Start, magnitude_points, variational_points
from tests.benchmarks.readback import read_back
from tests.benchmarks.results import Line, check, provenance, write_json
from tests.benchmarks.runs import Run

_OURS, _MAGNITUDE = "bayespress", "torch.nn.utils.prune"
_OUR_RATES = "our rates"
_NAMES = (
    _OURS,
    "cplxmodule VD",
    f"cplxmodule VD, {_OUR_RATES}",
    "cplxmodule ARD",
    f"cplxmodule ARD, {_OUR_RATES}",
    "pytorch-ard",
    _MAGNITUDE,
)

Method = Callable[[Sequence[float]], Iterable[Point]]


@dataclass(frozen=True)
class Plan:
    """The ratios, what is asked of ours, how others are used best, and for how many seeds there is time."""

    ratios: tuple[float, ...]
    options: dict[str, Any]
    our_rates: Settings
    most_seeds: int
    footnotes: dict[str, str]


_PLANS = {
    "300-100": Plan(
        ratios=(30, 60, 100),
        options={"target_ratio": 100, "curve_ratios": [30, 60]},
        our_rates=Settings(-8.0, 1e-2, 1e-3),
        most_seeds=10,
        footnotes={},
    ),
    "5": Plan(
        ratios=(100, 300),
        options={"target_ratio": 300, "curve_ratios": [100], "batch_size": 128},
        our_rates=Settings(-8.0, 5e-3, 1e-3),
        most_seeds=1,
        footnotes={"pytorch-ard": "without the biases of the convolutions, which its Conv2dARD cannot have"},
    ),
}


def run_seed(network: str, data: Path, seed: int, options: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for every method, from one dense training."""
    plan = _PLANS[network]
    with tempfile.TemporaryDirectory() as scratch, peers_installed(CACHE):
        folder = Path(scratch)
        parts = write_parts(data, folder, seed)
        images, labels = read_arrays(parts[0])
        dense, seconds = train_dense(RECIPES[network], images, labels, seed)
        config = CompressionConfig.parse({**options, "seed": seed})
        schedule = resolve_schedule(config, len(labels), config.batch_size or default_batch_size(len(labels)))
        start = Start(_without_dropout(dense), images, labels, *read_arrays(data / TEST), schedule, seed)
        training = (seconds, RECIPES[network].epochs)
        methods: dict[str, Method] = {
            _OURS: lambda ratios: our_points(dense, (*parts, data / TEST), config, folder, training, ratios),
            _MAGNITUDE: partial(magnitude_points, start),
        }
        for name, peer in load_peers().items():
            methods[name] = partial(variational_points, peer, Settings(), start)
            methods[f"{name}, {_OUR_RATES}"] = partial(variational_points, peer, plan.our_rates, start)
        print(f"LeNet-{network}, seed {seed}: dense {start.error(start.dense):.2%}, {schedule}", flush=True)
        for name in names:
            yield _to_row(name, seed, methods[name], plan.ratios)


def our_points(
    dense: nn.Module,
    parts: tuple[Path, Path, Path],
    config: CompressionConfig,
    folder: Path,
    training: tuple[float, int],
    ratios: Sequence[float],
) -> list[Point]:
    """Ours, as a client gets them: exported, and run in ONNX Runtime."""
    model, (train, validation, test) = folder / "dense.onnx", parts
    export(dense, model)
    reference = DataReference(train=str(train), validation=str(validation), test=str(test))
    report = compress(model, reference, config, folder / "out")
    run = Run(config.seed, report, model, folder / "out", test, *training, read_back(folder / "out", test, model))
    numbers = sorted(range(len(report.curve)), key=lambda number: report.curve[number].compression_ratio)
    return [
        Point(ratio, report.curve[number].compression_ratio, run.point_error(number))
        for ratio, number in zip(sorted(ratios), numbers, strict=True)
    ]


def _without_dropout(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for name, part in list(network.named_modules()):
        if isinstance(part, nn.Dropout):
            network.set_submodule(name, nn.Identity())
    return network


def _to_row(name: str, seed: int, method: Method, ratios: Sequence[float]) -> dict[str, Any]:
    started = time.process_time()
    points = [asdict(point) for point in method(ratios)]
    seconds = time.process_time() - started
    errors = " ".join(f"{point['error']:.2%}" for point in points)
    print(f"  {name:26} {errors}  {seconds:.0f} s of the processor", flush=True)
    return {"method": name, "seed": seed, "commit": provenance()["commit"], "points": points, "cpu_s": seconds}


def _rows_kept(path: Path | None, network: str, options: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of an earlier part with the same options: those of the methods that do not run now."""
    if path is None or not path.exists():
        return []
    earlier = json.loads(path.read_text())["networks"].get(network, {})
    return [row for row in earlier["runs"] if row["method"] not in names] if earlier.get("config") == options else []


def _summary(plan: Plan, options: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in _NAMES if any(row["method"] == name for row in rows)]
    return {
        "config": options,
        _OUR_RATES: asdict(plan.our_rates),
        "runs": list(rows),
        "median": {name: _medians([row for row in rows if row["method"] == name]) for name in names},
        "cpu_s": {name: median(row["cpu_s"] for row in rows if row["method"] == name) for name in names},
    }


def _medians(rows: Sequence[dict[str, Any]]) -> list[dict[str, float | None]]:
    """Of each ratio, over the seeds of one method."""
    columns = zip(*(row["points"] for row in rows), strict=True)
    return [
        {key: None if None in (values := [point[key] for point in column]) else median(values) for key in column[0]} for column in columns
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=_PLANS, default=list(_PLANS))
    parser.add_argument("--seeds", type=int, default=3, help="at most 10; LeNet-5 has one")
    parser.add_argument("--only", nargs="+", choices=_NAMES, default=_NAMES, metavar="NAME", help=f"of {', '.join(map(repr, _NAMES))}")
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of ours, as JSON; to try things out: epochs go for all"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, given = find_data(arguments.data), {key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    networks: dict[str, Any] = {}
    if arguments.json is not None and arguments.json.exists():
        networks = json.loads(arguments.json.read_text())["networks"]
    lines = []
    for network in arguments.networks:
        plan = _PLANS[network]
        options = plan.options | given
        seeds = range(min(arguments.seeds, plan.most_seeds))
        rows = _rows_kept(arguments.json, network, options, arguments.only)
        for seed in seeds:
            for row in run_seed(network, data, seed, options, arguments.only):
                rows.append(row)
                networks[network] = _summary(plan, options, rows)
                write_json(arguments.json, {"networks": networks})
        _print(network, len(seeds), plan, networks[network]["median"], networks[network]["cpu_s"])
        lines += _lines(network, networks[network]["median"])
    return check(lines)


def _print(network: str, num_seeds: int, plan: Plan, medians: dict[str, list[dict[str, Any]]], seconds: dict[str, float]) -> None:
    """A cell: the error; in brackets that before fine-tuning; behind an x the ratio, where it is not the one of the column."""
    print(f"\nLeNet-{network}, median of {num_seeds}: test error (and before fine-tuning) at each ratio")
    print(f"{'':28}{''.join(f'{ratio:>24g}' for ratio in plan.ratios)}{'CPU s':>8}")
    for name, points in medians.items():
        cells = []
        for point in points:
            pruned = "" if point["error_pruned"] is None else f" ({point['error_pruned']:.2%})"
            is_off = abs(point["compression_ratio"] / point["ratio"] - 1) > 0.03
            cells.append(f"{point['error']:.2%}{pruned}" + (f" x{point['compression_ratio']:.0f}" if is_off else ""))
        star = "*" if name in plan.footnotes else ""
        print(f"{name + star:28}{''.join(f'{cell:>24}' for cell in cells)}{seconds[name]:>8.0f}")
    for name, note in plan.footnotes.items():
        if name in medians:
            print(f"* {name}: {note}")
    print(f"{_OUR_RATES}: {plan.our_rates}\n", flush=True)


def _lines(network: str, medians: dict[str, list[dict[str, Any]]]) -> list[Line]:
    """Ours against the best of the others, ratio by ratio."""
    others = {name: points for name, points in medians.items() if name != _OURS}
    if _OURS not in medians or not others:
        return []
    lines = []
    for column, ours in enumerate(medians[_OURS]):
        best = min(others, key=lambda name, column=column: others[name][column]["error"])
        name = (
            f"LeNet-{network} at {ours['ratio']:g} (ours {ours['compression_ratio']:.1f}): error in %, the best of the others being {best}"
        )
        lines.append(Line(name, 100 * ours["error"], "at most", 100 * others[best][column]["error"]))
    return lines


if __name__ == "__main__":
    sys.exit(main())
