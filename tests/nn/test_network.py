"""Network: names, shapes, copies, types, state, and which outputs depend on the inputs."""

import numpy as np
import pytest
from hypothesis import given

from minisparse.errors import ShapeError, UsageError
from minisparse.nn import (
    Activation,
    BatchNorm1d,
    Conv2d,
    CrossEntropy,
    Dropout,
    Flatten,
    Linear,
    MaskedWeight,
    Network,
    Residual,
    Sequence,
    SubsamplePad,
    Window,
    models,
)
from tests.architectures import SMALL, random_network, random_problem
from tests.nn.zoo import BATCH
from tests.strategies import SETTINGS, generators, problems


def small(rng=None):
    rng = rng or np.random.default_rng(0)
    mask = np.array([[True, False, True, True]] * 3)
    layers = {
        "fc1": Linear(MaskedWeight(rng.standard_normal((3, 4)), mask=mask), rng.standard_normal(3)),
        "norm": BatchNorm1d(3),
        "block": Residual(Sequence({"fc": Linear(MaskedWeight(rng.standard_normal((3, 3))))})),
        "act": Activation("relu"),
        "fc2": Linear(MaskedWeight(rng.standard_normal((2, 3))), rng.standard_normal(2)),
    }
    return Network(layers, (4,), "small").astype(np.float64)


def arrays(network):
    """Every array a network owns, by name."""
    found = {}
    for k, p in network.params().items():
        found |= {f"{k} value": p.value, f"{k} grad": p.grad}
    return found | network.buffers()


def test_names_in_the_order_data_flows():
    net = small()
    assert list(net.params()) == [
        "fc1.weight", "fc1.bias", "norm.weight", "norm.bias", "block.branch.fc.weight", "fc2.weight",
        "fc2.bias",
    ]  # fmt: skip
    assert list(net.buffers()) == ["norm.running_mean", "norm.running_var"]
    assert list(net.prunable()) == list(net.masks()) == ["fc1", "block.branch.fc", "fc2"]
    names = [name for name, _ in net.walk()]
    assert names == [
        "fc1",
        "norm",
        "block",
        "block.branch",
        "block.branch.fc",
        "block.shortcut",
        "act",
        "fc2",
    ]
    assert (net.outputs, net.input_shape, net.name) == (2, (4,), "small")
    assert net.positions() == {"fc1": 1, "block.branch.fc": 1, "fc2": 1}


def test_positions_of_convolutions():
    conv = Conv2d(MaskedWeight(np.ones((2, 9)), (2, 1, 3, 3)), Window.of(3, (2, 1), 1))
    layers = {"conv": conv, "flatten": Flatten(), "fc": Linear(MaskedWeight(np.ones((2, 30))))}
    net = Network(layers, (1, 6, 5))
    assert net.positions() == {"conv": 15, "fc": 1}
    assert conv.positions((1, 6, 5)) == 15


def test_the_first_layer_that_does_not_fit_is_named():
    layers = {"fc1": Linear(MaskedWeight(np.ones((3, 4)))), "fc2": Linear(MaskedWeight(np.ones((2, 5))))}
    message = r"layer 1 'fc2': Linear input: got sample shape \(3,\), expected \(5,\)"
    with pytest.raises(ShapeError, match=message):
        Network(layers, (4,))
    for shape in ((), (0,), (3, 0, 2)):
        with pytest.raises(ShapeError, match="network input"):
            Network({}, shape)


def test_inputs_are_reshaped_to_the_samples_shape():
    net = Network({"flatten": Flatten(), "fc": Linear(MaskedWeight(np.ones((2, 12))))}, (3, 2, 2))
    x = np.arange(24.0).reshape(2, 12)
    np.testing.assert_array_equal(net.forward(x), net.forward(x.reshape(2, 3, 2, 2)))
    net.forward(x)
    assert net.backward(np.ones((2, 2))).shape == (2, 3, 2, 2)


@SETTINGS
@given(problems(SMALL))
def test_gradients_without_the_inputs_gradient(problem):
    """Nothing is pulled through layers below the first that is trained, and no gradient changes."""
    net, loss = problem.network, problem.loss
    loss.value(net.forward(problem.x), problem.target)
    net.backward(loss.grad())
    grads = {k: p.grad.copy() for k, p in net.params().items()}
    assert net.backward(loss.grad(), need_dx=False) is None
    for k, p in net.params().items():
        np.testing.assert_array_equal(p.grad, grads[k])


def test_no_product_is_spent_on_an_unwanted_gradient(monkeypatch):
    net = Network({"flatten": Flatten(), **small().layers}, (2, 2))
    calls = []
    pull = MaskedWeight.pull
    monkeypatch.setattr(MaskedWeight, "pull", lambda self, dy: (calls.append(self), pull(self, dy))[1])
    net.forward(np.ones((3, 4)))
    net.backward(np.ones((3, 2)), need_dx=False)
    first = net.prunable()["fc1"].weight
    assert len(calls) == 2
    assert first not in calls
    net.backward(np.ones((3, 2)))
    assert len(calls) == 5


def test_prediction_in_pieces():
    net, x = small(), np.random.default_rng(1).standard_normal((10, 4))
    whole = net.forward(x)
    for batch in (1, 3, 10, 99):
        np.testing.assert_allclose(net.predict(x, batch), whole, rtol=1e-13)


@SETTINGS
@given(generators)
def test_a_copy_is_independent(rng):
    net = random_network(rng, SMALL)
    for p in net.params().values():
        p.grad[...] = 1
    twin = net.copy()
    mine, theirs = arrays(net), arrays(twin)
    assert mine.keys() == theirs.keys()
    for k in mine:
        np.testing.assert_array_equal(mine[k], theirs[k])
        assert not np.shares_memory(mine[k], theirs[k])
        theirs[k] += 1
    for k in mine:
        assert (mine[k] != theirs[k]).all()
    masks = net.masks()
    for layer in twin.prunable().values():
        layer.weight.rewire(np.zeros(layer.weight.shape, dtype=bool))
    for k, mask in net.masks().items():
        np.testing.assert_array_equal(mask, masks[k])


def test_copies_carry_no_activations():
    net = small()
    net.layers["drop"] = Dropout(0.5)
    net.backward(np.ones_like(net.forward(np.ones((BATCH, 4)))))
    twin = net.copy()
    for _, layer in twin.walk():
        for value in vars(layer).values():
            assert not (isinstance(value, np.ndarray) and BATCH in value.shape)


@SETTINGS
@given(problems(SMALL))
def test_types_there_and_back(problem):
    net = problem.network
    x = problem.x
    y, state = net.forward(x), net.state()
    for dtype in (np.float64, np.complex128):
        other = net.astype(dtype)
        assert other.dtype == dtype
        np.testing.assert_allclose(other.forward(x.astype(dtype)), y, rtol=1e-12, atol=1e-12)
        for k, value in other.state().items():
            np.testing.assert_array_equal(value, state[k])
    narrow = net.astype(np.float32)
    assert {a.dtype for a in narrow.state().values()} == {np.dtype(np.float32)}
    assert narrow.forward(x.astype(np.float32)).dtype == np.float32
    for k, value in narrow.astype(np.float64).state().items():
        np.testing.assert_array_equal(value, state[k].astype(np.float32))
    for k, mask in narrow.masks().items():
        np.testing.assert_array_equal(mask, net.masks()[k])
    np.testing.assert_array_equal(net.forward(x), y)  # the original is untouched


def test_float32_networks_train_in_float32():
    """Forward, loss, backward and update of a float32 network touch no wider number."""
    for seed in range(20):
        problem = random_problem(np.random.default_rng(seed), SMALL)
        net = problem.network.astype(np.float32)
        y = net.forward(problem.x.astype(np.float32))
        value = problem.loss.value(y, problem.target)
        dx = net.backward(problem.loss.grad())
        assert {y.dtype, dx.dtype, np.asarray(value).dtype} == {np.dtype(np.float32)}
        assert {p.grad.dtype for p in net.params().values()} == {np.dtype(np.float32)}
        wide = problem.network
        problem.loss.value(wide.forward(problem.x), problem.target)
        wide.backward(problem.loss.grad())
        for k, p in net.params().items():
            exact = wide.params()[k].grad
            np.testing.assert_allclose(p.grad, exact, rtol=1e-3, atol=2e-5 * max(1, np.abs(exact).max()))


@SETTINGS
@given(generators)
def test_state_and_restore(rng):
    net = random_network(rng, SMALL)
    state = net.state()
    owned = {k: p.value for k, p in net.params().items()} | net.buffers()
    assert state.keys() == owned.keys()
    for k, value in owned.items():
        assert not np.shares_memory(value, state[k])
        value += rng.standard_normal(value.shape)
    net.restore(state)
    for k, value in owned.items():
        np.testing.assert_array_equal(value, state[k])  # in place: the same arrays hold the old numbers


def test_restore_keeps_absent_entries_at_zero():
    """A network pruned since the state was taken: what is absent now stays absent (rewinding)."""
    net = small()
    state = net.state()
    layer = net.prunable()["fc2"]
    layer.weight.rewire(np.array([[True, False, False], [False, True, True]]))
    net.restore(state)
    np.testing.assert_array_equal(layer.weight.dense(), state["fc2.weight"] * layer.weight.mask)


def positive(net):
    """All weights and inputs positive: nothing cancels, so what is connected has a gradient."""
    for p in net.params().values():
        p.value[...] = np.abs(p.value)
    return net


@SETTINGS
@given(generators)
def test_reach_finds_exactly_the_outputs_that_depend_on_inputs(rng):
    widths = rng.integers(1, 5, 4)
    layers = {}
    for k, (i, o) in enumerate(zip(widths, widths[1:], strict=False)):
        mask = rng.random((o, i)) < 0.4
        layers[f"fc{k}"] = Linear(MaskedWeight(rng.standard_normal((o, i)), mask=mask), np.ones(o))
        layers[f"act{k}"] = Activation("relu")
    net = positive(Network(layers, (int(widths[0]),)))
    net.forward(np.ones((1, widths[0])))
    dependent = net.pull(np.eye(widths[-1])[:, None])[:, 0].any(axis=1)
    np.testing.assert_array_equal(net.reach(np.ones((1, widths[0])))[0] > 0, dependent)


@SETTINGS
@given(generators)
def test_reach_of_convolutions_and_shortcuts(rng):
    mask = rng.random((3, 18)) < 0.1
    conv = Conv2d(MaskedWeight(rng.standard_normal((3, 18)), (3, 2, 3, 3), mask), Window.of(3, 2, 1))
    branch = Sequence({"conv": conv, "act": Activation("softplus")})
    pad = Sequence({"pad": SubsamplePad(2, 3)}) if rng.random() < 0.5 else None
    block = Residual(branch, pad) if pad else branch
    net = positive(Network({"block": block, "flatten": Flatten()}, (2, 4, 4)))
    net.forward(np.ones((1, 2, 4, 4)))
    dependent = net.pull(np.eye(12)[:, None]).reshape(12, -1).any(axis=1)
    np.testing.assert_array_equal(net.reach(np.ones((1, 2, 4, 4)))[0] > 0, dependent)


def test_a_copy_leaves_the_activations_of_its_original():
    network = models.make("mlp:4-3-2", (4,), 2)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    y = network.forward(x)
    network.copy()
    network.backward(np.ones_like(y))
    assert network.params()["fc1.weight"].grad.any()


def test_predicting_nothing_gives_no_rows():
    network = models.make("mlp:4-3-2", (4,), 2)
    assert network.predict(np.zeros((0, 4), dtype=np.float32)).shape == (0, 2)


@pytest.mark.parametrize("label", [-1, 2])
def test_class_labels_out_of_range_are_refused(label):
    with pytest.raises(UsageError, match="expected 0 to 1"):
        CrossEntropy().value(np.zeros((1, 2)), np.array([label]))
