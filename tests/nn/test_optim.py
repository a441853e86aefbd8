"""Optimisers against their equations by hand, and zeros that stay zero."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.nn import SGD, Adam, AdamW, Linear, MaskedWeight, Network
from minisparse.nn.init import orthogonal
from minisparse.nn.optim import OPTIMIZERS

TIGHT = {"rtol": 1e-13, "atol": 1e-15}
LR = 0.1


def network(value, mask=None, bias=None, dtype=np.float64):
    value = np.array(value, dtype=dtype)
    layer = Linear(MaskedWeight(value, mask=mask), None if bias is None else np.array(bias, dtype))
    return Network({"fc": layer}, (value.shape[1],))


def run(optimizer, w, grads, lr=LR, dtype=np.float64):
    """The weight after steps with these gradients."""
    net = network([w], dtype=dtype)
    p = net.params()["fc.weight"]
    for g in grads:
        p.grad[...] = g
        optimizer.step(net, lr)
    return p.value[0]


W, G1, G2 = np.array([1.0, -2.0, 0.0]), np.array([0.5, 0.25, -3.0]), np.array([-1.0, 2.0, 0.0])


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_sgd_by_hand(decay):
    w1 = W - LR * (G1 + decay * W)
    w2 = w1 - LR * (G2 + decay * w1)
    got = run(SGD(0.0, weight_decay=decay), W, [G1, G2])
    np.testing.assert_allclose(got, w2, **TIGHT)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_by_hand(decay, nesterov):
    mu = 0.8
    d1 = G1 + decay * W
    u1 = d1
    w1 = W - LR * (d1 + mu * u1 if nesterov else u1)
    d2 = G2 + decay * w1
    u2 = mu * u1 + d2
    w2 = w1 - LR * (d2 + mu * u2 if nesterov else u2)
    optimizer = SGD(mu, nesterov, decay)
    np.testing.assert_allclose(run(optimizer, W, [G1]), w1, **TIGHT)
    optimizer.reset()
    np.testing.assert_allclose(run(optimizer, W, [G1, G2]), w2, **TIGHT)
    np.testing.assert_allclose(optimizer.slots["fc.weight"]["u"][0], u2, **TIGHT)


def adam_by_hand(w, grads, decay, decoupled, b1=0.9, b2=0.999, eps=1e-8):
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        if decoupled:
            w = w - LR * decay * w
        else:
            g = g + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - LR * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_by_hand(kind, decay):
    for grads in ([G1], [G1, G2], [G1, G2, G1]):
        want = adam_by_hand(W, grads, decay, kind is AdamW)
        np.testing.assert_allclose(run(kind(weight_decay=decay), W, grads), want, **TIGHT)


def test_first_step_of_adam_is_the_sign():
    moved = run(Adam(eps=0.0), W, [G1 * 1e-3]) - W
    np.testing.assert_allclose(moved, -LR * np.sign(G1), **TIGHT)
    # in float32 too: the bias correction must undo exactly what the rounded 1 - beta2 did
    moved = run(Adam(eps=0.0), 0 * W, [G1 * 1e-3], dtype=np.float32)
    np.testing.assert_allclose(moved, -LR * np.sign(G1), rtol=3e-7)


def test_decay_of_adamw_is_decoupled():
    """The decay shrinks the weight by lr wd w and leaves the moments alone; in Adam it enters them."""
    plain, decayed = AdamW(), AdamW(weight_decay=0.5)
    a, b = run(plain, W, [G1]), run(decayed, W, [G1])
    np.testing.assert_allclose(a - b, LR * 0.5 * W, **TIGHT)
    for slot in ("m", "v"):
        np.testing.assert_array_equal(plain.slots["fc.weight"][slot], decayed.slots["fc.weight"][slot])
    coupled = Adam(weight_decay=0.5)
    run(coupled, W, [G1])
    np.testing.assert_allclose(coupled.slots["fc.weight"]["m"][0], 0.1 * (G1 + 0.5 * W), **TIGHT)


def test_weights_decay_and_biases_do_not():
    for optimizer in (SGD(0.0, weight_decay=0.5), SGD(0.9, weight_decay=0.5), AdamW(weight_decay=0.5)):
        net = network([[1.0, 2.0]], bias=[3.0])
        optimizer.step(net, LR)
        np.testing.assert_allclose(net.params()["fc.weight"].value, [[0.95, 1.9]], **TIGHT)
        assert net.params()["fc.bias"].value == [3.0]


OPTIMISERS = {
    "sgd": lambda: SGD(0.0, weight_decay=0.1),
    "momentum": lambda: SGD(0.9, weight_decay=0.1),
    "nesterov": lambda: SGD(0.9, True, weight_decay=0.1),
    "adam": lambda: Adam(weight_decay=0.1),
    "adam, eps 0": lambda: Adam(eps=0.0, weight_decay=0.1),
    "adamw": lambda: AdamW(weight_decay=0.1),
    "adamw, eps 0": lambda: AdamW(eps=0.0, weight_decay=0.1),
    "adam, no memory": lambda: Adam(beta1=0.0, beta2=0.0, eps=0.0),
}
every = pytest.mark.parametrize("name", OPTIMISERS)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absent_weights_stay_exactly_zero(name, dtype):
    """Weight, gradient and every slot of an absent entry, elementwise, after each of many steps."""
    rng = np.random.default_rng(0)
    mask = rng.random((6, 8)) < 0.4
    mask[2] = False
    net = network(rng.standard_normal((6, 8)), mask, np.zeros(6), dtype)
    optimizer = OPTIMISERS[name]()
    layer, p = net.prunable()["fc"], net.params()["fc.weight"]
    for _ in range(20):
        x = rng.standard_normal((5, 8)).astype(dtype)
        net.forward(x)
        layer.backward(rng.standard_normal((5, 6)).astype(dtype))
        optimizer.step(net, LR)
        arrays = [p.value, p.grad, *optimizer.slots["fc.weight"].values()]
        assert len(arrays) == 2 + len(optimizer.slot_names)
        for a in arrays:
            assert not a[~mask].any()
            assert (a[mask] != 0).all()
            assert a.dtype == dtype


@every
def test_remap_moves_slots_with_their_entries(name):
    rng = np.random.default_rng(1)
    optimizer = OPTIMISERS[name]()
    net = network(rng.standard_normal((2, 3)))
    net.params()["fc.weight"].grad[...] = rng.standard_normal((2, 3))
    optimizer.step(net, LR)
    before = {k: s.copy() for k, s in optimizer.slots["fc.weight"].items()}
    optimizer.remap("fc.weight", np.array([5, -1, 0, -1, 1, 4]))
    for k, old in before.items():
        want = [[old[1, 2], 0, old[0, 0]], [0, old[0, 1], old[1, 1]]]
        np.testing.assert_array_equal(optimizer.slots["fc.weight"][k], want)
    optimizer.remap("fc.weight", np.array([2, 0]))  # a stored-values weight may shrink
    for k, old in before.items():
        np.testing.assert_array_equal(optimizer.slots["fc.weight"][k], [old[0, 0], old[1, 2]])
    optimizer.remap("nobody", np.array([0]))
    optimizer.reset()
    assert (optimizer.slots, optimizer.t) == ({}, 0)


@every
def test_rewire_and_remap_keep_grown_slots_at_zero(name):
    """An entry that leaves and comes back starts anew."""
    rng = np.random.default_rng(2)
    net, optimizer = network(rng.standard_normal((3, 4))), OPTIMISERS[name]()
    p, weight = net.params()["fc.weight"], net.prunable()["fc"].weight
    p.grad[...] = 1
    optimizer.step(net, LR)
    stayed = rng.random((3, 4)) < 0.5
    for mask in (stayed, np.ones((3, 4), dtype=bool)):
        for key, source in weight.rewire(mask).items():
            optimizer.remap(f"fc.{key}", source)
        for a in [p.value, *optimizer.slots["fc.weight"].values()]:
            assert not a[~stayed].any()
            assert (a[stayed] != 0).all()


@every
def test_a_quadratic_is_solved(name):
    """L = 1/2 sum h (w - c)^2 with 10 : 1 curvature; the decay moves the solution to h c / (h + wd)."""
    h, c = np.array([1.0, 10.0, 3.0]), np.array([1.0, -2.0, 0.5])
    optimizer = OPTIMISERS[name]()
    net = network([[0.3, 0.3, 0.3]])
    p = net.params()["fc.weight"]
    lr = 0.05
    for t in range(3000):
        p.grad[0] = h * (p.value[0] - c)
        optimizer.step(net, lr * 0.997**t)
    decay = optimizer.weight_decay
    # AdamW balances wd w against the sign-like step, not against the gradient
    want = c if "adamw" in name or not decay else h * c / (h + decay)
    np.testing.assert_allclose(p.value[0], want, atol=0.2 if "adamw" in name else 1e-3)


@every
def test_any_memory_order_is_trained(name):
    """A transposed array must not be updated in a copy: initial values come in any order."""
    value = np.asfortranarray(np.random.default_rng(3).standard_normal((3, 5)))
    wide = orthogonal((3, 5, 1, 1), np.random.default_rng(4))
    for start in (value, wide, value.T.copy().T, value[:, ::-1]):
        net = Network({"fc": Linear(MaskedWeight(start.copy("K")))}, (5,))
        p = net.params()["fc.weight"]
        for _ in range(2):
            before = p.value.copy()
            p.grad[...] = np.arange(1, 16).reshape(3, 5)
            OPTIMISERS[name]().step(net, LR)
            assert (p.value != before).all()
        p.set(np.asfortranarray(p.value))
        assert p.value.flags.c_contiguous


@every
def test_types_are_kept(name):
    for dtype in (np.float32, np.float64):
        optimizer = OPTIMISERS[name]()
        assert run(optimizer, W, [G1, G2], dtype=dtype).dtype == dtype
        assert all(s.dtype == dtype for s in optimizer.slots["fc.weight"].values())


def test_float32_follows_float64():
    for make in OPTIMISERS.values():
        np.testing.assert_allclose(
            run(make(), W, [G1, G2], dtype=np.float32), run(make(), W, [G1, G2]), rtol=2e-6, atol=1e-7
        )


@every
def test_nan_gradients_are_not_hidden(name):
    assert np.isnan(run(OPTIMISERS[name](), W, [np.full(3, np.nan)])).all()


BAD = [-0.1, float("nan"), float("inf"), True, "0.9", None, 1j]


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings_are_refused(bad):
    for make in (
        lambda: SGD(momentum=bad),
        lambda: SGD(weight_decay=bad),
        lambda: Adam(beta1=bad),
        lambda: Adam(beta2=bad),
        lambda: AdamW(eps=bad),
        lambda: AdamW(weight_decay=bad),
    ):
        with pytest.raises(UsageError, match=r"optimizer \w+: got .* expected"):
            make()


def test_momentum_and_betas_are_below_one():
    for make in (lambda: SGD(1.0), lambda: Adam(beta1=1.0), lambda: Adam(beta2=1)):
        with pytest.raises(UsageError, match="< 1"):
            make()


def test_table_of_optimizers():
    assert {"sgd": SGD, "adam": Adam, "adamw": AdamW} == OPTIMIZERS
