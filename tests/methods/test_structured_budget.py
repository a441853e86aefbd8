"""Costs and budgets: what masks and layers say, and a budget no sequence of decisions exceeds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import SparsityError, UsageError
from minisparse.experiments.inspect import layer_table
from minisparse.methods.structured.budget import (
    Bill,
    bill_of_groups,
    bill_of_weights,
    ceiling,
    counts_of,
    least_counts,
    uniform,
)
from minisparse.methods.structured.ranked import masks_without
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.sparsity.groups import groups_of
from tests.methods.problems import conv_net, mlp
from tests.strategies import SETTINGS, seeds

NETWORKS = {
    "mlp": lambda: mlp((7, 9, 6, 4), np.random.default_rng(0)),
    "residual": lambda: conv_net(np.random.default_rng(0)),
    "lenet-5": lambda: make("lenet-5", (1, 8, 8), 10),
    "resnet": lambda: make("resnet-20:0.25", (3, 8, 8), 10),
}


def masked(network: Network, masks: dict) -> Network:
    for name, layer in network.prunable().items():
        layer.weight.rewire(masks[name])
    return network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_the_bill_of_groups_is_what_masks_and_layers_cost(name, seed):
    network, rng = NETWORKS[name](), np.random.default_rng(seed)
    groups = groups_of(network)
    kept = np.array([rng.integers(1, len(g) + 1) for g in groups])
    keep = {g: rng.permutation(len(g)) < k for g, k in zip(groups, kept, strict=True)}
    rows = layer_table(masked(network.copy(), masks_without(network, keep)))
    macs, weights = (bill_of_groups(network, groups, r) for r in ("macs", "weights"))
    np.testing.assert_array_equal(macs.layers(kept), [row.macs for row in rows])
    np.testing.assert_array_equal(weights.layers(kept), [row.kept for row in rows])
    assert macs.whole == sum(row.macs for row in layer_table(network))
    assert weights.whole == sum(row.total for row in rows)


@pytest.mark.parametrize("name", ["mlp", "lenet-5"])
def test_the_bill_of_weights_is_what_masks_and_layers_cost(name):
    network, rng = NETWORKS[name](), np.random.default_rng(1)
    masks = {n: rng.random(m.shape) < 0.3 for n, m in network.masks().items()}
    rows = layer_table(masked(network.copy(), masks))
    kept = np.array([m.sum() for m in masks.values()])
    np.testing.assert_array_equal(bill_of_weights(network, "macs").layers(kept), [row.macs for row in rows])
    np.testing.assert_array_equal(bill_of_weights(network, "weights").layers(kept), kept)


def chain(units: list[int], rng: np.random.Generator) -> Bill:
    """A chain of layers with random positions and decisions between them; all layers cost something."""
    count = len(units)
    reads, writes = np.eye(count + 1, count, -1, dtype=np.int64), np.eye(count + 1, count, dtype=np.int64)
    inputs, outputs = 1 - reads.sum(axis=1), 1 - writes.sum(axis=1)
    positions = rng.integers(1, 30, count + 1)
    return Bill(positions, 3 * inputs, 2 * outputs, reads * 4, writes, np.array(units))


def test_several_counts_at_once_cost_as_much_as_one_by_one():
    bill = chain([3, 5], np.random.default_rng(0))
    counts = np.array(list(itertools.product(range(1, 4), range(1, 6))))
    np.testing.assert_array_equal(bill.total(counts), [int(bill.total(k)) for k in counts])


@SETTINGS
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data(), seeds)
def test_the_ceiling_is_the_largest_count_that_fits(units, data, seed):
    rng = np.random.default_rng(seed)
    bill = chain(units, rng)
    kept = np.array([data.draw(st.integers(1, n)) for n in units])
    t = data.draw(st.integers(0, len(units) - 1))
    budget = data.draw(st.integers(int(bill.total(kept)), bill.whole))

    def cost(k: int) -> int:
        tried = kept.copy()
        tried[t] = k
        return int(bill.total(tried))

    assert ceiling(bill, kept, t, budget) == max(k for k in range(kept[t], units[t] + 1) if cost(k) <= budget)


def test_a_budget_below_the_least_is_refused():
    bill = chain([4, 4], np.random.default_rng(1))
    least = np.array([1, 1])
    assert ceiling(bill, least, 0, int(bill.total(least))) == 1
    with pytest.raises(SparsityError, match="budget cannot be met"):
        ceiling(bill, least, 0, int(bill.total(least)) - 1)


def test_least_counts_and_shares_round_to_the_nearest_unit_and_keep_one():
    np.testing.assert_array_equal(least_counts(np.array([1, 4, 10, 100]), 0.2), [1, 1, 2, 20])
    bill = chain([5, 10], np.random.default_rng(2))
    np.testing.assert_array_equal(counts_of(np.array([0.0, 0.44]), bill, np.array([2, 1])), [2, 4])
    np.testing.assert_array_equal(counts_of(1.0, bill, np.array([1, 1])), [5, 10])


@SETTINGS
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0, 1), seeds)
def test_the_uniform_share_fits_and_nothing_more_does(units, share, seed):
    rng = np.random.default_rng(seed)
    bill = chain(units, rng)
    least = least_counts(bill.units, 0.1)
    low = int(bill.total(least))
    budget = low + int(share * (bill.whole - low))
    kept = uniform(bill, least, budget)
    assert bill.total(kept) <= budget and (kept >= least).all() and (kept <= bill.units).all()
    for t in np.flatnonzero(kept < bill.units):
        more = kept.copy()
        more[t] += 1
        assert bill.total(more) > budget
    shares = kept / bill.units
    free = (kept > least) & (kept < bill.units)
    assert not free.any() or np.ptp(shares[free]) <= 4 / bill.units[free].min()


def test_the_uniform_share_of_the_whole_budget_is_everything_and_of_none_the_least():
    bill, least = chain([5, 7], np.random.default_rng(3)), np.array([1, 1])
    np.testing.assert_array_equal(uniform(bill, least, bill.whole), [5, 7])
    np.testing.assert_array_equal(uniform(bill, least, 0), least)


def test_an_unknown_resource_is_refused():
    with pytest.raises(UsageError, match="resource"):
        bill_of_weights(NETWORKS["mlp"](), "seconds")
