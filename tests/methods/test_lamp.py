"""LAMP: a relative magnitude with which a global ranking empties no layer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minisparse.methods.saliency.lamp import LAMP, lamp
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.sparsity import Global, OneShot, Row, kept_count
from tests.methods.problems import chain, mlp, state_of
from tests.strategies import SETTINGS

NOW = OneShot(0.0)
weights = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0, 3.7, 1e-200, 1e200]),
)


def pruned(network, method=LAMP, **settings):
    copy = network.copy()
    data = np.zeros((2, *copy.input_shape)), np.zeros(2, dtype=int)
    method(**{"schedule": NOW, "sparsity": 0.5} | settings).setup(state_of(copy, *data))
    return copy.masks()


def test_by_hand():
    np.testing.assert_allclose(lamp(np.array([1.0, 2, 3])), [1 / 14, 4 / 13, 1], rtol=1e-15)
    np.testing.assert_allclose(lamp(np.array([[-3.0], [1]])), [[1], [0.1]], rtol=1e-15)


@SETTINGS
@given(weights)
def test_it_is_the_share_of_the_remaining_norm_that_the_next_removal_costs(w):
    with np.errstate(over="ignore"):
        found = lamp(w).ravel()
    scaled = w.ravel() / max(np.abs(w).max(), 1e-300)
    ascending = np.lexsort((-np.arange(w.size), np.abs(scaled)))
    rest = list(ascending)
    for k in ascending:  # the plain rule: sum what is left, remove, go on
        total = sum(scaled[m] ** 2 for m in rest)
        np.testing.assert_allclose(found[k], scaled[k] ** 2 / total if total else 0, rtol=1e-13)
        rest.remove(k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_top_score_is_exactly_one(dtype):
    for seed in range(3):
        w = np.random.default_rng(seed).standard_normal((400, 500)).astype(dtype)
        found = lamp(w)
        assert found.max() == 1.0
        assert np.abs(w).argmax() == found.argmax()
        assert np.count_nonzero(found == 1) == 1


@SETTINGS
@given(weights)
def test_within_a_layer_the_order_is_that_of_magnitude_and_ties_keep_the_lower_index(w):
    found = lamp(w).ravel()
    order = np.argsort(-np.abs(w).ravel(), kind="stable")
    assert (np.diff(found[order]) <= 0).all()
    n = w.size
    np.testing.assert_array_less(found[order], 1 / np.arange(1, n + 1) * (1 + 1e-12))


def test_equal_weights():
    np.testing.assert_allclose(lamp(np.full((2, 3), -0.7)), [[1, 1 / 2, 1 / 3], [1 / 4, 1 / 5, 1 / 6]])
    assert (lamp(np.zeros((2, 3))) == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 10.0, 1e30])
def test_the_scale_of_a_layer_does_not_matter(scale):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 5)), rng.standard_normal((4, 6))
    np.testing.assert_allclose(lamp(scale * a), lamp(a), rtol=1e-13)
    plain, scaled = pruned(chain(a, b)), pruned(chain(scale * a, b))
    assert all((plain[n] == scaled[n]).all() for n in plain)


def test_no_layer_is_emptied_where_global_magnitude_empties_one():
    network = chain([[1.0], [2], [3]], [[10.0, 20, 30]])
    settings = {"sparsity": 4 / 6, "allocation": Global()}
    assert [m.sum() for m in pruned(network, **settings).values()] == [1, 1]
    assert [m.sum() for m in pruned(network, Magnitude, **settings).values()] == [0, 2]
    rng = np.random.default_rng(1)
    deep = chain(*(10.0**k * rng.standard_normal((20, 20)) for k in range(6)))
    masks = pruned(deep, sparsity=1 - 6 / 2400)
    assert [int(m.sum()) for m in masks.values()] == [1] * 6


def test_one_layer_is_magnitude():
    network = mlp((9, 7), np.random.default_rng(2))
    for sparsity in (0.1, 0.5, 0.9):
        a, b = pruned(network, sparsity=sparsity), pruned(network, Magnitude, sparsity=sparsity)
        np.testing.assert_array_equal(a["fc1"], b["fc1"])


def test_what_is_gone_does_not_count():
    w = np.array([[3.0, 0, 1, 0, 2]])
    np.testing.assert_allclose(lamp(w), [[1, 0, 1 / 14, 0, 4 / 13]], rtol=1e-15)
    network = chain(np.linspace(1, 2, 20).reshape(4, 5))
    copy = network.copy()
    state = state_of(copy, np.zeros((2, 5)), np.zeros(2, dtype=int))
    for level in (0.3, 0.6, 0.8):
        LAMP(0.8, NOW).prune_to(state, level)
        assert copy.masks()["fc1"].sum() == kept_count(20, level)


def test_rows_are_ranked_as_wholes():
    masks = pruned(mlp((6, 8, 8), np.random.default_rng(0)), pattern=Row())
    assert all(set(m.sum(axis=1)) <= {0, m.shape[1]} for m in masks.values())
