"""`CompressionConfig`: the one description of a run's options, for library, HTTP API and command line. Imports no torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypeAliasType

from compressor.errors import InvalidConfig

WEIGHTS_SUFFIX = ".safetensors"  # of a model that comes without a graph
MIN_OPSET, MAX_OPSET = 11, 23

# Aliases with a name keep it in JSON schemas, where an enum without one is nameless in every generated client.
Prior = TypeAliasType("Prior", Literal["ard", "log_uniform", "log_uniform_exact"])
GroupPrior = TypeAliasType("GroupPrior", Literal["none", "ard"])
ConvNoise = TypeAliasType("ConvNoise", Literal["weights", "outputs"])
Task = TypeAliasType("Task", Literal["classification", "regression"])
Augmentation = TypeAliasType("Augmentation", Literal["shift", "flip", "crop"])
Control = TypeAliasType("Control", Literal["quick", "full"])
Format = TypeAliasType("Format", Literal["packed", "bp"])
PackedValues = TypeAliasType("PackedValues", Literal["quantised", "float16"])
WeightDtype = TypeAliasType("WeightDtype", Literal["float32", "float16"])
DeviceChoice = TypeAliasType("DeviceChoice", Literal["auto", "cpu", "cuda"])
TaskChoice = TypeAliasType("TaskChoice", Literal["auto", "classification", "regression"])
ImageScaling = TypeAliasType("ImageScaling", Literal["unit", "symmetric", "imagenet"])
ImageScalingChoice = TypeAliasType("ImageScalingChoice", Literal["auto", "unit", "symmetric", "imagenet"])
Ratio = Annotated[float, Field(gt=1.0, le=1e9)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


class CompressionConfig(BaseModel):
    """Options of one compression run. Unknown keys are errors; every default is meant to be left alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # What the user wants
    max_metric_drop: Probability | None = Field(
        default=None,
        description="Largest drop of the validation metric that is accepted, as a fraction (0.005 is half a point). "
        "Unset: 0.005 or the 95 % half-width of the validation metric, the larger. For classification.",
    )
    max_metric_drop_relative: float | None = Field(
        default=None,
        ge=0.0,
        le=10.0,
        description="Largest rise of the validation RMSE that is accepted, as a part of the uploaded model's; without labels, as a part of "
        "the standard deviation of its outputs. Unset: 0.01. For regression.",
    )
    target_ratio: Ratio | None = Field(
        default=None,
        description="Deliver the model with this compression ratio, whatever its metric. Unset: the smallest one that the budget allows.",
    )
    point: int | None = Field(default=None, ge=0, description="Of kind select: the number of the curve's point, from 0.")
    curve_ratios: tuple[Ratio, ...] = Field(
        strict=False, default=(), max_length=32, description="Compression ratios that get a point on the curve as well."
    )
    min_ratio: Ratio | None = Field(default=None, description="Gate: the delivered compression ratio is at least this, or the job fails.")
    max_bytes: int | None = Field(default=None, ge=1, description="Gate: model.onnx has at most so many bytes, or the job fails.")
    max_latency_ms: float | None = Field(
        default=None, gt=0.0, description="Gate: median latency of model.onnx for one row in ONNX Runtime here, or the job fails."
    )
    max_epochs: int | None = Field(
        default=None,
        ge=3,
        le=1_000_000,
        description="Most passes over the training rows that the whole run takes. Unset: as many as it needs.",
    )
    max_seconds: float | None = Field(
        default=None, gt=0.0, description="About how long the whole run may take; training is cut to what fits. Unset: no limit."
    )
    control: Control = Field(
        default="quick",
        description="Magnitude pruning that the result is held against, at equal size: quick prunes at once and fine-tunes as all points "
        "are; full prunes step by step (cubic schedule) with as many steps as the variational branch had.",
    )
    formats: tuple[Format, ...] = Field(
        strict=False,
        default=(),
        max_length=2,
        description="Smaller forms of the model beside model.onnx: packed (model.packed.onnx, which decodes itself in ONNX Runtime), bp "
        "(model.bp, the smallest, which bayespress unpack turns into ONNX). Their values are rounded, and trained so, within the budget.",
    )
    packed_values: PackedValues = Field(
        default="quantised", description="Values of model.packed.onnx: on grids of at most 8 bits where the budget allows, or as float16."
    )
    weight_dtype: WeightDtype = Field(
        default="float32",
        description="In which type model.dense.onnx stores the weights of a model in float32; what float16 cannot hold stays.",
    )
    posterior_sigma: bool = Field(
        default=False, description="Whether weights.safetensors holds the posterior's standard deviation of each weight as well."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the split, the noise and the order of the batches.")
    device: DeviceChoice = Field(default="auto", description="Where to train; auto takes CUDA where there is one.")

    # How the model and the data are read
    task: TaskChoice = Field(
        default="auto",
        description="What the labels are: classes, or numbers to be met with the least squared error; auto takes integers for classes and "
        "floats for numbers.",
    )
    architecture: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of timm's architecture where the model is a safetensors file of weights alone (extra `timm`).",
    )
    image_size: int | None = Field(
        default=None, ge=1, le=4096, description="Height and width of the images that `architecture` takes. Unset: the architecture's own."
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Name of the output with the class scores or numbers. Unset: the first float output.",
    )
    label_column: str = Field(default="label", min_length=1, max_length=200, description="Name of the label column of a parquet file.")
    image_scaling: ImageScalingChoice = Field(
        default="auto",
        description="How image bytes become numbers: unit [0, 1], symmetric [-1, 1], imagenet (mean and deviation of ImageNet); "
        "auto takes the one with the best dense metric on 1,000 training rows.",
    )
    require_better_than_guessing: bool = Field(
        default=True,
        description="Stop where the uploaded model does no better than always naming the most frequent class, or the mean of the labels.",
    )

    # What is learned from
    distillation_weight: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Weight of the uploaded model's own outputs as training targets beside the labels; 1 needs no labels.",
    )
    distillation_temperature: float = Field(
        default=2.0, gt=0.0, le=100.0, description="Temperature at which the outputs of both models are compared."
    )
    augmentation: tuple[Augmentation, ...] = Field(
        strict=False,
        default=(),
        max_length=3,
        description="Changes that training images may undergo: shift (by a 28th of the side, at least a pixel), flip (left to right), crop "
        "(an eighth of the side).",
    )

    # The posterior
    prior: Prior = Field(
        default="ard",
        description="Prior over the weights: ARD N(0, lambda^2), or log-uniform with its KL by a sigmoid approximation or exact.",
    )
    group_prior: GroupPrior = Field(
        default="none",
        description="Prior over neurons, filters, attention heads and rows of embeddings beside that over weights: ard gives each a "
        "variance of its own, so that whole ones go.",
    )
    log_alpha_init: float | None = Field(
        default=None,
        ge=-14.0,
        le=2.0,
        description="Initial log_alpha of a weight of its tensor's root mean square. Unset: -3, or less where a probe shows that this "
        "noise alone costs likelihood.",
    )
    conv_noise: ConvNoise = Field(
        default="weights",
        description="What convolutions draw: their weights, once for each half of a batch, where that is cheaper, or always their outputs, "
        "which trains with less noise and takes up to twice the time.",
    )
    beta: float | None = Field(
        default=None,
        gt=0.0,
        le=100.0,
        description="Weight of the KL term of the first branch, which begins anew with about three times as much, up to 1, as long as what "
        "its first round leaves is inside the budget. Unset: 1; 0.3 with fewer than 10,000 training rows; 0.03 where rows outnumber "
        "weights.",
    )
    max_branches: int = Field(
        default=5, ge=1, le=20, description="How many weights of the KL term are tried at most, a factor of about three apart."
    )
    kl_warmup_fraction: Probability = Field(
        default=0.3, description="Part of the steps of the first round over which the KL weight rises from 0 to beta."
    )

    # The optimiser
    epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="Epochs of the first round of a branch. Unset: about 2,600 steps, 3 to 30."
    )
    second_round_epochs: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Epochs of the second round, on what the first one left; 0: no second round. Unset: about 8,600 steps, 8 to 80.",
    )
    batch_size: int | None = Field(default=None, ge=1, le=65_536, description="Rows per step. Unset: by the number of training rows.")
    step_size: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Adam's initial step for the means and biases, as a part of their tensor's root mean square. Unset: the largest, of "
        "0.1 to 0.0005, with which a probe of 30 steps is never worse than guessing.",
    )
    learning_rate_log_sigma2: float = Field(default=1e-3, gt=0.0, le=1.0, description="Adam's initial step for log_sigma2.")

    # The choice of the point
    thresholds: tuple[Annotated[float, Field(strict=True)], ...] = Field(
        strict=False,  # a list is as good; its elements are checked strictly
        default=(0.0, 1.0, 2.0, 3.0, 4.0),
        min_length=1,
        max_length=32,
        description="Thresholds on log_alpha of the sweep: a weight is kept exactly where log_alpha < threshold. "
        "Not used with target_ratio.",
    )
    fine_tune_epochs: int | None = Field(
        default=None, ge=0, le=10_000, description="Epochs of masked fine-tuning of each point. Unset: 0.4 of the epochs of the last round."
    )
    fine_tune_step_size: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Adam's initial step of the fine-tuning, as step_size, in units of the kept weights. Unset: a twentieth of that.",
    )

    @classmethod
    def parse(cls, values: Any) -> "CompressionConfig":
        """`values` (a mapping, as parsed from JSON or TOML) as a config.

        Raises: InvalidConfig naming the first key that is unknown or has a wrong value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise to_invalid_config(error) from None


def check_architecture(config: CompressionConfig, is_weights_alone: bool) -> None:
    """Raises: InvalidConfig where weights come without the name of their architecture, or an ONNX file comes with one."""
    if is_weights_alone and config.architecture is None:
        raise InvalidConfig(
            "A safetensors file holds weights without a graph.",
            param="architecture",
            suggestion='Name the architecture, for example {"architecture": "resnet18"}, or send an ONNX file.',
        )
    if not is_weights_alone:
        for key in ("architecture", "image_size"):
            if getattr(config, key) is not None:
                raise InvalidConfig(
                    f"{key} belongs to a safetensors file of weights; an ONNX file says itself what it is.",
                    param=key,
                    suggestion="Leave it out.",
                )


def needs_grids(config: CompressionConfig) -> bool:
    """Whether a file of quantised values is wanted."""
    return "bp" in config.formats or ("packed" in config.formats and config.packed_values == "quantised")


CHOICES = ("point", "target_ratio", "max_metric_drop", "max_metric_drop_relative")


def check_choice(config: CompressionConfig, is_selection: bool) -> None:
    """Raises: InvalidConfig where a selection has not exactly one of the options that choose a point, or a run names a point."""
    given = [key for key in CHOICES if getattr(config, key) is not None]
    if is_selection and len(given) != 1:
        raise InvalidConfig(
            f"A selection needs exactly one of {', '.join(CHOICES)}; it has {' and '.join(given) or 'none'}.",
            param=given[-1] if given else "point",
            suggestion='Choose a point by its number, by a ratio or by a budget, for example {"point": 0}.',
        )
    if is_selection and needs_grids(config):
        raise InvalidConfig(
            "Values are rounded while they are trained, and a selection reads no rows.",
            param="formats",
            suggestion='Leave formats out, take {"formats": ["packed"], "packed_values": "float16"}, or run again with target_ratio.',
        )
    if not is_selection and config.point is not None:
        raise InvalidConfig(
            "A point is chosen from the curve of a run that is over.",
            param="point",
            suggestion="Leave it out, or let kind be select.",
        )


def to_invalid_config(error: ValidationError) -> InvalidConfig:
    """The first finding of pydantic as an InvalidConfig that names the key and the remedy."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or "config"
    known = ", ".join(CompressionConfig.model_fields)
    if first["type"] == "extra_forbidden":
        return InvalidConfig(f"{param!r} is not an option.", param=param, suggestion=f"Remove it. The options are: {known}.")
    value = repr(first.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "..."
    return InvalidConfig(f"{param}: {first['msg']} (got {shown}).", param=param, suggestion="Correct the value or leave the key out.")
