"""Forecasts along a pruning path: exact where the loss is quadratic, of the right order where it is not."""

import numpy as np
import pytest

from minisparse.curvature import tree as trees
from minisparse.experiments.theory.taylor import (
    FORECASTS,
    Point,
    along,
    paths,
    pruned_values,
    study,
    trusted,
)  # fmt: skip
from minisparse.nn.loss import LOSSES
from minisparse.sparsity.count import kept_count
from tests.methods.problems import chain, identity_problem, mlp


def linear_point(x, y, rng):
    return Point(chain(rng.standard_normal((1, x.shape[1]))), LOSSES["mse"](), x, y)


def shifted(point, directions):
    start = trees.values(point.network)
    return [{name: w + v[name] for name, w in start.items()} for v in directions]


def random_directions(network, count, rng):
    return [
        {n: rng.standard_normal(p.value.shape) for n, p in network.params().items()} for _ in range(count)
    ]


def test_second_order_is_exact_on_a_bowl_and_the_diagonal_on_a_round_one():
    rng = np.random.default_rng(0)
    for x, y, round_ in ((*identity_problem(rng.standard_normal(6)), True),
                         (rng.standard_normal((20, 6)), rng.standard_normal((20, 1)), False)):  # fmt: skip
        point = linear_point(x, y, rng)
        found = along(point, shifted(point, random_directions(point.network, 4, rng)))
        for name in ("full", "stepwise"):
            np.testing.assert_allclose(found[name], found["true"], rtol=1e-10, atol=1e-12)
        assert np.allclose(found["diagonal"], found["true"]) == round_
        assert not np.allclose(found["first"], found["true"], rtol=0.1)


def tanh_point(rng):
    network = mlp((5, 7, 3), rng, "tanh")
    x, y = rng.standard_normal((15, 5)), rng.integers(0, 3, 15)
    return Point(network, LOSSES["cross-entropy"](), x, y)


def errors(scale):
    """|forecast - truth| of a step of this size, and of two steps of half of it."""
    rng = np.random.default_rng(1)
    point = tanh_point(rng)
    (v,) = random_directions(point.network, 1, rng)
    steps = [{n: t * scale * a for n, a in v.items()} for t in (0.5, 1.0)]
    found = along(point, shifted(point, steps))
    return {name: abs(found[name][-1] - found["true"][-1]) for name in FORECASTS}


def test_errors_fall_with_the_order_of_the_forecast():
    large, small = errors(1e-2), errors(5e-3)
    assert large["first"] / small["first"] == pytest.approx(4, rel=0.1)
    assert large["full"] / small["full"] == pytest.approx(8, rel=0.1)
    # of two halves of a step each has an eighth of the error
    assert large["stepwise"] == pytest.approx(large["full"] / 4, rel=0.1)


def test_smaller_steps_add_up_to_the_truth():
    rng = np.random.default_rng(2)
    point = tanh_point(rng)
    (v,) = random_directions(point.network, 1, rng)
    left = []
    for count in (8, 16):
        twin = Point(point.network.copy(), point.loss, point.x, point.target)
        whole = [{n: (k + 1) / count * a for n, a in v.items()} for k in range(count)]
        found = along(twin, shifted(twin, whole))
        left.append(abs(found["stepwise"][-1] - found["true"][-1]))
    assert left[1] < 0.4 * left[0]


def test_the_truth_is_the_loss_at_each_point_of_the_path():
    rng = np.random.default_rng(3)
    point = tanh_point(rng)
    base, path = point.value, shifted(point, random_directions(point.network, 3, rng))
    found = along(point, path)
    for values, change in zip(path, found["true"], strict=True):
        other = point.network.copy()
        for name, p in other.params().items():
            p.value[...] = values[name]
        assert Point(other, point.loss, point.x, point.target).value - base == pytest.approx(
            change, abs=1e-14
        )
    np.testing.assert_array_equal(trees.flatten(trees.values(point.network)), trees.flatten(path[-1]))


def test_a_path_removes_the_lowest_scores_exactly_and_keeps_biases():
    network = mlp((6, 9, 3), np.random.default_rng(4))
    scores = {n: np.abs(layer.weight.dense()) for n, layer in network.prunable().items()}
    levels, start = (0.2, 0.5, 0.9), trees.values(network)
    every = np.sort(np.concatenate([s.ravel() for s in scores.values()]))
    for s, values in zip(levels, pruned_values(network, scores, levels), strict=True):
        kept = kept_count(81, s)
        for name, score in scores.items():
            stays = score >= every[81 - kept]
            np.testing.assert_array_equal(
                values[f"{name}.weight"], np.where(stays, start[f"{name}.weight"], 0)
            )
            np.testing.assert_array_equal(values[f"{name}.bias"], start[f"{name}.bias"])


def test_trusted_is_the_last_level_before_the_first_miss():
    levels, true = (0.1, 0.2, 0.3, 0.4), np.array([1e-5, 0.1, 0.2, 0.4])
    assert trusted(true, true, levels) == 0.4
    assert trusted(true, np.array([-2e-5, 0.06, 0.39, 0.9]), levels) == 0.3
    assert trusted(true, np.array([0.0, 0.04, 0.2, 0.4]), levels) == 0.1
    assert trusted(true, np.array([0.5, 0.1, 0.2, 0.4]), levels) == 0.0
    assert trusted(-true, true, levels) == 0.1


def test_on_the_digits_more_knowledge_forecasts_better():
    found = paths(0, (0.3, 0.5, 0.7), epochs=8)
    for own in found.values():
        error = {name: np.abs(own[name] - own["true"]).sum() for name in FORECASTS}
        assert error["stepwise"] < error["full"] < error["first"]
    assert found["obd"]["true"][0] < found["magnitude"]["true"][0]


def test_the_study_reports_every_level():
    made = study((0,), levels=(0.2, 0.6), epochs=2)
    assert [(row["ranking"], row["sparsity"]) for row in made.rows] == [
        ("magnitude", 0.2), ("magnitude", 0.6), ("obd", 0.2), ("obd", 0.6),
    ]  # fmt: skip
    assert all(np.isfinite([row[name] for name in FORECASTS]).all() for row in made.rows)
