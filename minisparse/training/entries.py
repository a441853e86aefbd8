"""Stored weights as plain arrays, and back: what a checkpoint keeps of a layer that has no matrix.

    <layer>.weight  (nnz) values     <layer>.indptr  (out + 1)     <layer>.indices  (nnz) columns

Entries are in row order whatever the format, whose name and settings are kept beside them; its own order and
padding follow from the pattern. Nothing here forms a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, MinisparseError
from minisparse.nn.init import Geometry, fans
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.training.storage import format_of
from minisparse.weights.formats import FORMATS, entries
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.stored import StoredWeight

PARTS = ("weight", "indptr", "indices")


def described(weight: StoredWeight) -> dict[str, Any]:
    """The format of a weight, by name, and its settings."""
    name = format_of(weight)
    if name is None:
        raise CheckpointError(f"does not fit: got {type(weight).__name__}, expected a format with a name.")
    return {"format": name} | {key: getattr(weight, key) for key in settings_of(name)}


def settings_of(name: str) -> list[str]:
    """What can be set of a format."""
    return sorted({key for settings in FORMATS[name].settings for key in settings})


def to_arrays(weight: Weight) -> dict[str, Array]:
    """PARTS of a weight."""
    pattern, values = entries(weight)
    return dict(zip(PARTS, (values, pattern.indptr, pattern.indices), strict=True))


def from_arrays(
    layer: str, facts: Mapping[str, Any], geometry: Geometry, arrays: Mapping[str, Array], dtype: np.dtype
) -> StoredWeight:
    """The weight of a layer from its description and all arrays by name.

    CheckpointError if they do not fit.
    """
    name = facts["format"]
    if name not in FORMATS or sorted(facts) != sorted(["format", *settings_of(name)]):
        rule = f"one of {', '.join(FORMATS)} with its settings"
        raise CheckpointError(f"does not fit: got storage {dict(facts)} of '{layer}', expected {rule}.")
    values, indptr, indices = (_found(layer, part, arrays) for part in PARTS)
    if values.dtype != dtype:
        raise CheckpointError(f"does not fit: got '{layer}.weight' {values.dtype}, expected {dtype}.")
    shape = geometry[0], fans(geometry)[0]
    settings = {key: facts[key] for key in settings_of(name)}
    try:
        pattern = CSRPattern.checked(indptr, indices, shape)
        if np.any(np.diff(pattern.flat) <= 0):
            raise CheckpointError(f"does not fit: got entries of '{layer}' out of order, expected ascending.")
        return FORMATS[name](pattern, values, geometry, **settings)
    except CheckpointError:
        raise
    except MinisparseError as error:
        raise CheckpointError(f"does not fit: layer '{layer}', {error}") from None


def _found(layer: str, part: str, arrays: Mapping[str, Array]) -> Array:
    key = f"{layer}.{part}"
    if key not in arrays:
        raise CheckpointError(f"does not fit: got no array '{key}', expected one of a stored layer.")
    return arrays[key]
