"""`Report`: what a run found, as one pydantic model; its JSON form is the artifact `report.json`. Imports no torch.

`Selection` says the same of a point that was exported from the curve of a run; its JSON form is `selection.json`.

Metrics are fractions where they are bounded, and else in the unit of the labels. `numel` counts float tensors of the uploaded graph with
two or more dimensions; `nnz` counts the nonzeros of those tensors in the delivered `model.onnx`, read back from disk.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from compressor.config import ImageScaling, Task

FORMAT_VERSION: Literal[1] = 1

MetricName = TypeAliasType("MetricName", Literal["accuracy", "agreement", "rmse", "deviation"])
Direction = TypeAliasType("Direction", Literal["maximize", "minimize"])
Part = TypeAliasType("Part", Literal["train", "validation", "test"])
HeldOutPart = TypeAliasType("HeldOutPart", Literal["validation", "test"])
BudgetSource = TypeAliasType("BudgetSource", Literal["client", "default"])
GateName = TypeAliasType("GateName", Literal["min_ratio", "max_bytes", "max_latency_ms", "target_ratio"])
QuantisedValues = TypeAliasType("QuantisedValues", Literal["grids", "float16", "float32"])
Method = TypeAliasType("Method", Literal["variational", "magnitude"])


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricValue(_Part):
    """A metric measured once on one split, with its 95 % interval.

    Wilson's of a share of rows; of an RMSE the root of the normal interval of the mean squared error.
    """

    value: float
    interval: tuple[float, float]
    split: HeldOutPart
    num_examples: int


class Metric(_Part):
    """The metric of the three models: as uploaded, as delivered, and pruned by magnitude to the same number of nonzeros.

    accuracy and rmse are measured on labels. agreement and deviation are the same of rows without labels, on what the uploaded model gives
    for them: its own agreement is 1, its own deviation 0.
    """

    name: MetricName
    direction: Direction
    dense: MetricValue
    compressed: MetricValue
    control: MetricValue


class Budget(_Part):
    """The budget and whether model.onnx is inside it on validation, whose metric is not that of test where only one has labels.

    Whether a form with rounded values is inside it, too, stands with the file.
    """

    metric: MetricName
    direction: Direction
    max_metric_drop: float = Field(description="in the metric's unit; of a metric that is minimised, a rise")
    source: BudgetSource
    dense_validation: MetricValue
    compressed_validation: MetricValue
    met: bool


class Gate(_Part):
    """A condition that the client set on the delivered model; where one is not met the job ends `failed_gate`, with everything kept."""

    name: GateName
    limit: float
    value: float
    met: bool


class LogAlphaQuantiles(_Part):
    q05: float
    q25: float
    q50: float
    q75: float
    q95: float


class SnrQuantiles(_Part):
    """Of |mean| / sigma = exp(-log_alpha / 2) over the weights of a tensor."""

    q05: float
    q25: float
    q50: float
    q75: float
    q95: float


class Layer(_Part):
    """One weight tensor.

    `log_alpha` and `snr`, both of the posterior before anything was dropped, are absent where it was not treated as variational, or
    magnitude pruning made the delivered point.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    nnz: int
    sparsity: float
    log_alpha: LogAlphaQuantiles | None
    snr: SnrQuantiles | None


class Weights(_Part):
    """Tensors with two or more dimensions."""

    numel: int
    nnz: int
    compression_ratio: float = Field(description="numel / nnz; numel where no weight is left")
    layers: list[Layer]


class Parameters(_Part):
    """All float tensors, biases and scales included."""

    numel: int
    nnz: int
    compression_ratio: float


class Bytes(_Part):
    """Sizes on disk. `artifacts` leaves out report.json, which cannot contain its own size."""

    dense: int
    dense_gzip: int
    dense_zstd: int = Field(description="at level 19")
    entropy_bound: int = Field(
        description="fewest bytes that the delivered values, in their own types, and their positions take where no position tells anything "
        "of another: Shannon's bound by the density of each tensor"
    )
    artifacts: dict[str, int]
    size_ratio: float = Field(description="bytes of the uploaded file / bytes of model.onnx")


class LatencyValue(_Part):
    """Milliseconds of one run in stock ONNX Runtime."""

    median_ms: float
    p05_ms: float
    p95_ms: float


class Latency(_Part):
    """Dense and delivered, interleaved in one process, with inputs and output bound before: Python's part is not counted."""

    dense: LatencyValue
    delivered: LatencyValue
    batch_size: int
    num_runs: int
    num_threads: int


class LoadCost(_Part):
    """Of a process that does nothing but load the file in stock ONNX Runtime."""

    median_ms: float = Field(description="of three loadings")
    peak_bytes: int = Field(description="resident memory at its highest during the first, beyond what the process had before")


class DeliveredFile(_Part):
    """One form of the delivered model, and what it is good for."""

    name: str
    bytes: int
    size_ratio: float = Field(description="bytes of the uploaded file / bytes of this one")
    purpose: str
    validation: MetricValue | None = Field(description="of a form whose values are rounded, in ONNX Runtime; others hold those of the run")
    met: bool = Field(description="whether what it holds is inside the budget on validation")
    advice: str | None = Field(description="not to use it: no smaller than the upload under gzip, or rounded beyond the budget")
    checked_in: list[str] = Field(
        description="runtimes in which its outputs were compared with the trained model's; of one that took another's place, why"
    )
    load: LoadCost | None = Field(description="null of what ONNX Runtime does not read, and where no process could be started")
    latency: list[Latency] = Field(
        description="against the uploaded model, of one row and of many; none of what ONNX Runtime does not read"
    )


class Quantisation(_Part):
    """The values on uniform grids, one step for each tensor; finer ones where no grid of at most 8 bits keeps to the budget."""

    values: QuantisedValues = Field(description="float32: none is rounded, since float16 would lose too much as well")
    coarseness: float | None = Field(
        description="steps in units of sqrt(12) posterior standard deviations: 1 is an error as large as the noise; 0: 8 bits, and the "
        "weights were not trained on under rounding; null: no grids"
    )
    bits: dict[str, int] = Field(description="by tensor on a grid, that tell its values apart")
    nnz: int = Field(description="weights that are not rounded to 0")
    validation: MetricValue
    test: MetricValue


class CurvePoint(_Part):
    """One point of the metric-size curve, after masked fine-tuning; `metric` is on validation. None is chosen where magnitude won."""

    beta: float
    threshold: float | None = Field(description="on log_alpha; null where everything is kept")
    layer_thresholds: dict[str, float] = Field(description="of tensors that were cut by themselves, in place of `threshold`")
    nnz: int
    compression_ratio: float
    metric: float
    chosen: bool


class Branch(_Part):
    """One weight of the KL term that was tried. Where its first round lost too much it was given up, and has no point on the curve."""

    beta: float
    num_points: int
    nnz: int | None = Field(description="of its smallest point inside the budget; null where none is")


class CalibrationValue(_Part):
    """How far probabilities can be trusted, on test rows; lower is better."""

    ece: float = Field(
        description="expected calibration error: |accuracy - confidence|, mean over 15 bins of equal width, weighted by rows"
    )
    nll: float = Field(description="mean negative log-likelihood of the labels, nats per row; probabilities count as 1e-12 at least")
    brier: float = Field(description="squared error of the probabilities, summed over the classes, mean over the rows; in [0, 2]")


class Calibration(_Part):
    """Of a classifier's probabilities; scores count as logits, and one sigmoid for each class is brought to a sum of 1."""

    dense: CalibrationValue
    compressed: CalibrationValue


class ClassAccuracy(_Part):
    """Accuracy over the test rows of one class."""

    label: int
    num_examples: int
    dense: float
    compressed: float


class Difference(_Part):
    """Delivered against uploaded model on the same test rows, which tells them apart where the intervals of the two metrics overlap."""

    value: float = Field(description="metric of the delivered model minus that of the uploaded one")
    interval: tuple[float, float] = Field(
        description="95 %, paired: of two accuracies that of Agresti and Min (2005) for McNemar's table; of two RMSEs by the normal "
        "interval of the mean difference of squared errors"
    )
    num_changed: int | None = Field(description="rows that get another class from the two models; null in a regression")


class Redundancy(_Part):
    """Whether the uploaded model had far more weights than these data call for.

    Weights that a matrix product applies to an input feature of one and the same value in all training rows (a border pixel) carry nothing,
    and any method drops them; `numel` and `nnz` leave them out. Over-parameterised: inside the budget, no more than 1 weight in 10 of the
    others is left, and model.onnx is less than half of the upload. With more left, the sparse file, which keeps an index beside each value,
    wins about what 8-bit quantisation wins on any model. On MNIST a logistic regression comes to 4.9 by this ratio, 784-16-10 to 6.4,
    LeNet-300-100 to more than 60.
    """

    over_parameterised: bool
    numel: int = Field(description="weights but for those of constant input features")
    nnz: int = Field(description="of them, those that the delivered model keeps")
    ratio: float = Field(description="numel / nnz of these; numel where none is left")
    num_constant: int = Field(description="weights of constant input features")
    parameters_per_row: float = Field(description="parameters of the uploaded model for each training row")
    evidence: str


class Inputs(_Part):
    """How the rows were read. `image_scaling` is absent where the inputs are not images."""

    task: Task
    unlabelled: list[Part] = Field(description="parts without labels, in whose place stands what the uploaded model gives")

    num_train: int
    num_validation: int
    num_test: int
    num_classes: int | None = Field(description="null in a regression")
    carved: list[HeldOutPart] = Field(description="parts that were split off the training rows")
    image_scaling: ImageScaling | None


class Training(_Part):
    """How the weights were trained, with everything that the configuration leaves to the run."""

    log_alpha_init: float
    step_size: float = Field(description="Adam's initial step in units of the tensor's root mean square")
    batch_size: int
    epochs: list[int] = Field(description="of the rounds of one branch")
    fine_tune_epochs: int
    fine_tune_step_size: float


class Provenance(_Part):
    """What is needed to say where the delivered files come from."""

    sha256: dict[str, str] = Field(description="of the inputs (model, train, ...) and of every artifact")
    config: dict[str, object]
    seed: int
    device: str
    versions: dict[str, str]
    seconds: float


class Report(_Part):
    """The report of one run."""

    format_version: Literal[1] = FORMAT_VERSION
    verdict: str = Field(description="in plain words")
    delivered: Method = Field(description="which of the two methods made the delivered point")
    warnings: list[str]
    metric: Metric
    difference: Difference
    calibration: Calibration | None = Field(description="null in a regression")
    classes: list[ClassAccuracy] | None = Field(
        description="with test rows, at most the 1,000 that have the most; null in a regression and where test has no labels"
    )
    budget: Budget
    redundancy: Redundancy
    weights: Weights
    parameters: Parameters
    bytes: Bytes
    files: list[DeliveredFile]
    upload_load: LoadCost | None = Field(description="what the uploaded file takes to load")
    latency: Latency
    quantisation: Quantisation | None = Field(description="null where no file of quantised values was asked for")
    curve: list[CurvePoint]
    branches: list[Branch]
    gates: list[Gate]
    inputs: Inputs
    training: Training
    provenance: Provenance

    @property
    def gate_met(self) -> bool:
        """Whether the run ends well: whatever the client set was met."""
        return not self.missed_gates

    @property
    def missed_gates(self) -> list[str]:
        """Options of the client's that the delivered model does not fulfil; a budget by default is none."""
        option = "max_metric_drop" if self.budget.direction == "maximize" else "max_metric_drop_relative"
        budget = [option] if self.budget.source == "client" and not self.budget.met else []
        return budget + [gate.name for gate in self.gates if not gate.met]


class Selection(_Part):
    """A point of a run's curve, exported. No row was read: the metric is that which the run measured on its validation rows."""

    format_version: Literal[1] = FORMAT_VERSION
    verdict: str = Field(description="one sentence")
    number: int = Field(description="of the point on the curve, from 0")
    point: CurvePoint
    metric: MetricName = Field(description="of `point`")
    dense_metric: float = Field(description="of the uploaded model, on the same validation rows")
    weights: Weights
    parameters: Parameters
    bytes: Bytes
    sha256: dict[str, str] = Field(description="of the model, of the curve and of every artifact")
