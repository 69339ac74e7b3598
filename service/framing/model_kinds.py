"""A model comes as an ONNX file or as weights alone (safetensors): its first bytes say which, and how the rest is skimmed."""

import json
from typing import Any

from compressor.config import WEIGHTS_SUFFIX
from compressor.errors import InvalidModel
from service.framing.skimmers import ModelSkimmer, Skimmer

SAVE_WEIGHTS = "Save the weights with safetensors.torch.save_file(model.state_dict(), path), or send an ONNX file."

_LENGTH_BYTES = 8
_START_BYTES = _LENGTH_BYTES + 1
# Of a header; the tensors of a network of 2 GiB take a hundredth of it to name.
_MAX_HEADER_BYTES = 16 * 1024 * 1024


class ModelFileSkimmer:
    """Raises InvalidModel where the file is framed neither as an onnx.ModelProto nor as safetensors."""

    def __init__(self, param: str = "model") -> None:
        self._param = param
        self._start = b""
        self._skimmer: Skimmer | None = None

    @property
    def suffix(self) -> str | None:
        return None if self._skimmer is None else self._skimmer.suffix

    def feed(self, chunk: bytes) -> None:
        if self._skimmer is None:
            self._start += chunk
            if len(self._start) < _START_BYTES:
                return
            chunk = self._start
            self._skimmer = SafetensorsSkimmer(self._param) if _is_safetensors(chunk) else ModelSkimmer(self._param)
        self._skimmer.feed(chunk)

    def finish(self) -> None:
        if self._skimmer is None:
            self._skimmer = ModelSkimmer(self._param)
            self._skimmer.feed(self._start)
        self._skimmer.finish()


class SafetensorsSkimmer:
    """Raises InvalidModel where the header is no JSON object of tensors, or the file does not end where its last tensor does."""

    def __init__(self, param: str) -> None:
        self.suffix: str | None = WEIGHTS_SUFFIX
        self._param = param
        self._header = b""
        self._num_bytes = 0
        self._header_end: int | None = None

    def feed(self, chunk: bytes) -> None:
        self._num_bytes += len(chunk)
        if self._header_end is None or len(self._header) < self._header_end:
            self._header += chunk
        if self._header_end is None and len(self._header) >= _LENGTH_BYTES:
            self._header_end = _LENGTH_BYTES + int.from_bytes(self._header[:_LENGTH_BYTES], "little")
            if self._header_end > _MAX_HEADER_BYTES:
                raise self._refusal(f"The safetensors header has {self._header_end:,} bytes; at most {_MAX_HEADER_BYTES:,} are read.")

    def finish(self) -> None:
        if self._header_end is None or len(self._header) < self._header_end:
            raise self._refusal(f"The file is truncated after {self._num_bytes:,} bytes, in its header.")
        size = self._header_end + self._data_bytes(self._header[_LENGTH_BYTES : self._header_end])
        if self._num_bytes != size:
            raise self._refusal(f"The safetensors header describes a file of {size:,} bytes; {self._num_bytes:,} came.")

    def _data_bytes(self, header: bytes) -> int:
        try:
            tensors: dict[str, Any] = json.loads(header)
            ends = [int(tensor["data_offsets"][1]) for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
            raise self._refusal("The header of the safetensors file cannot be read.") from None
        return max(ends, default=0)

    def _refusal(self, detail: str) -> InvalidModel:
        return InvalidModel(detail, param=self._param, suggestion=SAVE_WEIGHTS)


def _is_safetensors(start: bytes) -> bool:
    """A length of eight bytes, the last four of which are 0, and a JSON object; no ONNX file has a field of number 0."""
    return start[_LENGTH_BYTES:_START_BYTES] == b"{" and start[4:_LENGTH_BYTES] == bytes(4)
