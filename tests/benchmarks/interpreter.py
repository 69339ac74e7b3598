"""`python -m tests.benchmarks.interpreter`: what it costs that a network is run as its ONNX graph instead of as written in PyTorch.

A training step (forward, backward, Adam) of the same ResNet-18, batch normalisation folded in both, in turn in one process. Prints the
medians and the median of the ratios pair by pair, and exits 1 where the graph adds a tenth or more.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from tests.benchmarks.networks import resnet_18

_LINE = 1.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = folded(resnet_18(10).eval())
    images, labels = torch.randn(arguments.batch, 3, arguments.size, arguments.size), torch.randint(10, (arguments.batch,))
    module = to_module(network, images)
    torch.testing.assert_close(module(images), network(images), rtol=1e-3, atol=1e-3)
    native, interpreted = stepper(network, images, labels), stepper(module, images, labels)
    native(), interpreted()  # the first step allocates
    pairs = [(native(), interpreted()) for _ in range(arguments.pairs)]
    result = {
        "native_ms": median(one for one, _ in pairs),
        "interpreted_ms": median(other for _, other in pairs),
        "ratio": median(other / one for one, other in pairs),
        "batch": arguments.batch,
        "size": arguments.size,
        "threads": arguments.threads,
        "torch": torch.__version__,
    }
    print(f"ResNet-18, batch {arguments.batch} at {arguments.size} px, {arguments.threads} thread(s), {arguments.pairs} pairs")
    print(f"PyTorch {result['native_ms']:.1f} ms, ONNX graph {result['interpreted_ms']:.1f} ms, ratio {result['ratio']:.3f} (line {_LINE})")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if float(result["ratio"]) < _LINE else 1


def folded(network: nn.Module) -> nn.Module:
    """Every batch normalisation folded into the convolution before it, as the exporter does."""
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, part in list(network.named_modules()):
        if isinstance(part, nn.BatchNorm2d) and convolution is not None:
            network.set_submodule(convolution[0], fuse_conv_bn_eval(convolution[1], part))
            network.set_submodule(name, nn.Identity())
        convolution = (name, part) if isinstance(part, nn.Conv2d) else None
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    return network


def to_module(network: nn.Module, images: Tensor) -> OnnxModule:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            copy.deepcopy(network), (images[:2],), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
        )
        return OnnxModule(parse_model(path.read_bytes()))


def stepper(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], float]:
    """A function that takes one training step and gives its milliseconds."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-5, fused=True)
    network.train()

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network(images), labels).backward()
        optimizer.step()
        return 1e3 * (time.perf_counter() - started)

    return step


if __name__ == "__main__":
    sys.exit(main())
