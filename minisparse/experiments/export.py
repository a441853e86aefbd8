"""Results as JSON and CSV files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from minisparse.experiments.inspect import FORMATS
from minisparse.experiments.runner import Outcome, plain
from minisparse.experiments.summary import summarise, verdict
from minisparse.training.checkpoint import write_atomic

FORMAT = 1
TEXTS = (
    "method", "settings", "model", "data", "optimizer", "rate", "init", "dtype", "storage", "weights",
    "status", "note",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_json(outcomes: Sequence[Outcome], path: Path) -> None:
    """All outcomes, their summary and the verdict; NaN is null. Written whole or not at all."""
    rows = summarise(outcomes)
    facts = {
        "format": FORMAT,
        "verdict": verdict(rows),
        "rows": [plain(asdict(row)) for row in rows],
        "outcomes": [outcome.to_json() for outcome in outcomes],
    }
    write_atomic(path, (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode())


def write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """One line per run. Text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    stream = StringIO()
    records = [record(outcome) for outcome in outcomes]
    table = csv.DictWriter(stream, list(records[0]) if records else ["key"], lineterminator="\n")
    table.writeheader()
    table.writerows(records)
    write_atomic(path, stream.getvalue().encode())


def record(outcome: Outcome) -> dict[str, Any]:
    """The cells of a run's line."""
    spec, o = outcome.spec, outcome
    facts: dict[str, Any] = {
        "key": spec.key,
        "method": spec.method,
        "settings": " ".join(f"{k}={v}" for k, v in spec.settings if k != "sparsity"),
        "model": spec.model,
        "data": spec.data,
        "seed": spec.seed,
        "epochs": spec.epochs,
        "batch": spec.batch,
        "optimizer": spec.optimizer,
        "rate": spec.rate,
        "init": spec.init,
        "dtype": spec.dtype,
        "storage": spec.storage,
        "weights": spec.weights,
        "status": o.status,
        "note": o.note,
        "accuracy": o.accuracy,
        "sparsity_asked": o.sparsity_asked,
        "sparsity": o.sparsity,
        "kept": o.kept,
        "total": o.total,
        "compression": o.compression,
        "macs_dense": o.macs_dense,
        "macs": o.macs,
    }
    facts |= {f"bytes_{name}": o.bytes.get(name, "") for name in FORMATS}
    facts |= {"seconds": o.seconds, "forward_seconds": o.forward_seconds, "steps": o.steps}
    return facts | {name: harmless(facts[name]) for name in TEXTS}


def harmless(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet would compute it."""
    return f"'{text}" if text.startswith(FORMULA) else text
