"""Dynamic N:M: groups at every step, exchanges by their definition, storage in its own format, and use."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.dynamic.dynamic_nm import DynamicNM
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.nn.models import build
from minisparse.sparsity.allocation import Uniform
from minisparse.training.run import train
from minisparse.weights.compress import candidates
from minisparse.weights.formats import convert
from tests.methods.dynamics import Snapshot, assert_growth_is_silent, trained_state, watched
from tests.methods.problems import clusters, conv_net, mlp


def group_counts(weight, of):
    return set(np.count_nonzero(weight.mask.reshape(-1, of), axis=1))


@pytest.mark.parametrize("growth", ["gradient", "random"])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_every_group_has_n_of_m_at_every_step(kind, growth):
    topologies = set()

    def watch(state):
        for layer in state.network.prunable().values():
            divides = layer.weight.shape[1] % 3 == 0
            assert group_counts(layer.weight, 3) == {1} if divides else layer.weight.mask.all()
        topologies.add(b"".join(m.tobytes() for m in state.network.masks().values()))

    watched(DynamicNM(1, 3, growth, alpha=0.6, every=2), watch, kind)
    assert len(topologies) > 3


@given(st.integers(0, 60), st.sampled_from([(1, 2), (2, 4), (3, 4), (1, 8)]))
def test_an_exchange_against_its_definition(seed, nm):
    keep, of = nm
    network = mlp((8, 6, 3), np.random.default_rng(seed))
    method = DynamicNM(keep, of, alpha=0.8, every=5)
    state = trained_state(method, network, seed)
    layer = state.network.layers["fc1"]
    w, mask, grad = layer.weight.dense().copy(), layer.weight.mask, layer.dense_grad()
    state.step = 5
    k = round(0.4 * (1 + np.cos(np.pi * 5 / 75)) * mask.sum())
    order = sorted(np.flatnonzero(mask), key=lambda i: (-abs(w.flat[i]), i))
    stay = set(order[: len(order) - k])
    expected = set(stay)
    for g in range(mask.size // of):
        own = range(g * of, (g + 1) * of)
        free = sorted(set(own) - stay, key=lambda i: (-abs(grad.flat[i]), i))
        expected |= set(free[: keep - len(stay & set(own))])
    method.update(state)
    assert set(np.flatnonzero(layer.weight.mask)) == expected


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_survivors_keep_what_they_had_and_growth_is_silent(kind):
    rng = np.random.default_rng(3)
    network = conv_net(rng) if kind == "conv" else mlp((8, 12, 8, 3), rng)
    method = DynamicNM(2, 4, alpha=0.8, every=5) if kind == "mlp" else DynamicNM(1, 2, alpha=0.8, every=5)
    state = trained_state(method, network)
    before = Snapshot(state)
    state.step = 5
    steps = state.optimizer.t
    method.update(state)
    assert state.optimizer.t == steps  # an exchange takes the place of the step
    assert before.assert_moved_to(Snapshot(state)) > 0
    assert_growth_is_silent(state, before)


def test_m_of_all_inputs_is_constant_fan_in():
    state = trained_state(DynamicNM(3, 8), mlp((8, 8, 3), np.random.default_rng(0)))
    for layer in state.network.prunable().values():
        assert set(layer.weight.mask.sum(axis=1)) == {3}


@pytest.mark.parametrize("storage", ["csr", "nm"])
def test_stored_training_takes_the_same_course(storage):
    data = clusters(np.random.default_rng(0), (8,))
    network = mlp((8, 12, 8, 3), np.random.default_rng(1))
    method = DynamicNM(2, 4, alpha=0.6, every=2)
    masked, stored = (
        train(network, data, method, epochs=4, batch=16, storage=s).network for s in ("masked", storage)
    )
    for name, mask in masked.masks().items():
        np.testing.assert_array_equal(stored.masks()[name], mask)
        np.testing.assert_allclose(
            stored.prunable()[name].weight.dense(), masked.prunable()[name].weight.dense(), atol=1e-12
        )


def test_compress_may_choose_the_formats_of_both_patterns():
    data = clusters(np.random.default_rng(0), (16,))
    network = mlp((16, 24, 16, 3), np.random.default_rng(1), dtype=np.float32)
    x = data.test_x
    for method, name in (
        (DynamicNM(2, 4, every=2), "nm"),
        (SRigL(0.75, allocation=Uniform(), every=2), "condensed"),
    ):
        trained = train(network, data, method, epochs=2, batch=16).network
        weight = trained.layers["fc2"].weight
        assert name in {kind for kind, _ in candidates(weight).values()}
        small = trained.copy()
        small.layers["fc2"].weight = convert(weight, name)
        np.testing.assert_allclose(small.forward(x), trained.forward(x), rtol=1e-5, atol=1e-5)


def test_it_beats_the_static_groups_it_starts_from():
    data = datasets.load("digits")
    scores = {
        name: np.mean([
            train(
                build("mlp:64-256-10", data, seed), data, DynamicNM(1, 32, alpha=alpha, every=10),
                epochs=8, seed=seed,
            ).accuracy
            for seed in range(3)
        ])
        for name, alpha in (("dynamic", 0.3), ("static", 0.0))
    }  # fmt: skip
    assert scores["dynamic"] > scores["static"] + 0.1


@pytest.mark.parametrize(
    "settings",
    [{"keep": 5, "of": 4}, {"keep": 0}, {"growth": "x"}, {"alpha": 2}, {"every": 0}, {"until": -1}],
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        DynamicNM(**settings)
