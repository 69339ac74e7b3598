"""`python -m tests.benchmarks.steps`: what a step of variational training costs, in steps of the dense network.

One step of ours, as a run takes it, of cplxmodule and of pytorch-ard (both from PyPI), beside one of the dense network in plain PyTorch
with fused Adam and in the faster of the two memory formats. All take turns on one thread of one process, in seconds of the processor, and
the medians of the ratios turn by turn count. Then what a whole job costs, from the upload to the last file, in epochs of the dense training
that came before it. Exits 1 where a ratio of ours misses its line.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressor.config import CompressionConfig
from compressor.data.dataset import Dataset
from compressor.intake import to_rows
from compressor.training.fit import FitOptions, fit_posterior, posterior_optimizer
from compressor.training.objective import Objective
from compressor.training.readout import Readout
from compressor.training.steps import tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior
from service.worker.trainer_process import trainer_environment
from tests.benchmarks.dense import lenet_5, lenet_300_100
from tests.benchmarks.interpreter import folded, to_module
from tests.benchmarks.mnist import find_data
from tests.benchmarks.networks import resnet_18
from tests.benchmarks.peer_packages import CACHE, Peer, load_peers, peers_installed
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.runs import run_seed

_NUM_CLASSES = 10
_OURS = "bayespress"
_NUM_DATA = 60_000
_NUM_STEPS = 4300  # of a run, which decide whether it compiles

Turn = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A network, what its steps are taken on, and the most that one of ours may cost."""

    network: Callable[[], nn.Module]
    row_shape: tuple[int, ...]
    batch_size: int
    steps: int  # of a turn
    line: float

    def make_network(self) -> nn.Module:
        """Without dropout, of which an export has none, and with batch normalisation folded, as in an export."""
        torch.manual_seed(0)
        network = folded(self.network().eval())
        for name, part in list(network.named_modules()):
            if isinstance(part, nn.Dropout):
                network.set_submodule(name, nn.Identity())
        return network.train()

    def make_rows(self) -> Dataset:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (self.steps * self.batch_size, *self.row_shape), np.uint8)
        return Dataset((images,), generator.integers(0, _NUM_CLASSES, len(images)))


CASES = {
    "LeNet-300-100": Case(lenet_300_100, (1, 28, 28), 256, 40, 2.5),
    "LeNet-5": Case(lenet_5, (1, 28, 28), 128, 6, 2.8),
    "ResNet-18": Case(lambda: resnet_18(_NUM_CLASSES), (3, 64, 64), 16, 3, 2.6),
}

# By the names of tests.benchmarks.dense, and what is asked of a whole job.
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "LeNet-300-100": ("300-100", {"target_ratio": 100}),
    "LeNet-5": ("5", {"target_ratio": 300, "batch_size": 128}),
}


def dense_turn(case: Case, memory_format: torch.memory_format) -> Turn:
    network = case.make_network().to(memory_format=memory_format)
    return _turn(case, network, lambda: 0.0, memory_format)


def peer_turn(case: Case, peer: Peer) -> Turn:
    network = peer.variational(case.make_network())
    return _turn(case, network, lambda: peer.kl(network) / _NUM_DATA, torch.contiguous_format)


def _turn(case: Case, network: nn.Module, penalty: Callable[[], Tensor | float], memory_format: torch.memory_format) -> Turn:
    dataset = case.make_rows()
    images = (torch.from_numpy(dataset.inputs[0]).float() / 255).to(memory_format=memory_format)
    labels = torch.from_numpy(dataset.labels)
    optimizer = torch.optim.Adam(network.parameters(), 1e-5, fused=True)

    def turn() -> None:
        for rows in torch.randperm(len(labels)).split(case.batch_size):
            optimizer.zero_grad(set_to_none=True)
            (cross_entropy(network(images[rows]), labels[rows]) + penalty()).backward()
            optimizer.step()

    return turn


def our_turn(case: Case, config: CompressionConfig) -> Turn:
    """An epoch of `fit_posterior` under the options of `config`, from the second on, where the KL has its full weight."""
    module = to_module(case.make_network().eval(), torch.rand(2, *case.row_shape))
    weights = module.tensors()
    posterior = Posterior({name: weights[name] for name in module.weight_names}, -3.0, conv_noise=config.conv_noise)
    negative_elbo = NegativeElbo(posterior, config.prior, _NUM_DATA, num_steps=_NUM_STEPS)
    options = FitOptions(
        beta=1.0,
        kl_warmup_fraction=0.5,
        step_size=1e-5,
        learning_rate_log_sigma2=1e-5,
        batch_size=case.batch_size,
        epochs=2,
        seed=0,
    )
    optimizer = posterior_optimizer(module, posterior, tensor_scales(module), options)
    rows = to_rows(case.make_rows(), "unit", torch.device("cpu"))
    objective = Objective(Readout(module.head, _NUM_CLASSES))

    def turn() -> None:
        fit_posterior(module, posterior, negative_elbo, objective, optimizer, rows, options, 1, lambda _: None, lambda *_: None)

    return turn


def run_case(case: Case, config: CompressionConfig, turns: int, peers: dict[str, Peer]) -> dict[str, Any]:
    """Milliseconds of a step of each, and ratios to the faster dense one, as a row of the JSON."""
    subjects = {
        "dense": dense_turn(case, torch.contiguous_format),
        "dense, channels last": dense_turn(case, torch.channels_last),
        _OURS: our_turn(case, config),
        **{name: peer_turn(case, peer) for name, peer in peers.items()},
    }
    for turn in subjects.values():
        turn()  # the first one allocates
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(turns):
        for name, turn in subjects.items():
            started = time.process_time()
            turn()
            taken[name].append(1e3 * (time.process_time() - started) / case.steps)
    dense = min(("dense", "dense, channels last"), key=lambda name: median(taken[name]))
    return {
        "batch_size": case.batch_size,
        "dense": dense,
        "line": case.line,
        "ms": {name: median(times) for name, times in taken.items()},
        "ratio": {name: median(one / other for one, other in zip(times, taken[dense], strict=True)) for name, times in taken.items()},
    }


def run_job(name: str, data: Path) -> dict[str, float]:
    """Seconds of a whole job and of the dense training before it, as a row of the JSON."""
    network, options = JOBS[name]
    with run_seed(network, data, 0, options) as run:
        return {
            "seconds": run.report.provenance.seconds,
            "dense_epochs": run.dense_epochs,
            "seconds_dense": run.seconds_dense,
            "epochs_dense": run.epochs_dense,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=CASES, help="one of them; all where none is given")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--peers", type=Path, default=CACHE, help="folder that the other libraries are installed into")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--no-jobs", action="store_true", help="no whole jobs, which take a quarter of an hour")
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files, for the jobs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the compression, as JSON")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    config = CompressionConfig.parse({key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)})
    torch.set_num_threads(1)
    data = None if arguments.no_jobs else find_data(arguments.data)  # before the long part
    chosen = {name: case for name, case in CASES.items() if name in (arguments.network or CASES)}
    if arguments.no_peers:
        rows = {name: run_case(case, config, arguments.turns, {}) for name, case in chosen.items()}
    else:
        with peers_installed(arguments.peers):
            peers = load_peers()
            rows = {name: run_case(case, config, arguments.turns, peers) for name, case in chosen.items()}
    _print_table(rows)
    result = {"config": config.model_dump(exclude_unset=True), "turns": arguments.turns, "networks": rows, "jobs": {}}
    write_json(arguments.json, result)
    for name in JOBS if data is not None else []:
        if name in chosen:
            job = result["jobs"][name] = run_job(name, data)
            print(f"{name}, a whole job: {job['seconds']:.0f} s, {job['dense_epochs']:.0f} epochs of its dense training")
            write_json(arguments.json, result)
    return check([Line(f"{name}, steps of the dense network", row["ratio"][_OURS], "at most", row["line"]) for name, row in rows.items()])


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        print(f"\n{name}, batch {row['batch_size']}: ratios to {row['dense']}")
        for subject, ratio in row["ratio"].items():
            print(f"  {subject:22} {row['ms'][subject]:8.2f} ms {ratio:6.2f}" + (f"  (line {row['line']})" if subject == _OURS else ""))
    print()


def _with_the_trainer_s_malloc() -> None:
    """Starts this program anew with what a run's process is given: the C library reads it only once."""
    settings = {name: value for name, value in trainer_environment(Path(), 1).items() if name.startswith("MALLOC_")}
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks.steps", *sys.argv[1:]], os.environ | settings)  # noqa: S606


if __name__ == "__main__":
    _with_the_trainer_s_malloc()
    sys.exit(main())
