"""The direct convolution kernels against the unfold path in float64, and the register tile against loops."""

import numba
import numpy as np
import pytest

from minisparse.errors import ShapeError
from minisparse.kernels.jit import COMPILED, SMALL
from minisparse.kernels.vector import ROWS, tile1, tile2, tile_naive
from minisparse.nn import direct
from minisparse.nn.mode import EVAL
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window

pytestmark = pytest.mark.skipif(not COMPILED, reason="LLVM vectors exist only in compiled code")


def cases(count, seed):
    """Random geometries, all of stride, padding (larger than the kernel too), dilation, odd channels."""
    rng = np.random.default_rng(seed)
    while count:
        numbers = [tuple(int(v) for v in rng.integers(1, top, 2)) for top in (6, 4, 3)]
        padding = tuple(int(v) for v in rng.integers(0, 5, 2))
        window = Window(numbers[0], numbers[1], padding, numbers[2])
        n, h, w, c, o = (int(v) for v in rng.integers(1, (4, 14, 14, 20, 70)))
        try:
            window.output_size((h, w))
        except ShapeError:
            continue
        count -= 1
        yield rng, window, (n, h, w, c), o


def bound(terms, magnitudes):
    """Forward error bound of a float32 sum of so many products of this total magnitude."""
    return (terms + 2) * np.finfo(np.float32).eps * magnitudes


@pytest.mark.parametrize("seed", range(6))
def test_three_products_equal_the_unfold_path(seed):
    for rng, window, shape, o in cases(12, seed):
        n, h, w, c = shape
        k = window.kernel[0] * window.kernel[1] * c
        x = rng.standard_normal(shape).astype(np.float32)
        weight = rng.standard_normal((o, k)).astype(np.float32)
        oh, ow = window.output_size((h, w))
        dy = rng.standard_normal((n, oh, ow, o)).astype(np.float32)
        rows, w64 = window.unfold(x.astype(float)), weight.astype(float)
        g = dy.reshape(n, -1, o).astype(float)

        y = direct.forward(x, weight, window).reshape(n, -1, o)
        assert (abs(y - rows @ w64.T) <= bound(k, abs(rows) @ abs(w64).T)).all()
        dx = direct.transposed(dy, weight, window, (h, w))
        scale = window.fold(abs(g) @ abs(w64), (h, w))
        assert (abs(dx - window.fold(g @ w64, (h, w))) <= bound(k * o, scale)).all()
        dw = direct.gradient(x, dy, window)
        flat, g = rows.reshape(-1, k), g.reshape(-1, o)
        assert (abs(dw - g.T @ flat) <= bound(len(g), abs(g).T @ abs(flat))).all()


@pytest.mark.parametrize("tile, most", [(tile1, 16), (tile2, 32)])
def test_tile_equals_its_naive_twin(tile, most):
    @numba.njit
    def run(x, rows, r0, cols, begin, end, w, w0, ldw, y, out, valid, accumulate):
        tile(x, rows, r0, cols, begin, end, w, w0, ldw, y, out, valid, accumulate)

    rng = np.random.default_rng(1)
    for valid in (1, 7, most - 1, most):
        for accumulate in (0, 1):
            for end in (0, 1, 9):
                x, w = (rng.integers(-3, 4, size).astype(np.float32) for size in (200, 12 * most))
                rows, cols = rng.integers(0, 90, 2 * ROWS), rng.integers(0, 90, 10)
                out = np.arange(2 * ROWS) * most
                y = rng.integers(-3, 4, 2 * ROWS * most).astype(np.float32)
                expected = y.copy()
                arguments = (x, rows, ROWS, cols, min(1, end), end, w, 2, most)
                run(*arguments, y, out, valid, accumulate)
                tile_naive(*arguments, expected, out, valid, accumulate)
                np.testing.assert_array_equal(y, expected)


def test_masked_convolution_writes_no_gradient_where_absent():
    rng = np.random.default_rng(2)
    window = Window.of(3, padding=1)
    mask = rng.random((5, 27)) < 0.4
    weight = MaskedWeight(rng.standard_normal((5, 27)).astype(np.float32), (5, 3, 3, 3), mask)
    x, dy = (rng.standard_normal((2, 6, 6, c)).astype(np.float32) for c in (3, 5))
    y = weight.correlate(x, window, EVAL)
    reference = window.unfold(x) @ weight.dense().T
    np.testing.assert_allclose(y.reshape(2, 36, 5), reference, rtol=1e-4, atol=1e-5)
    weight.correlate_pullback(x, dy, window)
    assert not weight.param.grad[~mask].any()
    assert weight.param.grad[mask].all()


def test_thread_count_does_not_change_a_bit():
    rng = np.random.default_rng(3)
    window = Window.of(3, padding=1)
    # large enough for the kernels to use all threads: see jit.SMALL
    x, dy = (rng.standard_normal((40, 32, 32, c)).astype(np.float32) for c in (6, 20))
    weight = rng.standard_normal((20, 54)).astype(np.float32)
    assert dy.size * 54 > SMALL
    results = []
    for count in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(count)
        results.append(
            (
                direct.forward(x, weight, window),
                direct.transposed(dy, weight, window, (32, 32)),
                direct.gradient(x, dy, window),
            )
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
