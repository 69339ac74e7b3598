"""What the first bytes of a file that was refused look like, in words for the client."""

import re

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PAR1", "a parquet file"),
    (0, b"PARE", "an encrypted parquet file"),
    (0, b"\x93NUMPY", "a single .npy array"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file such as Keras writes"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an ONNX Runtime .ort model"),
    (0, b"ARROW1", "an Arrow (feather) file"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself (run `git lfs pull`)"),
)
# A pickle of protocol 2 to 5 says so in its first two bytes; one of protocol 0 or 1 has no mark.
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_TORCH_MEMBER = re.compile(r"(^|/)(data\.pkl|constants\.pkl|version|byteorder|\.format_version|\.data/serialization_id)$|\.pkl$")
_NOT_TEXT = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + b"\x7f"


def describe_start(head: bytes) -> str | None:
    """What a file that begins with `head` seems to be; None where nothing is recognised."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _describe_zip(head)
    if _PICKLE.match(head):
        return "a pickle; pickles are never opened, because loading one runs code"
    for offset, magic, description in _SIGNATURES:
        if head.startswith(magic, offset):
            return description
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file, which holds weights and no graph"
    return _describe_text(head)


def _describe_zip(head: bytes) -> str:
    length = int.from_bytes(head[26:28], "little")
    member = head[30 : 30 + length].decode("utf-8", "replace")
    if _TORCH_MEMBER.search(member):
        return "a zip archive such as torch.save writes, with a pickle inside; pickles are never opened, because loading one runs code"
    if member.endswith(".npy"):
        return "an .npz archive"
    return "a zip archive"


def _describe_text(head: bytes) -> str | None:
    if not head or head.translate(None, _NOT_TEXT) != head:
        return None
    try:
        # The head may end within a character.
        text = head.decode("utf-8", "ignore" if len(head) >= 512 else "strict").lstrip()
    except UnicodeDecodeError:
        return None
    if text[:1] == "<":
        return "HTML or XML text"
    if text[:1] in ("{", "["):
        return "JSON text"
    return "text"
