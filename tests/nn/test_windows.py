"""Unfold, fold, convolution and pooling against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate2d

from minisparse.errors import ShapeError
from minisparse.nn import AvgPool2d, Conv2d, GlobalAvgPool, MaskedWeight, MaxPool2d, Window
from minisparse.nn.conv import channels_first, channels_last
from tests import strategies
from tests.oracles import windows as naive
from tests.strategies import SETTINGS, generators, tied, windows_and_sizes

TIGHT = {"rtol": 1e-12, "atol": 1e-13}


def image(rng, size, n=2, c=3):
    return rng.standard_normal((n, c, *size))


def filters_of(conv):
    """The weight matrix as (out, c, kh, kw)."""
    out, c, kh, kw = conv.weight.geometry
    return conv.weight.dense().reshape(out, kh, kw, c).transpose(0, 3, 1, 2)


def random_conv(rng, window, channels=3, out=2):
    shape = (out, window.kernel[0] * window.kernel[1] * channels)
    weight = MaskedWeight(rng.standard_normal(shape), (out, channels, *window.kernel))
    return Conv2d(weight, window, rng.standard_normal(out))


@SETTINGS
@given(windows_and_sizes(), generators)
def test_unfold_and_fold_are_the_loops_and_transposes(pair, rng):
    window, size = pair
    x = image(rng, size)
    assert window.output_size(size) == naive.sizes(size, window)
    rows = window.unfold(channels_last(x))
    np.testing.assert_array_equal(rows, naive.unfold(x, window))
    drows = rng.standard_normal(rows.shape)
    back = channels_first(window.fold(drows, size))
    np.testing.assert_allclose(back, naive.fold(drows, x.shape, window), **TIGHT)
    np.testing.assert_allclose((rows * drows).sum(), (x * back).sum(), rtol=1e-11, atol=1e-11)


@SETTINGS
@given(windows_and_sizes(), generators)
def test_convolution_is_the_loop(pair, rng):
    window, size = pair
    x, conv = image(rng, size), random_conv(rng, window)
    filters = filters_of(conv)
    y = conv.forward(x)
    np.testing.assert_allclose(y, naive.conv(x, filters, conv.bias.value, window), **TIGHT)
    dy = rng.standard_normal(y.shape)
    dx, df, db = naive.conv_backward(x, filters, dy, window)
    np.testing.assert_allclose(conv.backward(dy), dx, **TIGHT)
    np.testing.assert_allclose(conv.bias.grad, db, **TIGHT)
    grad = conv.weight.params()["weight"].grad
    np.testing.assert_allclose(grad, df.transpose(0, 2, 3, 1).reshape(grad.shape), **TIGHT)


def check_float32(conv, x, rng):
    """Other kernels serve float32. The bound is that of a sum: (terms + 2) eps sum |a b|."""
    for p in conv.params().values():
        p.set(p.value.astype(np.float32))
    x = x.astype(np.float32)
    y = conv.forward(x)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = conv.backward(dy)
    wide = [a.astype(np.float64) for a in (x, filters_of(conv), conv.bias.value, dy)]
    eps = np.finfo(np.float32).eps

    def bounded(got, want, size, terms):
        assert got.dtype == np.float32
        assert (np.abs(got - want) <= (terms + 2) * eps * size + 1e-30).all()

    sizes = [np.abs(a) for a in wide]
    window, terms = conv.window, conv.weight.shape[1]
    bounded(y, naive.conv(*wide[:3], window), naive.conv(*sizes[:3], window), terms + 1)
    want = naive.conv_backward(wide[0], wide[1], wide[3], window)
    most = naive.conv_backward(sizes[0], sizes[1], sizes[3], window)
    bounded(dx, want[0], most[0], conv.weight.shape[0] * np.prod(window.kernel))
    grad = conv.weight.params()["weight"].grad
    flat = [a[1].transpose(0, 2, 3, 1).reshape(grad.shape) for a in (want, most)]
    bounded(grad, *flat, dy[:, 0].size)
    bounded(conv.bias.grad, want[2], most[2], dy[:, 0].size)


@SETTINGS
@given(windows_and_sizes(), generators)
def test_convolution_in_float32_is_the_loop(pair, rng):
    window, size = pair
    check_float32(random_conv(rng, window), image(rng, size), rng)


@pytest.mark.parametrize("out", [1, 8, 15, 16, 17, 32, 33])
def test_convolution_in_float32_around_the_size_of_a_tile(out):
    """Outputs around vectors of 16 and pairs of them, and more pixels than one pass of the gradient."""
    rng = np.random.default_rng(out)
    conv = random_conv(rng, Window.of((2, 3), padding=(1, 1)), channels=2, out=out)
    check_float32(conv, image(rng, (11, 13), n=2, c=2), rng)


@SETTINGS
@given(windows_and_sizes(), generators)
def test_average_pooling_is_the_loop(pair, rng):
    window, size = pair
    x, layer = image(rng, size), AvgPool2d(window)
    y = layer.forward(x)
    np.testing.assert_allclose(y, naive.avg_pool(x, window), **TIGHT)
    dy = rng.standard_normal(y.shape)
    np.testing.assert_allclose(layer.backward(dy), naive.avg_pool_backward(dy, x.shape, window), **TIGHT)


def meets_image(window, size):
    """Whether every placement of the window holds a pixel, by looking."""
    return all(
        any(naive.inside(size, at) for _, at in naive.taps(window, place))
        for _, place, _ in naive.places(size, window)
    )


@SETTINGS
@given(windows_and_sizes(), generators, st.data())
def test_max_pooling_is_the_loop_also_at_ties(pair, rng, data):
    window, size = pair
    if any(p > k // 2 for p, k in zip(window.padding, window.kernel, strict=True)):
        with pytest.raises(ShapeError, match="padding"):
            MaxPool2d(window)
        return
    layer = MaxPool2d(window)
    x = data.draw(tied((2, 3, *size)))
    if not meets_image(window, size):
        for call in (lambda: layer.forward(x), lambda: layer.output_shape((3, *size))):
            with pytest.raises(ShapeError, match="window"):
                call()
        return
    y, where = naive.max_pool(x, window)
    np.testing.assert_array_equal(layer.forward(x), y)
    dy = rng.standard_normal(y.shape)
    np.testing.assert_allclose(layer.backward(dy), naive.max_pool_backward(dy, where, x.shape), **TIGHT)


def test_a_pooling_window_outside_the_image_is_refused():
    """Kernel 2, dilation 3, padding 1 on two pixels: the taps fall on both sides of the image."""
    with pytest.raises(ShapeError, match="padding"):
        MaxPool2d(Window.of(2, 1, 1, 3)).forward(np.ones((1, 1, 2, 2)))
    assert MaxPool2d(Window.of(2, 1, 1, 3)).forward(np.ones((1, 1, 3, 3))).shape == (1, 1, 2, 2)


@SETTINGS
@given(strategies.windows(), generators)
def test_a_kernel_larger_than_the_image_is_refused(window, rng):
    size = tuple(int(v) for v in rng.integers(1, 9, 2))
    fits = all(s > 0 for s in naive.sizes(size, window))
    assert strategies.fits(window, size) == fits
    if not fits:
        layer = random_conv(rng, window)
        for call in (layer.forward, AvgPool2d(window).forward):
            with pytest.raises(ShapeError, match="expected at least"):
                call(image(rng, size))
        with pytest.raises(ShapeError, match="expected at least"):
            layer.output_shape((3, *size))


def test_orientation_is_cross_correlation():
    """As scipy's correlate2d: the filter is not flipped, its first tap reads the upper left pixel."""
    rng = np.random.default_rng(0)
    x, conv = image(rng, (7, 6)), random_conv(rng, Window.of((3, 2)))
    filters, y = filters_of(conv), conv.forward(x)
    for n in range(2):
        for o in range(2):
            want = sum(correlate2d(x[n, c], filters[o, c], mode="valid") for c in range(3))
            np.testing.assert_allclose(y[n, o], want + conv.bias.value[o], **TIGHT)
    full = random_conv(rng, Window.of(3, padding=2))
    want = sum(correlate2d(x[0, c], filters_of(full)[1, c], mode="full") for c in range(3))
    np.testing.assert_allclose(full.forward(x)[0, 1], want + full.bias.value[1], **TIGHT)


def test_orientation_by_hand():
    conv = Conv2d(MaskedWeight(np.array([[1.0, 10.0, 100.0, 1000.0]]), (1, 1, 2, 2)), Window.of(2))
    x = np.array([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    np.testing.assert_array_equal(conv.forward(x), [[[[5421.0, 6532.0]]]])


def test_channel_is_fastest_in_the_columns():
    value = np.arange(8.0)[None]  # (ky, kx) = (0, 0), (0, 1), (1, 0), (1, 1), each with two channels
    conv = Conv2d(MaskedWeight(value, (1, 2, 2, 2)), Window.of(2))
    x = np.zeros((1, 2, 2, 2))
    for column, (ky, kx, c) in enumerate(np.ndindex(2, 2, 2)):
        x[...] = 0
        x[0, c, ky, kx] = 1
        assert conv.forward(x).item() == column


def test_global_pooling_is_the_mean():
    rng = np.random.default_rng(1)
    x = image(rng, (3, 5))
    np.testing.assert_allclose(GlobalAvgPool().forward(x), x.mean(axis=(2, 3)), **TIGHT)


def test_max_pool_ties_go_to_the_first_place():
    layer = MaxPool2d(Window.of(2, 2))
    layer.forward(np.zeros((1, 1, 2, 2)))
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 1, 1))), [[[[1, 0], [0, 0]]]])
    layer.forward(np.array([[[[0.0, 1.0], [1.0, 1.0]]]]))
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 1, 1))), [[[[0, 1], [0, 0]]]])


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_nan_wins_in_max_pooling_wherever_it_stands(place, dtype):
    x = np.array([5.0, -np.inf, np.inf, 1.0], dtype=dtype)
    x[place] = np.nan
    layer = MaxPool2d(Window.of(2))
    assert np.isnan(layer.forward(x.reshape(1, 1, 2, 2))).all()
    dx = layer.backward(np.ones((1, 1, 1, 1), dtype=dtype))
    assert dx.ravel()[place] == 1
    assert dx.sum() == 1


def test_padding_never_wins_in_max_pooling():
    layer = MaxPool2d(Window.of(3, 1, 1))
    x = np.full((1, 1, 3, 3), -7.0)
    np.testing.assert_array_equal(layer.forward(x), x)
    x[...] = -np.inf
    np.testing.assert_array_equal(layer.forward(x), x)


def test_max_pool_of_complex_numbers_compares_real_parts():
    x = np.array([[[[1 + 9j, 2 - 9j]]]])
    assert MaxPool2d(Window.of((1, 2))).forward(x).item() == 2 - 9j


@pytest.mark.parametrize(
    "bad", [0, -1, True, 2.5, (2.5, 3), (1, 2, 3), (1,), "3", None, float("nan"), (1, True)]
)
def test_windows_of_bad_numbers_are_refused(bad):
    for field in ("kernel", "stride", "dilation"):
        settings = {"kernel": 3, field: bad}
        with pytest.raises(ShapeError, match=field):
            Window.of(**settings)


def test_window_takes_integers_of_any_kind():
    window = Window.of(np.int64(3), (np.int32(2), 1), [0, 1])
    assert window == Window((3, 3), (2, 1), (0, 1), (1, 1))
    assert all(type(v) is int for v in window.kernel + window.stride + window.padding)
    with pytest.raises(ShapeError, match="padding"):
        Window.of(3, padding=-1)


def test_conv_refuses_a_weight_of_another_kernel():
    with pytest.raises(ShapeError, match=r"got window \(3, 3\), expected \(2, 2\)"):
        Conv2d(MaskedWeight(np.ones((1, 4)), (1, 1, 2, 2)), Window.of(3))
