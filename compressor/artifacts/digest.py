"""The digest that our files carry, since neither ONNX nor safetensors has one: a flipped bit shall be an error, not another model."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

_DIGITS = 32


def digest_of(text: str, parts: Iterable[npt.NDArray[np.generic]]) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of `text` in UTF-8 and, behind it, the bytes of these arrays, row-major."""
    digest = hashlib.sha256(text.encode())
    for part in parts:
        digest.update(part.tobytes())
    return digest.hexdigest()[:_DIGITS]


def seal(model: ModelProto, key: str, *fields: str) -> None:
    """Writes `fields`, and the digest of all else that the model says behind them, into an entry of its metadata_props.

    The digest is the first 32 hexadecimal digits of the SHA-256 of the model without this entry, serialised with its fields in the order
    of their numbers, as protobuf does.
    """
    break_seal(model, key)
    text = " ".join([*fields, _digest(model)])
    model.metadata_props.add(key=key, value=text)


def check_seal(model: ModelProto, key: str) -> str:
    """The fields that `seal` was given, with spaces between them. The model is without the entry then.

    Raises: ValueError where there is no such entry, or the digest is that of another model.
    """
    entries = break_seal(model, key)
    if len(entries) != 1:
        raise ValueError(f"no entry {key}")
    fields, _, digest = entries[0].rpartition(" ")
    if digest != _digest(model):
        raise ValueError("its digest is another")
    return fields


def break_seal(model: ModelProto, key: str) -> list[str]:
    """Takes the entries of this key out. Returns: what stood in them."""
    entries = [entry for entry in model.metadata_props if entry.key == key]
    values = [entry.value for entry in entries]
    for entry in entries:
        model.metadata_props.remove(entry)
    return values


def _digest(model: ModelProto) -> str:
    """Of all that the file says: not only the tensors, but the graph they are in must be the one that was written."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:_DIGITS]
