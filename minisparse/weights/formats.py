"""The formats by name, and conversion of any weight into any of them."""

from __future__ import annotations

from typing import Any

from minisparse.errors import check_name
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.weights.bitmask import BitmaskWeight
from minisparse.weights.block import BlockWeight
from minisparse.weights.condensed import CondensedWeight
from minisparse.weights.csr import CSRWeight, PanelWeight
from minisparse.weights.nm import NMWeight
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.reduced import ReducedWeight
from minisparse.weights.sliced import SlicedWeight
from minisparse.weights.stored import StoredWeight

FORMATS: dict[str, type[StoredWeight]] = {
    "csr": CSRWeight,
    "panels": PanelWeight,
    "sliced": SlicedWeight,
    "condensed": CondensedWeight,
    "bitmask": BitmaskWeight,
    "nm": NMWeight,
    "block": BlockWeight,
    "reduced": ReducedWeight,
}
MASKED = "masked"


def entries(weight: Weight) -> tuple[CSRPattern, Array]:
    """The present entries of any weight in row order, and their values."""
    if isinstance(weight, StoredWeight):
        return weight.rows()[0], weight.values
    return CSRPattern.from_flat(weight.flat, weight.shape), weight.values


def convert(weight: Weight, name: str, **settings: Any) -> Weight:
    """A new weight with the same mask and values in format `name` of FORMATS, or "masked" for a dense matrix.

    Raises UnknownNameError, or SparseFormatError where the format cannot store the mask.
    """
    if name == MASKED:
        mask = weight.mask
        return MaskedWeight(weight.dense().copy(), weight.geometry, None if mask.all() else mask)
    check_name("format", name, [*FORMATS, MASKED])
    pattern, values = entries(weight)
    return FORMATS[name](pattern, values, weight.geometry, **settings)


def accepts(name: str, mask: Array) -> bool:
    """Whether format `name` can store this mask (out, in)."""
    return not FORMATS[check_name("format", name, FORMATS)].objection(mask)
