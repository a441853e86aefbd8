"""F-1, F-2: files made to do harm. Nothing in them is executed, unpacked without bound, or put elsewhere."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minisparse.data import cifar, idx
from minisparse.errors import CheckpointError, DataFormatError, MinisparseError
from minisparse.exchange import read, write
from minisparse.experiments.grid import load as load_grid
from minisparse.experiments.store import FILE, Store
from minisparse.nn.models import make
from minisparse.training import checkpoint


class Bomb:
    """Unpickled, it makes a file: what was planted could have done anything."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.marker), 0o700)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a bomb leaves behind."""
    return tmp_path / "exploded"


def as_object_array(bomb: Bomb) -> bytes:
    array, stream = np.empty(1, dtype=object), io.BytesIO()
    array[0] = bomb
    np.savez(stream, fc1=array)
    return stream.getvalue()


def as_torch(bomb: Bomb) -> bytes:
    """The zip that torch.save writes: a pickle beside the numbers."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(bomb))
        archive.writestr("model/data/0", bytes(16))
    return stream.getvalue()


def as_member(bomb: Bomb) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("fc1.npy", pickle.dumps(bomb))
    return stream.getvalue()


BOMBS: dict[str, Callable[[Bomb], bytes]] = {
    "pickle": pickle.dumps,
    "pickle protocol 0": lambda bomb: pickle.dumps(bomb, 0),
    "object array": as_object_array,
    "torch": as_torch,
    "pickle as member": as_member,
}


def into_cifar(folder: Path, content: bytes) -> object:
    for name in (*cifar.FILES, cifar.ARCHIVE):
        (folder / name).write_bytes(content)
    return cifar.load(folder, 2)


def into_idx(folder: Path, content: bytes) -> object:
    for stem in idx.STEMS:
        (folder / stem).write_bytes(content)
    return idx.load(folder, "mnist")


def into_checkpoint(folder: Path, content: bytes) -> object:
    checkpoint.save(make("mlp:3-2", (3,), 2), folder)
    for path in folder.iterdir():
        path.write_bytes(content)
    return checkpoint.load(folder)


def into_results(folder: Path, content: bytes) -> object:
    (folder / FILE).write_bytes(content)
    with Store(folder) as store:
        return store.all()


def into_grid(folder: Path, content: bytes) -> object:
    (folder / "grid.toml").write_bytes(content)
    return load_grid(str(folder / "grid.toml"))


def into_weights(ending: str) -> Callable[[Path, bytes], object]:
    def reader(folder: Path, content: bytes) -> object:
        (folder / f"w{ending}").write_bytes(content)
        return read(folder / f"w{ending}")

    return reader


ENDINGS = (".npz", ".safetensors", ".pkl", ".pt", ".pth", ".joblib", ".npy", ".bin", ".ckpt", "")
READERS: dict[str, Callable[[Path, bytes], object]] = {
    "cifar": into_cifar, "idx": into_idx, "checkpoint": into_checkpoint, "results": into_results,
    "grid": into_grid, **{f"weights{ending}": into_weights(ending) for ending in ENDINGS},
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_is_refused_and_not_opened(reader: str, bomb: str, tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises((DataFormatError, CheckpointError)) as caught:
        READERS[reader](folder, BOMBS[bomb](Bomb(marker)))
    assert not marker.exists()
    assert "\n" not in str(caught.value)


def test_the_bombs_are_live(marker: Path) -> None:
    """The control: a reader that unpickles is lost."""
    pickle.loads(BOMBS["pickle"](Bomb(marker)))
    assert marker.exists()
    marker.rmdir()
    np.load(io.BytesIO(as_object_array(Bomb(marker))), allow_pickle=True)["fc1"]
    assert marker.exists()


def zipped(members: list[tuple[str, bytes]], level: int = 9) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_of_shape(shape: tuple[int, ...], content: bytes = b"", kind: str = "<f4") -> bytes:
    """A header that promises this shape, whatever follows."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def lying(content: bytes, size: int) -> bytes:
    """The same archive; its directory promises members of another size."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]


ARRAY = npy(np.ones(3, "f4"))
ZIPS: dict[str, bytes] = {
    "ratio": zipped([(f"a{k}.npy", npy_of_shape((25 << 20,), bytes(100 << 20))) for k in range(3)]),
    "many members": zipped([(f"a{k}.npy", b"") for k in range(10_001)]),
    "shape of 8 TiB": zipped([("a.npy", npy_of_shape((1 << 41,), bytes(4)))]),
    "shape beyond 64 bits": zipped([("a.npy", npy_of_shape((1 << 40, 1 << 40), bytes(4)))]),
    "shape below 0": zipped([("a.npy", npy_of_shape((-1,), bytes(4)))]),
    "nine axes": zipped([("a.npy", npy_of_shape((1,) * 9, bytes(4)))]),
    "records": zipped([("a.npy", npy(np.zeros(2, dtype=[("x", "f4"), ("y", "i4")])))]),
    "complex": zipped([("a.npy", npy(np.zeros(2, dtype=complex)))]),
    "text": zipped([("a.npy", npy(np.array(["a", "b"])))]),
    "dates": zipped([("a.npy", npy(np.array([0], dtype="M8[s]")))]),
    "parent folder": zipped([("../../evil.npy", ARRAY)]),
    "name that hides a parent": zipped([("a/../../evil.npy", ARRAY)]),
    "backslashes": zipped([("..\\evil.npy", ARRAY)]),
    "a name twice": zipped([("a.npy", ARRAY), ("b.npy", ARRAY)]).replace(b"b.npy", b"a.npy"),
    "an archive within": zipped([("a.npz", zipped([("a.npy", ARRAY)]))]),
    "evaluated header": zipped([("a.npy", npy_of_shape((1,)).replace(b"(1,)", b"1**9"))]),
    "long header": zipped([("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{" * 99)]),
    "lying directory": lying(zipped([("a.npy", ARRAY)]), 1 << 30),
    "zip64 of 2^63": zipped([("a.npy", ARRAY)]).replace(b"PK\x01\x02", b"PK\x06\x06"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_archive_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with pytest.raises(DataFormatError) as caught:
        into_weights(".npz")(folder, ZIPS[name])
    assert "\n" not in str(caught.value) and "w.npz" in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["w.npz"]


def tensors(header: str | bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """A safetensors file, from the format's description."""
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def one(shape: str = "[1]", offsets: str = "[0, 4]", dtype: str = "F32", name: str = "a") -> str:
    return f'"{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}'


HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "length of 2^64": tensors("{}", size=2**64 - 1),
    "length of 100 MB": tensors("{}" + " " * 99, size=100 << 20),
    "header of 2 MB": tensors("{}" + " " * (2 << 20)),
    "deep": tensors('{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"),
    "a name twice": tensors("{" + one() + ", " + one() + "}", bytes(4)),
    "overlap": tensors("{" + one() + ", " + one(offsets="[2, 6]", name="b") + "}", bytes(6)),
    "gap": tensors("{" + one() + ", " + one(offsets="[8, 12]", name="b") + "}", bytes(12)),
    "trailing bytes": tensors("{" + one() + "}", bytes(5)),
    "short": tensors("{" + one() + "}", bytes(3)),
    "shape overflow": tensors("{" + one("[4294967296, 4294967296]") + "}", bytes(4)),
    "product that wraps to 1": tensors("{" + one("[18446744073709551616]", "[0, 0]") + "}"),
    "negative": tensors("{" + one("[-1]") + "}", bytes(4)),
    "float shape": tensors("{" + one("[1.0]") + "}", bytes(4)),
    "Boolean shape": tensors("{" + one("[true]") + "}", bytes(4)),
    "NaN": tensors("{" + one("[NaN]") + "}", bytes(4)),
    "offsets of 1e308": tensors("{" + one(offsets="[0, 1e308]") + "}", bytes(4)),
    "many digits": tensors("{" + one(f"[{'9' * 5000}]") + "}", bytes(4)),
    "not UTF-8": tensors(b'{"\xff": 1}'),
    "surrogate": tensors("{" + one(name="\\ud800") + "}", bytes(4)),
    "parent folder": tensors("{" + one(name="../x") + "}", bytes(4)),
    "many tensors": tensors(
        "{" + ", ".join(one("[0]", "[0, 0]", name=f"t{k}") for k in range(10_001)) + "}"
    ),
    "unknown type": tensors("{" + one(dtype="F8_E4M3") + "}", bytes(4)),
    "metadata of numbers": tensors('{"__metadata__": {"a": 1}, ' + one() + "}", bytes(4)),
    "list": tensors("[]"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_safetensors_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataFormatError) as caught:
        into_weights(".safetensors")(tmp_path, HEADERS[name])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_the_files_of_these_tests_would_be_read_if_they_were_whole(tmp_path: Path) -> None:
    """The control for the tables above."""
    (tmp_path / "a.npz").write_bytes(zipped([("a.npy", ARRAY)]))
    (tmp_path / "b.npz").write_bytes(zipped([("a.npy", npy_of_shape((1,), bytes(4)))]))
    (tmp_path / "c.safetensors").write_bytes(tensors("{" + one() + "}", bytes(4)))
    assert read(tmp_path / "a.npz")["a"].tolist() == [1, 1, 1]
    assert read(tmp_path / "b.npz")["a"].tolist() == read(tmp_path / "c.safetensors")["a"].tolist() == [0]


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    """A named pipe would wait for ever, a device has no end."""
    for ending in (".npz", ".safetensors"):
        pipe = tmp_path / f"pipe{ending}"
        os.mkfifo(pipe)
        link = tmp_path / f"zero{ending}"
        link.symlink_to("/dev/zero")
        for path in (pipe, link, tmp_path / f"none{ending}"):
            with pytest.raises(DataFormatError, match="cannot be read"):
                read(path)
    os.mkfifo(tmp_path / "idx")
    with pytest.raises(DataFormatError, match="cannot be read"):
        idx.read_idx(tmp_path / "idx")


def test_names_that_leave_the_folder_are_not_written(tmp_path: Path) -> None:
    """What is written can be read again, so such names are refused on the way out too, or kept as text."""
    path = tmp_path / "deep" / "w.npz"
    path.parent.mkdir()
    try:
        write({"../../evil": np.zeros(2, "f4")}, path)
    except MinisparseError:
        assert not path.exists()
    else:
        with pytest.raises(DataFormatError):
            read(path)
    assert {p.name for p in tmp_path.rglob("*")} <= {"deep", "w.npz"}
