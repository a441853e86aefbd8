"""What was put is there after anything, or an error says what is wrong."""

import hashlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from minisparse.errors import CheckpointError, UnknownNameError, UsageError
from minisparse.experiments.runner import Outcome, execute, failure
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import FILE, Store
from minisparse.training import files


def some(seed: int = 0) -> Outcome:
    return Outcome(RunSpec("dense", seed=seed), accuracy=0.5 + seed / 100, environment={"python": "3"})


def test_put_and_get(store: Store) -> None:
    assert store.get(some().spec.key) is None
    assert store.all() == []
    store.put(some(0))
    store.put(some(1))
    assert store.get(some(1).spec.key).to_json() == some(1).to_json()
    assert [o.spec.key for o in store.all()] == sorted([some(0).spec.key, some(1).spec.key])


def test_what_was_put_is_there_for_another_process(store: Store) -> None:
    store.put(some())
    with Store(store.folder) as other:
        assert other.get(some().spec.key).accuracy == 0.5
    raw = sqlite3.connect(store.path)
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert raw.execute("SELECT key, status FROM runs").fetchall() == [(some().spec.key, "done")]
    raw.close()
    assert store._rows.execute("PRAGMA synchronous").fetchone() == (2,)


def snapshots(store: Store, name: str) -> Path:
    """Files that look like a snapshot, with one half written by a process that is no more."""
    place = store.folder / "unfinished" / name
    place.mkdir(parents=True)
    for file in ("step-000000006.json", "step-000000006-0123456789abcdef.safetensors"):
        (place / file).touch()
    (place / f"step-000000007.json.999999999{files.TEMPORARY}").touch()
    return place


def test_a_finished_run_leaves_no_snapshots_however_it_was_made(store: Store) -> None:
    key = some().spec.key
    own, other = [snapshots(store, f"{key}{part}") for part in ("", "-ladder")], snapshots(store, "0" * 16)
    store.put(failure(some().spec, ValueError("x")))
    assert all(place.exists() for place in own)
    store.put(some())
    assert not any(place.exists() for place in own) and len(list(other.iterdir())) == 3


def test_what_a_killed_process_left_is_removed_when_a_store_is_opened(store: Store) -> None:
    """Of a finished run its snapshots, of any other what is half written."""
    store.put(some())
    done, under_way = snapshots(store, some().spec.key), snapshots(store, some(1).spec.key)
    traced = snapshots(store, f"{some().spec.key}-traced")  # perhaps at work on it again
    with Store(store.folder):
        assert not done.exists()
        assert len(list(under_way.iterdir())) == len(list(traced.iterdir())) == 2


def test_a_later_outcome_replaces_an_earlier_one(store: Store) -> None:
    store.put(failure(some().spec, ValueError("x")))
    store.put(some())
    (only,) = store.all()
    assert only.status == "done"


def test_networks_are_kept_beside(store: Store) -> None:
    spec = RunSpec("magnitude", model="mlp:64-8-10", epochs=1, batch=512)
    outcome = execute(spec)
    store.put(outcome)
    assert store.has_network(spec.key)
    back = store.network(spec.key)
    assert outcome.network is not None
    assert all(np.array_equal(mask, back.masks()[name]) for name, mask in outcome.network.masks().items())
    store.put(some())
    assert not store.has_network(some().spec.key)
    with pytest.raises(CheckpointError, match="manifest.json"):
        store.network(some().spec.key)


def test_find_by_the_start_of_a_key(store: Store) -> None:
    for seed in range(20):
        store.put(some(seed))
    key = some(7).spec.key
    assert store.find(key).spec.seed == 7
    assert store.find(key[:8]).spec.seed == 7
    with pytest.raises(UsageError, match="ambiguous: got 2"):
        starts = [some(seed).spec.key[:1] for seed in range(20)]
        twice = next(start for start in starts if starts.count(start) == 2)
        store.find(twice)
    for absent in ("zz", "%", "_", ""):
        with pytest.raises(UnknownNameError, match="not found"):
            store.find(absent)


def test_every_changed_byte_of_a_row_is_noticed(store: Store) -> None:
    store.put(some())
    key = some().spec.key
    (text,) = store._rows.execute("SELECT outcome FROM runs").fetchone()
    for at in range(0, len(text), 7):
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        store._rows.execute("UPDATE runs SET outcome = ?", (changed,))
        for ask in (lambda: store.get(key), store.all, lambda: store.find(key)):
            with pytest.raises(CheckpointError, match=f"{FILE}.*damaged"):
                ask()


def test_a_row_that_is_whole_but_not_an_outcome(store: Store) -> None:
    store.put(some())
    for text in ("[]", "{}", "null", '{"spec": {"method": "dense"}}'):
        values = (text, hashlib.sha256(text.encode()).hexdigest())
        store._rows.execute("UPDATE runs SET outcome = ?, sha256 = ?", values)
        with pytest.raises(CheckpointError, match="damaged"):
            store.all()


NO_DATABASES = [
    b"not a database at all, but longer than a header" * 50,
    b"SQLite format 3\0" + b"\xff" * 4096,
]


@pytest.mark.parametrize("content", NO_DATABASES)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=FILE):
        Store(tmp_path)


def test_a_damaged_database(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for seed in range(60):
            store.put(some(seed))
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = b"\xa5" * 64
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{FILE}.*damaged"), Store(tmp_path) as store:
        store.all()


def test_a_newer_file_says_so(tmp_path: Path) -> None:
    Store(tmp_path).close()
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute("PRAGMA user_version = 2")
    raw.close()
    with pytest.raises(CheckpointError, match="newer than this program: got version 2"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="cannot be made"):
        Store(tmp_path / "file")
    (tmp_path / FILE).mkdir()
    with pytest.raises(CheckpointError, match="cannot be used"):
        Store(tmp_path)


def test_a_failed_network_leaves_no_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = execute(RunSpec("dense", model="mlp:64-8-10", epochs=1, batch=512))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minisparse.experiments.store.checkpoint.save", full)
    with pytest.raises(OSError, match="No space"):
        store.put(outcome)
    assert store.all() == []
