"""Sparse structures that break sparse code, and arrays that break code that takes arrays.

Masks by name for every kernel and format test; values that are awkward to add; arrays in many layouts.
Nothing here uses the package under test.
"""

from collections.abc import Callable, Iterator

import numpy as np

Array = np.ndarray
BATCHES = (0, 1, 2, 3, 5, 16, 63, 64, 65, 129, 300)


def groups(rng: np.random.Generator, out: int, columns: int, keep: int, of: int) -> Array:
    """Exactly `keep` of every `of` columns in every row."""
    rank = rng.random((out, columns // of, of)).argsort(axis=2).argsort(axis=2)
    return (rank < keep).reshape(out, columns)


def fan_in(rng: np.random.Generator, out: int, columns: int, k: int) -> Array:
    """Exactly k entries in every row."""
    return rng.random((out, columns)).argsort(axis=1).argsort(axis=1) < k


def counted(rng: np.random.Generator, out: int, columns: int, kept: int) -> Array:
    """Exactly `kept` entries anywhere."""
    flat = np.zeros(out * columns, dtype=bool)
    flat[rng.permutation(flat.size)[:kept]] = True
    return flat.reshape(out, columns)


def drawn(out: int, columns: int, density: float) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.random((out, columns)) < density


def emptied(rows: slice) -> Callable[[np.random.Generator], Array]:
    """37 x 53 at 30 %, with these rows empty."""

    def make(rng: np.random.Generator) -> Array:
        mask = rng.random((37, 53)) < 0.3
        mask[rows] = False
        return mask

    return make


def lines(rows: slice, columns: slice) -> Callable[[np.random.Generator], Array]:
    """29 x 43 with just this rectangle full."""

    def make(rng: np.random.Generator) -> Array:
        mask = np.zeros((29, 43), dtype=bool)
        mask[rows, columns] = True
        return mask

    return make


def power_law(rng: np.random.Generator) -> Array:
    counts = np.minimum(60, 60 / np.arange(1, 42)).astype(int)
    return np.array([rng.permutation(60) < k for k in rng.permutation(counts)])


def blocks(rng: np.random.Generator, out: int, columns: int, high: int, wide: int) -> Array:
    """Whole blocks, those at the lower and right edge cropped."""
    grid = rng.random((-(-out // high), -(-columns // wide))) < 0.3
    return np.repeat(np.repeat(grid, high, axis=0), wide, axis=1)[:out, :columns]


def ablated(rng: np.random.Generator) -> Array:
    mask = fan_in(rng, 23, 50, 7)
    mask[[0, 5, 6, 22]] = False
    return mask


MASKS: dict[str, Callable[[np.random.Generator], Array]] = {
    "1x1": lambda rng: np.ones((1, 1), dtype=bool),
    "1x1 empty": lambda rng: np.zeros((1, 1), dtype=bool),
    "1xn": drawn(1, 77, 0.4),
    "nx1": drawn(77, 1, 0.4),
    "1x2^16": drawn(1, 1 << 16, 0.01),
    "1x2^16+1": drawn(1, (1 << 16) + 1, 0.01),
    "65537x3": drawn(65537, 3, 0.3),
    "prime": drawn(31, 97, 0.2),
    "dense prime": drawn(31, 97, 0.9),
    "all zero": drawn(13, 17, 0.0),
    "all dense": drawn(17, 13, 1.1),
    "identity": lambda rng: np.eye(33, dtype=bool),
    "anti-diagonal": lambda rng: np.eye(33, dtype=bool)[::-1].copy(),
    "banded": lambda rng: abs(np.subtract.outer(np.arange(40), np.arange(50))) < 3,
    "one full row": lines(slice(11, 12), slice(None)),
    "first row": lines(slice(0, 1), slice(None)),
    "one full column": lines(slice(None), slice(20, 21)),
    "last column": lines(slice(None), slice(42, 43)),
    "empty first rows": emptied(slice(0, 5)),
    "empty middle rows": emptied(slice(9, 20)),
    "empty last rows": emptied(slice(30, None)),
    "alternating rows": emptied(slice(0, None, 2)),
    "power law": power_law,
    "blocks 4x4": lambda rng: blocks(rng, 36, 44, 4, 4),
    "blocks 8x3": lambda rng: blocks(rng, 37, 50, 8, 3),
    "blocks 16x1": lambda rng: blocks(rng, 33, 40, 16, 1),
    "blocks 2x5": lambda rng: blocks(rng, 21, 40, 2, 5),
    "2:4": lambda rng: groups(rng, 18, 36, 2, 4),
    "1:2": lambda rng: groups(rng, 9, 34, 1, 2),
    "1:4": lambda rng: groups(rng, 7, 68, 1, 4),
    "4:8": lambda rng: groups(rng, 5, 40, 4, 8),
    "2:8": lambda rng: groups(rng, 6, 200, 2, 8),
    "2:16": lambda rng: groups(rng, 6, 160, 2, 16),
    "3:4": lambda rng: groups(rng, 5, 44, 3, 4),
    "1:3": lambda rng: groups(rng, 11, 33, 1, 3),
    "5:10": lambda rng: groups(rng, 4, 50, 5, 10),
    "fan-in 7": lambda rng: fan_in(rng, 19, 50, 7),
    "fan-in 33": lambda rng: fan_in(rng, 9, 70, 33),
    "ablated": ablated,
} | {f"nnz {n}": lambda rng, n=n: counted(rng, 24, 41, n) for n in (1, 15, 16, 17, 31, 32, 33, 63, 64, 65)}


def masks(seed: int = 0) -> Iterator[tuple[str, Array]]:
    """All of them, each from a generator of its own."""
    for k, (name, make) in enumerate(MASKS.items()):
        yield name, make(np.random.default_rng([seed, k]))


VALUES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "some stored zeros": lambda rng, n: rng.choice([0.0, -0.0, 1.5, -2.0], n),
    "denormal": lambda rng, n: rng.standard_normal(n) * 1e-40,
    "huge and tiny": lambda rng, n: rng.standard_normal(n) * 10.0 ** rng.integers(-15, 15, n),
    "cancelling": lambda rng, n: np.where(np.arange(n) % 2, -1.0, 1.0) * (1e6 + rng.random(n)),
}


def layouts(x: Array) -> Iterator[tuple[str, Array]]:
    """The same numbers (2-D) in every way they can lie in memory."""
    yield "C", np.ascontiguousarray(x)
    yield "Fortran", np.asfortranarray(x)
    wide = np.zeros((x.shape[0], 3 * x.shape[1]), dtype=x.dtype)
    wide[:, ::3] = x
    yield "sliced", wide[:, ::3]
    yield "reversed", np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    raw = np.empty(x.nbytes + 1, dtype=np.uint8)
    unaligned = raw[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    yield "unaligned", unaligned
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))


def csr_arrays(mask: Array) -> tuple[Array, Array]:
    """indptr and indices of the True entries."""
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
    return indptr, np.nonzero(mask)[1]


# name: what to do to (indptr, indices, values, shape), and what the message must say
INVALID: dict[str, tuple[Callable[[Array, Array, Array, tuple[int, int]], tuple], str]] = {
    "indptr starts late": (lambda p, i, v, s: (np.r_[1, p[1:]], i, v, s), "indptr[0]: got 1"),
    "indptr decreases": (lambda p, i, v, s: (np.r_[p[:2], p[1] - 1, p[3:]], i, v, s), "indptr[2]"),
    "indptr falls by more than 2^63": (
        lambda p, i, v, s: (np.r_[p[:2], 1 << 62, -(1 << 62) - 1, p[4:]], i, v, s),
        "indptr[3]",
    ),
    "indptr ends early": (lambda p, i, v, s: (np.r_[p[:-1], p[-1] - 1], i, v, s), f"indptr[{5}]"),
    "indptr ends late": (lambda p, i, v, s: (np.r_[p[:-1], p[-1] + 1], i, v, s), f"indptr[{5}]"),
    "indptr short": (lambda p, i, v, s: (p[:-1], i, v, s), "5 entries"),
    "indptr long": (lambda p, i, v, s: (np.r_[p, p[-1]], i, v, s), "7 entries"),
    "indptr of floats": (lambda p, i, v, s: (p.astype(float), i, v, s), "float64"),
    "indptr 2-D": (lambda p, i, v, s: (p[None], i, v, s), "indptr"),
    "negative column": (lambda p, i, v, s: (p, np.r_[i[:3], -1, i[4:]], v, s), "indices[3] in row"),
    "column too large": (lambda p, i, v, s: (p, np.r_[i[:2], s[1], i[3:]], v, s), "indices[2] in row"),
    "column wrapped": (lambda p, i, v, s: (p, np.r_[i[:2], -(1 << 31), i[3:]], v, s), "indices[2]"),
    "column of 64 bits": (lambda p, i, v, s: (p, np.r_[i[:2], 1 << 40, i[3:]], v, s), "indices[2]"),
    "uint64 column": (
        lambda p, i, v, s: (
            p,
            np.r_[i[:2].astype(np.uint64), np.uint64(2**64 - 1), i[3:].astype(np.uint64)],
            v,
            s,
        ),
        "indices[2]",
    ),
    "columns of floats": (lambda p, i, v, s: (p, i + 0.5, v, s), "float64"),
    "NaN column": (lambda p, i, v, s: (p, np.r_[np.nan, i[1:]], v, s), "float64"),
    "Boolean columns": (lambda p, i, v, s: (p, i.astype(bool), v, s), "bool"),
    "values short": (lambda p, i, v, s: (p, i, v[:-1], s), "one for each index"),
    "values long": (lambda p, i, v, s: (p, i, np.r_[v, 1.0], s), "one for each index"),
    "values of objects": (lambda p, i, v, s: (p, i, v.astype(object), s), "object"),
    "values of Booleans": (lambda p, i, v, s: (p, i, v > 0, s), "bool"),
    "values of integers": (lambda p, i, v, s: (p, i, v.astype(int), s), "int64"),
    "values of text": (lambda p, i, v, s: (p, i, v.astype(str), s), "<U"),
    "fewer columns": (lambda p, i, v, s: (p, i, v, (s[0], 1)), "column < 1"),
    "NaN shape": (lambda p, i, v, s: (p, i, v, (s[0], float("nan"))), "shape"),
    "negative shape": (lambda p, i, v, s: (p, i, v, (s[0], -3)), "shape"),
    "Boolean shape": (lambda p, i, v, s: (p, i, v, (s[0], True)), "shape"),
    "shape product too large": (lambda p, i, v, s: (p, i, v, (s[0], 1 << 62)), "2^63"),
}
