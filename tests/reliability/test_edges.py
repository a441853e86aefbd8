"""Products read nothing beside the arrays they are given: what lies there is NaN, and no result is."""

from __future__ import annotations

import numpy as np
import pytest

from minisparse.nn.mode import EVAL
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight
from minisparse.weights.formats import FORMATS, convert
from tests.structures import groups

# rows and columns that fill no vector, no word of indices and no panel
SHAPES = ((4, 4), (5, 8), (6, 20), (33, 36), (7, 68))


def amid_nan(a: Array) -> Array:
    """The same numbers, contiguous, between NaN."""
    room = np.full(a.size + 64, np.nan, a.dtype)
    room[32 : 32 + a.size] = a.reshape(-1)
    return room[32 : 32 + a.size].reshape(a.shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMATS)
def test_no_product_reads_beside_its_arrays(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        mask = np.repeat(groups(rng, -(-shape[0] // 2), shape[1], 2, 4), 2, axis=0)[: shape[0]]
        if FORMATS[name].objection(mask):
            mask[-1] = mask[-2]
        masked = MaskedWeight(rng.standard_normal(shape).astype(dtype), mask=mask)
        weight = convert(masked, name)
        weight.param.value = amid_nan(weight.param.value)
        weight.param.grad = amid_nan(weight.param.grad)
        for r in (1, 2, 3, 5, 17, 130):
            x, dy = (rng.standard_normal((r, n)).astype(dtype) for n in shape[::-1])
            pulled = []
            for w, given, back in ((masked, x, dy), (weight, amid_nan(x), amid_nan(dy))):
                w.pullback(given, back)
                pulled.append((w.apply(given, EVAL), w.pull(back), w.grads))
            for expected, found in zip(*pulled, strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
