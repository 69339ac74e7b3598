"""A packed model as plain ONNX, for tools that want to see its tensors."""

from pathlib import Path

from compressor.artifacts import bp, packed_onnx
from compressor.atomic import replacing


def unpack(path: Path | str, out: Path | str) -> None:
    """Writes the ONNX file that a packed one stands for, with dense tensors.

    Args:
        path: a `model.bp` or a `model.packed.onnx`; of one run with quantised values both give the same tensors.
        out: the file; it is replaced as a whole or not at all.
    Raises: InvalidArtifact where the file is damaged or neither of the two.
    """
    source = Path(path)
    with source.open("rb") as file:
        is_bp = file.read(len(bp.MAGIC)) == bp.MAGIC
    data = bp.unpack(source) if is_bp else packed_onnx.unpack(source).SerializeToString(deterministic=True)
    with replacing(Path(out)) as partial:
        partial.write_bytes(data)
