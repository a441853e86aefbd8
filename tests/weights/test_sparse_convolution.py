"""Sparse convolution kernels against the unfold path in float64: geometry, error bound, threads, infinity."""

import numba
import numpy as np
import pytest

from minisparse.errors import ShapeError
from minisparse.kernels import lanes
from minisparse.kernels.jit import COMPILED
from minisparse.nn.mode import EVAL
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.weights import convolution
from minisparse.weights.formats import FORMATS, accepts

pytestmark = pytest.mark.skipif(not COMPILED, reason="the kernels exist only in compiled code")
EPS = np.finfo(np.float32).eps
MOST = numba.config.NUMBA_NUM_THREADS


def cases(count, seed):
    """Random strides, paddings (beyond the kernel too), dilations, channels and densities, 0 included."""
    rng = np.random.default_rng(seed)
    while count:
        kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, top, 2)) for top in (6, 4, 3))
        window = Window(kernel, stride, tuple(int(v) for v in rng.integers(0, 5, 2)), dilation)
        n, h, w, c, o = (int(v) for v in rng.integers((8, 1, 1, 1, 1), (40, 14, 20, 20, 40)))
        try:
            window.output_size((h, w))
        except ShapeError:
            continue
        count -= 1
        mask = rng.random((o, kernel[0] * kernel[1] * c)) < rng.choice([0.0, 0.1, 0.4, 1.1])
        yield rng, window, (n, h, w, c), mask


def weights(rng, mask, geometry, name="csr"):
    """A float32 format, and the float64 masked weight with the same numbers."""
    dense = rng.standard_normal(mask.shape).astype(np.float32)
    return FORMATS[name].from_dense(dense, mask, geometry), MaskedWeight(dense.astype(float), geometry, mask)


@pytest.mark.parametrize("seed", range(4))
def test_three_products_keep_the_error_bound_of_the_unfold_path(seed):
    for rng, window, (n, h, w, c), mask in cases(10, seed):
        weight, exact = weights(rng, mask, (len(mask), c, *window.kernel))
        size = MaskedWeight(abs(exact.dense()), exact.geometry)
        x = rng.standard_normal((n, h, w, c)).astype(np.float32)
        assert convolution.available(weight.param.value, x)
        wide, terms = x.astype(float), np.count_nonzero(mask, axis=1) + 2
        y, expected = weight.correlate(x, window, EVAL), Weight.correlate(exact, wide, window, EVAL)
        bound = terms * EPS * Weight.correlate(size, abs(wide), window, EVAL)
        assert y.shape == expected.shape and (abs(y - expected) <= bound).all()

        dy = rng.standard_normal(y.shape).astype(np.float32)
        wide_dy = dy.astype(float)
        dx = weight.correlate_pull(dy, window, (h, w))
        expected = Weight.correlate_pull(exact, wide_dy, window, (h, w))
        scale = Weight.correlate_pull(size, abs(wide_dy), window, (h, w))
        assert (
            dx.shape == x.shape and (abs(dx - expected) <= (np.count_nonzero(mask) + 2) * EPS * scale).all()
        )

        weight.correlate_pullback(x, dy, window)
        Weight.correlate_pullback(exact, wide, wide_dy, window)
        Weight.correlate_pullback(size, abs(wide), abs(wide_dy), window)
        sums = n * y.shape[1] * y.shape[2] + 2
        error = abs(weight.param.grad - exact.param.grad[mask])
        assert (error <= sums * EPS * size.param.grad[mask]).all()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_the_same_way(name):
    rng = np.random.default_rng(5)
    window = Window.of(3, padding=1)
    mask = np.tile(np.array([1, 0, 0, 1], dtype=bool), (8, 18))
    assert accepts(name, mask)
    weight, exact = weights(rng, mask, (8, 8, 3, 3), name)
    x = rng.standard_normal((9, 6, 7, 8)).astype(np.float32)
    y = weight.correlate(x, window, EVAL)
    np.testing.assert_allclose(y, exact.correlate(x.astype(float), window, EVAL), rtol=1e-4, atol=1e-5)
    weight.correlate_pullback(x, y, window)
    Weight.correlate_pullback(exact, x.astype(float), y.astype(float), window)
    laid = weight.entries(exact.param.grad)["weight"]
    np.testing.assert_allclose(weight.param.grad, laid, rtol=1e-3, atol=1e-3)


def test_images_may_lie_in_memory_in_any_way_and_small_batches_unfold():
    rng = np.random.default_rng(6)
    window = Window.of(3, stride=2, padding=1)
    weight, exact = weights(rng, rng.random((5, 27)) < 0.5, (5, 3, 3, 3))
    x = rng.standard_normal((10, 6, 7, 3)).astype(np.float32)
    expected = Weight.correlate(exact, x.astype(float), window, EVAL)
    fixed = x.copy()
    fixed.flags.writeable = False
    for image in (np.asfortranarray(x), x[:, ::-1][:, ::-1], fixed, np.repeat(x, 2, axis=0)[::2]):
        np.testing.assert_allclose(weight.correlate(image, window, EVAL), expected, rtol=1e-4, atol=1e-5)
    few = x[: convolution.LEAST - 1]
    assert not convolution.available(weight.param.value, few)
    np.testing.assert_allclose(
        weight.correlate(few, window, EVAL), expected[: len(few)], rtol=1e-4, atol=1e-5
    )
    assert weight.correlate(x[:0], window, EVAL).shape == (0, 3, 4, 5)


def test_absent_taps_do_nothing_even_against_infinity():
    rng = np.random.default_rng(7)
    window = Window.of(3, padding=1)
    mask = rng.random((6, 36)) < 0.4
    mask[:, 4::4] = False  # channel 0 is read by the first tap only
    weight, _ = weights(rng, mask, (6, 4, 3, 3))
    x = rng.standard_normal((16, 6, 6, 4)).astype(np.float32)
    x[3, 2, 2, 0] = np.inf
    y = weight.correlate(x, window, EVAL)
    hit = np.zeros(y.shape, dtype=bool)
    hit[3, 3, 3] = mask[:, 0]  # the pixel whose first tap, up and left, is (2, 2)
    np.testing.assert_array_equal(~np.isfinite(y), hit)


@pytest.mark.skipif(MOST < 2, reason="needs two threads")
def test_thread_count_does_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(lanes, "SMALL", 0)
    for rng, window, (n, h, w, c), mask in cases(5, 8):
        weight, _ = weights(rng, mask, (len(mask), c, *window.kernel))
        x = rng.standard_normal((n, h, w, c)).astype(np.float32)
        results = []
        for threads in (1, MOST):
            numba.set_num_threads(threads)
            y = weight.correlate(x, window, EVAL)
            weight.correlate_pullback(x, y, window)
            results.append((y, weight.correlate_pull(y, window, (h, w)), weight.param.grad.copy()))
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
