"""The report page with its plots, written beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minisparse.cli.console import Screen
from minisparse.errors import CheckpointError
from minisparse.experiments.pictures import pictured
from minisparse.experiments.report import write_report
from minisparse.experiments.runner import Outcome
from minisparse.experiments.store import Store
from minisparse.nn.network import Network


def write_page(screen: Screen, outcomes: Sequence[Outcome], store: Store, title: str) -> Path:
    """Path of the report of these runs; a network that cannot be read is left out with a warning."""
    screen.note("drawing the report")
    networks: dict[str, Network] = {}
    for key in (outcome.spec.key for outcome in pictured(outcomes)):
        if store.has_network(key):
            try:
                networks[key] = store.network(key)
            except CheckpointError as error:
                screen.warn(str(error))
    return write_report(outcomes, networks, store.folder, title)
