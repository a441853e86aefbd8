"""Trees: dictionaries from parameter names to arrays, and their flattening into one vector.

Names and order are those of `network.params()`; each array has the shape of its parameter unless a
function says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minisparse.errors import ShapeError, unknown_name
from minisparse.nn.network import Network
from minisparse.nn.param import Array

Tree = dict[str, Array]


def zeros(network: Network, dtype: np.dtype | type = np.float64) -> Tree:
    """A tree of zeros of the parameters' shapes."""
    return {name: np.zeros(p.value.shape, dtype=dtype) for name, p in network.params().items()}


def values(network: Network) -> Tree:
    """Copies of the parameters."""
    return {name: p.value.copy() for name, p in network.params().items()}


def flatten(tree: Mapping[str, Array]) -> Array:
    """All arrays one after another, each in row-major order."""
    return np.concatenate([np.ravel(a) for a in tree.values()])


def unflatten(vector: Array, like: Mapping[str, Array]) -> Tree:
    """The inverse of `flatten` for a tree with the shapes of `like`; views of vector. ShapeError."""
    size = sum(a.size for a in like.values())
    if vector.shape != (size,):
        raise ShapeError(f"flat parameter vector: got shape {vector.shape}, expected ({size},).")
    tree: Tree = {}
    at = 0
    for name, a in like.items():
        tree[name] = vector[at : at + a.size].reshape(a.shape)
        at += a.size
    return tree


def inner(a: Mapping[str, Array], b: Mapping[str, Array]) -> float:
    """Sum of products over all names of a."""
    return float(sum(np.vdot(a[name], b[name]) for name in a))


def check(network: Network, tree: Mapping[str, Array], what: str) -> None:
    """UnknownNameError or ShapeError unless tree has names and shapes of the network's parameters."""
    params = network.params()
    for name, a in tree.items():
        if name not in params:
            raise unknown_name("parameter", name, params)
        if np.shape(a) != params[name].value.shape:
            raise ShapeError(
                f"{what} '{name}': got shape {np.shape(a)}, expected {params[name].value.shape}."
            )
