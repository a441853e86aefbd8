"""What can be known before the first step: whether data, model and methods fit together."""

from __future__ import annotations

from collections.abc import Sequence

from minisparse.experiments.runner import dataset
from minisparse.experiments.spec import RunSpec
from minisparse.nn.models import build


def preflight(specs: Sequence[RunSpec], data_dir: str | None) -> None:
    """Raise what would make all runs of a method fail."""
    networks = {}
    for spec in specs:
        where = (spec.model, spec.data, spec.init)
        if where not in networks:
            networks[where] = build(spec.model, dataset(spec.data, data_dir), spec.seed, spec.init)
        spec.build().check(networks[where])
