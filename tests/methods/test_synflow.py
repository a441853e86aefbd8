"""SynFlow: conservation of flow, the rounds that keep layers alive, and blindness to data and signs."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import MethodError
from minisparse.methods.initial.synflow import SynFlow, flow, positive, synaptic_flow
from minisparse.nn.activation import Activation
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm2d
from minisparse.nn.pool import AvgPool2d, Flatten, MaxPool2d
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.sparsity import Exponential, OneShot, kept_count
from minisparse.sparsity import Linear as LinearSchedule
from tests.methods.problems import IMAGE, chain, conv_net, convolution, mlp, state_of

W1, W2 = np.array([[1.0, -2.0], [3.0, 0.5]]), np.array([[1.0, -5.0]])


def prune(network, method, seed=0):
    """A pruned copy; the samples are noise, which SynFlow must not look at."""
    copy, rng = network.copy(), np.random.default_rng(seed)
    x = rng.standard_normal((4, *copy.input_shape))
    method.setup(state_of(copy, x, rng.integers(0, copy.outputs, 4)))
    return copy


def test_the_two_two_one_network():
    scores = synaptic_flow(chain(W1, W2))
    np.testing.assert_allclose(scores["fc1"], [[1, 2], [15, 2.5]])
    np.testing.assert_allclose(scores["fc2"], [[3, 17.5]])
    assert flow(positive(chain(W1, W2))) == 20.5


def test_rounds_find_the_best_three_of_six_and_one_shot_leaves_a_dead_weight():
    once = prune(chain(W1, W2), SynFlow(0.5, OneShot(0.0)))
    assert once.masks()["fc1"].tolist() == [[False, False], [True, False]]
    assert once.masks()["fc2"].tolist() == [[True, True]]  # the first has no input any more
    assert flow(positive(once)) == 15
    rounds = prune(chain(W1, W2), SynFlow(0.5, Exponential(50)))
    assert rounds.masks()["fc1"].tolist() == [[False, False], [True, True]]
    assert rounds.masks()["fc2"].tolist() == [[False, True]]
    assert flow(positive(rounds)) == 17.5


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.7]))
def test_a_chain_conserves_flow_per_unit_and_per_layer(seed, sparsity):
    network = mlp((5, 6, 4, 3), np.random.default_rng(seed), biases=False)
    network = prune(network, SynFlow(sparsity, Exponential(3)))
    r, scores = flow(positive(network)), list(synaptic_flow(network).values())
    for score in scores:
        np.testing.assert_allclose(score.sum(), r, rtol=1e-9)
    for below, above in zip(scores, scores[1:], strict=False):
        np.testing.assert_allclose(below.sum(axis=1), above.sum(axis=0), rtol=1e-9, atol=1e-12)


def score_of(param):
    return param.grad * param.value


def test_biases_are_sources_of_flow():
    work = positive(mlp((5, 6, 4, 3), np.random.default_rng(0)))
    r, layers = flow(work), list(work.prunable().values())
    entering = [score_of(x.weight.param).sum(axis=1) + score_of(x.bias) for x in layers]
    for into, above in zip(entering, layers[1:], strict=False):
        np.testing.assert_allclose(into, score_of(above.weight.param).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(entering[-1].sum(), r, rtol=1e-9)
    sources = sum(score_of(x.bias).sum() for x in layers)
    np.testing.assert_allclose(score_of(layers[0].weight.param).sum() + sources, r, rtol=1e-9)


@pytest.mark.parametrize("pool", [MaxPool2d, AvgPool2d])
def test_convolution_norm_and_pooling_conserve_flow_per_channel(pool):
    rng = np.random.default_rng(0)
    norm = BatchNorm2d(4)
    norm.gamma.set(rng.standard_normal(4))
    norm.beta.set(rng.standard_normal(4))
    norm.running_var = rng.uniform(0.5, 2, 4)
    network = Network(
        {
            "conv1": convolution(rng, 2, 4, bias=True),
            "bn": norm,
            "relu": Activation("relu"),
            "conv2": convolution(rng, 4, 5, bias=True),
            "relu2": Activation("leaky-relu"),
            "pool": pool(Window.of(2, 2)),
            "flatten": Flatten(),
            "fc": Linear(MaskedWeight(rng.standard_normal((3, 45)))),
        },
        IMAGE,
    ).astype(np.float64)
    work = positive(network)
    r, layers = flow(work), work.layers
    conv1, bn, conv2, fc = (layers[name] for name in ("conv1", "bn", "conv2", "fc"))
    into = score_of(conv1.weight.param).sum(axis=1) + score_of(conv1.bias)
    np.testing.assert_allclose(into, score_of(bn.gamma), rtol=1e-9)
    out = score_of(conv2.weight.param).reshape(5, 9, 4).sum(axis=(0, 1))
    np.testing.assert_allclose(score_of(bn.gamma) + score_of(bn.beta), out, rtol=1e-9)
    into = score_of(conv2.weight.param).sum(axis=1) + score_of(conv2.bias)
    np.testing.assert_allclose(into, score_of(fc.weight.param).reshape(3, 5, 9).sum(axis=(0, 2)), rtol=1e-9)
    np.testing.assert_allclose(score_of(fc.weight.param).sum(), r, rtol=1e-9)


def test_with_a_shortcut_every_cut_carries_the_flow():
    network = conv_net(np.random.default_rng(0))  # no biases before fc, beta 0: every path starts at conv
    scores = {name: s.sum() for name, s in synaptic_flow(network).items()}
    r = flow(positive(network))
    np.testing.assert_allclose([scores["conv"], scores["fc"]], r, rtol=1e-9)
    np.testing.assert_allclose(scores["block.branch.conv1"], scores["block.branch.conv2"], rtol=1e-9)
    assert 0 < scores["block.branch.conv1"] < r  # the rest takes the shortcut


def test_score_is_the_derivative_times_the_weight():
    work = positive(mlp((4, 3, 2), np.random.default_rng(1)))
    scores = synaptic_flow(work)
    h = 1e-6
    for name, layer in work.prunable().items():
        full = layer.weight.dense().copy()
        for entry in np.ndindex(full.shape):
            values = []
            for sign in (1, -1):
                value = full.copy()
                value[entry] *= 1 + sign * h
                layer.weight.assign(value)
                values.append(flow(work))
            np.testing.assert_allclose((values[0] - values[1]) / (2 * h), scores[name][entry], rtol=1e-6)
        layer.weight.assign(full)


def test_signs_and_data_play_no_part_and_gauge_cancels():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((6, 5)), rng.standard_normal((4, 6))
    plain, c = synaptic_flow(chain(a, b)), rng.uniform(0.1, 10, 6)
    flipped = synaptic_flow(chain(a * rng.choice([-1, 1], a.shape), -b))
    gauged = synaptic_flow(chain(a * c[:, None], b / c))
    scaled = synaptic_flow(chain(4 * a, b))
    for name, score in plain.items():
        np.testing.assert_array_equal(flipped[name], score)
        np.testing.assert_allclose(gauged[name], score, rtol=1e-12)
        np.testing.assert_array_equal(scaled[name], 4 * score)
    masks = [prune(chain(a, b), SynFlow(0.6), seed=s).masks() for s in range(2)]
    assert all((masks[0][name] == masks[1][name]).all() for name in plain)


def test_every_parameter_and_buffer_is_made_absolute():
    rng = np.random.default_rng(0)
    network = conv_net(rng, np.float32)
    for array in [*(p.value for p in network.params().values()), *network.buffers().values()]:
        array[...] = rng.standard_normal(array.shape)
    before, after = network.state(), positive(network).state()
    for key, value in before.items():
        assert (value < 0).any() and after[key].dtype == np.float64
        np.testing.assert_array_equal(after[key], np.abs(value))


def test_signs_come_back():
    network = prune(chain(W1, W2), SynFlow(0.5))
    np.testing.assert_array_equal(network.prunable()["fc2"].weight.dense(), [[0, -5]])
    np.testing.assert_array_equal(network.prunable()["fc1"].weight.dense(), [[0, 0], [3, 0.5]])


@pytest.mark.parametrize("seed", range(5))
def test_one_weight_at_a_time_ends_in_one_whole_path_however_few_are_left(seed):
    network = mlp((4, 5, 6, 3), np.random.default_rng(seed), biases=False)
    size = sum(layer.weight.size for layer in network.prunable().values())
    # 3 of 68 kept: the density falls by less than a weight a round
    last = prune(network, SynFlow(1 - 3 / size, Exponential(400)))
    matrices = [layer.weight.dense() for layer in last.prunable().values()]
    assert [np.count_nonzero(m) for m in matrices] == [1, 1, 1]
    (a, b, c) = (np.argwhere(m)[0] for m in matrices)
    assert a[0] == b[1] and b[0] == c[1]
    paths = product(range(4), range(5), range(6), range(3))
    w = [np.abs(layer.weight.dense()) for layer in network.prunable().values()]
    best = max(w[0][j, i] * w[1][k, j] * w[2][o, k] for i, j, k, o in paths)
    assert flow(positive(last)) <= best * (1 + 1e-12)


def test_all_at_once_would_have_emptied_a_layer():
    # both layers carry R: split among 6 weights in fc1 and 192 in fc2, whose scores are small therefore
    rng = np.random.default_rng(0)
    network = mlp((2, 3, 64), rng, biases=False)
    sparsity = 1 - 4 / 198
    once, rounds = (prune(network, SynFlow(sparsity, s)) for s in (OneShot(0.0), Exponential(300)))
    assert once.prunable()["fc2"].weight.kept == 0
    assert rounds.prunable()["fc2"].weight.kept >= 1
    assert rounds.prunable()["fc1"].weight.kept + rounds.prunable()["fc2"].weight.kept == 4


def test_depth_beyond_single_precision_is_ranked():
    rng = np.random.default_rng(0)
    matrices = [100 * rng.standard_normal((12, 12)).astype(np.float32) for _ in range(30)]
    network = chain(*matrices).astype(np.float32)
    scores = synaptic_flow(network)
    assert max(s.max() for s in scores.values()) > np.finfo(np.float32).max
    pruned = prune(network, SynFlow(0.9))
    assert sum(x.weight.kept for x in pruned.prunable().values()) == kept_count(30 * 144, 0.9)
    assert flow(positive(pruned)) > 0


def test_default_is_a_hundred_exponential_rounds():
    assert SynFlow().schedule == Exponential(100)
    levels = SynFlow(0.99).schedule.levels(0, 10, 0.99)
    assert len(levels) == 100 and abs(1 - levels[49] - 0.1) < 1e-12
    assert abs((1 - levels[1]) / (1 - levels[0]) - 0.954993) < 1e-6
    assert SynFlow(0.9, LinearSchedule()).schedule == LinearSchedule()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "gelu"])
def test_bounded_and_curved_activations_are_refused(activation):
    network = mlp((4, 3, 2), np.random.default_rng(0), activation=activation)
    with pytest.raises(MethodError, match="homogeneous"):
        SynFlow().check(network)
    SynFlow().check(mlp((4, 3, 2), np.random.default_rng(0), activation="leaky-relu"))


def test_scoring_leaves_the_network_alone():
    network = conv_net(np.random.default_rng(0), np.float32)
    before = network.state()
    synaptic_flow(network)
    for key, value in network.state().items():
        assert value.dtype == before[key].dtype
        np.testing.assert_array_equal(value, before[key])
