"""`builtin:digits`: scikit-learn's 1,797 handwritten digits of 8x8, which need no file and no network."""

import numpy as np

from compressor.data.dataset import Dataset, InputSpec, Loaded
from compressor.data.labels import Targets, check_label_array
from compressor.data.numeric import reshape_rows, to_input_type
from compressor.data.source import Source
from compressor.errors import ShapeMismatch

DIGITS = "builtin:digits"


def read_digits(where: Source, inputs: tuple[InputSpec, ...], targets: Targets) -> Loaded:
    """The digits with values in [0, 1] (sixteenths) in the shape of the model's one input.

    Raises: ShapeMismatch, LabelOutOfRange, UnsupportedTask.
    """
    if len(inputs) != 1:
        raise ShapeMismatch(
            f"{where}: one array of features, but the model has {len(inputs)} inputs.",
            param=where.part,
            suggestion="Give rows of your own, or a model with one input.",
        )
    # Imported here because it takes half as long as torch, and no other rows need it.
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    values = to_input_type(pixels.astype(np.float32) / 16, inputs[0], where, "x")
    rows = reshape_rows(values, inputs[0], where, "x")
    return Loaded(Dataset((rows,), check_label_array(classes, targets, where, "y")), images=False)
