"""Store: the results of runs in one SQLite file, and their networks beside it.

    <folder>/results.sqlite        one row per run: key, status, outcome as JSON, SHA-256 of that text
    <folder>/networks/<key>/       a checkpoint, see `minisparse.training.checkpoint`
    <folder>/unfinished/<key>/     snapshots of a run under way, written by what runs it: `runner.unfinished`

The journal is a write-ahead log with full synchronisation: what `put` has returned from survives a
crash. A network is written before its row, so a row never promises a network that is not there.

Any number of processes may use one folder at the same time. They write in turn: `put` holds SQLite's write
lock while it saves the network too, and waits for another's up to SECONDS_TO_WAIT. The lock ends with its
process, so nothing stale can be left. Of two results of one spec the later one stays.
"""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from minisparse.errors import CheckpointError, UnknownNameError, UsageError
from minisparse.experiments.runner import FINISHED, UNFINISHED, Outcome
from minisparse.nn.network import Network
from minisparse.training import checkpoint, files, snapshot

FILE = "results.sqlite"
NETWORKS = "networks"
SCHEMA = 1
SECONDS_TO_WAIT = 30.0
DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    key     TEXT PRIMARY KEY,
    status  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    sha256  TEXT NOT NULL
)
"""


class Store:
    """Results in a folder, which is made if it is missing. A context manager; close it when done.

    CheckpointError, naming the file, when it is damaged, not a store, or of a newer version; OSError when
    the disk refuses or is full. What a process that was killed left half written is removed, and snapshots
    of runs that are finished.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"results folder '{self.folder}' cannot be made: got {reason}, expected a folder "
                "that can be written. Choose another --out."
            ) from None
        with self._reported():
            self._rows = sqlite3.connect(self.path, timeout=SECONDS_TO_WAIT, isolation_level=None)
        try:
            with self._reported():
                self._open()
            self._sweep()
        except BaseException:
            self._rows.close()
            raise

    def _open(self) -> None:
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = FULL")
        (version,) = self._rows.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise CheckpointError(
                f"results file '{self.path}' is newer than this program: got version {version}, expected "
                f"at most {SCHEMA}. Update minisparse."
            )
        problem = self._rows.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise self._damaged(problem)
        if version == 0:
            with self._transaction():
                self._rows.execute(TABLE)
                self._rows.execute(f"PRAGMA user_version = {SCHEMA}")

    def get(self, key: str) -> Outcome | None:
        """The outcome of this key, or None. Its network is not read; see `network`."""
        with self._reported():
            row = self._rows.execute("SELECT outcome, sha256 FROM runs WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._decode(key, *row)

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome, and its network if it has one, in place of an earlier one of the same spec.

        Once a run is finished its snapshots are removed.
        """
        key = outcome.spec.key
        text = json.dumps(outcome.to_json(), sort_keys=True, allow_nan=False)
        values = (key, outcome.status, text, _digest(text))
        with self._reported(), self._transaction():
            if outcome.network is not None:
                settings = dict(outcome.spec.settings)
                checkpoint.save(outcome.network, self._place(key), outcome.spec.method, settings)
            self._rows.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", values)
        if outcome.finished:
            self.forget(key)

    def forget(self, key: str) -> None:
        """Remove the snapshots of a run under way, so that it starts from the beginning."""
        for place in (self.folder / UNFINISHED).glob(f"{key}*"):
            snapshot.discard(place)

    def all(self) -> list[Outcome]:
        """Every outcome, in the order of their keys."""
        with self._reported():
            rows = self._rows.execute("SELECT key, outcome, sha256 FROM runs ORDER BY key").fetchall()
        return [self._decode(*row) for row in rows]

    def find(self, prefix: str) -> Outcome:
        """The one outcome whose key starts with `prefix`. UnknownNameError or UsageError otherwise."""
        with self._reported():
            rows = self._rows.execute(
                "SELECT key, outcome, sha256 FROM runs WHERE substr(key, 1, ?) = ? ORDER BY key",
                (len(prefix), prefix),
            ).fetchall()
        if not rows or not prefix:
            raise UnknownNameError(
                f"run '{prefix}' not found: got no such key in '{self.path}', expected the start of one. "
                "See: minisparse report"
            )
        if len(rows) > 1:
            listed = ", ".join(row[0] for row in rows[:4])
            raise UsageError(
                f"run '{prefix}' is ambiguous: got {len(rows)} keys ({listed}, ...), expected one. "
                "Give more of its digits."
            )
        return self._decode(*rows[0])

    def network(self, key: str) -> Network:
        """The network of a run. CheckpointError if it is missing or damaged."""
        try:
            return checkpoint.load(self._place(key))
        except CheckpointError:  # perhaps another process replaced it between its two files
            return checkpoint.load(self._place(key))

    def has_network(self, key: str) -> bool:
        """Whether a network was kept for this run; it may still prove damaged."""
        return (self._place(key) / checkpoint.MANIFEST).exists()

    def close(self) -> None:
        """Close the file; everything that was put is already safe."""
        self._rows.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sweep(self) -> None:
        """Remove what processes that were killed left half written, or did not come to remove."""
        under_way = list((self.folder / UNFINISHED).glob("*"))
        for place in (self.folder, self.folder / "plots", *(self.folder / NETWORKS).glob("*"), *under_way):
            files.sweep_temporary(place)
        for place in under_way:
            with self._reported():
                row = self._rows.execute("SELECT status FROM runs WHERE key = ?", (place.name,)).fetchone()
            if row is not None and row[0] in FINISHED:
                snapshot.discard(place)

    def _place(self, key: str) -> Path:
        return self.folder / NETWORKS / key

    def _decode(self, key: str, text: str, digest: str) -> Outcome:
        if _digest(text) != digest:
            raise self._damaged(f"run '{key}' with another SHA-256 than its own")
        try:
            return Outcome.from_json(text)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(f"run '{key}' with {type(error).__name__} {error}") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._rows.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._rows.execute("ROLLBACK")
            raise
        self._rows.execute("COMMIT")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """SQLite's errors as one kind: what it cannot do now, and what is damaged."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in DISK:
                raise OSError(errno.EIO, f"{error}, perhaps for want of space", str(self.path)) from None
            raise CheckpointError(
                f"results file '{self.path}' cannot be used: got '{error}', expected a file that can be "
                "read and written. Check the disk, the permissions and whether another process has it."
            ) from None
        except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, problem: str) -> CheckpointError:
        said = " ".join(problem.split())
        return CheckpointError(
            f"results file '{self.path}' is damaged: got {said}, expected a whole results file. Move it away "
            "and run again."
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
