"""Models of Keras, through model.export and through tf2onnx itself."""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

from tests.benchmarks.zoo.builders.built import Built

_NUM_ROWS, _CLASSES = 16, 10


def _built(model: keras.Model, shape: tuple[int, ...]) -> Built:
    rows = np.random.default_rng(0).standard_normal((_NUM_ROWS, *shape)).astype(np.float32)
    model(rows)  # model.export asks for a model that has run

    def by_keras(path: Path) -> None:
        model.export(path, format="onnx", verbose=False)

    def by_tf2onnx(path: Path) -> None:
        run = tf.function(model, input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="x")])
        tf2onnx.convert.from_function(run, run.input_signature, opset=17, output_path=str(path))

    return Built([rows], {"keras": by_keras, "tf2onnx": by_tf2onnx})


def keras_cnn() -> Built:
    """Channels last, batch normalisation, a depthwise convolution, ReLU6, probabilities as output."""
    noise = keras.initializers.RandomNormal(stddev=0.3)
    scale = keras.initializers.RandomUniform(0.5, 1.5)

    def norm() -> keras.Layer:
        return layers.BatchNormalization(
            beta_initializer=noise, gamma_initializer=scale, moving_mean_initializer=noise, moving_variance_initializer=scale
        )

    steps = (
        *(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False), norm(), layers.ReLU(max_value=6.0)),
        *(layers.DepthwiseConv2D(3, padding="same", use_bias=False), norm(), layers.ReLU(max_value=6.0)),
        *(layers.Conv2D(32, 1, bias_initializer=noise), norm(), layers.ReLU(), layers.MaxPooling2D(), layers.Flatten()),
        *(layers.Dense(32, activation="relu", bias_initializer=noise), layers.Dropout(0.3), layers.Dense(_CLASSES, activation="softmax")),
    )
    return _built(keras.Sequential([keras.Input((28, 28, 1)), *steps]), (28, 28, 1))


def keras_lstm() -> Built:
    steps = (
        layers.Bidirectional(layers.LSTM(24, return_sequences=True)),
        *(layers.LSTM(16), layers.Dense(_CLASSES, activation="softmax")),
    )
    return _built(keras.Sequential([keras.Input((12, 8)), *steps]), (12, 8))
