"""Files of tensors: what is written reads back equal, here and elsewhere; all else is one kind of error."""

import io
import json
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import numpy as library

from minisparse.errors import DataFormatError, UsageError
from minisparse.exchange import limits, npz_file, read, safetensors_file, write

TYPES = ["f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
NAMES = st.from_regex(r"[A-Za-z0-9_]{1,9}(\.[a-z]{1,5})?", fullmatch=True)
ARRAYS = st.sampled_from(TYPES).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
)
DICTS = st.dictionaries(NAMES, ARRAYS, max_size=4)
PARSERS = {".safetensors": safetensors_file, ".npz": npz_file}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Equal names, types, shapes and bytes."""
    return set(a) == set(b) and all(
        (a[k].dtype, a[k].shape, a[k].tobytes()) == (b[k].dtype, b[k].shape, b[k].tobytes()) for k in a
    )


@settings(max_examples=60)
@given(DICTS)
def test_what_is_written_reads_back(tensors: dict[str, np.ndarray]) -> None:
    for parser in PARSERS.values():
        assert same(parser.parse(parser.encode(tensors), "x"), tensors)


@settings(max_examples=40)
@given(DICTS)
def test_the_libraries_agree(tensors: dict[str, np.ndarray]) -> None:
    assert same(safetensors_file.parse(library.save(tensors), "x"), tensors)
    assert same(library.load(safetensors_file.encode(tensors)), tensors)
    stream = io.BytesIO()
    np.savez(stream, **{k: np.array(a, order="F") for k, a in tensors.items()})
    assert same(npz_file.parse(stream.getvalue(), "x"), tensors)
    with np.load(io.BytesIO(npz_file.encode(tensors)), allow_pickle=False) as loaded:
        assert same(dict(loaded), tensors)


def test_equal_arrays_give_equal_bytes() -> None:
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros((), dtype=np.int64)}
    for parser in PARSERS.values():
        assert parser.encode(tensors) == parser.encode({k: a.copy() for k, a in tensors.items()})


def test_bytes_of_the_other_order_and_16_bits() -> None:
    stream = io.BytesIO()
    np.savez(stream, big=np.arange(3, dtype=">f4"), half=np.array([1.5], dtype=np.float16))
    found = npz_file.parse(stream.getvalue(), "x")
    assert found["big"].dtype == np.dtype("f4") and found["big"].dtype.isnative
    np.testing.assert_array_equal(found["big"], [0, 1, 2])
    assert found["half"].dtype == np.float32 and found["half"][0] == 1.5
    for kind, word, value in (("BF16", 0x3FC0, 1.5), ("BF16", 0xC040, -3.0), ("F16", 0x3E00, 1.5)):
        content = framed({"a": entry(kind, [1], 0, 2)}, word.to_bytes(2, "little"))
        (array,) = safetensors_file.parse(content, "x").values()
        assert array.dtype == np.float32 and array[0] == value


def entry(kind: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def framed(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = entry("F32", [1], 0, 4)
TEXT = json.dumps(ONE)
HEADERS: dict[str, tuple[Any, bytes]] = {
    "a name twice": (f'{{"a": {TEXT}, "a": {TEXT}}}'.encode(), bytes(4)),
    "a field twice": (
        b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        bytes(4),
    ),
    "overlap": ({"a": ONE, "b": ONE}, bytes(4)),
    "partial overlap": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, bytes(8)),
    "gap": ({"a": ONE, "b": entry("F32", [1], 8, 12)}, bytes(12)),
    "start after 0": ({"a": entry("F32", [1], 4, 8)}, bytes(8)),
    "trailing bytes": ({"a": ONE}, bytes(5)),
    "too short": ({"a": ONE}, bytes(3)),
    "not UTF-8": (b'{"\xff": 1}', b""),
    "NaN": (b'{"a": NaN}', b""),
    "infinity": (b'{"__metadata__": {"a": -Infinity}}', b""),
    "unknown type": ({"a": entry("C64", [1], 0, 8)}, bytes(8)),
    "a list as type": ({"a": entry(["F32"], [1], 0, 4)}, bytes(4)),
    "negative size": ({"a": entry("F32", [-1, -1], 0, 4)}, bytes(4)),
    "size not whole": ({"a": entry("F32", [1.0], 0, 4)}, bytes(4)),
    "a truth as size": ({"a": entry("F32", [True], 0, 4)}, bytes(4)),
    "huge shape": ({"a": entry("F32", [1 << 40, 1 << 40, 0], 0, 4)}, bytes(4)),
    "product that wraps": ({"a": entry("F32", [1 << 32, 1 << 32], 0, 0)}, b""),
    "too many axes": ({"a": entry("F32", [1] * 9, 0, 4)}, bytes(4)),
    "offsets swapped": ({"a": entry("F32", [1], 4, 0)}, bytes(4)),
    "three offsets": ({"a": {**ONE, "data_offsets": [0, 4, 4]}}, bytes(4)),
    "a number as tensor": ({"a": 3}, b""),
    "a field more": ({"a": {**ONE, "x": 1}}, bytes(4)),
    "a field less": ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "folder in the name": ({"../a": ONE}, bytes(4)),
    "no name": ({"": ONE}, bytes(4)),
    "line in the name": ({"a\nb": ONE}, bytes(4)),
    "long name": ({"a" * 201: ONE}, bytes(4)),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b""),
    "a list": (b"[]", b""),
    "spaces first": (b' {"a": ' + TEXT.encode() + b"}", bytes(4)),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "digits": (b'{"a":' + b"9" * 10_000 + b"}", b""),
    "truth of another value": ({"a": entry("BOOL", [1], 0, 1)}, b"\x02"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_safetensors_file_has_one_meaning(case: str) -> None:
    with pytest.raises(DataFormatError, match="weights file 'x'") as caught:
        safetensors_file.parse(framed(*HEADERS[case]), "x")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_allowed_in_a_header() -> None:
    padded = json.dumps({"b": entry("F32", [1], 4, 8), "a": ONE, "__metadata__": {"format": "pt"}}).encode()
    found = safetensors_file.parse(framed(padded + b"   ", np.array([1, 2], "<f4").tobytes()), "x")
    assert {k: a.tolist() for k, a in found.items()} == {"b": [2.0], "a": [1.0]}
    empty = {"a": entry("F32", [0, 3], 0, 0), "b": ONE}
    assert safetensors_file.parse(framed(empty, bytes(4)), "x")["a"].shape == (0, 3)


@pytest.mark.parametrize("size", [0, 1, 1 << 21, 1 << 63, (1 << 64) - 1])
def test_a_header_must_lie_in_the_file(size: int) -> None:
    with pytest.raises(DataFormatError):
        safetensors_file.parse(size.to_bytes(8, "little") + b"{}" + bytes(1 << 10), "x")


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(descr: str, shape: str, data: bytes, order: str = "False", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode() + data


GOOD = npy("'<f4'", "(1,)", bytes(4))
MEMBERS: dict[str, dict[str, bytes]] = {
    "no array": {"a.npy": b"hello"},
    "another ending": {"a.txt": GOOD},
    "leaves the folder": {"../../a.npy": GOOD},
    "no name": {".npy": GOOD},
    "objects": {"a.npy": npy("'|O'", "(1,)", bytes(8))},
    "records": {"a.npy": npy("[('x', '<f4')]", "(1,)", bytes(4))},
    "arrays of arrays": {"a.npy": npy("('<f4', (1,))", "(1,)", bytes(4))},
    "complex": {"a.npy": npy("'<c8'", "(1,)", bytes(8))},
    "text": {"a.npy": npy("'<U1'", "(1,)", bytes(4))},
    "dates": {"a.npy": npy("'<M8[s]'", "(1,)", bytes(8))},
    "void": {"a.npy": npy("'|V4'", "(1,)", bytes(4))},
    "asks for 8 TiB": {"a.npy": npy("'<f8'", "(1099511627776,)", b"")},
    "product that wraps": {"a.npy": npy("'<f8'", "(4294967296, 4294967296)", b"")},
    "negative": {"a.npy": npy("'<f4'", "(-1,)", b"")},
    "axes": {"a.npy": npy("'u1'", "(1,)*9", b"\0")},
    "many axes": {"a.npy": npy("'|u1'", str((1,) * 9), b"\0")},
    "short": {"a.npy": npy("'<f4'", "(2,)", bytes(7))},
    "long": {"a.npy": npy("'<f4'", "(2,)", bytes(9))},
    "call in the header": {"a.npy": npy("__import__('os').getcwd()", "(1,)", bytes(4))},
    "version 3": {"a.npy": npy("'<f4'", "(1,)", bytes(4), version=b"\x03\x00")},
    "empty member": {"a.npy": b""},
}


@pytest.mark.parametrize("case", MEMBERS)
def test_an_npz_file_holds_arrays_of_numbers(case: str) -> None:
    with pytest.raises(DataFormatError, match="weights file 'x'") as caught:
        npz_file.parse(zipped(MEMBERS[case]), "x")
    assert "\n" not in str(caught.value)


def test_other_archives_are_refused() -> None:
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(DataFormatError, match="stored or deflated"):
            npz_file.parse(zipped({"a.npy": GOOD}, kind), "x")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("a.npy", GOOD)
    with pytest.raises(DataFormatError, match="different names"):
        npz_file.parse(stream.getvalue(), "x")
    many = zipped({f"{k}.npy": b"" for k in range(limits.MAX_TENSORS + 1)}, zipfile.ZIP_STORED)
    with pytest.raises(DataFormatError, match="10,001 members"):
        npz_file.parse(many, "x")
    locked = bytearray(zipped({"a.npy": GOOD}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + place] |= 1
    with pytest.raises(DataFormatError):
        npz_file.parse(bytes(locked), "x")


def test_a_small_archive_may_not_become_large(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = 2_000_000
    content = npz_file.encode({"a": np.zeros(numbers)})
    assert len(content) * npz_file.RATIO < 8 * numbers  # it is packed that tightly
    assert npz_file.parse(content, "x")["a"].size == numbers  # and still small enough
    monkeypatch.setattr(npz_file, "ROOM", 1 << 20)
    tracemalloc.start()
    with pytest.raises(DataFormatError, match="bytes once unpacked"):
        npz_file.parse(content, "x")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".pt", ".pkl", ".joblib", ".npy", ""])
def test_nothing_is_unpickled(tmp_path: Path, ending: str) -> None:
    mark = tmp_path / "mark"
    bomb = Bomb(str(mark))
    stream = io.BytesIO()
    np.savez(stream, a=np.array([bomb], dtype=object))
    for content in (pickle.dumps(bomb), stream.getvalue()):
        path = tmp_path / f"bomb{ending}"
        path.write_bytes(content)
        with pytest.raises(DataFormatError, match="weights file"):
            read(path)
        assert not mark.exists()


def seeds() -> list[tuple[str, bytes]]:
    tensors = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.mask": np.eye(2, dtype=bool)}
    return [(ending, parser.encode(tensors)) for ending, parser in PARSERS.items()]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(seeds()), st.data())
def test_any_bytes_give_arrays_or_one_kind_of_error(seed: tuple[str, bytes], data: st.DataObject) -> None:
    ending, content = seed
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoiled) - 1))
        action = data.draw(st.sampled_from(("set", "cut", "add")))
        if action == "set":
            spoiled[at] = data.draw(st.integers(0, 255))
        elif action == "cut" and len(spoiled) > 1:
            del spoiled[at : at + data.draw(st.integers(1, 8))]
            spoiled = spoiled or bytearray(1)
        else:
            spoiled[at:at] = data.draw(st.binary(max_size=8))
    try:
        found = PARSERS[ending].parse(bytes(spoiled), "x")
    except DataFormatError as error:
        assert "\n" not in str(error)
    else:
        assert all(a.dtype.str[1:] in limits.NUMBERS and a.nbytes < 1 << 20 for a in found.values())


@given(st.binary(max_size=200))
def test_noise_is_refused(content: bytes) -> None:
    for parser in PARSERS.values():
        with pytest.raises(DataFormatError):
            parser.parse(content, "x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    cases = [tmp_path / "none.npz", tmp_path / "folder.npz", tmp_path / "a\0b.npz"]
    cases[1].mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
        cases.append(tmp_path / "pipe.npz")
    for path in cases:
        with pytest.raises(DataFormatError, match="cannot be read"):
            read(path)
    write({"a": np.zeros(10)}, tmp_path / "a.npz")
    with pytest.raises(DataFormatError, match="expected at most 10"):
        read(tmp_path / "a.npz", max_bytes=10)
    with pytest.raises(UsageError, match="got ending '.txt'"):
        write({}, tmp_path / "a.txt")
