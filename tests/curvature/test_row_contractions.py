"""Contractions of rows and cotangents against loops over samples, positions and columns."""

import numpy as np
import pytest

from minisparse.nn import rows as contract


def naive(rows, s, sign):
    v, n, positions, o = s.shape
    per = np.zeros((v, n, o, rows.shape[2]))
    bias = np.zeros((v, n, o))
    for k in range(v):
        for m in range(n):
            for p in range(positions):
                per[k, m] += np.outer(s[k, m, p], rows[m, p])
                bias[k, m] += s[k, m, p]
    squares = sum(sign[k, m] * per[k, m] ** 2 for k in range(v) for m in range(n))
    return per, bias, squares, sum(sign[k, m] * bias[k, m] ** 2 for k in range(v) for m in range(n))


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize("block", [1, 2000, 1 << 20])
def test_against_loops(positions, block, monkeypatch):
    monkeypatch.setattr(contract, "BLOCK_BYTES", block)
    rng = np.random.default_rng(positions)
    rows, s = rng.standard_normal((6, positions, 5)), rng.standard_normal((3, 6, positions, 2))
    sign = rng.choice([-1.0, 0.0, 1.0], (3, 6))
    per, bias, squares, bias_squares = naive(rows, s, sign)
    for got, want in zip(contract.outer(rows, s), (per, bias), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-14)
    for got, want in zip(contract.squared(rows, s, sign), (squares, bias_squares), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    ones = np.ones_like(sign)
    for got, want in zip(contract.squared(rows, s, None), naive(rows, s, ones)[2:], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_diagonal_is_one_column_per_unit_and_position():
    rng = np.random.default_rng(0)
    rows, h = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 2))
    columns = np.zeros((8, 3, 4, 2))
    for k in range(8):
        columns[k, :, k // 2, k % 2] = np.sqrt(np.abs(h[:, k // 2, k % 2]))
    sign = np.sign(h.reshape(3, 8).T)
    want = contract.squared(rows, columns, sign)
    for got, expected in zip(contract.diagonal(rows, h), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13)
