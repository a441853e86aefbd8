"""execute: one spec from nothing to an Outcome, the plain record of what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.data.registry import load
from minisparse.errors import UsageError
from minisparse.experiments.environment import environment
from minisparse.experiments.inspect import (
    LayerRow,
    dense_macs,
    forward_seconds,
    layer_table,
    others,
    stored_bytes,
)
from minisparse.experiments.settings import parse_optimizer, parse_rate
from minisparse.experiments.spec import RunSpec
from minisparse.methods.base import Method
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.threads import Threads
from minisparse.sparsity.measure import compression
from minisparse.training.keeper import Keeping
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState

FINISHED = ("done", "collapsed", "diverged")
UNFINISHED = "unfinished"


@dataclass
class Outcome:
    """The result of one run. `status` is 'done', 'collapsed', 'diverged', or 'failed' with a note.

    accuracy        test accuracy at the end; NaN if there is none (diverged, failed, regression)
    chance          accuracy of always naming the most frequent class of the test set; NaN for regression
    kept, total     prunable weights; compression counts all parameters
    macs            of one sample, theoretical; bytes: of all parameters, per storage format
    seconds         measured time of the training; forward_seconds: of 256 samples, in the spec's storage
    history         one dict per epoch; layers: one LayerRow per prunable layer
    network         the network itself, when this process has it; not part of the JSON
    """

    spec: RunSpec
    status: str = "done"
    note: str = ""
    accuracy: float = float("nan")
    chance: float = float("nan")
    sparsity_asked: float = 0.0
    sparsity: float = 0.0
    kept: int = 0
    total: int = 0
    compression: float = 1.0
    macs_dense: int = 0
    macs: int = 0
    bytes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    forward_seconds: float = float("nan")
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    layers: list[LayerRow] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    network: Network | None = field(default=None, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether this is a result of the spec, a bad one included; an accident ('failed') is not."""
        return self.status in FINISHED

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN and infinity as None, since JSON has neither."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "network"}
        facts["spec"] = self.spec.to_json()
        facts["layers"] = [asdict(row) for row in self.layers]
        return plain(facts)

    @classmethod
    def from_json(cls, source: str | Mapping[str, Any]) -> Outcome:
        """The Outcome that `to_json` was asked of, without its network. Raises KeyError, TypeError or
        ValueError for other data."""
        facts = dict(json.loads(source) if isinstance(source, str) else source)
        facts["spec"] = RunSpec.stored(facts["spec"])
        facts["layers"] = [LayerRow(**{**row, "shape": tuple(row["shape"])}) for row in facts["layers"]]
        facts["history"] = [{k: _number(v) for k, v in record.items()} for record in facts["history"]]
        for name in ("accuracy", "chance", "forward_seconds"):
            facts[name] = _number(facts[name])
        facts["compression"] = _number(facts["compression"], float("inf"))
        return cls(**facts)


def execute(
    spec: RunSpec,
    data_dir: str | Path | None = None,
    progress: Callable[[TrainState], None] = lambda state: None,
    keeping: Keeping | None = None,
) -> Outcome:
    """Train one spec and measure what came out. Any error of the data, method or network is raised.

    keeping: where the training is saved, so that it goes on from there; see `training.keeper`.

    The data set is drawn with seed 0: seeds of a spec vary the start and the order of batches, never
    the problem. UsageError for a spec that starts from weights of a file: see `carry_out`.
    """
    if spec.weights:
        raise UsageError(
            f"run starts from weights {spec.weights}: got a spec alone, expected their file too. "
            "Run: minisparse run --weights FILE"
        )
    data = dataset(spec.data, None if data_dir is None else str(data_dir))
    network = build(spec.model, data, spec.seed, spec.init).astype(np.dtype(spec.dtype))
    return carry_out(spec, network, spec.build(), data, progress, keeping)


def carry_out(
    spec: RunSpec,
    network: Network,
    method: Method,
    data: Dataset,
    progress: Callable[[TrainState], None] = lambda state: None,
    keeping: Keeping | None = None,
) -> Outcome:
    """`execute` from this network on and with this method; all else is as the spec says.

    For runs part of which is known already; network and method must lead to what the spec promises.
    """
    run = trained(spec, network, method, data, spec.seed, progress, keeping)
    with Threads(run.network, spec.batch), _quiet():
        return _measured(spec, run, data)


def trained(
    spec: RunSpec,
    network: Network,
    method: Method,
    data: Dataset,
    seed: int,
    progress: Callable[[TrainState], None] = lambda state: None,
    keeping: Keeping | None = None,
) -> Run:
    """`training.train` with the settings of a spec."""
    kept: dict[str, Any] = {}
    if keeping is not None:
        kept = {"checkpoint": keeping.folder, "every": keeping.every, "resume": keeping.resume}
    with _quiet():
        return train(
            network,
            data,
            method,
            epochs=spec.epochs,
            batch=spec.batch,
            optimizer=parse_optimizer(spec.optimizer),
            rate=parse_rate(spec.rate),
            seed=seed,
            storage=spec.storage,
            progress=progress,
            **kept,
        )


def _quiet() -> np.errstate:
    """Overflow without warnings: the loop looks at every loss, gradient and weight, and stops where one is
    not finite.
    """
    return np.errstate(over="ignore", invalid="ignore")


def unfinished(folder: str | Path, spec: RunSpec, part: str = "") -> Path:
    """Where in a folder of results a run is saved until it is done.

    part: names another way to make the same run, whose snapshots are of no use to the usual one.
    """
    return Path(folder) / UNFINISHED / (f"{spec.key}-{part}" if part else spec.key)


@lru_cache(maxsize=2)
def dataset(name: str, data_dir: str | None) -> Dataset:
    """The data set of this name, read once for all runs on it. Errors as of `data.load`."""
    return load(name, data_dir, seed=0)


def failure(spec: RunSpec, error: Exception) -> Outcome:
    """The Outcome of a run that ended in an unexpected error."""
    note = " ".join(f"{type(error).__name__}: {error}".split())
    return Outcome(spec, "failed", note, sparsity_asked=spec.sparsity, environment=environment())


def _measured(spec: RunSpec, run: Run, data: Dataset) -> Outcome:
    rows = layer_table(run.network)
    kept, total = sum(row.kept for row in rows), sum(row.total for row in rows)
    rest = sum(array.size for array in others(run.network))
    return Outcome(
        spec,
        run.status,
        run.note,
        run.accuracy,
        _chance(data),
        spec.sparsity,
        run.sparsity,
        kept,
        total,
        compression(total + rest, kept + rest),
        dense_macs(rows),
        sum(row.macs for row in rows),
        stored_bytes(run.network, rows),
        run.seconds,
        forward_seconds(run.network),
        run.steps,
        [asdict(record) for record in run.history],
        rows,
        environment(),
        run.network,
    )


def _chance(data: Dataset) -> float:
    if data.classes is None:
        return float("nan")
    return float(np.bincount(data.test_y).max() / data.n_test)


def plain(value: Any) -> Any:
    """The same value of JSON's types only."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    return value


def _number(value: Any, absent: float = float("nan")) -> float:
    return absent if value is None else value
