"""One-shot pruning without retraining: what is run, what is reported, and the order of the means."""

import numpy as np
import pytest

from minisparse.data import digits
from minisparse.experiments.second_order import METHODS, Result, one_shot, prune_now, table
from minisparse.methods.dense import Dense
from minisparse.nn.models import build
from minisparse.sparsity.count import kept_count
from minisparse.training.run import train

SMALL = "mlp:64-24-16-10"
QUICK = ("random", "magnitude", "obd", "sparsegpt", "obc")


@pytest.fixture(scope="module")
def data():
    return digits.load()


@pytest.fixture(scope="module")
def results(data):
    methods = {name: METHODS[name] for name in QUICK}
    return one_shot(data, SMALL, (0.5, 0.7), range(5), epochs=15, methods=methods)


def test_means_over_seeds_rise_with_what_methods_know(results):
    """Not adjacent ones, and only in the mean: single seeds invert neighbours."""
    mean = {(r.method, r.sparsity): r.mean for r in results}
    for s in (0.5, 0.7):
        assert mean["random", s] + 0.2 < mean["magnitude", s]
    assert mean["magnitude", 0.7] + 0.02 < mean["obc", 0.7] <= mean["dense", 0.0] + 0.01
    assert mean["magnitude", 0.7] < mean["sparsegpt", 0.7]


def test_a_result_has_a_number_per_seed_and_the_dense_network_comes_first(results):
    assert (results[0].method, results[0].sparsity) == ("dense", 0.0)
    assert len(results) == 1 + 2 * len(QUICK)
    for r in results:
        assert len(r.accuracies) == len(r.losses) == 5 and np.isfinite(r.losses).all()


def test_every_method_of_the_table_prunes_a_copy_to_the_exact_count_without_a_step(data):
    network = train(build(SMALL, data, 0), data, Dense(), epochs=1, seed=0).network
    before = network.state()
    for name, make in METHODS.items():
        pruned = prune_now(network, data, make(0.7), seed=0)
        weights = [layer.weight for layer in pruned.prunable().values()]
        sizes = sum(w.size for w in weights)
        assert sum(w.kept for w in weights) == kept_count(sizes, 0.7), name
        assert all(abs(w.kept - 0.3 * w.size) < 1 for w in weights), name
        assert all((network.state()[k] == before[k]).all() for k in before), name


def test_table_shows_means_and_spreads():
    found = [
        Result("dense", 0.0, (0.9, 1.0), (0.1, 0.1)),
        Result("a", 0.5, (0.8, 0.9), (0.2, 0.3)),
        Result("a", 0.8, (0.5, 0.5), (1.0, 1.0)),
        Result("b", 0.5, (0.25, 0.75), (0.2, 0.3)),
        Result("b", 0.8, (0.0, 0.0), (1.0, 1.0)),
    ]
    lines = table(found).splitlines()
    assert lines[0].split() == ["method", "50%", "80%"]
    assert lines[1].split() == ["a", "85.0", "+-", "7.1", "50.0", "+-", "0.0"]
    assert lines[2].split()[:4] == ["b", "50.0", "+-35.4", "0.0"]
    assert lines[3] == "dense: 95.0 +-7.1 (2 seeds)"
    assert Result("a", 0.5, (0.3,), (1.0,)).spread == 0.0
