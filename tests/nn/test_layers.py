"""What holds for every layer: Jacobians, transposes, directions side by side, types, shapes, memory."""

import numpy as np
import pytest

from minisparse.errors import ShapeError, UsageError
from minisparse.nn import (
    Conv2d,
    Dropout,
    Linear,
    Mode,
    Network,
    Residual,
    Sequence,
    SubsamplePad,
)
from minisparse.nn.layer import LinearLayer
from tests.nn.zoo import BATCH, IMAGE, ROW, ZOO, example
from tests.oracles.complex_step import H, jacobian

TIGHT = {"rtol": 1e-12, "atol": 1e-13}
every_layer = pytest.mark.parametrize("name", ZOO)


def modes(name):
    """Evaluation, and training where it differs."""
    if "norm of" in name or name == "dropout":
        return [Mode(), Mode(True, np.random.default_rng(3))]
    return [Mode()]


@every_layer
def test_pull_is_the_transposed_jacobian(name):
    rng = np.random.default_rng(0)
    layer, x, network = example(name, rng)
    x = x[:2] + 0.05 * np.sign(x[:2])  # off the kinks
    complex_network = network.astype(np.complex128)
    full = jacobian(complex_network.forward, x)
    y = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    want = np.tensordot(dy, full, axes=dy.ndim)
    np.testing.assert_allclose(layer.pull(dy), want, **TIGHT)


@every_layer
def test_directions_are_pulled_side_by_side(name):
    rng = np.random.default_rng(1)
    layer, x, _ = example(name, rng)
    for mode in modes(name):
        y = layer.forward(x, mode)
        for lead in ((1,), (3,), (2, 4)):
            dy = rng.standard_normal((*lead, *y.shape))
            together = layer.pull(dy)
            assert together.shape == (*lead, *x.shape)
            for at in np.ndindex(lead):
                np.testing.assert_allclose(together[at], layer.pull(dy[at]), **TIGHT)


@every_layer
def test_pull_is_what_backward_returns_and_touches_no_parameter(name):
    rng = np.random.default_rng(2)
    layer, x, network = example(name, rng)
    for mode in modes(name):
        y = layer.forward(x, mode)
        dy = rng.standard_normal(y.shape)
        for p in network.params().values():
            p.grad[...] = 99
        pulled = layer.pull(dy)
        assert all((p.grad == 99).all() for p in network.params().values())
        np.testing.assert_allclose(layer.backward(dy), pulled, **TIGHT)
        grads = {k: p.grad.copy() for k, p in network.params().items()}
        assert not any((g == 99).any() for g in grads.values())
        if name != "nothing":
            assert layer.backward(dy, need_dx=False) is None
        for k, p in network.params().items():
            np.testing.assert_array_equal(p.grad, grads[k])


@every_layer
def test_push_and_pull_are_adjoint(name):
    rng = np.random.default_rng(3)
    layer, x, _ = example(name, rng)
    y = layer.forward(x)
    rx, dy = rng.standard_normal(x.shape), rng.standard_normal(y.shape)
    ry = layer.rforward(rx)
    assert ry.shape == y.shape
    a, b = (ry * dy).sum(), (rx * layer.pull(dy)).sum()
    assert abs(a - b) <= 1e-13 * (np.abs(ry * dy).sum() + 1)


@every_layer
def test_r_passes_are_the_complex_step_of_the_passes(name):
    rng = np.random.default_rng(4)
    layer, x, network = example(name, rng)
    x = x + 0.05 * np.sign(x)
    u = rng.standard_normal(x.shape)
    v = {k: rng.standard_normal(p.value.shape) for k, p in network.params().items()}
    twin = network.astype(np.complex128)
    for layer_name, mask in network.masks().items():
        v[f"{layer_name}.weight"] *= mask
    for k, p in twin.params().items():
        p.value += 1j * H * v[k]
        network.params()[k].direction = v[k]
    y = twin.forward(x + 1j * H * u)
    dy, rdy = rng.standard_normal(y.shape), rng.standard_normal(y.shape)
    dx = twin.backward(dy + 1j * H * rdy)

    layer.forward(x)
    np.testing.assert_allclose(layer.rforward(u), y.imag / H, **TIGHT)
    got_dx, got_rdx = layer.rbackward(dy, rdy)
    np.testing.assert_allclose(got_dx, dx.real, **TIGHT)
    np.testing.assert_allclose(got_rdx, dx.imag / H, **TIGHT)
    for k, p in network.params().items():
        np.testing.assert_allclose(p.rgrad, twin.params()[k].grad.imag / H, **TIGHT)


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_type_of_the_numbers_is_kept(name, dtype):
    """float32 stays float32: no constant of a layer may raise the precision, and the cost, silently."""
    rng = np.random.default_rng(5)
    layer, x, network = example(name, rng, dtype)
    seen = {}
    for k, mode in enumerate(modes(name)):
        y = layer.forward(x, mode)
        dy = np.ones_like(y)
        seen[f"y{k}"], seen[f"dx{k}"] = y, layer.backward(dy)
        seen[f"pull{k}"] = layer.pull(dy[None])
    y = layer.forward(x)
    seen["ry"] = layer.rforward(np.ones_like(x))
    seen["dx"], seen["rdx"] = layer.rbackward(np.ones_like(y), np.ones_like(y))
    for k, p in network.params().items():
        seen |= {f"{k} value": p.value, f"{k} grad": p.grad, f"{k} rgrad": p.rgrad}
    assert {k: a.dtype for k, a in seen.items()} == dict.fromkeys(seen, np.dtype(dtype))
    real = np.zeros(0, dtype).real.dtype
    assert all(b.dtype == real for b in network.buffers().values())


@every_layer
def test_output_shape_is_the_shape_of_the_output(name):
    layer, x, network = example(name, np.random.default_rng(6))
    y = layer.forward(x)
    assert layer.output_shape(x.shape[1:]) == y.shape[1:]
    assert network.outputs == y.shape[1]


@every_layer
def test_inputs_are_never_written_to(name):
    rng = np.random.default_rng(7)
    layer, x, _ = example(name, rng)
    for mode in modes(name):
        y = layer.forward(x.copy(), mode)
        dy = rng.standard_normal(y.shape)
        keep = x.copy(), dy.copy()
        x.flags.writeable = dy.flags.writeable = False
        layer.forward(x, mode)
        layer.backward(dy)
        layer.pull(dy)
        np.testing.assert_array_equal(x, keep[0])
        np.testing.assert_array_equal(dy, keep[1])
    layer.forward(x)
    layer.rforward(x)
    layer.rbackward(dy, dy)


@every_layer
def test_memory_layout_of_the_input_does_not_matter(name):
    rng = np.random.default_rng(8)
    layer, x, network = example(name, rng)
    y = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    dx = layer.backward(dy)
    grads = {k: p.grad.copy() for k, p in network.params().items()}
    spread = np.zeros((*x.shape, 2))
    spread[..., 0] = x
    for other in (np.asfortranarray(x), spread[..., 0], np.flip(np.flip(x).copy())):
        np.testing.assert_allclose(layer.forward(other), y, **TIGHT)
        np.testing.assert_allclose(layer.backward(np.asfortranarray(dy)), dx, **TIGHT)
        for k, p in network.params().items():
            np.testing.assert_allclose(p.grad, grads[k], **TIGHT)


def batch_arrays(network):
    """Names of arrays with a batch axis that layers still hold."""
    return [
        f"{name}.{key}"
        for name, layer in network.walk()
        for key, value in vars(layer).items()
        if isinstance(value, np.ndarray) and BATCH in value.shape
    ]


@every_layer
def test_release_forgets_activations(name):
    layer, x, network = example(name, np.random.default_rng(9))
    y = layer.forward(x)
    layer.rforward(x)
    layer.rbackward(y, y)
    network.release()
    assert batch_arrays(network) == []
    for mode in modes(name):
        layer.backward(np.ones_like(layer.forward(x, mode)))
        network.release()
        assert batch_arrays(network) == []
        layer.forward(x, mode)
        assert batch_arrays(network.copy()) == []


@pytest.mark.parametrize("name", [n for n in ZOO if n.startswith(("linear", "conv"))])
def test_the_row_view(name):
    """rows and corows: y = W x + b and dW = sum of corow times row, whatever the layer."""
    rng = np.random.default_rng(10)
    layer, x, _ = example(name, rng)
    assert isinstance(layer, LinearLayer)
    y = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    layer.backward(dy)
    n, p, i = layer.rows.shape
    assert (n, p, i) == (BATCH, layer.positions(x.shape[1:]), layer.weight.shape[1])
    bias = 0 if layer.bias is None else layer.bias.value
    np.testing.assert_allclose(layer.as_rows(y), layer.rows @ layer.weight.dense().T + bias, **TIGHT)
    np.testing.assert_array_equal(layer.corows, layer.as_rows(dy))
    two = np.stack([dy, 2 * dy])
    np.testing.assert_array_equal(layer.as_rows(two)[1], 2 * layer.corows)
    whole = np.einsum("npo,npi->oi", layer.corows, layer.rows)
    np.testing.assert_allclose(layer.dense_grad(), whole, **TIGHT)
    grad = layer.weight.params()["weight"].grad
    np.testing.assert_allclose(grad, whole * layer.weight.mask, **TIGHT)


WRONG = {
    "linear": [(4,), (5, 1), ()],
    "conv": [(2, 6, 5), (3, 6), (6, 5, 3)],
    "norm of rows": [(4,), IMAGE],
    "norm of images": [(4, 6, 5), ROW],
    "max pool": [ROW, (3, 1, 1, 1)],
    "average pool": [ROW, (3, 1, 1, 1)],
    "global pool": [ROW],
    "subsample and pad": [ROW, (6, 6, 5)],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_are_refused(name):
    layer, _, _ = example(name, np.random.default_rng(11))
    for shape in WRONG[name]:
        with pytest.raises(ShapeError, match=r"got .*, expected") as caught:
            layer.output_shape(shape)
        assert "\n" not in str(caught.value)


def test_branches_must_meet():
    branch = Sequence({"pad": SubsamplePad(2, 4)})
    with pytest.raises(ShapeError, match=r"branch shape \(4, 3, 3\) and shortcut shape \(3, 6, 5\)"):
        Residual(branch).output_shape(IMAGE)
    with pytest.raises(ShapeError, match="layer 0 'block'"):
        Network({"block": Residual(branch)}, IMAGE)


def test_residual_adds_what_both_ways_return():
    layer, x, _ = example("residual, conv", np.random.default_rng(12))
    both = layer.branch.forward(x) + layer.shortcut.forward(x)
    np.testing.assert_array_equal(layer.forward(x), both)
    identity, x, _ = example("residual, identity", np.random.default_rng(12))
    np.testing.assert_array_equal(identity.forward(x), identity.branch.forward(x) + x)


def test_subsample_and_pad_by_hand():
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    layer = SubsamplePad(2, 3)
    want = np.zeros((1, 3, 2, 2))
    want[0, 0] = [[0, 2], [8, 10]]
    np.testing.assert_array_equal(layer.forward(x), want)
    for stride, channels in ((0, 3), (2, 0)):
        with pytest.raises(UsageError, match="expected both >= 1"):
            SubsamplePad(stride, channels)


def test_flatten_runs_over_channel_row_column():
    layer, x, _ = example("flatten", np.random.default_rng(13))
    last = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # channels-last in memory
    np.testing.assert_array_equal(layer.forward(last), [sample.ravel() for sample in x])


def test_dropout_keeps_the_mean_and_its_own_mask():
    rate, n = 0.3, 40_000
    layer, x = Dropout(rate), np.ones((n, 1))
    y = layer.forward(x, Mode(True, np.random.default_rng(0)))
    assert set(np.unique(y)) == {0.0, 1 / (1 - rate)}
    # the share of zeros is binomial: five standard deviations
    assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_array_equal(layer.pull(np.ones_like(y)), y)
    np.testing.assert_array_equal(layer.rforward(x), y)
    again = layer.forward(x, Mode(True, np.random.default_rng(0)))
    np.testing.assert_array_equal(again, y)
    assert layer.forward(x) is x
    np.testing.assert_array_equal(Dropout(0.0).forward(x, Mode(True)), x)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, float("nan"), True, False, "0.5", None])
def test_dropout_refuses_bad_rates(rate):
    with pytest.raises(UsageError, match="dropout rate"):
        Dropout(rate)


def test_dropout_needs_a_generator():
    with pytest.raises(UsageError, match="generator"):
        Dropout(0.5).forward(np.ones((2, 2)), Mode(training=True))


def test_single_samples_give_the_rows_of_the_batch():
    """Evaluation mode treats samples apart, to rounding (a product's blocks depend on its height)."""
    for name in ZOO:
        layer, x, _ = example(name, np.random.default_rng(14))
        y = layer.forward(x)
        for k in range(BATCH):
            np.testing.assert_allclose(layer.forward(x[k : k + 1])[0], y[k], **TIGHT)


def test_layers_with_weights_are_linear_layers():
    kinds = {type(example(n, np.random.default_rng(15))[0]) for n in ZOO}
    assert {k for k in kinds if issubclass(k, LinearLayer)} == {Linear, Conv2d}
