"""Frames of convolutions against NumPy slices, and the rectifier's kernel against its formula."""

import numpy as np
import pytest

from minisparse.kernels.conv import place
from minisparse.kernels.jit import COMPILED
from minisparse.nn import direct
from minisparse.nn.activation import TABLE
from minisparse.nn.window import Window


@pytest.mark.parametrize(
    ("size", "corner", "step"),
    [
        ((7, 9), (1, 2), (1, 1)),
        ((6, 5), (0, 0), (1, 1)),
        ((4, 3), (-1, -1), (1, 1)),
        ((4, 8), (-2, 1), (1, 1)),
        ((13, 7), (1, 2), (2, 1)),
        ((13, 12), (1, 2), (2, 2)),
        ((5, 4), (-3, 0), (2, 3)),
    ],
)
def test_pixels_go_to_their_places_and_all_others_are_zero(size, corner, step):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 5, 3)).astype(np.float32)
    frames = np.full((2, *size, 3), np.nan, dtype=np.float32)
    place(x, frames, *corner, *step)
    wide = np.zeros((2, 40, 40, 3), dtype=np.float32)  # the frame is its part from (10, 10) on
    first = [10 + c for c in corner]
    wide[:, first[0] : first[0] + 6 * step[0] : step[0], first[1] : first[1] + 5 * step[1] : step[1]] = x
    np.testing.assert_array_equal(frames, wide[:, 10 : 10 + size[0], 10 : 10 + size[1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("order", ["C", "F", "channels last", "apart", "gaps"])
def test_the_rectifier_pulls_the_same_bits_however_memory_lies(dtype, order):
    rng = np.random.default_rng(1)
    z, dy = rng.standard_normal((2, 4, 3, 6, 5)).astype(dtype)
    z[0, 0, 0, :4] = [0, -0.0, np.nan, np.inf]
    dy[0, 0, 1] = [np.inf, -np.inf, np.nan, 0, -0.0]
    z[0, 0, 1] = [-1, -1, -1, 1, -1]
    with np.errstate(invalid="ignore"):
        expected = (z.real > 0).astype(dtype) * dy
    if order == "F":
        z, dy = np.asfortranarray(z), np.asfortranarray(dy)
    elif order == "channels last":
        z, dy = (a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) for a in (z, dy))
    elif order == "apart":
        z = np.asfortranarray(z)
    elif order == "gaps":
        z, dy = (np.repeat(a, 2, axis=3)[..., ::2] for a in (z, dy))
    relu = TABLE["relu"]
    with np.errstate(invalid="ignore"):
        found = relu.pull(z, dy)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found.real), np.signbit(expected.real))


@pytest.mark.skipif(not COMPILED, reason="the direct kernels need the compiler")
@pytest.mark.parametrize("window", [Window.of((3, 3), (1, 1), (1, 1)), Window.of((3, 2), (2, 1), (0, 1))])
def test_images_may_lie_in_memory_in_any_way(window):
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((4, 3 * window.kernel[0] * window.kernel[1])).astype(np.float32)
    x = rng.standard_normal((2, 6, 5, 3)).astype(np.float32)
    y = direct.forward(x, weight, window)
    dy = rng.standard_normal(y.shape).astype(np.float32)

    def products(x, dy):
        return (
            direct.forward(x, weight, window),
            direct.transposed(dy, weight, window, (6, 5)),
            direct.gradient(x, dy, window),
        )

    def channels_first(a):
        return a.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)

    def apart(a):
        return np.repeat(a, 2, axis=2)[:, :, ::2]

    def fixed(a):
        a = a.copy()
        a.flags.writeable = False
        return a

    for laid in (channels_first, apart, fixed, np.asfortranarray):
        for found, expected in zip(products(laid(x), laid(dy)), products(x, dy), strict=True):
            np.testing.assert_array_equal(found, expected)
