"""What a variational weight is while it flows through the graph: a mean and a variance for every element.

An operator is lifted to Gaussian values by the way it treats its weight. Layout operators apply to mean and variance alike; operators
that are linear in the weight get the local reparameterisation (Kingma et al. 2015, arXiv:1506.02557), convolutions a draw of the weight
for each half of the batch where that is cheaper; a lookup draws noise for each row that it takes; before anything else the weight is
sampled. So no operator is out of reach, only noisier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Floor under a variance before its square root, whose gradient is infinite at 0; noise of 1e-8 is far below that of any activation.
VARIANCE_FLOOR = 1e-16

# At which a convolution uses each element of its weight. At half as many, two draws of the weight take as long as a second convolution, and
# below, channels last are slower than channels first (ResNet-18 and LeNet-5, one thread).
MANY_POSITIONS = 512

Run = Callable[..., Any]
Positions = Callable[[Tensor, Tensor], int]


@dataclass(frozen=True, eq=False, slots=True)
class GaussianValue:
    """Independent normal elements: `mean` and `var` have the same shape, dtype and device.

    `in_halves`: a convolution may draw the weight for each half of the batch; otherwise it draws its output.
    """

    mean: Tensor
    var: Tensor
    in_halves: bool = False

    def sample(self) -> Tensor:
        """One draw by additive noise, differentiable in mean and variance; torch's default generator."""
        return with_noise(self.mean, self.var)


def with_noise(mean: Tensor, var: Tensor) -> Tensor:
    """mean + sqrt(var) * eps with fresh standard normal eps of mean's shape."""
    return torch.addcmul(mean, var.clamp_min(VARIANCE_FLOOR).sqrt(), noise_like(mean))


def noise_like(tensor: Tensor) -> Tensor:
    """Standard normal, drawn in the order of memory: torch.randn_like is several times slower where channels come last."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return torch.randn_like(tensor.permute(order)).permute([order.index(axis) for axis in range(tensor.dim())])


def sampled(value: Any) -> Any:
    """`value`, or a draw of it where it is Gaussian; a sequence element by element."""
    if isinstance(value, list):
        return [sampled(item) for item in value]
    return value.sample() if isinstance(value, GaussianValue) else value


def lift_layout(run: Run) -> Run:
    """`run` moves elements without mixing them, so it applies to mean and variance alike; plain operands have variance 0."""

    def lifted(*args: Any) -> Any:
        if not any(isinstance(arg, GaussianValue) for arg in args):
            return run(*args)
        mean = run(*[arg.mean if isinstance(arg, GaussianValue) else arg for arg in args])
        if isinstance(mean, Tensor) and not mean.is_floating_point():  # a cast to integers
            return run(*[sampled(arg) for arg in args])
        var = run(*[_variance(arg) for arg in args])
        in_halves = any(isinstance(arg, GaussianValue) and arg.in_halves for arg in args)
        if isinstance(mean, tuple | list):
            return type(mean)(GaussianValue(*pair, in_halves) for pair in zip(mean, var, strict=True))
        return GaussianValue(mean, var, in_halves)

    return lifted


def lift_linear(run: Run, variance: Run, weight_slots: tuple[int, ...]) -> Run:
    """`run(x, w, bias)` is linear in w: its output is drawn instead of the weight.

    `variance(x, w)` is what `run` does without bias and with squared coefficients: applied to x^2 and the variance of w it gives the
    variance of the output. The bias carries no noise of its own.
    """

    def lifted(x: Any, w: Any, bias: Any = None) -> Any:
        bias = sampled(bias)
        if isinstance(w, GaussianValue):
            x = sampled(x)
            return with_noise(run(x, w.mean, bias), variance(x * x, w.var))
        if not isinstance(x, GaussianValue):
            return run(x, w, bias)
        if 0 not in weight_slots:
            return run(x.sample(), w, bias)
        return with_noise(run(x.mean, w, bias), variance(x.var, w * w))

    return lifted


def lift_convolution(run: Run, positions: Positions) -> Run:
    """`run(x, w, bias)` uses an element of w at `positions(x, w)` places: where these are many, w is drawn, once for each half of the rows.

    Two draws and one convolution take the place of two convolutions. The rows of a half share their noise; the compression is the same.
    """
    local = lift_linear(run, run, (1,))

    def lifted(x: Any, w: Any, bias: Any = None) -> Any:
        x = sampled(x)
        if not (isinstance(w, GaussianValue) and w.in_halves and positions(x, w.mean) >= MANY_POSITIONS):
            return local(x, w, bias)
        bias = sampled(bias)
        std = w.var.clamp_min(VARIANCE_FLOOR).sqrt()
        halves = [run(half, torch.addcmul(w.mean, std, noise_like(std)), bias) for half in x.chunk(2)]
        return torch.cat(halves) if len(halves) > 1 else halves[0]

    return lifted


def lift_lookup(run: Run) -> Run:
    """`run(data, indices)` takes rows out of data: every row taken gets noise of its own."""

    def lifted(data: Any, indices: Any) -> Any:
        if not isinstance(data, GaussianValue):
            return run(data, indices)
        return with_noise(run(data.mean, indices), run(data.var, indices))

    return lifted


def lift_sampled(run: Run) -> Run:
    """`run` is none of the above: Gaussian operands are sampled first."""

    def lifted(*args: Any) -> Any:
        return run(*[sampled(arg) for arg in args])

    return lifted


def _variance(arg: Any) -> Any:
    if isinstance(arg, GaussianValue):
        return arg.var
    if isinstance(arg, Tensor) and arg.is_floating_point():
        return torch.zeros_like(arg)
    return arg
