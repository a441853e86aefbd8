"""Connectivity: distances, barriers of curves that are known, and the two trainings of a ticket."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import ShapeError
from minisparse.experiments.connectivity import (
    barrier,
    between,
    chord_barrier,
    distance,
    profile,
    stability,
)
from minisparse.nn.loss import MSE
from tests.methods.problems import chain, conv_net, mlp
from tests.strategies import SETTINGS

TINY = {"model": "mlp:64-12-10", "epochs": 2, "batch": 256}


def test_distance_is_euclids_over_the_chosen_arrays() -> None:
    a, b = {"w": np.array([0.0, 3.0]), "b": np.zeros(1)}, {"w": np.zeros(2), "b": np.array([4.0])}
    assert distance(a, b) == 5 and distance(a, b, ["w"]) == 3 and distance(a, a) == 0


def test_equal_ends_have_no_barrier() -> None:
    network = conv_net(np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((6, *network.input_shape))

    def error(n):
        return float((n.forward(x) ** 2).sum())

    shares, errors = profile(network, network.copy(), error)
    np.testing.assert_allclose(errors, errors[0], rtol=1e-12)
    assert barrier(errors) == pytest.approx(0, abs=1e-9)
    assert chord_barrier(shares, errors) == pytest.approx(0, abs=1e-9)


@SETTINGS
@given(st.integers(0, 999))
def test_the_loss_of_a_linear_network_is_a_parabola_along_the_line(seed) -> None:
    # e(a) = (1 - a) e0 + a e1 - a (1 - a) |X d|^2 / 2n: convex, so the barrier is |e0 - e1| / 2
    rng = np.random.default_rng(seed)
    w, v = rng.standard_normal((2, 3, 4))
    x, t, loss = rng.standard_normal((7, 4)), rng.standard_normal((7, 3)), MSE()
    shares, errors = profile(chain(w), chain(v), lambda n: float(loss.value(n.forward(x), t)), 9)
    bend = x @ (v - w).T ** 1
    expected = (1 - shares) * errors[0] + shares * errors[-1] - shares * (1 - shares) * (bend**2).sum() / 14
    np.testing.assert_allclose(errors, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(barrier(errors), abs(errors[0] - errors[-1]) / 2, atol=1e-12)
    assert chord_barrier(shares, errors) == pytest.approx(0, abs=1e-12)


def test_the_barrier_of_a_hill_between_two_valleys() -> None:
    # loss (w^2 - 1)^2 / 4 from w = -1 to w = 1: 0 at the ends, 1/4 between
    def error(network):
        return (float(network.prunable()["fc1"].weight.dense()[0, 0]) ** 2 - 1) ** 2 / 4

    shares, errors = profile(chain([[-1.0]]), chain([[1.0]]), error)
    assert barrier(errors) == chord_barrier(shares, errors) == 0.25


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_barrier_is_at_least_half_the_difference_of_the_ends(values) -> None:
    errors = np.array(values)
    shares = np.linspace(0, 1, len(errors))
    assert barrier(errors) >= abs(errors[0] - errors[-1]) / 2 - 1e-12
    assert (
        -1e-12 <= chord_barrier(shares, errors) <= barrier(errors) + abs(errors[0] - errors[-1]) / 2 + 1e-12
    )


def test_the_ends_of_the_line_are_the_networks_and_masks_are_joined() -> None:
    rng = np.random.default_rng(2)
    a, b = conv_net(rng), conv_net(rng)
    for network in (a, b):
        for layer in network.prunable().values():
            layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    for share, end in ((0.0, a), (1.0, b)):
        for key, value in between(a, b, share).state().items():
            np.testing.assert_array_equal(value, end.state()[key])
    middle = between(a, b, 0.25)
    for name, mask in middle.masks().items():
        np.testing.assert_array_equal(mask, a.masks()[name] | b.masks()[name])
    for key, value in middle.state().items():
        np.testing.assert_allclose(value, 0.75 * a.state()[key] + 0.25 * b.state()[key], atol=1e-15)


def test_other_shapes_have_no_line() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match="not of one shape"):
        between(mlp((6, 8, 3), rng), mlp((6, 9, 3), rng), 0.5)


def test_two_trainings_from_the_last_steps_hardly_part() -> None:
    said = []
    rows = stability(0.8, (0.0, 0.9), (0, 1), TINY, rounds=2, tell=said.append)
    assert [(row["level"], row["rewind"]) for row in rows] == [(0.0, 0.0), (0.8, 0.0), (0.0, 0.9), (0.8, 0.9)]
    assert len(said) == 4 and {row["runs"] for row in rows} == {2}
    for early, late in ((rows[0], rows[2]), (rows[1], rows[3])):
        assert 0 < late["distance"] < early["distance"] and 0 < late["path"] < early["path"]
    for row in rows:
        assert 0 <= row["error"] <= 1 and row["barrier"] >= 0
