"""Snapshots: whole or refused, whatever happens to the disk; the old one stays while a new one is written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisparse.errors import CheckpointError
from minisparse.nn.optim import Adam
from minisparse.rng import generator
from minisparse.testing.problems import mlp
from minisparse.training import files
from minisparse.training.shelf import Shelf
from minisparse.training.snapshot import Snapshot, discard, latest, load, save
from tests.training.failing import AT_THE_END, ERRORS, a_disk_that_works, call_sites, failing


def taken(step: int = 3, seed: int = 0) -> Snapshot:
    """A snapshot of a tiny network, with arrays of many kinds."""
    rng = generator(seed, "test")
    network = mlp((3, 2, 2), rng, dtype=np.float32)
    network.prunable()["fc1"].weight.rewire(rng.random((2, 3)) < 0.5)
    optimizer = Adam()
    for p in network.params().values():
        p.grad[...] = rng.standard_normal(p.value.shape) * (p.value != 0)
    optimizer.step(network, 0.1)
    memory = {
        "numbers": {"z": np.array(0.1), "a": np.arange(3, dtype=np.uint16), "none": np.empty((0, 2))},
        "masks": {"fc1": rng.random((2, 5)) < 0.5},
        "turned": {"x": np.asfortranarray(rng.random((3, 2))), "y": rng.random((2, 3, 4)).transpose(2, 0, 1)},
    }
    columns = {"loss": np.array([np.nan, 0.5, -0.0]), "losses": np.array([1 / 3])}
    return Snapshot(
        network, step, step, 2, optimizer.t, 0.1, optimizer.slots, memory, columns, 1.25, {"seed": "0"}
    )


def flat(s: Snapshot) -> dict[str, Any]:
    """All of a snapshot by name, arrays as type, shape, order in memory and bytes."""
    trees = {"slots": s.slots, "memory": s.memory, "columns": {"": s.columns}}
    trees["network"] = {"": s.network.state() | {f"mask {k}": m for k, m in s.network.masks().items()}}
    found = {
        f"{tree} {name} {key}": (str(a.dtype), a.shape, np.argsort(a.strides).tolist(), a.tobytes("A"))
        for tree, parts in trees.items()
        for name, arrays in parts.items()
        for key, a in arrays.items()
    }
    orders = [[name, list(parts)] for name, parts in s.memory.items()]
    return found | {"rest": (s.step, s.clock, s.topology, s.updates, s.value, s.seconds, s.run, orders)}


def test_everything_comes_back_bit_for_bit_and_in_its_order(tmp_path: Path) -> None:
    save(taken(), tmp_path / "a" / "b")
    back = load(tmp_path / "a" / "b")
    assert flat(back) == flat(taken())
    for parts in (*back.slots.values(), *back.memory.values(), back.columns):
        assert all(array.flags.writeable for array in parts.values())


def test_equal_snapshots_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(taken(), tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("a", "b"))
    assert one == two and len(one) == 2


def test_the_newest_two_stay_and_so_does_what_is_not_ours(tmp_path: Path) -> None:
    for name in ("notes.txt", "step-one.json", "step-000000001.json.bak"):
        (tmp_path / name).write_text("mine")
    for step in (4, 9, 12, 20):
        save(taken(step, seed=step), tmp_path)
    assert latest(tmp_path) == load(tmp_path).step == 20
    assert flat(load(tmp_path, 12)) == flat(taken(12, seed=12))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3 + 4 and [n for n in names if n.endswith(".json")][:2] == [
        "step-000000012.json",
        "step-000000020.json",
    ]
    discard(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt", "step-000000001.json.bak", "step-one.json",
    ]  # fmt: skip
    assert latest(tmp_path) is None


def test_a_folder_of_ours_alone_goes_with_its_snapshots(tmp_path: Path) -> None:
    save(taken(), tmp_path / "x")
    discard(tmp_path / "x")
    discard(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_step_that_is_saved_again_replaces_its_arrays(tmp_path: Path) -> None:
    save(taken(7, seed=1), tmp_path)
    save(taken(7, seed=2), tmp_path)
    assert flat(load(tmp_path)) == flat(taken(7, seed=2))
    assert len(list(tmp_path.iterdir())) == 2


def test_every_flipped_bit_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bits of both files, about 4 KB."""
    small = taken()
    small.network = mlp((2, 1), generator(0, "test"))
    small.slots, small.memory, small.columns = {}, {"m": small.memory["masks"]}, {}
    save(small, tmp_path)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(files, "read", lambda path, limit: found[path.name])
    assert flat(load(tmp_path)) == flat(small)
    for name, content in found.items():
        assert len(content) < 4096
        for at in range(len(content)):
            for bit in range(8):
                changed = bytearray(content)
                changed[at] ^= 1 << bit
                found[name] = bytes(changed)
                with pytest.raises(CheckpointError):
                    load(tmp_path)
        found[name] = content
    assert flat(load(tmp_path)) == flat(small)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_torn_longer_and_missing_files_are_refused(tmp_path: Path, suffix: str) -> None:
    save(taken(), tmp_path)
    (path,) = tmp_path.glob(f"*{suffix}")
    content = path.read_bytes()
    for changed in [content[: len(content) * k // 20] for k in range(20)] + [
        content + b"\n",
        b"{}",
        b"[" * 9999,
    ]:
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=path.name):
            load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=path.name if suffix != ".json" else "is empty"):
        load(tmp_path)


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and give it the digest that belongs to the change."""
    (path,) = folder.glob("*.json")
    facts = json.loads(path.read_bytes())
    del facts["sha256"]
    change(facts)
    path.write_bytes(files.encode(facts))


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts.__setitem__(key, value)


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "newer": (put("format", 2), "newer than this program: got format 2"),
    "format of another type": (put("format", True), "damaged"),
    "another kind": (put("kind", "minisparse network"), "damaged"),
    "a field more": (put("extra", 1), "damaged"),
    "a field less": (lambda facts: facts.pop("slots"), "damaged"),
    "no file": (put("files", {}), "damaged"),
    "two files": (lambda f: f["files"].update(x={"size": 1, "sha256": ""}), "damaged"),
    "a file elsewhere": (put("files", {"../x.safetensors": {"size": 1, "sha256": ""}}), "damaged"),
    "a negative step": (put("step", -1), "expected whole numbers >= 0"),
    "half a step": (put("clock", 1.5), "expected whole numbers >= 0"),
    "no network": (put("network", None), "does not fit"),
    "an unknown layer": (lambda f: f["network"]["layers"][0][1].update(kind="x"), "does not fit"),
    "an unknown argument": (lambda f: f["network"]["layers"][0][1].update(x=1), "does not fit"),
    "layers of one name": (lambda f: f["network"]["layers"].append(f["network"]["layers"][0]), "equal names"),
    "a layer that does not fit": (lambda f: f["network"]["layers"].reverse(), "does not fit"),
    "another input": (lambda f: f["network"].update(input_shape=[4]), "does not fit"),
    "another type": (lambda f: f["network"].update(dtype="object"), "does not fit"),
    "a memory that is no list": (put("memory", 3), "does not fit"),
    "an array less": (put("memory", []), "too many"),
    "an array more": (put("memory", [["m", [["a", "memory.9.9"]]]]), "no array 'memory.9.9'"),
    "wrong bits": (lambda f: f["memory"][1][1][0][1].update(bits=[2, 50]), "expected the bits"),
    "negative bits": (lambda f: f["memory"][1][1][0][1].update(bits=[-2, -5]), "expected the bits"),
    "wrong axes": (lambda f: f["memory"][2][1][0][1].update(axes=[0, 0]), "expected its bits or axes"),
    "deep": (put("memory", json.loads("[" * 400 + "]" * 400)), "does not fit"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_manifest_is_refused(tmp_path: Path, forgery: str) -> None:
    save(taken(), tmp_path)
    change, words = FORGERIES[forgery]
    reseal(tmp_path, change)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


def test_a_damaged_one_names_the_older_one_which_still_loads(tmp_path: Path) -> None:
    for step in (4, 9):
        save(taken(step), tmp_path)
    path = next(tmp_path.glob("step-000000009-*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="'step-000000004.json' is older: remove 'step-000000009.json'"):
        load(tmp_path)
    (tmp_path / "step-000000009.json").unlink()
    assert load(tmp_path).step == 4


@pytest.mark.parametrize("number", ERRORS)
def test_a_failing_disk_leaves_the_old_one_and_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old, new = taken(4, seed=1), taken(9, seed=2)
    sites = []
    for site in call_sites(monkeypatch, number):
        folder = tmp_path / str(len(sites))
        sites.append(site)
        with a_disk_that_works():
            save(old, folder)
        with pytest.raises(CheckpointError, match=os.strerror(number)) as caught:
            save(new, folder)
        # the last sync is of the folder, when the new manifest is in its place
        done = site in AT_THE_END
        assert flat(load(folder)) == flat(new if done else old), site
        assert "\n" not in str(caught.value) and f"Step {9 if done else 4} is saved." in str(caught.value)
        assert "step-000000009.json" in str(caught.value) and "room for" in str(caught.value)
        assert not list(folder.glob("*" + files.TEMPORARY)), site
    assert len(sites) == 8 + 1 + 6
    for k in range(len(sites)):
        save(new, tmp_path / str(k))
        assert flat(load(tmp_path / str(k))) == flat(new)


def test_a_disk_that_fails_at_once_says_that_nothing_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "replace", failing(os.replace, 0, errno.ENOSPC))
    with pytest.raises(CheckpointError, match="Nothing was saved before"):
        save(taken(), tmp_path)


class Killed(BaseException):
    """Stands for a process that ends without a chance to clean up."""


@pytest.mark.parametrize("at", [0, 1])
def test_a_crash_at_a_rename_leaves_the_old_one_and_is_swept_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    save(taken(4), tmp_path)
    calls, replace = iter(range(9)), os.replace

    def die(*args: Any) -> None:
        if next(calls) == at:
            raise Killed
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", die)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(Killed):
            save(taken(9, seed=2), tmp_path)
    assert flat(load(tmp_path)) == flat(taken(4))
    for step in (10, 11):
        save(taken(step), tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_temporary_files_of_living_processes_stay(tmp_path: Path) -> None:
    alive, dead = (tmp_path / f"x.json.{p}{files.TEMPORARY}" for p in (os.getppid(), 2**22 + 1))
    for path in (alive, dead):
        path.touch()
    save(taken(), tmp_path)
    assert alive.exists() and not dead.exists()


def test_a_shelf_keeps_each_name_once_and_only_plain_numbers() -> None:
    shelf = Shelf()
    shelf.put("a", np.ones(2))
    for name, odd in (("a", np.ones(2)), ("b", np.ones(2, complex)), ("c", np.array(["x"])), ("d", [1.0])):
        with pytest.raises(ValueError, match=f"array '{name}' cannot be saved"):
            shelf.put(name, odd)
    assert list(shelf.arrays) == ["a"]


def test_digests_are_of_the_bytes_on_disk(tmp_path: Path) -> None:
    path = save(taken(), tmp_path)
    ((name, facts),) = json.loads(path.read_bytes())["files"].items()
    content = (tmp_path / name).read_bytes()
    assert facts == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
