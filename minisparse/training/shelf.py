"""Shelf: arrays by name on their way into a file, or back from it.

What a manifest says of an array is its name, or an object with the name and what the file cannot say:

    "fc1.bias"                                  as it is, rows first in memory
    {"name": "fc1.mask", "bits": [10, 300]}     Boolean, eight to a byte
    {"name": "left.0", "axes": [1, 0]}          in memory as the transpose in this order of axes

The order in memory is kept because sums in BLAS depend on it, in their last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.param import Array

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
TYPES = ("bool", *INTEGERS, "float16", "float32", "float64")
Ref = Any


class Shelf:
    """Arrays by name; `taken` are the names that were asked for."""

    def __init__(self, arrays: Mapping[str, Array] | None = None) -> None:
        self.arrays = dict(arrays or {})
        self.taken: set[str] = set()

    def put(self, name: str, array: Array) -> Ref:
        """Keep an array under a name of its own; what to say of it in a manifest.

        UsageError for a name that is taken and for numbers that a file cannot hold.
        """
        if name in self.arrays:
            raise UsageError(f"array '{name}' cannot be saved: got two of this name, expected one.")
        if not isinstance(array, np.ndarray | np.generic) or str(array.dtype) not in TYPES:
            kind = getattr(array, "dtype", type(array).__name__)
            raise UsageError(
                f"array '{name}' cannot be saved: got {kind}, expected one of {', '.join(TYPES)}."
            )
        array = np.asarray(array)
        if array.dtype == bool:
            self.arrays[name] = np.packbits(array, axis=None)
            return {"name": name, "bits": list(array.shape)}
        if array.flags.c_contiguous:
            self.arrays[name] = array
            return name
        axes = [int(k) for k in np.argsort([-abs(s) for s in array.strides], kind="stable")]
        self.arrays[name] = np.asarray(array.transpose(axes), order="C")
        return name if axes == sorted(axes) else {"name": name, "axes": axes}

    def take(self, ref: Ref) -> Array:
        """The array of a manifest's word for it: a new one. CheckpointError if there is none that fits."""
        name = ref if isinstance(ref, str) else ref["name"]
        if name not in self.arrays:
            raise CheckpointError(f"does not fit: got no array '{name}', expected one.")
        self.taken.add(name)
        array = self.arrays[name]
        if isinstance(ref, str):
            return np.array(array, order="C")
        if set(ref) == {"name", "bits"}:
            return self._unpacked(name, array, ref["bits"])
        if set(ref) == {"name", "axes"} and sorted(ref["axes"]) == list(range(array.ndim)):
            return np.array(array, order="C").transpose(np.argsort(ref["axes"]))
        raise CheckpointError(f"does not fit: got {ref} of array '{name}', expected its bits or axes.")

    def _unpacked(self, name: str, array: Array, shape: list[int]) -> Array:
        whole = all(type(n) is int and n >= 0 for n in shape)
        if not whole or array.dtype != np.uint8 or array.shape != (-(-prod(shape) // 8),):
            raise CheckpointError(
                f"does not fit: got array '{name}' {array.dtype} of shape {array.shape}, expected the bits "
                f"of shape {tuple(shape)}."
            )
        return np.unpackbits(array, count=prod(shape)).reshape(shape).astype(bool)

    def check_all_taken(self) -> None:
        """CheckpointError if an array was not asked for."""
        odd = sorted(set(self.arrays) - self.taken)
        if odd:
            raise CheckpointError(f"does not fit: got an array '{odd[0]}' too many, expected none.")
