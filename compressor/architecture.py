"""The second way in: weights alone (safetensors), and the name of an architecture out of timm's list. The model is built and exported here.

Nothing of the file but its tensors is looked at, and the name must be one that timm itself lists: timm reads names such as "hf-hub:..."
and "local-dir:..." as addresses and paths.
"""

import difflib
import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.errors import GraphTooLarge, InvalidConfig, InvalidModel, UnsupportedModel

_MAX_PARAMETERS = 2**29  # a file of 2 GiB in float32
_OPSET = 20

# Operators of torchvision that its Python half declares shapes for. Beside a CPU build of torch its compiled half, which is linked
# against CUDA, does not load, and the import fails for want of them. timm's models use neither.
_ABSENT_OPERATORS = ("nms", "qnms")


def export_architecture(weights: Path, architecture: str, image_size: int | None) -> bytes:
    """An ONNX file of `architecture` with the tensors of `weights`.

    Args:
        weights: a safetensors file with the state dict that timm's model has.
        architecture: a name of timm.list_models().
        image_size: height and width of the images; the architecture's own where it is None.
    Returns: the file's bytes, in half precision where all of the weights are; the batch is dynamic where the exporter can.
    Raises:
        InvalidConfig: an architecture that timm does not know, or an image size that it does not take.
        InvalidModel: the file is damaged, or its tensors are not those of the architecture.
        UnsupportedModel: timm is not installed, or the exporter cannot write the architecture.
    """
    timm = import_timm()
    _check_name(architecture, timm.list_models())
    tensors = _read_tensors(weights)
    model = _build(timm, architecture, tensors, image_size)
    config: Any = model.default_cfg
    channels = _size_of(tensors, config.get("first_conv"), axis=1) or config["input_size"][0]
    height, width = (image_size, image_size) if image_size else config["input_size"][1:]
    dtype = next(model.parameters()).dtype
    return _without_traces(_export(model.eval(), torch.zeros(2, channels, height, width, dtype=dtype), architecture))


def import_timm() -> Any:
    """timm, beside any build of torch. Raises: UnsupportedModel where it is not installed."""
    if find_spec("timm") is None:
        raise UnsupportedModel(
            "Weights without a graph need timm, which is not installed here.",
            param="architecture",
            suggestion="pip install 'bayespress[timm]', or send an ONNX file.",
        )
    if not torch.cuda.is_available() and find_spec("torchvision") is not None:
        _declare_absent_operators()
    # An extra, and three seconds.
    import timm

    return timm


def _declare_absent_operators() -> None:
    for name in _ABSENT_OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library: Any = torch.library.Library
            _TORCHVISION.append(library("torchvision", "FRAGMENT"))
            _TORCHVISION[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_TORCHVISION: list[Any] = []  # what is declared lasts as long as these


def _check_name(architecture: str, known: list[str]) -> None:
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        raise InvalidConfig(
            f"timm has no architecture {architecture!r}.",
            param="architecture",
            suggestion=f"Did you mean {' or '.join(near)}?" if near else "The names are those of timm.list_models().",
        )


def _read_tensors(weights: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InvalidModel(
            f"The file is not readable as safetensors: {str(error)[:200]}",
            param="model",
            suggestion="Save it with safetensors.torch.save_file(model.state_dict(), path).",
        ) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InvalidModel(
                f"The tensor {name[:200]!r} holds values that are not finite.",
                param=name[:200],
                suggestion="Upload a model whose training did not diverge.",
            )
    return tensors


def _build(timm: Any, architecture: str, tensors: dict[str, Tensor], image_size: int | None) -> nn.Module:
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=False)
    options: dict[str, int] = {}
    if (classes := _size_of(tensors, config and config.classifier, axis=0)) is not None:
        options["num_classes"] = classes
    if (channels := _size_of(tensors, config and config.first_conv, axis=1)) is not None:
        options["in_chans"] = channels
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        with torch.device("meta"):
            planned = timm.create_model(architecture, pretrained=False, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InvalidConfig(
            f"{architecture} cannot be built with {options}: {str(error)[:200]}",
            param="image_size" if "img_size" in options else "architecture",
            suggestion="Leave image_size out, or take one that the architecture divides into its windows and patches.",
        ) from error
    count = sum(parameter.numel() for parameter in planned.parameters())
    if count > _MAX_PARAMETERS:
        raise GraphTooLarge(
            f"{architecture} has {count:,} parameters; at most {_MAX_PARAMETERS:,} are taken.",
            param="architecture",
            suggestion="Take a smaller architecture.",
        )
    _check_tensors(architecture, planned.state_dict(), tensors)
    model: nn.Module = timm.create_model(architecture, pretrained=False, **options)
    model.load_state_dict(tensors)
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return model.half() if kinds == {torch.float16} else model


def _check_tensors(architecture: str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """The names and shapes of the file are those of the architecture, to the last one."""
    wrong = {
        "lacks": sorted(wanted.keys() - found.keys()),
        "has besides": sorted(found.keys() - wanted.keys()),
        "has in another shape": sorted(name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape),
    }
    for how, names in wrong.items():
        if names:
            shown = ", ".join(name[:100] for name in names[:5])
            raise InvalidModel(
                f"The file {how} {len(names)} of the tensors of {architecture}: {shown}{', ...' if len(names) > 5 else ''}.",
                param=names[0][:200],
                suggestion="Save the state dict of the very model that timm.create_model makes, and name that architecture.",
            )


def _size_of(tensors: dict[str, Tensor], module: object, axis: int) -> int | None:
    """A size of the weight of the module that timm names so, or of the first of several."""
    names = module if isinstance(module, tuple | list) else (module,)
    weight = tensors.get(f"{names[0]}.weight") if names else None
    return weight.shape[axis] if weight is not None and weight.dim() > axis else None


def _export(model: nn.Module, images: Tensor, architecture: str) -> bytes:
    """Without the exporter's own optimisation, which would fold batch normalisation into the convolutions; it trains better unfolded."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    error: Exception | None = None
    for rows, shapes in ((images, ({0: torch.export.Dim("batch")},)), (images[:1], None)):
        file: Any = io.BytesIO()  # which the exporter takes, whatever its signature says
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model,
                    (rows,),
                    file,
                    dynamo=True,
                    optimize=False,
                    opset_version=_OPSET,
                    dynamic_shapes=shapes,
                    external_data=False,
                    verbose=False,
                )
            return bytes(file.getvalue())
        except Exception as failure:  # a compiler's worth of kinds
            error = failure
    while error is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    raise UnsupportedModel(
        f"PyTorch's exporter cannot write {architecture}: {str(error).strip().partition(chr(10))[0][:300]}",
        param="architecture",
        suggestion="Export the model to ONNX yourself, and send that.",
    ) from error


def _without_traces(data: bytes) -> bytes:
    """Without what the exporter notes of each node: the paths of our installation, a tenth of a small file."""
    model = ModelProto.FromString(data)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    return bytes(model.SerializeToString())
