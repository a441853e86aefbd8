"""One-shot channel pruning: equal counts for all rules, and LASSO with its refit best in the mean."""

import numpy as np
import pytest

from minisparse.data import digits
from minisparse.experiments.channels import (
    DAMPING,
    POSITIONS,
    RULES,
    by_chance,
    by_filters,
    by_response,
    one_shot_channels,
)
from minisparse.methods.structured.channel_pruning import Moments, branch_groups, prune_channels
from minisparse.methods.structured.ranked import present
from minisparse.sparsity.groups import groups_of
from tests.methods.problems import mlp

QUICK = ("filters", "filters, refit", "lasso, refit")
NONE = Moments(1, 1, False)


@pytest.fixture(scope="module")
def results():
    rules = {name: RULES[name] for name in QUICK}
    return one_shot_channels(digits.load(), "mlp:64-24-16-10", (0.5, 0.7), range(5), 8, rules)


def test_lasso_with_its_refit_beats_filter_norms_in_the_mean(results):
    mean = {(r.method, r.sparsity): r.mean for r in results}
    for s in (0.5, 0.7):
        assert mean["lasso, refit", s] > mean["filters", s] + 0.1
        assert mean["filters, refit", s] > mean["filters", s] + 0.1
    assert mean["lasso, refit", 0.5] <= mean["dense", 0.0] + 0.01


def test_a_result_has_a_number_per_seed_and_the_dense_network_comes_first(results):
    assert (results[0].method, results[0].sparsity) == ("dense", 0.0)
    assert [(r.method, r.sparsity) for r in results[1:]] == [(n, s) for n in QUICK for s in (0.5, 0.7)]
    assert all(len(r.accuracies) == len(r.losses) == 5 for r in results)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_leaves_exactly_as_many_units(name):
    rng = np.random.default_rng(0)
    network, x = mlp((6, 9, 7, 3), rng), rng.standard_normal((40, 6))
    rule, fitted = RULES[name]
    kept = {g: k for g, k in zip(branch_groups(network), (4, 2), strict=True)}
    damping = DAMPING if fitted else None
    pruned, _ = prune_channels(network, kept, [x], rng, rule or by_chance(0), POSITIONS, damping)
    assert [present(pruned, g).sum() for g in groups_of(pruned)] == [4, 2]


def test_norms_are_those_of_rows_and_of_columns_and_chance_is_neither():
    network = mlp((3, 3, 2), np.random.default_rng(1))
    network.prunable()["fc1"].weight.assign(np.diag([3.0, 1.0, 2.0]))
    network.prunable()["fc2"].weight.assign(np.array([[1.0, 5.0, 2.0], [0.0, 0.0, 0.0]]))
    (group,) = groups_of(network)
    assert by_filters(network, group, NONE, 1).tolist() == [True, False, False]
    assert by_response(network, group, NONE, 1).tolist() == [False, True, False]
    chosen = [tuple(by_chance(seed)(network, group, NONE, 1)) for seed in range(20)]
    assert len(set(chosen)) == 3 and by_chance(4)(network, group, NONE, 2).sum() == 2
