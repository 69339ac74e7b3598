"""model.bp: what goes in comes out, byte for byte, also for a reader who has only the layout page; and nothing damaged does."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.artifacts import bp
from compressor.artifacts.bp_dictionary import DICTIONARY
from compressor.artifacts.grid import MAX_CODE, GridTensor, round_step
from compressor.artifacts.range_coding import Reader, Writer, code_pattern
from compressor.errors import CannotPack, InvalidArtifact
from tests.compressor.artifacts import stranger

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SHAPES = st.one_of(hnp.array_shapes(min_dims=1, max_dims=4, max_side=7), st.sampled_from([(1,), (3000,), (50, 40), (2, 1100), (90, 3)]))


@st.composite
def grids(draw: st.DrawFn) -> GridTensor:
    shape = draw(SHAPES)
    density = draw(st.sampled_from([0.0, 0.01, 0.3, 1.0]))
    largest = draw(st.sampled_from([1, 3, 8, MAX_CODE]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = np.where(random.random(shape) < density, random.integers(-largest, largest + 1, shape), 0)
    if draw(st.booleans()):
        codes[draw(st.integers(0, shape[0] - 1))] = 0
    return GridTensor(codes.astype(np.int8), round_step(draw(st.floats(1e-6, 1e3))))


def model_of(
    tensors: dict[str, GridTensor], others: dict[str, np.ndarray] | None = None, kinds: dict[str, type] | None = None
) -> ModelProto:
    """Initialisers, every second one as a Constant node, and an output that needs none of them."""
    arrays = {name: grid.values().astype((kinds or {}).get(name, np.float32)) for name, grid in tensors.items()} | (others or {})
    protos = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    nodes = [helper.make_node("Constant", [], [proto.name], value=proto) for proto in protos[1::2]]
    nodes.append(helper.make_node("Identity", ["x"], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], protos[::2]))


@quick
@given(st.dictionaries(st.text(min_size=1, max_size=8), grids(), max_size=4))
def test_the_onnx_file_comes_out_byte_for_byte(tmp_path: Path, tensors: dict[str, GridTensor]) -> None:
    path = tmp_path / "model.bp"
    model = model_of(tensors)

    bp.write(path, model, tensors)

    assert bp.unpack(path) == model.SerializeToString(deterministic=True)
    found = bp.read(path)
    assert found.keys() == tensors.keys()
    for name, grid in tensors.items():
        assert np.array_equal(found[name], grid.values())
    assert list(tmp_path.iterdir()) == [path]


@settings(quick, max_examples=25)
@given(st.dictionaries(st.text(min_size=1, max_size=8), grids(), max_size=3))
def test_a_stranger_reads_it_by_the_layout_page(tmp_path: Path, tensors: dict[str, GridTensor]) -> None:
    path = tmp_path / "model.bp"
    bp.write(path, model_of(tensors), tensors)
    assert stranger.decode(path.read_bytes()) == bp.unpack(path)


def test_tensors_that_are_not_coded_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.bp"
    others = {"mean": np.array([0.1, 0.2], np.float32), "shape": np.array([3, -1]), "none": np.zeros((0, 3), np.float32)}
    tensors = {"w": GridTensor(np.array([[1, 0, -3]], np.int8), 0.5)}
    model = model_of(tensors, others | {"scale": np.float32(2)})

    bp.write(path, model, tensors)

    assert bp.unpack(path) == model.SerializeToString(deterministic=True)
    with pytest.raises(KeyError, match="nowhere"):
        bp.write(path, model, {"nowhere": tensors["w"]})


def test_other_float_types_and_typed_fields_become_raw_data_of_their_own_type(tmp_path: Path) -> None:
    path = tmp_path / "model.bp"
    grid = GridTensor(np.array([[1, 0, -3], [100, 7, 0]], np.int8), round_step(0.37))
    tensors = {"half": grid, "double": grid, "typed": grid}
    model = model_of({"half": grid, "double": grid}, kinds={"half": np.float16, "double": np.float64})
    model.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [2, 3], grid.values().ravel().tolist()))

    bp.write(path, model, tensors)

    found = bp.read(path)
    assert [found[name].dtype for name in tensors] == [np.float16, np.float64, np.float32]
    for name in tensors:
        assert np.array_equal(found[name], grid.values().astype(found[name].dtype))
    assert stranger.decode(path.read_bytes()) == bp.unpack(path)
    onnx.checker.check_model(ModelProto.FromString(bp.unpack(path)))


def test_rows_and_columns_of_different_density_take_fewer_bytes_than_their_entropy_without() -> None:
    random = np.random.default_rng(0)
    chances = np.outer(random.gamma(0.5, 1.0, 200), random.gamma(0.5, 1.0, 500))
    pattern = random.random((200, 500)) < np.minimum(0.1 * chances, 1)
    writer = Writer()

    code_pattern(writer, pattern, pattern.shape)

    density = pattern.mean()
    entropy = -(density * np.log2(density) + (1 - density) * np.log2(1 - density)) * pattern.size / 8
    assert len(writer.to_bytes()) < 0.85 * entropy
    assert np.array_equal(code_pattern(Reader(writer.to_bytes()), None, pattern.shape), pattern)


def written(tmp_path: Path) -> bytes:
    random = np.random.default_rng(1)
    codes = np.where(random.random((20, 60)) < 0.1, random.integers(-5, 6, (20, 60)), 0).astype(np.int8)
    tensors = {"w": GridTensor(codes, 0.25), "b": GridTensor(np.array([1, 2, 0], np.int8), 0.5)}
    bp.write(tmp_path / "model.bp", model_of(tensors), tensors)
    return (tmp_path / "model.bp").read_bytes()


def mutants(data: bytes, count: int, *, repaired: bool) -> list[bytes]:
    """Bytes changed, cut off or added; with `repaired`, under a checksum that fits, as somebody who means harm would write it."""
    random = np.random.default_rng(2)
    found = []
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(random.integers(1, 4)):
            mutant[random.integers(8 if repaired else 0, len(mutant))] = random.integers(256)
        if random.random() < 0.2:
            mutant = mutant[: random.integers(44 if repaired else 0, len(mutant))]
        elif random.random() < 0.1:
            mutant += random.bytes(4)
        if repaired:
            mutant[4:8] = struct.pack("<I", zlib.crc32(mutant[8:]))
        found.append(bytes(mutant))
    return found


@pytest.mark.parametrize("repaired", [False, True])
def test_what_is_damaged_is_refused(tmp_path: Path, repaired: bool) -> None:
    data, path = written(tmp_path), tmp_path / "mutant.bp"
    whole = bp.unpack(tmp_path / "model.bp")
    for mutant in mutants(data, 2500, repaired=repaired):
        path.write_bytes(mutant)
        with suppress(InvalidArtifact):
            assert bp.unpack(path) == whole


def crafted(path: Path, skeleton: bytes, words: bytes = b"") -> Path:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=DICTIONARY)
    packed = deflate.compress(skeleton) + deflate.flush()
    content = struct.pack("<32sI", b"", len(packed)) + packed + words
    path.write_bytes(bp.MAGIC + struct.pack("<I", zlib.crc32(content)) + content)
    return path


def empty_tensors(*shapes: tuple[int, ...]) -> bytes:
    tensors = [TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=shape) for number, shape in enumerate(shapes)]
    return helper.make_model(helper.make_graph([], "g", [], [], tensors)).SerializeToString()


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ([(2**20, 2**20)], "elements in"),
        ([(2**24 + 2**14,)], "elements in"),
        ([(2**23,), (2**23,), (2**14,)], "elements in"),
        ([(-3, -5)], "no elements"),
        ([(1,)] * 40_001, "40,001 tensors"),
    ],
)
def test_a_file_that_declares_more_than_a_model_can_hold_is_refused(tmp_path: Path, shapes: list[tuple[int, ...]], what: str) -> None:
    with pytest.raises(InvalidArtifact, match=what):
        bp.unpack(crafted(tmp_path / "huge.bp", empty_tensors(*shapes)))


_BOMB = """
import sys
from pathlib import Path
from compressor.artifacts import bp
from compressor.errors import InvalidArtifact

def peak():
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))

before = peak()
try:
    bp.unpack(Path(sys.argv[1]))
except InvalidArtifact as error:
    print(peak() - before, error)
"""


@pytest.mark.parametrize(
    ("skeleton", "why"),
    [
        (lambda: ModelProto(doc_string="a" * 2**28).SerializeToString(), "too large"),
        (lambda: ModelProto(graph=helper.make_graph([], "g", [], [])).SerializeToString() + b"\x3a\x02\x0a\x00" * 2**23, "More than"),
    ],
    ids=["text", "messages"],
)
def test_a_skeleton_that_inflates_beyond_reason_takes_little_memory(tmp_path: Path, skeleton: Callable[[], bytes], why: str) -> None:
    """2^28 bytes of 300 kB; and 2^23 empty nodes, which protobuf would make gigabytes of."""
    path = crafted(tmp_path / "bomb.bp", skeleton())
    assert path.stat().st_size < 2**19
    done = subprocess.run([sys.executable, "-c", _BOMB, path], check=True, capture_output=True, text=True)
    peak_bytes, _, message = done.stdout.partition(" ")
    assert why in message
    assert int(peak_bytes) < 2**28


def test_what_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    tensors = {"w": GridTensor(np.zeros((5000, 4000), np.int8), 0.5)}
    with pytest.raises(CannotPack, match="20,000,000 elements"):
        bp.write(tmp_path / "model.bp", model_of(tensors), tensors)
    assert list(tmp_path.iterdir()) == []
