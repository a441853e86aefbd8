"""What every reparametrised weight promises, and the gradients of each against the complex step."""

import copy

import numpy as np
import pytest

from minisparse.errors import MethodError
from minisparse.nn import EVAL, SGD, Adam, Conv2d, Linear, MaskedWeight, Mode, Network, Window
from minisparse.weights.hard_concrete import HardConcreteWeight
from minisparse.weights.movement import MovementWeight
from minisparse.weights.powerprop import PowerWeight
from minisparse.weights.reparametrised import logistic
from minisparse.weights.soft_threshold import SoftThresholdWeight
from minisparse.weights.straight_through import RefinedWeight
from minisparse.weights.variational import VariationalWeight
from tests.weights.checks import WINDOW, check, masked, modes


def variational(weight, rng):
    made = VariationalWeight(weight, -3.0, 3.0, 1.0)
    made.noise.set(rng.uniform(-9, 6, weight.shape))  # some clipped on either side, some absent
    return made


def gated(weight, rng):
    log_a = rng.uniform(-4, 4, weight.shape)
    return HardConcreteWeight(weight, log_a, lambda z: z, lambda a: a, 1.0)


def gated_rows(weight, rng):
    spread = lambda z: np.repeat(z[:, None], 12, axis=1)  # noqa: E731
    return HardConcreteWeight(weight, rng.uniform(-2, 2, 4), spread, lambda a: a.sum(axis=1), 1.0)


SMOOTH = {
    "powerprop": lambda w, rng: PowerWeight(w, 1.7),
    "powerprop of 1": lambda w, rng: PowerWeight(w, 1.0),
    "soft threshold": lambda w, rng: SoftThresholdWeight(w, -1.0),
    "variational": variational,
    "hard concrete": gated,
    "hard concrete rows": gated_rows,
}
ESTIMATED = {
    "movement": lambda w, rng: MovementWeight(w, 1.0),
    "sr-ste": lambda w, rng: RefinedWeight(w, 0.1),
}
ALL = SMOOTH | ESTIMATED


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("mode", ["evaluation", "training"])
@pytest.mark.parametrize("kind", SMOOTH)
def test_gradients_are_the_complex_step(kind, mode, image, share):
    rng = np.random.default_rng(0)
    weight = SMOOTH[kind](masked(rng, share), rng)
    check(weight, rng, modes(3)[mode], image)


@pytest.mark.parametrize("kind", ALL)
def test_in_evaluation_it_is_the_masked_weight_of_its_matrix(kind):
    rng = np.random.default_rng(1)
    weight = ALL[kind](masked(rng, 0.7), rng)
    plain = MaskedWeight(weight.dense(), weight.geometry, weight.mask)
    np.testing.assert_array_equal(plain.dense(), weight.dense())
    assert weight.kept == np.count_nonzero(weight.mask) == plain.kept
    assert (weight.shape, weight.size) == (plain.shape, plain.size)
    x, dy, images = (
        rng.standard_normal((5, 12)),
        rng.standard_normal((5, 4)),
        rng.standard_normal((3, 4, 4, 2)),
    )
    np.testing.assert_array_equal(weight.apply(x, EVAL), plain.apply(x, EVAL))
    np.testing.assert_array_equal(weight.pull(dy), plain.pull(dy))
    y = weight.correlate(images, WINDOW, EVAL)
    np.testing.assert_allclose(y, plain.correlate(images, WINDOW, EVAL), rtol=1e-13)
    back = weight.correlate_pull(y, WINDOW, (4, 4))
    np.testing.assert_allclose(back, plain.correlate_pull(y, WINDOW, (4, 4)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ALL)
def test_layers_serve_it_in_either_precision(kind):
    rng = np.random.default_rng(2)
    conv = Conv2d(ALL[kind](masked(rng), rng), Window.of((3, 2)), rng.standard_normal(4))
    network = Network({"conv": conv}, (2, 5, 5))
    x = rng.standard_normal((3, 2, 5, 5))
    single = network.astype(np.float32)
    for mode in (EVAL, Mode(True, np.random.default_rng(0))):
        again = Mode(True, np.random.default_rng(0)) if mode.training else EVAL
        y = network.forward(x, mode)
        small = single.forward(x.astype(np.float32), again)
        assert small.dtype == np.float32
        np.testing.assert_allclose(small, y, rtol=1e-3, atol=1e-4)
        network.backward(np.ones_like(y))
        single.backward(np.ones_like(small))
        for key, p in network.params().items():
            assert single.params()[key].grad.dtype == np.float32
            np.testing.assert_allclose(single.params()[key].grad, p.grad, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", SMOOTH)
def test_an_imposed_mask_clears_what_it_removes(kind):
    rng = np.random.default_rng(3)
    weight = ALL[kind](masked(rng), rng)
    before = {k: p.value.copy() for k, p in weight.params().items()}
    mask = rng.random(weight.shape) < 0.5
    sources = weight.rewire(mask)
    assert not weight.dense()[~mask].any() and not (weight.mask & ~mask).any()
    for key, p in weight.params().items():
        if p.value.shape == mask.shape:
            np.testing.assert_array_equal(p.value, np.where(mask, before[key], 0))
            np.testing.assert_array_equal(sources[key], np.where(mask.ravel(), np.arange(mask.size), -1))
    weight.rewire(np.ones_like(mask))
    assert not weight.dense()[~mask].any()


@pytest.mark.parametrize("kind", ALL)
def test_assigning_sets_the_matrix_where_it_is_present(kind):
    rng = np.random.default_rng(4)
    weight = ALL[kind](masked(rng, 0.7), rng)
    mask, wanted = weight.mask, rng.choice([-1.0, 1.0], weight.shape) * rng.uniform(0.5, 1, weight.shape)
    weight.assign(wanted)
    np.testing.assert_allclose(weight.dense()[mask], wanted[mask], rtol=1e-12)
    assert not weight.dense()[~weight.mask].any()


@pytest.mark.parametrize("kind", ALL)
def test_copies_are_independent_and_second_order_is_refused(kind):
    rng = np.random.default_rng(5)
    weight = ALL[kind](masked(rng), rng)
    twin, dense = copy.deepcopy(weight), weight.dense()
    for p in twin.params().values():
        p.value[...] = 7
    np.testing.assert_array_equal(weight.dense(), dense)
    for second in (weight.rdense, lambda: weight.rpullback(*[np.ones((2, 2))] * 4)):
        with pytest.raises(MethodError, match="second-order"):
            second()


@pytest.mark.parametrize("kind", ESTIMATED)
def test_a_shut_gate_keeps_the_value_behind_it(kind):
    rng = np.random.default_rng(6)
    weight = ESTIMATED[kind](masked(rng), rng)
    dense, mask = weight.dense(), rng.random(weight.shape) < 0.4
    assert weight.rewire(mask) == {}
    np.testing.assert_array_equal(weight.dense(), dense * mask)
    np.testing.assert_array_equal(weight.mask, mask)
    weight.rewire(np.ones_like(mask))
    np.testing.assert_array_equal(weight.dense(), dense)


def test_straight_through_gradients():
    rng = np.random.default_rng(7)
    x, dy, mask = rng.standard_normal((6, 12)), rng.standard_normal((6, 4)), rng.random((4, 12)) < 0.5
    for kind, make in ESTIMATED.items():
        weight = make(masked(rng), rng)
        weight.rewire(mask)
        theta, dw = weight.theta.value, dy.T @ x
        weight.apply(x, EVAL)
        weight.pullback(x, dy)
        if kind == "movement":
            np.testing.assert_allclose(weight.theta.grad, dw * mask, rtol=1e-13)
            np.testing.assert_allclose(weight.score.grad, dw * theta, rtol=1e-13)
        else:
            np.testing.assert_allclose(weight.theta.grad, dw + 0.1 * ~mask * theta, rtol=1e-12, atol=1e-14)


def test_a_pruned_network_can_be_trained_further_with_gates():
    rng = np.random.default_rng(8)
    start = masked(rng, 0.5)
    weight = RefinedWeight(start, 0.0)
    np.testing.assert_array_equal(weight.mask, start.mask)
    x, dy = rng.standard_normal((6, 12)), rng.standard_normal((6, 4))
    weight.apply(x, EVAL)
    weight.pullback(x, dy)
    assert weight.theta.grad[~start.mask].all()


def test_logistic():
    x = np.array([-1000.0, -5, 0, 5, 1000])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(logistic(x), 1 / (1 + np.exp(-x)), rtol=1e-12, atol=1e-16)
    assert logistic(np.array([-40.0]))[0] == 0


def test_linear_layers_too():
    rng = np.random.default_rng(9)
    for make in ALL.values():
        layer = Linear(make(MaskedWeight(rng.standard_normal((4, 12)), (4, 2, 3, 2)), rng))
        y = layer.forward(rng.standard_normal((5, 12)))
        assert layer.backward(np.ones_like(y)).shape == (5, 12)


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.9), Adam])
def test_a_parameter_may_move_at_a_rate_of_its_own(optimizer):
    steps = {}
    for rate, lr in ((4.0, 0.1), (1.0, 0.4)):
        weight = MovementWeight(MaskedWeight(np.ones((2, 3))), rate)
        network, found = Network({"fc": Linear(weight)}, (3,)), optimizer()
        for _ in range(3):
            weight.score.grad[...] = [[1.0, -2.0, 0.5]] * 2
            found.step(network, lr)
        steps[rate] = weight.score.value
    np.testing.assert_allclose(steps[4.0], steps[1.0], rtol=1e-14)
