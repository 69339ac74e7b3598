"""Every error that the library raises, each with a stable code that the service gives on unchanged.

CompressionError
├── ClientError                     the request can be mended by whoever sent it (CLI: exit 2)
│   ├── InvalidConfig               invalid_config
│   ├── ModelError
│   │   ├── InvalidModel            invalid_model
│   │   ├── ExternalData            external_data
│   │   ├── GraphTooLarge           graph_too_large
│   │   ├── UnsupportedModel        unsupported_model
│   │   ├── UnsupportedOperator     unsupported_operator
│   │   └── NoWeights               no_weights
│   ├── DatasetError
│   │   ├── InvalidDataset          invalid_dataset
│   │   ├── ExternalReference       external_reference
│   │   ├── DatasetTooLarge         dataset_too_large
│   │   ├── MissingLabels           missing_labels
│   │   ├── LabelOutOfRange         label_out_of_range
│   │   ├── ShapeMismatch           shape_mismatch
│   │   └── UnsupportedTask         unsupported_task
│   ├── DeviceUnavailable           device_unavailable
│   ├── NotBetterThanGuessing       not_better_than_guessing
│   ├── CannotPack                  cannot_pack
│   └── InvalidArtifact             invalid_artifact
├── GateNotMet                      gate_not_met (CLI: exit 3; every artifact is kept)
└── TrainingError                   the run itself failed (CLI: exit 1)
    ├── OutOfMemory                 out_of_memory
    ├── Diverged                    diverged
    ├── ArtifactMismatch            artifact_mismatch
    └── TrainerCrashed              trainer_crashed
"""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Problem(BaseModel):
    """An RFC 9457 problem object: the same one in an HTTP response, in a job's `error` and on the trainer's pipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    param: str | None = None
    suggestion: str | None = None


class CompressionError(Exception):
    """Base of all errors of the library.

    Args:
        detail: what was wrong, with the offending value or place.
        param: the field, column, node or option it was found in.
        suggestion: what to do about it.
    """

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, param: str | None = None, suggestion: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.suggestion = suggestion

    def to_problem(self) -> Problem:
        return Problem(
            type=f"urn:bayespress:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            param=self.param,
            suggestion=self.suggestion,
        )


class ClientError(CompressionError):
    """The model, the dataset or the configuration must change."""

    code = "client_error"
    title = "The request cannot be carried out"
    status = 422


class InvalidConfig(ClientError):
    code = "invalid_config"
    title = "The configuration is not valid"


class ModelError(ClientError):
    """The uploaded model cannot be taken."""

    code = "model_error"
    title = "The model cannot be compressed"


class InvalidModel(ModelError):
    code = "invalid_model"
    title = "The file is not a valid model"


class ExternalData(ModelError):
    code = "external_data"
    title = "The model refers to data outside its own file"


class GraphTooLarge(ModelError):
    code = "graph_too_large"
    title = "The model exceeds a size limit"


class UnsupportedModel(ModelError):
    code = "unsupported_model"
    title = "The model uses a feature that is not supported"


class UnsupportedOperator(ModelError):
    code = "unsupported_operator"
    title = "The model uses an operator that is not supported"


class NoWeights(ModelError):
    code = "no_weights"
    title = "The model has no weights to compress"


class DatasetError(ClientError):
    """The dataset cannot be taken."""

    code = "dataset_error"
    title = "The dataset cannot be used"


class InvalidDataset(DatasetError):
    code = "invalid_dataset"
    title = "The dataset cannot be read"


class ExternalReference(DatasetError):
    code = "external_reference"
    title = "The dataset refers to files outside itself"


class DatasetTooLarge(DatasetError):
    code = "dataset_too_large"
    title = "The dataset exceeds a size limit"


class MissingLabels(DatasetError):
    code = "missing_labels"
    title = "The dataset has no labels"


class LabelOutOfRange(DatasetError):
    code = "label_out_of_range"
    title = "A label is outside the model's classes"


class ShapeMismatch(DatasetError):
    code = "shape_mismatch"
    title = "The data do not fit the model's inputs"


class UnsupportedTask(DatasetError):
    code = "unsupported_task"
    title = "The task is not supported"


class DeviceUnavailable(ClientError):
    code = "device_unavailable"
    title = "The requested device is not available"


class NotBetterThanGuessing(ClientError):
    code = "not_better_than_guessing"
    title = "The model does no better than guessing on this dataset"


class CannotPack(ClientError):
    """The model has no form of `model.packed.onnx` that stock ONNX Runtime would unpack as it loads the file."""

    code = "cannot_pack"
    title = "The model cannot be written in the packed format"


class InvalidArtifact(ClientError):
    """A delivered file that is read back is damaged, or of another format."""

    code = "invalid_artifact"
    title = "The file is not a readable artifact"


class GateNotMet(CompressionError):
    """The delivered model does not fulfil the client's own budget, or another of its conditions; artifacts and curve are kept."""

    code = "gate_not_met"
    title = "The accuracy budget or another condition was not met"
    status = 422


class TrainingError(CompressionError):
    """The run failed for a reason that is not in the request's content."""

    code = "training_error"
    title = "The run failed"


class OutOfMemory(TrainingError):
    code = "out_of_memory"
    title = "The trainer ran out of memory"


class Diverged(TrainingError):
    code = "diverged"
    title = "Training diverged"


class ArtifactMismatch(TrainingError):
    code = "artifact_mismatch"
    title = "An artifact does not reproduce the trained model"


class TrainerCrashed(TrainingError):
    code = "trainer_crashed"
    title = "The trainer ended without a result"


def error_classes() -> Iterator[type[CompressionError]]:
    """All classes of the tree, parents before children."""

    def walk(cls: type[CompressionError]) -> Iterator[type[CompressionError]]:
        yield cls
        for child in cls.__subclasses__():
            yield from walk(child)

    return walk(CompressionError)
