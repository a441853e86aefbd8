"""Group lasso: the proximal map by its definition, the closed-form solution, and what it leads to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.methods.structured.filter_norm import FilterNorm
from minisparse.methods.structured.group_lasso import GroupLasso, shares_left, shorten, unit_size
from minisparse.methods.structured.ranked import present
from minisparse.nn.optim import SGD
from minisparse.sparsity import Global, OneShot
from minisparse.sparsity.groups import groups_of
from minisparse.training.loop import fit
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of

END = OneShot(1.0)


@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_the_proximal_map_minimises_what_defines_it(seed, length):
    """argmin_v |v - w|^2 / 2 + length |v|: no other point is better."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(4)

    def value(v):
        return ((v - w) ** 2).sum() / 2 + length * np.linalg.norm(v)

    best = w * shares_left(np.array([np.linalg.norm(w)]), length)[0]
    for other in (np.zeros(4), w, *(best + 0.1 * rng.standard_normal((20, 4)))):
        assert value(best) <= value(other) + 1e-12


def test_every_unit_is_shortened_by_the_same_length_or_is_zero():
    network = chain([[3.0, 4.0, 0, 0], [0.3, 0.4, 0, 0], [0, 0, 0, 0]], [[1.0, 1.0, 1.0]])
    (group,) = groups_of(network)
    assert unit_size(network, group) == 4
    shorten(network, group, 0.5)  # by 0.5 sqrt(4) = 1
    np.testing.assert_allclose(network.prunable()["fc1"].weight.dense(), [[2.4, 3.2, 0, 0], [0] * 4, [0] * 4])
    assert network.prunable()["fc2"].weight.dense().tolist() == [[1.0, 1.0, 1.0]]


def test_units_of_a_stream_are_shortened_as_one():
    network = conv_net(np.random.default_rng(0))
    stream, inner = groups_of(network)
    parts = [network.prunable()[name].weight for name in ("conv", "block.branch.conv2")]
    before = np.concatenate([w.dense() for w in parts], axis=1)
    assert unit_size(network, stream) == before.shape[1] == 18 + 36
    shorten(network, stream, 0.05)
    after = np.concatenate([w.dense() for w in parts], axis=1)
    lengths = [np.linalg.norm(a, axis=1) for a in (before, after)]
    np.testing.assert_allclose(lengths[0] - lengths[1], 0.05 * np.sqrt(54))
    np.testing.assert_allclose(after / lengths[1][:, None], before / lengths[0][:, None])


@pytest.mark.parametrize("strength", [0.4, 0.8])
def test_training_ends_at_the_closed_form_on_orthonormal_inputs(strength):
    """Each hidden unit is its own regression of z_u on X'X = n I: the readers are 1 and do not move."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((5, 3)) * np.array([[2], [1], [0.5], [0.2], [1.5]])
    network = chain(rng.standard_normal((5, 3)), np.eye(5), activation="identity")
    x = np.sqrt(3) * np.eye(3)
    state = state_of(network, x, x @ z.T, "mse", horizon=400, optimizer=SGD(0.0))
    network.prunable()["fc2"].weight.param.rate = 0.0
    fit(state, GroupLasso(0.0, schedule=END, strength=strength), ((x, x @ z.T) for _ in range(400)))
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    expected = z * np.maximum(0, 1 - strength * np.sqrt(3) / norms)
    found = network.prunable()["fc1"].weight.dense()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert ((found == 0).all(axis=1) == (expected == 0).all(axis=1)).all() and (expected == 0).any()


def test_units_that_the_penalty_zeroed_are_the_first_to_leave():
    network = mlp((8, 14, 10, 3), np.random.default_rng(0))
    data = clusters(np.random.default_rng(2), (8,))
    seen = {}

    def watch(state):
        if state.step == 23:  # the last before units are removed
            dense = {n: layer.weight.dense() for n, layer in state.network.prunable().items()}
            seen.update({name: ~dense[name].any(axis=1) for name in ("fc1", "fc2")})

    method = GroupLasso(0.5, schedule=END, strength=0.3)
    run = train(network, data, method, epochs=8, batch=16, progress=watch)
    control = train(network, data, GroupLasso(0.5, schedule=END, strength=0.0), epochs=8, batch=16)
    zeroed = sum(int(z.sum()) for z in seen.values())
    assert 0 < zeroed < 10
    for group in groups_of(run.network):
        assert not present(run.network, group)[seen[group.name]].any()
    assert all(layer.weight.dense()[layer.weight.mask].all() for layer in control.network.prunable().values())


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_without_a_penalty_it_is_the_l2_filter_norm_bit_for_bit(kind):
    network = (
        mlp((8, 9, 7, 3), np.random.default_rng(0)) if kind == "mlp" else conv_net(np.random.default_rng(0))
    )
    data = clusters(np.random.default_rng(2), network.input_shape)
    methods = GroupLasso(0.6, strength=0.0), FilterNorm(0.6, norm=2, allocation=Global())
    states = [train(network, data, method, epochs=4, batch=16).network.state() for method in methods]
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])


def test_the_value_is_that_of_the_equation_and_ends_with_pruning():
    network = chain([[3.0, 4.0], [0.0, 2.0]], [[1.0, 1.0]])
    state = state_of(network, np.zeros((1, 2)), np.zeros((1, 1)), "mse", horizon=20)
    method = GroupLasso(0.5, strength=0.1)
    assert method.penalty(state) == pytest.approx(0.1 * np.sqrt(2) * (5 + 2))
    state.step = 10
    assert method.penalty(state) == 0


@pytest.mark.parametrize("strength", [-1.0, float("nan"), True, "1"])
def test_strengths_that_make_no_sense_are_refused(strength):
    with pytest.raises(UsageError):
        GroupLasso(strength=strength)
