"""The digest that our safetensors files carry, since that format has none: a flipped bit shall be an error, not another model."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def digest_of(text: str, parts: Iterable[npt.NDArray[np.generic]]) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of `text` in UTF-8 and, behind it, the bytes of these arrays, row-major."""
    digest = hashlib.sha256(text.encode())
    for part in parts:
        digest.update(part.tobytes())
    return digest.hexdigest()[:32]
