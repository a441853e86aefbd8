"""Saved networks: arrays in one safetensors file, and a manifest that proves them whole.

    <folder>/manifest.json                 what the network is; size and SHA-256 of each file; of itself
    <folder>/weights-<digest>.safetensors  its arrays

How files are written so that a crash or a full disk leaves the old checkpoint whole, and how they are read,
is told in `training.files`. There are three ways to say what a network is, the plainest that does is taken:

    format 1   its model's name rebuilds it, and its weights are masked matrices; see `training.by_name`
    format 2   the same, with layers in storage formats, which never form a matrix
    format 3   any other, a shrunk one for instance, by its description; see `training.structure`

A weight that cannot be described (of a class of one's own) is saved as its effective matrix and mask, and
comes back as a MaskedWeight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight
from minisparse.training import files
from minisparse.training.by_name import arrays_of, fill, skeleton, stored_of
from minisparse.training.entries import described
from minisparse.training.files import TEMPORARY, Folder, write_atomic
from minisparse.training.forms import NAMES
from minisparse.training.shelf import Shelf
from minisparse.training.structure import PRECISIONS, build, describe

__all__ = ["MANIFEST", "TEMPORARY", "Manifest", "load", "read_manifest", "save", "write_atomic"]

PLAIN, WITH_STORAGE, WITH_STRUCTURE = 1, 2, 3
KIND = "minisparse network"
MANIFEST = "manifest.json"
STEM = "weights"


@dataclass(frozen=True)
class Manifest:
    """What a saved network is.

    files      a file's name -> its size and SHA-256
    storage    a layer's name -> the format it is stored in and its settings; masked layers are left out
    structure  the description of a network that its model's name does not rebuild; empty for others
    """

    model: str
    input_shape: tuple[int, ...]
    outputs: int
    dtype: str
    method: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    storage: dict[str, dict[str, Any]] = field(default_factory=dict)
    structure: dict[str, Any] = field(default_factory=dict)

    @property
    def format(self) -> int:
        """The number of the plainest format that can say this."""
        if self.structure:
            return WITH_STRUCTURE
        return WITH_STORAGE if self.storage else PLAIN


def save(
    network: Network, folder: Folder, method: str = "", settings: Mapping[str, str] | None = None
) -> None:
    """Write `network` to `folder` (made if missing), replacing a checkpoint that is already there.

    method, settings: how it was made, kept as text. UsageError for a network of layers that are not ours;
    OSError if the disk refuses, the old checkpoint being left whole.
    """
    place = Path(folder)
    frame, arrays = _taken_apart(network)
    place.mkdir(parents=True, exist_ok=True)
    files.sweep_temporary(place)
    written = files.write_arrays(place, STEM, arrays)
    manifest = replace(frame, method=method, settings=dict(settings or {}), files=written)
    write_atomic(place / MANIFEST, _encode(manifest))
    files.sweep(place, f"{STEM}-*.safetensors", besides=written)


def load(folder: Folder) -> Network:
    """The network saved in `folder`, with its masks. CheckpointError for anything but a whole one."""
    place = Path(folder)
    manifest = read_manifest(place)
    path, arrays = files.read_arrays(place, manifest.files)
    try:
        return _put_together(manifest, arrays)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}' {error}") from None


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a checkpoint, verified against its own digest; the arrays are not looked at."""
    path = Path(folder) / MANIFEST
    return _parse(path, files.read(path, files.MAX_MANIFEST))


def _taken_apart(network: Network) -> tuple[Manifest, dict[str, Array]]:
    """What to say of a network, and its arrays."""
    if str(network.dtype) not in PRECISIONS:
        raise UsageError(
            f"network '{network.name}' cannot be saved: got {network.dtype}, expected one of "
            f"{', '.join(PRECISIONS)}."
        )
    frame = Manifest(network.name, network.input_shape, network.outputs, str(network.dtype))
    named = _by_name(network, frame)
    if named is not None:
        return named
    shelf = Shelf()
    manifest = replace(frame, structure=describe(_describable(network), shelf))
    try:
        _put_together(manifest, shelf.arrays)
    except CheckpointError as error:
        raise UsageError(f"network '{network.name}' cannot be saved: it {error}") from None
    return manifest, shelf.arrays


def _by_name(network: Network, frame: Manifest) -> tuple[Manifest, dict[str, Array]] | None:
    """The same in formats 1 and 2; None where they do not suffice."""
    stored = stored_of(network)
    others = [layer.weight for name, layer in network.prunable().items() if name not in stored]
    if any(type(weight) in NAMES and type(weight) is not MaskedWeight for weight in others):
        return None
    arrays = arrays_of(network)
    try:
        storage = {name: described(weight) for name, weight in stored.items()}
        twin = _put_together(replace(frame, storage=storage), arrays)
    except CheckpointError:
        return None
    return (replace(frame, storage=storage), arrays) if _same_kind(network, twin) else None


def _same_kind(network: Network, twin: Network) -> bool:
    """Whether a network has the layers of the model whose name it has, settings and all."""
    facts = [describe(_describable(one), Shelf()) for one in (network, twin)]
    return all(facts[0][key] == facts[1][key] for key in ("layers", "undecayed", "rates"))


def _describable(network: Network) -> Network:
    """The network itself, or a copy with masked weights for those of classes of one's own."""
    stored = stored_of(network)
    odd = [n for n, x in network.prunable().items() if n not in stored and type(x.weight) not in NAMES]
    if not odd:
        return network
    network = network.copy()
    for name in odd:
        layer = network.prunable()[name]
        weight = layer.weight
        mask = None if weight.kept == weight.size else weight.mask
        layer.weight = MaskedWeight(weight.dense().copy(), weight.geometry, mask)
    return network


def _put_together(manifest: Manifest, arrays: Mapping[str, Array]) -> Network:
    if manifest.structure:
        shelf = Shelf(arrays)
        network = build(manifest.structure, shelf)
        shelf.check_all_taken()
        for name, layer in network.prunable().items():
            weight = layer.weight
            if type(weight) is MaskedWeight and np.count_nonzero(weight.dense()[~weight.mask]):
                raise CheckpointError(f"does not fit: got weights of '{name}' where its mask has none.")
        return network
    m, dtype = manifest, np.dtype(manifest.dtype)
    network = skeleton(m.model, m.input_shape, m.outputs, dtype, m.storage, arrays)
    fill(network, arrays)
    return network


def _parse(path: Path, content: bytes) -> Manifest:
    facts = files.decode(path, content, KIND, WITH_STRUCTURE)
    try:
        number = facts.pop("format")
        del facts["kind"]
        manifest = Manifest(**{**facts, "input_shape": tuple(facts["input_shape"])})
        whole = _plausible(manifest) and number == manifest.format
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise files.torn(path)
    return manifest


def _encode(manifest: Manifest) -> bytes:
    """Fields that a format does not know are left out."""
    facts = {"format": manifest.format, "kind": KIND, **asdict(manifest)}
    for key in ("storage", "structure"):
        if not facts[key]:
            del facts[key]
    return files.encode(facts)


def _plausible(m: Manifest) -> bool:
    """Types of the fields, and file names that stay in the folder."""
    whole = all(type(n) is int and n > 0 for n in (m.outputs, *m.input_shape))
    text = all(isinstance(t, str) for t in (m.model, m.method, *m.settings, *m.settings.values()))
    storage = all(type(facts) is dict and isinstance(facts["format"], str) for facts in m.storage.values())
    return whole and text and storage and m.dtype in PRECISIONS and files.plausible_files(m.files)
