"""Saved networks: arrays in one safetensors file, and a manifest that proves them whole.

    <folder>/manifest.json                 what the network is; size and SHA-256 of each file; of itself
    <folder>/weights-<digest>.safetensors  parameters, buffers, and masks packed to bits; of layers in a
                                           storage format the entries alone, see `training.entries`

Writing goes temporary file -> flush -> fsync -> os.replace -> fsync of the folder. The arrays carry
their digest in the file name, so a new checkpoint never overwrites the old one's arrays: replacing the
manifest is the one moment at which the new one takes the old one's place, and a crash or a full disk
before it leaves the old one whole.

Reading trusts nothing: sizes and digests are verified before anything is parsed, the manifest must be
byte for byte what its content encodes to, and names, shapes and types must be those of the model it
names. Nothing is unpickled or evaluated. Every damage is a CheckpointError that names the file.

A weight in a storage format comes back in that format, without a matrix at any moment. Any other Weight is
saved as its effective matrix and mask, and comes back as a MaskedWeight.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as tensors

from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.init import Geometry
from minisparse.nn.models import PLANS, Builder
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.training.born import nothing
from minisparse.training.entries import described, from_arrays, to_arrays
from minisparse.weights.stored import StoredWeight

FORMAT = 2  # of a checkpoint that has layers in storage formats; all others are of format PLAIN
PLAIN = 1
KIND = "minisparse network"
MANIFEST = "manifest.json"
TEMPORARY = ".minisparse-tmp"
MAX_MANIFEST = 1 << 20
MAX_BYTES = 4 << 30
MOST = 1 << 62  # weights of a layer
PRECISIONS = ("float32", "float64")
Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class Manifest:
    """What a saved network is.

    files     a file's name -> its size and SHA-256
    storage   a layer's name -> the format it is stored in and its settings; masked layers are left out
    """

    model: str
    input_shape: tuple[int, ...]
    outputs: int
    dtype: str
    method: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    storage: dict[str, dict[str, Any]] = field(default_factory=dict)


def save(
    network: Network, folder: Folder, method: str = "", settings: Mapping[str, str] | None = None
) -> None:
    """Write `network` to `folder` (made if missing), replacing a checkpoint that is already there.

    method, settings: how it was made, kept as text. UsageError for a network that `load` could not
    rebuild from its model's name; OSError if the disk refuses, the old checkpoint being left whole.
    """
    place = Path(folder)
    arrays = _arrays(network)
    try:
        storage = {name: described(weight) for name, weight in _stored(network).items()}
        frame = Manifest(
            network.name, network.input_shape, network.outputs, str(network.dtype), storage=storage
        )
        _fill(_skeleton(frame, arrays), arrays)
    except CheckpointError as error:
        raise UsageError(
            f"network '{network.name}' cannot be saved: {error} Save a network made by models.build."
        ) from None
    content = tensors.save(arrays)
    digest = hashlib.sha256(content).hexdigest()
    name = f"weights-{digest[:16]}.safetensors"
    place.mkdir(parents=True, exist_ok=True)
    _sweep(place, "*" + TEMPORARY)
    write_atomic(place / name, content)
    files = {name: {"sha256": digest, "size": len(content)}}
    manifest = replace(frame, method=method, settings=dict(settings or {}), files=files)
    write_atomic(place / MANIFEST, _encode(manifest))
    _sweep(place, "weights-*.safetensors", besides=name)


def load(folder: Folder) -> Network:
    """The network saved in `folder`, with its masks. CheckpointError for anything but a whole one."""
    place = Path(folder)
    manifest = read_manifest(place)
    ((name, facts),) = manifest.files.items()
    content = _verified(place / name, facts)
    try:
        arrays = tensors.load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise _damaged(place / name, f"{error}", "a safetensors file") from None
    try:
        network = _skeleton(manifest, arrays)
        _fill(network, arrays)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{place / name}' {error}") from None
    return network


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a checkpoint, verified against its own digest; the arrays are not looked at."""
    path = Path(folder) / MANIFEST
    return _parse(path, _read(path, MAX_MANIFEST))


def _parse(path: Path, content: bytes) -> Manifest:
    try:
        facts = json.loads(content)
        number = facts["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(path, "no readable format number", "a manifest") from None
    if type(number) is int and number > FORMAT:
        raise CheckpointError(
            f"checkpoint '{path}' is newer than this program: got format {number}, expected at most "
            f"{FORMAT}. Update minisparse."
        )
    try:
        for key in ("format", "kind", "sha256"):
            facts.pop(key)
        manifest = Manifest(**{**facts, "input_shape": tuple(facts["input_shape"])})
        whole = _encode(manifest) == content and _plausible(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise _damaged(path, "content that differs from its own SHA-256", "the manifest as written")
    return manifest


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a crash leaves the old file or the new one, never a mixture."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a folder cannot be opened for this on Windows, which needs no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path, pattern: str, besides: str = "") -> None:
    """Remove what crashes and earlier checkpoints left behind; a file that resists is left alone."""
    for path in folder.glob(pattern):
        if path.name != besides:
            with contextlib.suppress(OSError):
                path.unlink()


def _encode(manifest: Manifest) -> bytes:
    """The one text a manifest has: sorted, ASCII, with the SHA-256 of all other fields."""
    facts = {"format": FORMAT if manifest.storage else PLAIN, "kind": KIND, **asdict(manifest)}
    if not manifest.storage:
        del facts["storage"]  # as format 1 has it
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    facts["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return (json.dumps(facts, sort_keys=True, allow_nan=False, indent=1) + "\n").encode()


def _plausible(m: Manifest) -> bool:
    """Types of the fields, and file names that stay in the folder."""
    whole = all(type(n) is int and n > 0 for n in (m.outputs, *m.input_shape))
    text = all(isinstance(t, str) for t in (m.model, m.method, *m.settings, *m.settings.values()))
    files = all(
        Path(name).name == name and type(facts["size"]) is int and isinstance(facts["sha256"], str)
        for name, facts in m.files.items()
    )
    storage = all(type(facts) is dict and isinstance(facts["format"], str) for facts in m.storage.values())
    return whole and text and files and storage and len(m.files) == 1 and m.dtype in PRECISIONS


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise _damaged(path, f"{path.stat().st_size:,} bytes", f"at most {limit:,}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"checkpoint '{path}' cannot be read: got {error.strerror or error}, expected a readable "
            "file. Run it again to save it anew."
        ) from None


def _verified(path: Path, facts: Mapping[str, Any]) -> bytes:
    content = _read(path, min(MAX_BYTES, facts["size"]))
    if len(content) != facts["size"]:
        raise _damaged(path, f"{len(content):,} bytes", f"{facts['size']:,}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != facts["sha256"]:
        raise _damaged(path, f"SHA-256 {digest[:16]}...", f"{facts['sha256'][:16]}... by the manifest")
    return content


def _damaged(path: Path, got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint '{path}' is damaged: got {got}, expected {expected}. Run it again to save it anew."
    )


def _stored(network: Network) -> dict[str, StoredWeight]:
    """The weights in storage formats, by layer."""
    weights = {name: layer.weight for name, layer in network.prunable().items()}
    return {name: weight for name, weight in weights.items() if isinstance(weight, StoredWeight)}


def _arrays(network: Network) -> dict[str, Array]:
    """Every array of a network by name: weights as entries or matrices with packed masks, and all others."""
    if str(network.dtype) not in PRECISIONS:
        raise UsageError(
            f"network '{network.name}' cannot be saved: got {network.dtype}, expected one of "
            f"{', '.join(PRECISIONS)}."
        )
    arrays = {f"{key}": p.value for key, p in network.params().items()}
    stored = _stored(network)
    for name, layer in network.prunable().items():
        for key in layer.weight.params():
            del arrays[f"{name}.{key}"]
        if name in stored:
            arrays |= {f"{name}.{part}": a for part, a in to_arrays(stored[name]).items()}
        else:
            arrays[f"{name}.weight"] = layer.weight.dense()
            arrays[f"{name}.mask"] = np.packbits(layer.weight.mask, axis=None)
    arrays |= network.buffers()
    return {key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}


def _skeleton(manifest: Manifest, arrays: Mapping[str, Array]) -> Network:
    """The model of this name: matrices are 0, layers in storage formats have their entries.

    A model that needs more numbers than the file has is refused before it is allocated, so that a
    short file cannot ask for a large amount of memory.
    """
    budget = sum(a.size for a in arrays.values())

    def spend(numbers: int) -> None:
        nonlocal budget
        budget -= numbers
        if budget < 0:
            raise CheckpointError(f"does not fit: got too few numbers, expected model '{manifest.model}'.")

    def empty(geometry: Geometry) -> Weight:
        spend(geometry[0])
        if prod(geometry) >= MOST:
            raise CheckpointError(f"does not fit: got a layer of {prod(geometry)} weights, expected fewer.")
        return nothing(geometry)

    kind, _, text = manifest.model.partition(":")
    if kind not in PLANS:
        raise CheckpointError(
            f"does not fit: got model '{manifest.model}', expected one of {', '.join(PLANS)}."
        )
    try:
        layers = PLANS[kind][1](Builder(empty), manifest.input_shape, manifest.outputs, text)
        network = Network(layers, manifest.input_shape, manifest.model)
    except UsageError as error:
        raise CheckpointError(f"does not fit: {error}") from None
    network, dtype = network.astype(np.dtype(manifest.dtype)), np.dtype(manifest.dtype)
    known = network.prunable()
    odd = sorted(set(manifest.storage) - set(known))
    if odd:
        raise CheckpointError(f"does not fit: got storage of layer '{odd[0]}', expected layers of the model.")
    for name, layer in known.items():
        weight = layer.weight
        if name in manifest.storage:
            layer.weight = from_arrays(name, manifest.storage[name], weight.geometry, arrays, dtype)
        else:
            spend(weight.size - weight.shape[0])
            layer.weight = MaskedWeight(np.zeros(weight.shape, dtype=dtype), weight.geometry)
    return network


def _fill(network: Network, arrays: Mapping[str, Array]) -> None:
    """Put the arrays into a skeleton of the same names, shapes and types."""
    wanted = _arrays(network)
    if set(wanted) != set(arrays):
        odd = sorted(set(wanted) ^ set(arrays))
        rule = f"those of model '{network.name}'"
        raise CheckpointError(f"does not fit: got other arrays, first '{odd[0]}', expected {rule}.")
    for key, array in arrays.items():
        have, want = (array.shape, str(array.dtype)), (wanted[key].shape, str(wanted[key].dtype))
        if have != want:
            raise CheckpointError(
                f"does not fit: got array '{key}' {have[1]} of shape {have[0]}, expected {want[1]} of "
                f"shape {want[0]}."
            )
    stored = _stored(network)
    for key, p in network.params().items():
        if key.rpartition(".")[0] not in stored or not key.endswith(".weight"):
            p.value[...] = arrays[key]
    for key, buffer in network.buffers().items():
        buffer[...] = arrays[key]
    for name, layer in network.prunable().items():
        if name in stored:
            continue
        bits = np.unpackbits(arrays[f"{name}.mask"], count=layer.weight.size)
        mask = bits.reshape(layer.weight.shape).astype(bool)
        if np.count_nonzero(arrays[f"{name}.weight"][~mask]):
            raise CheckpointError(f"does not fit: got weights of '{name}' where its mask has none.")
        layer.weight.rewire(mask)
