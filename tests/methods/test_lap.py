"""LAP: the score is the distortion of a product of layers, whatever lies between them."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.methods.saliency.lap import LAP, lookahead
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.methods.saliency.neighbours import neighbours
from minisparse.nn.activation import Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm1d, BatchNorm2d
from minisparse.nn.pool import Flatten, MaxPool2d
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.sparsity import NM, Global, OneShot, Row, Uniform, kept_count
from tests.methods.problems import chain, conv_net, mlp, state_of

NOW = OneShot(0.0)
TIGHT = {"rtol": 1e-12, "atol": 1e-14}


def state(network):
    return state_of(network, np.zeros((2, *network.input_shape)), np.zeros(2, dtype=int))


def scores(network):
    return LAP().score(state(network))


def pruned(network, method=LAP, **settings):
    copy = network.copy()
    method(**{"schedule": NOW, "sparsity": 0.5} | settings).setup(state(copy))
    return copy.masks()


def same(a, b):
    return all((a[name] == b[name]).all() for name in a)


def distortions(product, weight):
    """||product(W) - product(W without one weight)||_F for every weight."""
    full, found = product(weight), np.empty(weight.shape)
    for place in np.ndindex(weight.shape):
        less = weight.copy()
        less[place] = 0
        found[place] = np.linalg.norm(full - product(less))
    return found


def test_on_a_linear_network_the_score_is_the_distortion_of_the_product():
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(s) for s in ((4, 3), (5, 4), (2, 5)))
    found = scores(chain(a, b, c))
    np.testing.assert_allclose(found["fc2"], distortions(lambda w: c @ w @ a, b), **TIGHT)
    np.testing.assert_allclose(found["fc1"], distortions(lambda w: b @ w, a), **TIGHT)
    np.testing.assert_allclose(found["fc3"], distortions(lambda w: w @ b, c), **TIGHT)


def norm_of(rng, layer, width):
    layer.gamma.set(rng.standard_normal(width))
    layer.running_mean, layer.running_var = rng.standard_normal(width), rng.uniform(0.3, 3, width)
    return layer, np.diag(layer.gamma.value / np.sqrt(layer.running_var + layer.eps))


def test_batchnorm_belongs_to_the_product():
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(s) for s in ((4, 3), (5, 4), (2, 5)))
    (n1, d1), (n2, d2) = norm_of(rng, BatchNorm1d(4), 4), norm_of(rng, BatchNorm1d(5), 5)
    fc1, fc2, fc3 = (Linear(MaskedWeight(w)) for w in (a, b, c))
    layers = {"fc1": fc1, "n1": n1, "act": Activation("relu"), "fc2": fc2, "n2": n2, "fc3": fc3}
    found = scores(Network(layers, (3,)))
    np.testing.assert_allclose(found["fc2"], distortions(lambda w: c @ d2 @ w @ d1 @ a, b), **TIGHT)
    np.testing.assert_allclose(found["fc1"], distortions(lambda w: b @ d1 @ w, a), **TIGHT)
    np.testing.assert_allclose(found["fc3"], distortions(lambda w: w @ d2 @ b, c), **TIGHT)


def test_a_residual_sum_puts_the_weights_of_its_paths_side_by_side():
    rng = np.random.default_rng(2)
    a, b, c = (rng.standard_normal(s) for s in ((4, 3), (4, 4), (2, 4)))
    block = Residual(Sequence({"fc2": Linear(MaskedWeight(b))}))
    net = Network({"fc1": Linear(MaskedWeight(a)), "block": block, "fc3": Linear(MaskedWeight(c))}, (3,))
    found = scores(net)
    np.testing.assert_allclose(found["fc1"], distortions(lambda w: np.vstack([b, c]) @ w, a), **TIGHT)
    np.testing.assert_allclose(found["block.branch.fc2"], distortions(lambda w: c @ w @ a, b), **TIGHT)
    np.testing.assert_allclose(found["fc3"], distortions(lambda w: w @ np.hstack([b, a]), c), **TIGHT)


def kernel(layer):
    """(out, channels, kh, kw) of a convolution."""
    out, channels, kh, kw = layer.weight.geometry
    return layer.weight.dense().reshape(out, kh, kw, channels).transpose(0, 3, 1, 2)


def conv(rng, channels, out, size=3):
    value = rng.standard_normal((out, size * size * channels))
    return Conv2d(MaskedWeight(value, (out, channels, size, size)), Window.of(size, padding=size // 2))


def test_norms_of_filters_channels_and_flattened_images():
    rng = np.random.default_rng(3)
    first, second = conv(rng, 2, 4), conv(rng, 4, 3)
    norm, factors = norm_of(rng, BatchNorm2d(4), 4)
    last = Linear(MaskedWeight(rng.standard_normal((5, 3 * 4))))
    layers = {"c1": first, "n": norm, "c2": second, "pool": MaxPool2d(Window.of(2, 2)), "flat": Flatten()}
    around = neighbours(Network({**layers, "fc": last}, (2, 4, 4)))
    k1, k2, b = kernel(first), kernel(second), np.abs(np.diag(factors))
    fed, read = around["c2"]
    for column in range(36):  # the channel is fastest
        np.testing.assert_allclose(fed[column], b[column % 4] * np.linalg.norm(k1[column % 4]), **TIGHT)
    w = last.weight.dense().reshape(5, 3, 4)  # flattening: channel, row, column
    np.testing.assert_allclose(read, [np.linalg.norm(w[:, j]) for j in range(3)], **TIGHT)
    np.testing.assert_allclose(around["c1"][1], [b[j] * np.linalg.norm(k2[:, j]) for j in range(4)], **TIGHT)
    np.testing.assert_array_equal(around["c1"][0], np.ones(18))
    np.testing.assert_allclose(around["fc"][0], np.repeat([np.linalg.norm(k) for k in k2], 4), **TIGHT)


def test_channels_added_by_a_shortcut_are_fed_by_the_branch_alone():
    rng = np.random.default_rng(4)
    first, inner, last = conv(rng, 2, 2), conv(rng, 2, 3), conv(rng, 3, 1)
    block = Residual(Sequence({"c": inner}), Sequence({"pad": SubsamplePad(1, 3)}))
    net = Network({"a": first, "block": block, "z": last, "flat": Flatten()}, (2, 3, 3))
    fed = neighbours(net)["z"][0][:3]
    own = np.array([np.linalg.norm(k) for k in kernel(inner)])
    through = np.array([*(np.linalg.norm(k) for k in kernel(first)), 0.0])
    np.testing.assert_allclose(fed, np.hypot(own, through), **TIGHT)


def test_a_small_example():
    w1, w2 = np.array([[1.0, 2], [3, 4]]), np.diag([1, 0.1])
    np.testing.assert_allclose(scores(chain(w1, w2))["fc1"], [[1, 2], [0.3, 0.4]])
    assert pruned(chain(w1, w2))["fc1"].tolist() == [[True, True], [False, False]]
    magnitude = pruned(chain(w1, w2), Magnitude, allocation=Uniform())["fc1"]
    assert magnitude.tolist() == [[False, False], [True, True]]


def test_between_orthonormal_neighbours_it_is_magnitude():
    rng = np.random.default_rng(5)
    q1, q3 = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    w = rng.standard_normal((6, 6))
    np.testing.assert_allclose(scores(chain(q1, w, q3))["fc2"], np.abs(w), **TIGHT)
    np.testing.assert_array_equal(scores(chain(w))["fc1"], np.abs(w))


def test_rescaling_hidden_units_is_not_seen_by_the_two_layers_it_touches():
    rng = np.random.default_rng(6)
    matrices = [rng.standard_normal(s) for s in ((4, 3), (5, 4), (6, 5), (2, 6))]
    c = rng.uniform(0.2, 5, 5)
    scaled = [matrices[0], c[:, None] * matrices[1], matrices[2] / c, matrices[3]]
    before, after = scores(chain(*matrices)), scores(chain(*scaled))
    for name in ("fc2", "fc3"):
        np.testing.assert_allclose(after[name], before[name], **TIGHT)
    for name in ("fc1", "fc4"):
        assert not np.allclose(after[name], before[name])


def test_permuting_hidden_units_permutes_scores():
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((5, 3)), rng.standard_normal((2, 5))
    order = rng.permutation(5)
    plain, moved = scores(chain(a, b)), scores(chain(a[order], b[:, order]))
    np.testing.assert_allclose(moved["fc1"], plain["fc1"][order], **TIGHT)
    np.testing.assert_allclose(moved["fc2"], plain["fc2"][:, order], **TIGHT)


def one_by_one(matrices, names, sparsity):
    """Masks by the plain rule: each layer in turn, its neighbours as they are by then."""
    w = [m.copy() for m in matrices]
    for k in names:
        fed = np.linalg.norm(w[k - 1], axis=1) if k else np.ones(w[k].shape[1])
        read = np.linalg.norm(w[k + 1], axis=0) if k + 1 < len(w) else np.ones(len(w[k]))
        score = lookahead(w[k], fed, read).ravel()
        keep = np.argsort(-score, kind="stable")[: kept_count(w[k].size, sparsity)]
        mask = np.zeros(w[k].size, dtype=bool)
        mask[keep] = True
        w[k] *= mask.reshape(w[k].shape)
    return [m != 0 for m in w]


def test_forward_and_backward_see_what_is_pruned_already():
    rng = np.random.default_rng(8)
    matrices = [rng.standard_normal(s) for s in ((8, 5), (8, 8), (4, 8))]
    masks = {order: pruned(chain(*matrices), order=order, sparsity=0.75) for order in ("forward", "backward")}
    for order, names in (("forward", (0, 1, 2)), ("backward", (2, 1, 0))):
        expected = one_by_one(matrices, names, 0.75)
        for got, want in zip(masks[order].values(), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    together = pruned(chain(*matrices), sparsity=0.75)
    assert not same(masks["forward"], masks["backward"])
    assert not same(masks["forward"], together) and not same(masks["backward"], together)


def test_rounds_remove_equal_numbers():
    network = mlp((10, 20, 10), np.random.default_rng(9))
    seen, copy = [], network.copy()
    st, rewire = state(copy), type(state(copy)).rewire

    class Watched(type(st)):
        def rewire(self, masks):
            rewire(self, masks)
            seen.append(sum(int(m.sum()) for m in self.network.masks().values()))

    st.__class__ = Watched
    LAP(0.8, NOW, rounds=4).setup(st)
    assert seen == [320, 240, 160, 80]
    once = pruned(network, sparsity=0.8)
    assert not same(once, copy.masks())
    assert same(once, pruned(network, sparsity=0.8, rounds=1))


@pytest.mark.parametrize("order", ["together", "forward", "backward"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_counts_are_exact_with_every_order_and_allocation(order, rounds):
    for network in (mlp((7, 9, 5, 3), np.random.default_rng(0)), conv_net(np.random.default_rng(0))):
        size = sum(m.size for m in network.masks().values())
        for allocation in (Uniform(), Global()):
            masks = pruned(network, order=order, rounds=rounds, allocation=allocation, sparsity=0.83)
            assert sum(int(m.sum()) for m in masks.values()) == kept_count(size, 0.83)


def test_patterns_keep_their_form_in_every_order():
    network = mlp((8, 8, 8), np.random.default_rng(0))
    for order in ("together", "forward"):
        nm = pruned(network, order=order, pattern=NM(2, 4), rounds=2)
        assert all((m.reshape(-1, 4).sum(axis=1) == 2).all() for m in nm.values())
        rows = pruned(network, order=order, pattern=Row())
        assert all(set(m.sum(axis=1)) == {0, 8} and m.sum() == 32 for m in rows.values())


@pytest.mark.parametrize("settings", [{"order": "sideways"}, {"rounds": 0}, {"rounds": 1.5}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        LAP(**settings)
