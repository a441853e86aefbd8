"""Models by name: sizes known from their papers, every one runs, bad names and shapes are explained."""

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

from minisparse.errors import MinisparseError, ShapeError, UnknownNameError, UsageError
from minisparse.nn import Activation, CrossEntropy, MaxPool2d, Mode
from minisparse.nn.init import INITIALIZERS
from minisparse.nn.models import PLANS, build, make

MNIST, CIFAR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)
NAMES = {"mlp": lambda shape: f"mlp:{prod(shape)}-16-10"}
SLOW = {"set-mlp"}


def full_name(name, shape):
    return NAMES.get(name, lambda _: name)(shape)


def count(network):
    return sum(p.value.size for p in network.params().values())


def weights(network):
    return sum(layer.weight.size for layer in network.prunable().values())


def dense(*widths):
    """Parameters of fully connected layers of these widths, biases included."""
    return sum((i + 1) * o for i, o in zip(widths, widths[1:], strict=False))


def conv(*channels, kernel=3, bias=1):
    return sum((i * kernel**2 + bias) * o for i, o in zip(channels, channels[1:], strict=False))


def test_lenet_300_100():
    net = make("lenet-300-100", MNIST, 10)
    assert weights(net) == 784 * 300 + 300 * 100 + 100 * 10 == 266_200
    assert count(net) == 266_610


def test_lenet_5():
    assert count(make("lenet-5-caffe", MNIST, 10)) == 431_080
    assert make("lenet-5-caffe", MNIST, 10).positions() == {"conv1": 24**2, "conv2": 8**2, "fc1": 1, "fc2": 1}
    net = make("lenet-5", MNIST, 10)  # LeCun et al. 1998, with full connections between the maps
    assert count(net) == conv(1, 6, 16, kernel=5) + dense(400, 120, 84, 10) == 61_706


def test_resnet_20():
    net = make("resnet-20", CIFAR, 10)
    stages = conv(3, 16, *[16] * 6, *[32] * 6, *[64] * 6, bias=2)  # no bias; BatchNorm has two each
    assert count(net) == stages + dense(64, 10) == 269_722
    assert len(net.prunable()) == 20
    # the image is halved between the stages, and its shortcut with it
    assert list(net.positions().values()) == [32**2] * 7 + [16**2] * 6 + [8**2] * 6 + [1]
    half = make("resnet-20:0.5", CIFAR, 10)
    assert count(half) == conv(3, 8, *[8] * 6, *[16] * 6, *[32] * 6, bias=2) + dense(32, 10)


@pytest.mark.parametrize("name", ["conv-2", "conv-4", "conv-6"])
def test_conv_n(name):
    blocks = [64, 128, 256][: int(name[-1]) // 2]
    side = 32 >> len(blocks)
    channels = [3] + [b for b in blocks for _ in range(2)]
    net = make(name, CIFAR, 10)
    assert count(net) == conv(*channels) + dense(side**2 * blocks[-1], 256, 256, 10)
    # figure 2 of arXiv:1803.03635 counts weights of convolutions as 38K, 260K, 1.1M (its totals, 4.3M and
    # 2.4M, are these too; its 1.7M for conv-6 does not follow from the layers it lists)
    filters = sum(layer.weight.size for n, layer in net.prunable().items() if n.startswith("conv"))
    assert filters == pytest.approx({"conv-2": 38e3, "conv-4": 260e3, "conv-6": 1.1e6}[name], rel=0.05)
    if name != "conv-6":
        assert weights(net) == pytest.approx({"conv-2": 4.3e6, "conv-4": 2.4e6}[name], rel=0.02)


def test_vgg_small():
    net = make("vgg-small", CIFAR, 10)
    assert count(net) == conv(3, 64, 64, 128, 128, 256, 256, bias=2) + dense(4 * 4 * 256, 10)


def test_set_mlp():
    assert weights(make("set-mlp", CIFAR, 10)) == 3072 * 4000 + 4000 * 1000 + 1000 * 4000 + 4000 * 10


def test_mlp_strings():
    net = make("mlp:12-7-5-3:tanh", (3, 2, 2), 3)
    assert [layer.weight.shape for layer in net.prunable().values()] == [(7, 12), (5, 7), (3, 5)]
    kinds = [layer.name for _, layer in net.walk() if isinstance(layer, Activation)]
    assert kinds == ["tanh", "tanh"]
    assert list(make("mlp:4-2", (4,), 2).prunable()) == ["fc1"]


@pytest.mark.parametrize(("text", "alpha"), [("all-relu=0.25", 0.25), ("all-relu", 0.6), ("all-relu=0", 0.0)])
def test_the_slopes_of_all_relu_alternate_from_hidden_layer_to_hidden_layer(text, alpha):
    net = make(f"mlp:4-5-6-5-2:{text}", (4,), 2)
    layers = [layer for _, layer in net.walk() if isinstance(layer, Activation)]
    slopes = [-float(layer.forward(np.array([[-1.0]]))[0, 0]) for layer in layers]
    # arXiv:2102.01732 counts the input as layer 1: the first hidden layer is even and has slope -alpha
    assert slopes == [-alpha, alpha, -alpha]
    assert make("mlp:4-5-2", (4,), 2).layers["act1"].name == "relu"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("all-relu=x", UsageError, "all-relu alpha: got 'x'"),
        ("all-relu=-1", UsageError, "all-relu alpha: got -1"),
        ("all-relu=nan", UsageError, "all-relu alpha"),
        ("all-rely", UnknownNameError, "Did you mean 'all-relu'"),
        ("relu=0.6", UnknownNameError, "unknown activation"),
    ],
)
def test_activations_that_cannot_be_built_are_explained(text, error, words):
    with pytest.raises(error, match=words):
        make(f"mlp:4-5-2:{text}", (4,), 2)


@pytest.mark.parametrize("shape", [DIGITS, CIFAR])
@pytest.mark.parametrize("name", sorted(set(PLANS) - SLOW))
def test_every_model_runs_forward_and_backward(name, shape):
    net = make(full_name(name, shape), shape, 10)
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    loss = CrossEntropy()
    y = net.forward(x, Mode(training=True))
    value = loss.value(y, np.array([3, 9]))
    net.backward(loss.grad(), need_dx=False)
    assert y.shape == (2, 10)
    assert np.isfinite(value)
    assert y.dtype == np.float32
    for key, p in net.params().items():
        assert p.value.dtype == np.float32
        assert np.isfinite(p.grad).all()
        # dead units leave zeros, but no array is left without a gradient
        assert p.grad.any() or key.endswith("bias"), key
    assert all(layer.weight.mask.all() for layer in net.prunable().values())


def test_set_mlp_on_digits():
    net = make("set-mlp", DIGITS, 10)
    y = net.forward(np.ones((1, *DIGITS), np.float32))
    net.backward(np.ones_like(y), need_dx=False)
    assert net.params()["fc1.weight"].grad.shape == (4000, 64)


LEAST = {
    "lenet-5": 4,
    "lenet-5-caffe": 4,
    "conv-2": 2,
    "conv-4": 4,
    "conv-6": 8,
    "vgg-small": 8,
    "resnet-20": 1,
}


@pytest.mark.parametrize("name", LEAST)
def test_the_smallest_image_a_model_fits(name):
    least = LEAST[name]
    assert make(name, (1, least, least), 3).outputs == 3
    if least > 1:
        with pytest.raises(ShapeError, match=r"kernel \(2, 2\)"):
            make(name, (1, least - 1, least - 1), 3)
    with pytest.raises(ShapeError, match=rf"model '{name}' input: got sample shape \(64,\)"):
        make(name, (64,), 3)


@pytest.mark.parametrize("side", [15, 16, 28, 32])
def test_lenets_choose_kernels_by_the_image(side):
    for name in ("lenet-5", "lenet-5-caffe"):
        net = make(name, (1, side, side), 10)
        kernel = net.prunable()["conv1"].weight.geometry[2:]
        assert kernel == ((5, 5) if side >= 16 else (3, 3))
        assert sum(isinstance(layer, MaxPool2d) for _, layer in net.walk()) == 2


def test_seed_and_initialiser_decide_the_weights():
    a, b, c = (make("lenet-5", DIGITS, 10, seed=s).state() for s in (0, 0, 1))
    for k in a:
        np.testing.assert_array_equal(a[k], b[k])
    assert not np.array_equal(a["conv1.weight"], c["conv1.weight"])
    for init in INITIALIZERS:
        net = make("mlp:6-4-3", (6,), 3, init=init)
        assert net.params()["fc1.weight"].value.flags.c_contiguous
        assert not net.params()["fc1.bias"].value.any()
    narrow = make("mlp:6-4-3", (6,), 3, init="orthogonal").params()["fc1.weight"].value
    np.testing.assert_allclose(narrow @ narrow.T, 2 * np.eye(4), atol=1e-6)


def test_build_takes_the_shapes_of_the_data():
    data = SimpleNamespace(sample_shape=(6,), outputs=3)
    net = build("mlp:6-4-3", data, seed=5, init="xavier-uniform")
    want = make("mlp:6-4-3", (6,), 3, seed=5, init="xavier-uniform")
    for k, value in net.state().items():
        np.testing.assert_array_equal(value, want.state()[k])
    assert net.name == "mlp:6-4-3"


BAD = {
    "mlp": (UsageError, "expected two or more positive integers"),
    "mlp:": (UsageError, "expected two or more positive integers"),
    "mlp:64": (UsageError, "expected two or more positive integers"),
    "mlp:10": (UsageError, "expected two or more positive integers"),
    "mlp:64-0-10": (UsageError, "positive integers joined by '-'"),
    "mlp:a-b": (UsageError, "got widths 'a-b'"),
    "mlp:64--10": (UsageError, "got widths '64--10'"),
    "mlp:64-\u00b2-10": (UsageError, "positive integers"),
    "mlp:64-1.5-10": (UsageError, "positive integers"),
    "mlp:64-30-10:tnah": (UnknownNameError, "Did you mean 'tanh'"),
    "mlp:64-10:tnah": (UnknownNameError, "Did you mean 'tanh'"),
    "mlp:63-30-10": (ShapeError, "got 63 inputs and 10 outputs, expected 64 and 10"),
    "mlp:64-30-9": (ShapeError, "got 64 inputs and 9 outputs, expected 64 and 10"),
    "resnet-20:x": (UsageError, "got width 'x', expected a number"),
    "resnet-20:0": (ShapeError, "width: got 0.0"),
    "resnet-20:-1": (ShapeError, "width: got -1.0"),
    "resnet-20:0.01": (ShapeError, "expected a finite number >= 1/16"),
    "resnet-20:nan": (ShapeError, "width: got nan"),
    "resnet-20:inf": (ShapeError, "width: got inf"),
    "lenet5": (UnknownNameError, "Did you mean 'lenet-5'"),
    "resnet20": (UnknownNameError, "Did you mean 'resnet-20'"),
    "LeNet-5": (UnknownNameError, "expected one of conv-2"),
    "": (UnknownNameError, "unknown model ''"),
    "lenet-5:3": (UsageError, "got an option '3', expected just 'lenet-5'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_explained(name):
    kind, text = BAD[name]
    with pytest.raises(MinisparseError) as caught:
        make(name, DIGITS, 10)
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_bad_settings_are_explained():
    with pytest.raises(UnknownNameError, match="Did you mean 'kaiming-normal'"):
        make("lenet-5", DIGITS, 10, init="kaiming_normal")
    with pytest.raises(ShapeError, match="outputs: got 0"):
        make("lenet-5", DIGITS, 0)
    for shape in ((), (0, 8, 8), (0,)):
        with pytest.raises(ShapeError):
            make("lenet-300-100", shape, 10)
