"""Policies under a budget: nobody exceeds it, validation samples are nobody else's, and what is drawn."""

import numpy as np
import pytest

from minisparse.data import digits
from minisparse.errors import UsageError
from minisparse.experiments.holdout import hold_out
from minisparse.experiments.policies import Policy, Setup, compare_policies, policy_shares, policy_table
from minisparse.experiments.theme import DARK
from minisparse.nn.models import build
from tests.methods.problems import clusters

NAMES = ["uniform", "random", "best of random", "amc"]


@pytest.fixture(scope="module")
def found():
    setup = Setup("mlp:64-24-16-10", 0.7, epochs=5, episodes=30, tuning=1)
    return compare_policies(digits.load(), (0, 1), setup)


def test_every_seed_has_every_policy_within_the_budget(found):
    assert [(p.seed, p.name) for p in found] == [(s, n) for s in (0, 1) for n in NAMES]
    for p in found:
        assert 0 < p.macs <= 0.3 + 1e-3 and list(p.kept) == ["fc2", "fc3"]
        assert all(0 < share <= 1 for share in p.kept.values())
        assert -1 <= p.reward <= 0 and 0 <= p.before <= 1 and 0 <= p.after <= 1


def test_the_best_of_many_is_no_worse_than_the_mean_and_training_repairs(found):
    for seed in (0, 1):
        own = {p.name: p for p in found if p.seed == seed}
        assert own["best of random"].reward > own["random"].reward
        assert own["amc"].reward > own["random"].reward
        assert own["random"].after > own["random"].before


def test_uniform_keeps_the_same_share_everywhere(found):
    for p in (p for p in found if p.name == "uniform"):
        assert np.ptp(list(p.kept.values())) < 2 / 16


def test_the_table_has_a_line_per_policy(found):
    lines = policy_table(found).splitlines()
    assert [line[:16].strip() for line in lines[1:5]] == NAMES and "2 seeds" in lines[-1]
    one = [Policy("uniform", 0, -0.25, 0.7, 0.9, 0.3, {"fc": 0.5})]
    line = policy_table(one).splitlines()[1]
    assert line.split() == ["uniform", "30.0%", "75.0", "+-", "0.0", "70.0", "+-", "0.0", "90.0", "+-", "0.0"]


def test_the_figure_has_a_bar_per_policy_and_layer_and_a_point_per_seed(found):
    figure = policy_shares(found, theme=DARK)
    (axes,) = figure.axes
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(4, 2)
    for name, row in zip(NAMES, heights, strict=True):
        own = [list(p.kept.values()) for p in found if p.name == name]
        np.testing.assert_allclose(row, np.mean(own, axis=0))
    assert [t.get_text() for t in axes.get_xticklabels()] == ["inputs of fc2", "inputs of fc3"]
    assert sum(len(line.get_xdata()) for line in axes.lines) == 4 * 2 * 2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_held_out_samples_and_the_rest_are_the_training_samples_once_each(share):
    data = clusters(np.random.default_rng(0), (5,))
    fit, x, target = hold_out(data, share, 3)
    assert len(x) == len(target) == round(share * 48) and fit.n_train + len(x) == 48
    both = np.concatenate([fit.train_x, x])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(data.train_x, axis=0))
    rows = {tuple(row): label for row, label in zip(data.train_x, data.train_y, strict=True)}
    assert all(rows[tuple(row)] == label for row, label in zip(x, target, strict=True))
    np.testing.assert_array_equal(fit.test_x, data.test_x)
    np.testing.assert_array_equal(hold_out(data, share, 3)[1], x)
    assert (hold_out(data, share, 4)[1] != x).any()


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001, 1.5, float("nan"), "0.2"])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(UsageError):
        hold_out(clusters(np.random.default_rng(0), (5,)), share, 0)


def test_the_network_of_the_comparison_is_not_trained_on_held_out_samples(monkeypatch):
    """Every training sees exactly the samples that were not held out."""
    data, seen = digits.load(), []

    def watch(network, fit, method, **settings):
        seen.append(fit.train_x)
        raise StopIteration

    monkeypatch.setattr("minisparse.experiments.policies.train", watch)
    with pytest.raises(StopIteration):
        compare_policies(data, (5,), Setup("mlp:64-8-10"))
    np.testing.assert_array_equal(seen[0], hold_out(data, 0.25, 5)[0].train_x)
    assert build("mlp:64-8-10", data, 5).outputs == 10
