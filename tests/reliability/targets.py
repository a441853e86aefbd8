"""What is fuzzed: for every reader, how an input is made from random numbers and how it is read.

A case is one input. Reading it returns a validated object or raises one of the errors that the reader
promises; anything else is a finding.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from minisparse.cli import jobs, run
from minisparse.cli.main import main
from minisparse.data import cifar, idx
from minisparse.data.dataset import Dataset
from minisparse.errors import (
    CheckpointError,
    DataFormatError,
    MinisparseError,
    ShapeError,
    SparseFormatError,
    UnknownNameError,
    UsageError,
)
from minisparse.exchange import read as read_weights
from minisparse.exchange import write as write_weights
from minisparse.experiments.grid import Grid, load, parse, shipped
from minisparse.experiments.runner import Outcome, execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import FILE, Store
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.training import checkpoint
from minisparse.weights.exchange import from_csr
from minisparse.weights.stored import StoredWeight
from tests.reliability import grammar
from tests.reliability.mutate import Rng, mutated, one_of

Errors = tuple[type[Exception], ...]
# from random numbers: the input, for the record, and how to read it
Case = Callable[[Rng], tuple[object, Callable[[], object]]]


@dataclass(frozen=True)
class Target:
    """A reader. counts: inputs in development, continuous integration and at night."""

    name: str
    counts: tuple[int, int, int]
    errors: Errors
    prepare: Callable[[Path], Case]


def from_bytes(name: str, reader: Callable[[Path], object], seeds: list[bytes], folder: Path) -> Case:
    """Mutations of seeds, each written to a file of this name and read from there."""
    path = folder / name

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        content = mutated(rng, seeds)
        path.write_bytes(content)
        return content, lambda: reader(path)

    return case


def idx_bytes(array: np.ndarray, code: int) -> bytes:
    """An IDX file, from the format's description."""
    lengths = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, code, array.ndim]) + lengths + array.astype(array.dtype.newbyteorder(">")).tobytes()


def prepare_idx(folder: Path) -> Case:
    """Single IDX files of all types, plain and packed."""
    rng = np.random.default_rng(0)
    plain = [
        idx_bytes(rng.integers(0, 100, (4, 3)).astype(kind), code)
        for kind, code in (("u1", 8), ("i1", 9), ("i2", 11), ("i4", 12), ("f4", 13), ("f8", 14))
    ]

    def reader(path: Path) -> object:
        array = idx.read_idx(path)
        assert array.dtype.kind in "iuf" and array.size > 0 and np.isfinite(array).all()
        return array

    packed = [gzip.compress(content, mtime=0) for content in plain]
    return from_bytes("some-idx", reader, plain + packed, folder)


def valid(data: Dataset) -> Dataset:
    """A data set with the promises of one: AssertionError otherwise."""
    x, y = data.train_x, data.train_y
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
    assert len(x) == len(y) and y.min() >= 0 and y.max() < 10
    return data


def prepare_idx_set(folder: Path) -> Case:
    """The four files of a data set, one of them damaged."""
    rng = np.random.default_rng(1)
    good = {}
    for part, n in (("train", 5), ("t10k", 3)):
        good[f"{part}-images-idx3-ubyte"] = idx_bytes(rng.integers(0, 256, (n, 28, 28)).astype("u1"), 8)
        good[f"{part}-labels-idx1-ubyte"] = idx_bytes(rng.integers(0, 10, n).astype("u1"), 8)
    place = folder / "idx-set"
    place.mkdir()

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        which = str(one_of(rng, list(good)))
        content = mutated(rng, [good[which]])
        for name, whole in good.items():
            (place / name).write_bytes(content if name == which else whole)
        return content, lambda: valid(idx.load(place, "mnist"))

    return case


def records(n: int = 2) -> dict[str, bytes]:
    """CIFAR's six files with n images each."""
    rng = np.random.default_rng(2)
    return {
        name: b"".join(bytes([rng.integers(10)]) + rng.bytes(3072) for _ in range(n)) for name in cifar.FILES
    }


def prepare_cifar_files(folder: Path) -> Case:
    """The six files, one of them damaged."""
    good, place = records(), folder / "cifar-files"
    place.mkdir()
    for name, content in good.items():
        (place / name).write_bytes(content)
    which = "data_batch_2.bin"
    return from_bytes(which, lambda path: valid(cifar.load(place, 2)), [good[which]], place)


def prepare_cifar_archive(folder: Path) -> Case:
    """The archive, damaged before or after it was packed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in records().items():
            info = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    tar, place = buffer.getvalue(), folder / "cifar-archive"
    packed = gzip.compress(tar, 1, mtime=0)
    headers = range(0, len(tar), 512)
    named = [at for at in headers if tar[at + 257 : at + 262] == b"ustar"]
    place.mkdir()

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        if rng.random() < 0.3:
            content = mutated(rng, [packed])
        else:
            at = int(one_of(rng, named))
            content = gzip.compress(tar[:at] + mutated(rng, [tar[at : at + 512]]) + tar[at + 512 :], 1)
        (place / cifar.ARCHIVE).write_bytes(content)
        return content, lambda: valid(cifar.load(place, 2))

    return case


def arrays(rng: Rng) -> dict[str, np.ndarray]:
    """Arrays of several types and shapes."""
    return {
        "fc1.weight": rng.standard_normal((3, 4)).astype("f4"),
        "fc1.bias": rng.standard_normal(3),
        "mask": rng.random((2, 3)) < 0.5,
        "steps": np.array(7),
        "none": np.zeros((0, 3), "f2"),
    }


def prepare_weights(ending: str) -> Callable[[Path], Case]:
    """Files of named arrays as others write them, with this ending."""

    def reader(path: Path) -> object:
        found = read_weights(path)
        assert all(array.dtype.kind in "biuf" and array.ndim <= 8 for array in found.values())
        return found

    def prepare(folder: Path) -> Case:
        seeds, path = [], folder / f"seed{ending}"
        for k in range(3):
            write_weights(arrays(np.random.default_rng(k)), path)
            seeds.append(path.read_bytes())
        if ending == ".npz":
            for save in (np.savez, np.savez_compressed):
                save(path, **arrays(np.random.default_rng(3)))
                seeds.append(path.read_bytes())
        return from_bytes(f"damaged{ending}", reader, seeds, folder)

    return prepare


def some_network() -> Network:
    """A network of which a part is pruned."""
    network = make("mlp:3-4-2", (3,), 2, seed=1)
    rng = np.random.default_rng(4)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    return network


def prepare_checkpoint(folder: Path) -> Case:
    """A saved network; half of the damages get a digest that fits, so that they reach the parsers."""
    place = folder / "checkpoint"
    checkpoint.save(some_network(), place, "rigl", {"sparsity": "0.5"})
    manifest = place / checkpoint.MANIFEST
    (weights,) = place.glob("*.safetensors")
    facts, content = manifest.read_bytes(), weights.read_bytes()

    def sealed(arrays: bytes, fields: dict[str, object]) -> bytes:
        about = {"sha256": hashlib.sha256(arrays).hexdigest(), "size": len(arrays)}
        fields = {k: v for k, v in fields.items() if k != "sha256"} | {"files": {weights.name: about}}
        text = json.dumps(fields, sort_keys=True)
        fields["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        return (json.dumps(fields, sort_keys=True, indent=1) + "\n").encode()

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        damaged, about = content, facts
        kind = int(rng.integers(4))
        if kind == 0:
            about = mutated(rng, [facts])
        elif kind == 1:
            damaged = mutated(rng, [content])
        elif kind == 2:
            damaged = mutated(rng, [content])
            about = sealed(damaged, json.loads(facts))
        else:
            about = sealed(content, grammar.changed_object(rng, json.loads(facts)))
        manifest.write_bytes(about)
        weights.write_bytes(damaged)
        return (about, damaged), lambda: checkpoint.load(place).masks()

    return case


def prepare_results(folder: Path) -> Case:
    """A row of the results whose text is damaged and whose digest fits."""
    spec = RunSpec("magnitude", model="mlp:64-4-10", epochs=1, batch=1437)
    outcome = execute(spec)
    outcome.network = None
    store = Store(folder / "results")
    store.put(outcome)
    text = json.dumps(outcome.to_json(), sort_keys=True).encode()

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        if rng.random() < 0.5:
            damaged = mutated(rng, [text]).decode("utf-8", "replace")
        else:
            damaged = json.dumps(grammar.changed_object(rng, json.loads(text)))
        digest = hashlib.sha256(damaged.encode("utf-8", "surrogatepass")).hexdigest()
        store._rows.execute("UPDATE runs SET outcome = ?, sha256 = ?", (damaged, digest))

        def reader() -> object:
            found = store.get(spec.key)
            assert isinstance(found, Outcome)
            return found

        return damaged, reader

    return case


def prepare_database(folder: Path) -> Case:
    """The results file itself."""
    place = folder / "database"
    with Store(place) as store:
        for seed in range(3):
            store.put(Outcome(RunSpec("dense", seed=seed)))
    content = (place / FILE).read_bytes()

    def reader(path: Path) -> object:
        try:
            with Store(place) as store:
                return store.all()
        finally:
            for ending in ("-wal", "-shm", "-journal"):
                path.with_name(path.name + ending).unlink(missing_ok=True)

    return from_bytes(FILE, reader, [content], place)


def prepare_grid(folder: Path) -> Case:
    """Grids: damaged ones as files, and tables in which keys and values were thrown together."""
    seeds = [grammar.GRID.encode(), *(grammar.shipped_text(name).encode() for name in shipped())]
    path = folder / "damaged.toml"

    def reader(make: Callable[[], Grid]) -> Callable[[], object]:
        def read() -> object:
            grid = make()
            assert grid.specs and all(isinstance(spec, RunSpec) for spec in grid.specs)
            return grid

        return read

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        if rng.random() < 0.5:
            content = mutated(rng, seeds)
            path.write_bytes(content)
            return content, reader(lambda: load(str(path)))
        text = grammar.grid(rng)
        return text, reader(lambda: parse(text))

    return case


class Unforeseen(AssertionError):
    """The command line said something else than one line of an error it knows."""


def prepare_argv(folder: Path) -> Case:
    """Command lines; a training that would start counts as accepted."""
    for verb in set(grammar.VERBS):  # what an import takes is not what an input takes
        import_module(f"minisparse.cli.{verb}")
    os.chdir(folder)
    os.environ.pop("MINISPARSE_DATA", None)

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    run.execute = stop  # type: ignore[assignment]
    jobs.compare = stop  # type: ignore[assignment]

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        argv = grammar.command(rng)

        def reader() -> object:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(argv)
            said = err.getvalue()
            if status not in (0, 1, 2, 3, 130) or "Traceback" in said or "unforeseen" in said:
                raise Unforeseen(f"status {status}: {said}")
            if status in (2, 3) and (said.count("\n") != 1 or not said.startswith("minisparse: error[MS")):
                raise Unforeseen(f"not one line: {said!r}")
            return status

        return argv, reader

    return case


def prepare_csr(folder: Path) -> Case:
    """CSR arrays with changed entries, lengths, types and shapes."""

    def case(rng: Rng) -> tuple[object, Callable[[], object]]:
        indptr, indices, values, shape = grammar.csr(rng)

        def reader() -> object:
            weight = from_csr(indptr, indices, values, shape)  # type: ignore[arg-type]
            assert isinstance(weight, StoredWeight) and weight.shape == tuple(shape)
            p, i = np.asarray(indptr, dtype=np.int64), np.asarray(indices, dtype=np.int64)
            assert p[0] == 0 and (p[1:] >= p[:-1]).all() and p[-1] == i.size == np.size(values)
            assert not i.size or 0 <= i.min() <= i.max() < shape[1]
            return weight.dense() if np.prod(shape) < 1 << 20 else weight

        return (indptr, indices, values, shape), reader

    return case


DATA: Errors = (DataFormatError,)
STORED: Errors = (CheckpointError,)
WORDS: Errors = (UsageError, UnknownNameError, DataFormatError)
TARGETS = {
    target.name: target
    for target in (
        Target("idx", (300, 6_000, 1_000_000), DATA, prepare_idx),
        Target("idx-set", (100, 6_000, 100_000), DATA, prepare_idx_set),
        Target("cifar-files", (100, 6_000, 100_000), DATA, prepare_cifar_files),
        Target("cifar-archive", (200, 6_000, 1_000_000), DATA, prepare_cifar_archive),
        Target("npz", (300, 6_000, 1_000_000), DATA, prepare_weights(".npz")),
        Target("safetensors", (300, 6_000, 1_000_000), DATA, prepare_weights(".safetensors")),
        Target("checkpoint", (300, 6_000, 1_000_000), STORED, prepare_checkpoint),
        Target("results", (200, 6_000, 200_000), STORED, prepare_results),
        Target("database", (60, 6_000, 50_000), (*STORED, OSError), prepare_database),
        Target("grid", (100, 6_000, 50_000), WORDS, prepare_grid),
        Target("csr", (1_000, 10_000, 1_000_000), (SparseFormatError, ShapeError), prepare_csr),
        Target("argv", (100, 6_000, 50_000), (MinisparseError,), prepare_argv),
    )
}
