"""Runs by the start of their key, and saved networks by their folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minisparse.errors import CheckpointError
from minisparse.experiments.runner import Outcome
from minisparse.experiments.store import FILE, Store
from minisparse.nn.network import Network
from minisparse.training.checkpoint import load, read_manifest


@dataclass(frozen=True)
class Found:
    """A network with its name for people; `outcome` when it is a run of the store."""

    title: str
    name: str
    network: Network
    outcome: Outcome | None = None


def open_store(out: str) -> Store:
    """The store of a folder that has one; CheckpointError, and no new folder, otherwise."""
    if not (Path(out) / FILE).is_file():
        raise CheckpointError(
            f"results folder '{out}' holds no results: got no '{FILE}', expected one. "
            "Run: minisparse compare, or give --out."
        )
    return Store(out)


def find(text: str, out: str) -> Found:
    """The network of a run (start of its key) or of a checkpoint folder (or a file in it).

    UnknownNameError or UsageError if no or several runs fit, CheckpointError for missing or damaged
    files and for a run without a network.
    """
    place = Path(text)
    if place.exists() or place.name != text:
        folder = place.parent if place.is_file() else place
        manifest = read_manifest(folder)
        title = f"{manifest.model}, {manifest.method or 'no method named'}, {folder}"
        return Found(title, folder.name, load(folder))
    with open_store(out) as store:
        outcome = store.find(text)
        key = outcome.spec.key
        return Found(f"{outcome.spec.label}, run {key}", key, store.network(key), outcome)


def outcomes(texts: list[str], out: str) -> list[Outcome]:
    """The runs of these key prefixes, each once; 'all' stands for every run of the store."""
    with open_store(out) as store:
        found = store.all() if "all" in texts else [store.find(text) for text in texts]
    return list({outcome.spec.key: outcome for outcome in found}.values())
