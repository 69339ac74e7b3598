"""Models of scikit-learn through skl2onnx: outputs are a label of integers and the probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from tests.benchmarks.zoo.builders.built import Built

_NUM_ROWS = 16


def _built(model: Any) -> Built:
    digits = load_digits()
    x = (digits.data / 16).astype(np.float32)
    model.fit(x[:1000], digits.target[:1000])

    def export(path: Path) -> None:
        path.write_bytes(to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())

    return Built([x[1000 : 1000 + _NUM_ROWS]], {"skl2onnx": export})


def sklearn_mlp() -> Built:
    return _built(MLPClassifier((64, 32), max_iter=20, early_stopping=True, random_state=0))


def sklearn_logistic() -> Built:
    """One operator of ai.onnx.ml, so it is expected to be refused by name."""
    return _built(LogisticRegression(max_iter=200))
