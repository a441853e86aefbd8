"""What can be known before the first step: whether data, model and methods fit together."""

from __future__ import annotations

from collections.abc import Sequence

from minisparse.experiments.runner import dataset
from minisparse.experiments.spec import RunSpec
from minisparse.nn.models import build


def preflight(specs: Sequence[RunSpec], data_dir: str | None) -> None:
    """Raise what would make all runs of a method fail. The specs share model and data."""
    first = specs[0]
    network = build(first.model, dataset(first.data, data_dir), first.seed, first.init)
    for spec in specs:
        spec.build().check(network)
