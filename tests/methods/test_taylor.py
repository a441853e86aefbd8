"""Taylor: slopes of gates against the complex step, and what the group forms are exact for."""

import numpy as np
import pytest
from hypothesis import given

from minisparse.errors import UsageError
from minisparse.methods.structured import taylor
from minisparse.methods.structured.ranked import present
from minisparse.methods.structured.taylor import Taylor, unit_slopes
from minisparse.nn.loss import LOSSES
from minisparse.sparsity import OneShot
from minisparse.sparsity.groups import groups_of
from tests.architectures import random_problem
from tests.methods.problems import chain, conv_net, descend, mlp, state_of
from tests.strategies import SETTINGS, generators

STEP = 1e-30


def state_for(network, n=6, seed=1, loss="cross-entropy"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *network.input_shape))
    target = rng.integers(0, 3, n) if loss == "cross-entropy" else rng.standard_normal((n, network.outputs))
    return state_of(network, x, target, loss)


@pytest.mark.parametrize(("of", "role"), [("outputs", "consumers"), ("weights", "producers")])
@SETTINGS
@given(rng=generators)
def test_slopes_are_derivatives_by_a_gate(rng, of, role):
    """Weights that read (write) a unit times 1 + ih: the imaginary part of the loss is h dL/dz."""
    problem = random_problem(rng)
    network, loss = problem.network, problem.loss
    loss.value(network.forward(problem.x), problem.target)
    network.backward(loss.grad(), need_dx=False)
    for group, slopes in unit_slopes(network, groups_of(network), of).items():
        unit = int(rng.integers(len(group)))
        twin = network.astype(np.complex128)
        for name, index in getattr(group, role):
            at = (index[unit],) if role == "producers" else (slice(None), index[unit])
            twin.prunable()[name].weight.param.value[at] *= 1 + 1j * STEP
        stepped = loss.value(twin.forward(problem.x.astype(complex)), problem.target)
        np.testing.assert_allclose(slopes[:, unit].sum(), stepped.imag / STEP, rtol=1e-8, atol=1e-11)


def test_without_biases_and_with_relu_what_comes_in_goes_out():
    network = mlp((6, 9, 7, 3), np.random.default_rng(0), biases=False)
    descend(state_for(network))
    groups = groups_of(network)
    outgoing, incoming = (unit_slopes(network, groups, of) for of in ("outputs", "weights"))
    for group in groups:
        np.testing.assert_allclose(outgoing[group], incoming[group], atol=1e-14)


def test_the_sum_over_a_group_is_not_the_sum_of_absolute_values():
    """w = (1, -1) and dL/dw = (2, 2): closing the gate changes a linear loss by nothing."""
    network = chain([[1.0]], [[1.0], [-1.0]], activation="identity")
    state = state_of(network, np.array([[1.0]]), np.array([[-1.0, -3.0]]), "mse")
    descend(state)
    assert network.prunable()["fc2"].weight.param.grad.ravel().tolist() == [2.0, 2.0]
    (group,) = groups_of(network)
    assert unit_slopes(network, (group,))[group].tolist() == [[0.0]]


def test_for_a_quadratic_loss_the_slope_and_half_the_curvature_are_the_whole_change():
    rng = np.random.default_rng(3)
    network = mlp((5, 6, 2), rng, activation="tanh")
    state = state_for(network, loss="mse")
    before = descend(state)
    (group,) = groups_of(network)
    slopes = unit_slopes(network, (group,))[group].sum(axis=0)
    hidden = network.prunable()["fc2"].x
    for u in range(6):
        closed = network.copy()
        closed.prunable()["fc2"].weight.param.value[:, u] = 0
        loss = LOSSES["mse"]()
        change = loss.value(closed.forward(state.train_x), state.train_t) - before
        put_out = hidden[:, u, None] * network.prunable()["fc2"].weight.dense()[:, u]
        assert change == pytest.approx(-slopes[u] + 0.5 * (put_out**2).sum(axis=1).mean())


def test_a_unit_nobody_reads_scores_nothing_and_leaves_first():
    network = conv_net(np.random.default_rng(0))
    state = state_for(network)
    for name in ("block.branch.conv2",):
        mask = network.masks()[name]
        mask[:, 2::4] = False
        network.prunable()[name].weight.rewire(mask)
    stream, inner = groups_of(network)
    scores = {group.name: score for group, score in Taylor().score(state).items()}
    assert scores["block.branch.conv1"][2] == 0 and (scores["conv"] > 0).all()
    Taylor(1 / 8, schedule=OneShot(0.0), share_of="units").setup(state)
    assert present(network, inner).tolist() == [True, True, False, True] and present(network, stream).all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("of", ["outputs", "weights"])
def test_scores_are_means_over_samples_however_they_are_batched(power, of, monkeypatch):
    network = conv_net(np.random.default_rng(0))
    state = state_for(network, n=7)
    found = Taylor(power=power, of=of).score(state)
    monkeypatch.setattr(taylor, "BATCH", 2)
    batched = Taylor(power=power, of=of).score(state)
    single = []
    for x, t in zip(state.train_x, state.train_t, strict=True):
        one = state_of(network, x[None], t[None])
        descend(one)
        single.append(unit_slopes(network, groups_of(network), of))
    for k, group in enumerate(found):
        expected = np.mean([np.abs(list(s.values())[k][0]) ** power for s in single], axis=0)
        np.testing.assert_allclose(found[group], expected, rtol=1e-10)
        np.testing.assert_allclose(list(batched.values())[k], expected, rtol=1e-10)


def test_normalised_scores_have_unit_length_in_every_group():
    network = conv_net(np.random.default_rng(0))
    for score in Taylor(normalize=True).score(state_for(network)).values():
        assert np.linalg.norm(score) == pytest.approx(1)


def test_at_a_perfect_fit_every_score_is_zero():
    network = mlp((4, 5, 2), np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((8, 4))
    state = state_of(network, x, network.forward(x), "mse")
    assert all(not score.any() for score in Taylor().score(state).values())


def test_rescaling_a_unit_of_a_relu_network_changes_no_score():
    """Incoming weights and bias times c, outgoing divided by c: the same function, the same slopes."""
    network = mlp((5, 6, 4, 3), np.random.default_rng(2))
    twin, c = network.copy(), np.array([0.25, 4.0, 1.0, 2.0, 8.0, 0.5])
    layers = twin.prunable()
    layers["fc1"].weight.param.value *= c[:, None]
    layers["fc1"].bias.value *= c
    layers["fc2"].weight.param.value /= c
    scores = [list(Taylor().score(state_for(n)).values()) for n in (network, twin)]
    for a, b in zip(*scores, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"of": "all"}, {"power": 3}, {"power": True}, {"samples": 0}, {"normalize": 1}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError):
        Taylor(**settings)
