"""Random subspaces: the projections as matrices, and what training along them must give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from minisparse import data as datasets
from minisparse.curvature import tree as trees
from minisparse.errors import MethodError, UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.subspace.projections import PROJECTIONS
from minisparse.methods.subspace.subspace import Subspace
from minisparse.nn import models
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD, Adam
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, conv_net, descend, identity_problem, mlp, state_of
from tests.strategies import SETTINGS, generators

EXACT = ("dense", "orthonormal", "sparse", "axes")  # columns of norm 1 whatever D is
SQUARE = ("orthonormal", "axes")  # orthonormal if d = D


def matrix(kind, rows, columns, rng):
    """P (D, d), column by column."""
    projection = PROJECTIONS[kind]
    parts = projection.draw(rows, columns, rng)
    return np.stack([projection.expand(parts, e, rows) for e in np.eye(columns)], axis=1)


@pytest.mark.parametrize("kind", PROJECTIONS)
@SETTINGS
@given(data=st.data(), rng=generators)
def test_restriction_is_the_adjoint_of_expansion(kind, data, rng):
    rows = data.draw(st.integers(1, 70))
    columns = data.draw(st.integers(1, rows))
    projection = PROJECTIONS[kind]
    parts = projection.draw(rows, columns, rng)
    z, g = rng.standard_normal(columns), rng.standard_normal(rows)
    up, down = projection.expand(parts, z, rows), projection.restrict(parts, g, columns)
    assert (up.shape, down.shape) == ((rows,), (columns,))
    assert abs(up @ g - z @ down) <= 1e-13 * (1 + np.abs(up) @ np.abs(g) + np.abs(z) @ np.abs(down))


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (50, 7), (33, 33), (300, 40)])
def test_columns_have_norm_one(kind, rows, columns):
    p = matrix(kind, rows, columns, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(p, axis=0), 1, rtol=1e-13)
    if kind in SQUARE:
        np.testing.assert_allclose(p.T @ p, np.eye(columns), atol=1e-13)


def test_fastfood_is_the_product_of_its_factors():
    rng, rows, columns = np.random.default_rng(1), 21, 13
    parts = PROJECTIONS["fastfood"].draw(rows, columns, rng)
    h, length = hadamard(32).astype(float), 32
    permuted = np.eye(length)[parts["order"]]
    product = h @ np.diag(parts["gauss"]) @ permuted @ h @ np.diag(parts["signs"])
    z = rng.standard_normal(columns)
    expanded = PROJECTIONS["fastfood"].expand(parts, z, rows)
    np.testing.assert_allclose(expanded, product[:rows, :columns] @ z, rtol=1e-12)
    # every row and every column of the whole product has the norm sqrt(L) ||c G|| = sqrt(L / D)
    for axis in (0, 1):
        np.testing.assert_allclose(np.linalg.norm(product, axis=axis), np.sqrt(length / rows), rtol=1e-12)


def test_fastfood_columns_have_norm_one_if_d_is_a_power_of_two_and_else_in_the_mean():
    rng = np.random.default_rng(2)
    exact = matrix("fastfood", 64, 64, rng)
    for axis in (0, 1):
        np.testing.assert_allclose(np.linalg.norm(exact, axis=axis), 1, rtol=1e-12)
    squares = np.array([(matrix("fastfood", 33, 6, rng) ** 2).sum(axis=0) for _ in range(400)])
    error = squares.mean(axis=1).std(ddof=1) / np.sqrt(400)
    assert abs(squares.mean() - 1) < 4 * error < 0.1


def test_the_sparse_projection_has_one_entry_in_the_square_root_of_its_height():
    rows, columns = 900, 200
    p = matrix("sparse", rows, columns, np.random.default_rng(3))
    counts = np.count_nonzero(p, axis=0)
    spread = np.sqrt(rows * (1 / 30) * (29 / 30) / columns)
    assert abs(counts.mean() - 30) < 4 * spread
    np.testing.assert_allclose(np.abs(p[p != 0]), np.repeat(1 / np.sqrt(counts), counts)[_by_column(p)])


def _by_column(p):
    """Place of each nonzero entry, met row by row, in an order column by column."""
    order = np.argsort(np.nonzero(p)[1], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return place


@pytest.mark.parametrize("kind", [k for k in PROJECTIONS if k != "axes"])
def test_the_toy_of_the_paper_has_intrinsic_dimension_ten(kind):
    # 10 groups of 100 parameters, each with a sum of its own to reach: solvable iff d >= 10
    sums, wanted = np.kron(np.eye(10), np.ones(100)), np.arange(1.0, 11.0)
    rng = np.random.default_rng(4)
    for d in (9, 10, 15):
        p = matrix(kind, 1000, d, rng)
        z = np.linalg.lstsq(sums @ p, wanted, rcond=None)[0]
        assert (np.abs(sums @ p @ z - wanted).max() < 1e-9) == (d >= 10)


def trained(network, method, x, y, optimizer, steps, loss="cross-entropy", rate=0.1):
    """All parameters after every step."""
    state = state_of(network, x, y, loss=loss, optimizer=optimizer, seed=5)
    state.rate = Constant(rate)
    method.setup(state)
    found = [trees.flatten(trees.values(network))]
    for _ in range(steps):
        descend(state)
        method.update(state)
        state.step += 1
        found.append(trees.flatten(trees.values(network)))
    return np.array(found), state


def problem(rng):
    return rng.standard_normal((30, 6)), rng.integers(0, 3, 30)


@pytest.mark.parametrize("kind", SQUARE)
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.0), lambda: SGD(0.9), lambda: SGD(0.9, nesterov=True)])
def test_a_square_orthonormal_projection_is_full_training(kind, optimizer):
    x, y = problem(np.random.default_rng(6))
    network = mlp((6, 5, 3), np.random.default_rng(7))
    size = 6 * 5 + 5 + 5 * 3 + 3
    along, _ = trained(network.copy(), Subspace(size, kind), x, y, optimizer(), 25)
    full, _ = trained(network.copy(), Dense(), x, y, optimizer(), 25)
    np.testing.assert_allclose(along, full, rtol=1e-10, atol=1e-12)


def test_adam_sees_the_axes():
    x, y = problem(np.random.default_rng(6))
    network = mlp((6, 5, 3), np.random.default_rng(7))
    full, _ = trained(network.copy(), Dense(), x, y, Adam(), 3)
    aligned, _ = trained(network.copy(), Subspace(53, "axes"), x, y, Adam(), 3)
    turned, _ = trained(network.copy(), Subspace(53, "orthonormal"), x, y, Adam(), 3)
    np.testing.assert_allclose(aligned, full, rtol=1e-10, atol=1e-12)
    assert np.abs(turned - full).max() > 0.01


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_parameters_stay_in_the_subspace_and_the_first_step_is_the_projected_gradient(kind):
    x, y = problem(np.random.default_rng(8))
    network = mlp((6, 5, 3), np.random.default_rng(9))
    before = network.copy()
    path, state = trained(network, Subspace(12, kind), x, y, SGD(0.9), 10)
    np.testing.assert_array_equal(path[0], trees.flatten(trees.values(before)))
    parts = state.memory["subspace: parts of P"]
    p = np.stack([PROJECTIONS[kind].expand(parts, e, 53) for e in np.eye(12)], axis=1)
    basis = np.linalg.qr(p)[0]
    moved = (path - path[0]).T
    np.testing.assert_allclose(basis @ (basis.T @ moved), moved, atol=1e-12)
    first = state_of(before, x, y)
    descend(first)
    g = trees.flatten({n: q.grad for n, q in before.params().items()})
    np.testing.assert_allclose(moved[:, 1], -0.1 * p @ (p.T @ g), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(moved[:, -1], p @ state.memory["subspace"]["z"], atol=1e-13)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_on_a_bowl_it_ends_at_the_nearest_point_of_the_subspace(kind):
    # loss ||theta - theta*||^2 / 2: what is left is the part of theta_0 - theta* across the subspace
    rng = np.random.default_rng(10)
    start, target = rng.standard_normal((2, 10))
    x, y = identity_problem(target)
    path, state = trained(chain([start]), Subspace(3, kind), x, y, SGD(0.0), 400, loss="mse", rate=0.3)
    parts = state.memory["subspace: parts of P"]
    p = np.stack([PROJECTIONS[kind].expand(parts, e, 10) for e in np.eye(3)], axis=1)
    across = (np.eye(10) - p @ np.linalg.pinv(p)) @ (start - target)
    np.testing.assert_allclose(path[-1] - target, across, atol=1e-6)
    assert descend(state) == pytest.approx(across @ across / 2, rel=1e-8)


def test_the_mean_of_what_is_left_is_the_share_of_missing_dimensions():
    # E ||(I - P P^T) u||^2 / 2 = (1 - d/D) / 2 for a unit vector u: D = 10, d = 3 -> 0.35
    rng, u = np.random.default_rng(11), np.eye(10)[0]
    left = []
    for _ in range(2000):
        p = matrix("orthonormal", 10, 3, rng)
        across = u - p @ (p.T @ u)
        left.append(across @ across / 2)
    assert abs(np.mean(left) - 0.35) < 4 * np.std(left) / np.sqrt(2000)


def test_normalisation_moves_too_and_the_precision_stays():
    network = conv_net(np.random.default_rng(12), np.float32)
    data = clusters(np.random.default_rng(13), network.input_shape)
    run = train(network, data, Subspace(30, "fastfood"), epochs=2, batch=16)
    for key, p in run.network.params().items():
        assert p.value.dtype == np.float32
        assert (p.value != network.params()[key].value).any(), key


def test_absent_weights_stay_absent():
    network = mlp((6, 9, 3), np.random.default_rng(14), dtype=np.float32)
    masks = {n: np.random.default_rng(15).random(m.shape) < 0.4 for n, m in network.masks().items()}
    for name, layer in network.prunable().items():
        layer.weight.rewire(masks[name])
    run = train(network, clusters(np.random.default_rng(16), (6,)), Subspace(20), epochs=3, batch=16)
    for name, layer in run.network.prunable().items():
        np.testing.assert_array_equal(layer.weight.mask, masks[name])
        assert not layer.weight.dense()[~masks[name]].any() and layer.weight.dense()[masks[name]].all()


def test_weight_decay_draws_to_the_start():
    # without a gradient z shrinks by 1 - lr decay at each step
    network = chain(np.ones((2, 3)))
    method, state = Subspace(4, "dense"), state_of(network, np.zeros((4, 3)), np.zeros((4, 2)), loss="mse")
    state.optimizer, state.rate = SGD(0.0, weight_decay=0.5), Constant(0.2)
    method.setup(state)
    state.memory["subspace"]["z"][...] = [1.0, -2.0, 3.0, 0.5]
    for _ in range(3):
        descend(state)
        method.update(state)
    np.testing.assert_allclose(state.memory["subspace"]["z"], 0.9**3 * np.array([1.0, -2.0, 3.0, 0.5]))


def test_more_dimensions_fit_better_on_the_digits():
    data = datasets.load("digits")
    network = models.build("mlp:64-24-10", data, seed=0)
    found = []
    for d in (5, 50, 500):
        run = train(network, data, Subspace(d), epochs=6, optimizer=Adam(), rate=Constant(0.02))
        found.append(run.history[-1].loss)
    assert found[0] > found[1] > found[2]


def test_settings_are_checked():
    for wrong in ({"dimension": 0}, {"dimension": True}, {"dimension": 2.5}, {"projection": "gaussian"}):
        with pytest.raises(UsageError):
            Subspace(**wrong)
    network = mlp((6, 5, 3), np.random.default_rng(0))
    with pytest.raises(MethodError, match="at most 53"):
        train(network, clusters(np.random.default_rng(1), (6,)), Subspace(54), epochs=1)
