"""`python -m tests.benchmarks.resume`: a trainer is killed at random moments, and goes on to the same files, bit for bit.

The real child process, on scikit-learn's digits: once undisturbed, then as often as --kills says, each with one SIGKILL at a random moment
and a second process on the same work directory. Exits 1 where an artifact's sha256 differs.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compressor import CompressionConfig, DataReference
from compressor.protocol import ARTIFACTS, TRAINER_INPUT, TrainerInput
from tests import demo
from tests.benchmarks.readback import read_back
from tests.benchmarks.results import Line, check, write_json

_OPTIONS = {"epochs": 20, "second_round_epochs": 60, "fine_tune_epochs": 20, "beta": 3.0, "max_branches": 2}
_COMPARED = ("model.onnx", "weights.safetensors", "curve.safetensors", "split.npz")


def prepare(folder: Path, model: Path) -> None:
    folder.mkdir()
    data = DataReference(train="builtin:digits")
    job = TrainerInput(model=model, data=data, config=CompressionConfig.parse({**_OPTIONS, "device": "cpu"}))
    (folder / TRAINER_INPUT).write_text(job.model_dump_json())


def start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "trainer.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "compressor.trainer", str(folder)], stdout=subprocess.DEVNULL, stderr=log)


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / ARTIFACTS / name).read_bytes()).hexdigest() for name in _COMPARED}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = folder / "dense.onnx"
        demo.export(demo.train_dense(*demo.split_digits()["train"]), model)
        prepare(folder / "whole", model)
        started = time.monotonic()
        if start(folder / "whole").wait() != 0:
            raise RuntimeError((folder / "whole" / "trainer.log").read_text())
        seconds, expected = time.monotonic() - started, hashes(folder / "whole")
        read_back(folder / "whole" / ARTIFACTS)
        runs = []
        for number in range(arguments.kills):
            work, moment = folder / f"killed-{number}", moments.uniform(0.05, 0.98) * seconds
            prepare(work, model)
            first = start(work)
            time.sleep(moment)
            first.kill()
            killed = first.wait() != 0
            resumed = (work / "checkpoint.safetensors").exists()
            code = start(work).wait()
            equal = code == 0 and hashes(work) == expected
            runs.append({"moment_s": moment, "killed": killed, "from_checkpoint": resumed, "equal": equal})
            print(
                f"killed after {moment:5.1f} s of {seconds:.1f}: {'checkpoint' if resumed else 'no checkpoint yet'}, equal: {equal}",
                flush=True,
            )
    write_json(arguments.json, {"config": _OPTIONS, "runs": runs, "sha256": expected, "seconds": seconds})
    return check(
        [
            Line("runs with other files", sum(not run["equal"] for run in runs), "at most", 0),
            Line("runs that were killed", sum(run["killed"] for run in runs), "at least", 0.8 * len(runs)),
            Line("runs that went on from a checkpoint", sum(run["from_checkpoint"] for run in runs), "at least", 0.5 * len(runs)),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
