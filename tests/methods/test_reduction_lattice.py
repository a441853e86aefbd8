"""Methods that must agree: each is the other's special case, or both do not see the same change of units.

Every equality is tested once. COVERED names those that stand with their method; the others are here, on the
methods as they are called, not on their formulas.
"""

import importlib

import numpy as np
import pytest

from minisparse.curvature.ggn import ggn_matrix
from minisparse.methods.dense import Dense
from minisparse.methods.learned.acdc import ACDC
from minisparse.methods.learned.movement import Movement
from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.lobs import LOBS
from minisparse.methods.reconstruct.obc import OBC
from minisparse.methods.reconstruct.obs import OBS, compensation, rise
from minisparse.methods.reconstruct.sparsegpt import SparseGPT
from minisparse.methods.reconstruct.wanda import Wanda, wanda_score
from minisparse.methods.reconstruct.woodfisher import WoodFisher
from minisparse.methods.saliency.gradient import Gradient
from minisparse.methods.saliency.lamp import LAMP
from minisparse.methods.saliency.lap import LAP
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.methods.saliency.obd import OBD
from minisparse.methods.structured.amc import Walk
from minisparse.methods.structured.budget import Bill, counts_of, least_counts, uniform
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import NM, Block, Column, Cubic, Linear, OneShot, Row, Steady
from minisparse.sparsity.schedule import ramp
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, conv_net, descend, mlp, state_of
from tests.methods.quadratics import spd

NOW = OneShot(0.0)

# what must hold -> the test of it, where it stands with its method
COVERED = {
    "OBD with constant curvature is magnitude": "test_obd.test_constant_curvature_is_magnitude",
    "OBS with diagonal H is OBD": "test_obs.test_never_more_than_obd_says_and_as_much_without_correlation",
    "OBC of one row is OBS, one at a time": "test_obc.test_rows_follow_sequential_obs",
    "L-OBS on white inputs is magnitude": (
        "test_lobs.test_white_inputs_are_magnitude_of_the_layer_without_compensation"
    ),
    "SparseGPT with diagonal H is OBD, in the groups Wanda": (
        "test_sparsegpt.test_uncorrelated_inputs_are_obd_over_the_block_and_wanda_in_the_groups"
    ),
    "Wanda with equal norms is magnitude per row": (
        "test_wanda.test_equal_norms_are_magnitude_per_row_and_equal_scores_keep_the_lower_column"
    ),
    "WoodFisher in blocks of one is OBD with the empirical Fisher": (
        "test_woodfisher.test_blocks_of_one_weight_are_obd_with_the_empirical_fisher"
    ),
    "WoodFisher with Gauss-Newton factors is OBS": (
        "test_woodfisher.test_with_the_factors_of_the_gauss_newton_matrix_it_is_obs"
    ),
    "WoodTaylor without gradient is WoodFisher": (
        "test_woodfisher.test_without_gradient_woodtaylor_is_woodfisher"
    ),
    "EigenDamage with diagonal factors is C-OBD": (
        "test_eigendamage.test_diagonal_factors_are_cobd_up_to_relabelling"
    ),
    "Kron-OBS with diagonal S is Kron-OBD": "test_kron_obs.test_uncorrelated_outputs_are_kron_obd",
    "LAP between orthonormal neighbours is magnitude": (
        "test_lap.test_between_orthonormal_neighbours_it_is_magnitude"
    ),
    "LAMP of one layer is magnitude": "test_lamp.test_one_layer_is_magnitude",
    "movement with scores |W| is magnitude": (
        "test_movement.test_scores_that_are_magnitudes_give_magnitude_pruning"
    ),
    "Karnin from 0 is the exact difference, OBD's": (
        "test_karnin.test_from_zero_it_is_the_exact_loss_difference_as_the_rate_vanishes"
    ),
    "DiagHessian of ReLU networks is DiagGGN": (
        "..curvature.test_exact_diagonal.test_piecewise_linear_networks_have_no_curvature_of_their_own"
    ),
    "DiagHessian of one hidden layer is LeCun's": ("..curvature.test_lecun.test_exact_for_one_hidden_layer"),
    "variational dropout of small alpha is deterministic": (
        "test_variational_dropout.test_small_alpha_is_a_deterministic_layer"
    ),
    "L0 with open gates is dense": "test_l0.test_open_gates_are_a_dense_layer",
    "LASSO without a penalty is least squares": (
        "test_structured_lasso.test_without_a_penalty_it_is_least_squares"
    ),
    "the refit of all channels is the layer itself": (
        "test_channel_pruning.test_what_fits_already_stays_bit_for_bit_and_damping_holds_to_it"
    ),
    "powerprop with power 1 is magnitude": (
        "test_powerprop.test_a_power_of_one_is_magnitude_pruning_bit_for_bit"
    ),
    "static random is dynamic training without exchanges": (
        "test_random.test_static_training_is_dynamic_training_that_exchanges_nothing"
    ),
    "regrowth of magnitude is iterative hard thresholding": (
        "test_magnitude.test_regrowth_is_hard_thresholding_with_the_mask_fixed_in_between"
    ),
    "LAP does not see the gauge of a pair of layers": (
        "test_lap.test_rescaling_hidden_units_is_not_seen_by_the_two_layers_it_touches"
    ),
    "Wanda's masks do not see the gauge": (
        "test_wanda.test_rescaling_hidden_units_leaves_the_masks_of_a_network_unchanged"
    ),
    "layerwise and normalised magnitude do not see a layer's scale": (
        "test_magnitude.test_only_the_plain_global_ranking_feels_the_scale_of_a_layer"
    ),
    "LAMP does not see a layer's scale": "test_lamp.test_the_scale_of_a_layer_does_not_matter",
}


@pytest.mark.parametrize("place", COVERED.values(), ids=list(COVERED))
def test_what_is_tested_elsewhere_is_there(place):
    module, _, name = place.rpartition(".")
    home = importlib.import_module(module if module.startswith("..") else f".{module}", "tests.methods")
    assert callable(getattr(home, name))


def one_layer(h, out, seed=0):
    """A linear layer (out, n) whose mse has a multiple of h as Hessian of every row; it fits exactly."""
    n, rng = len(h), np.random.default_rng(seed)
    network = chain(rng.standard_normal((out, n)))
    x = np.linalg.cholesky(n * h).T.copy()
    return network, x, network.forward(x)


def after(method, network, x, target, loss="mse"):
    """Masks and matrices of a copy, pruned before step 0."""
    copy = network.copy()
    method.setup(state_of(copy, x, target, loss))
    return copy.masks(), {name: layer.weight.dense() for name, layer in copy.prunable().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


WHITE = {
    "obd": OBD(0.6, NOW),
    "obd, with the gradient": OBD(0.6, NOW, taylor=True),
    "obs": OBS(0.6, NOW),
    "lobs": LOBS(0.6, NOW),
    "obc": OBC(0.6, NOW),
    "sparsegpt": SparseGPT(0.6, NOW),
    "lap": LAP(0.6, NOW),
    "lamp": LAMP(0.6, NOW),
    "normalised magnitude": Magnitude(0.6, NOW, normalize=True),
}


@pytest.mark.parametrize("method", WHITE.values(), ids=list(WHITE))
def test_on_one_layer_with_white_inputs_they_are_all_magnitude(method):
    problem = one_layer(np.eye(10), 4)
    masks, values = after(method, *problem)
    wanted, kept = after(Magnitude(0.6, NOW), *problem)
    assert_same(masks, wanted)
    np.testing.assert_allclose(values["fc1"], kept["fc1"], rtol=0, atol=1e-12)


IN_GROUPS = {
    "wanda": Wanda(0.5, NOW, pattern=NM(2, 4)),
    "sparsegpt": SparseGPT(0.5, NOW, pattern=NM(2, 4)),
    "obc": OBC(0.5, NOW, pattern=NM(2, 4)),
}


@pytest.mark.parametrize("method", IN_GROUPS.values(), ids=list(IN_GROUPS))
def test_in_groups_with_white_inputs_they_are_all_magnitude_in_groups(method):
    problem = one_layer(np.eye(12), 5)
    assert_same(after(method, *problem)[0], after(Magnitude(0.5, NOW, pattern=NM(2, 4)), *problem)[0])
    # and not where inputs differ in size
    other = one_layer(np.diag(np.linspace(0.01, 9, 12)), 5)
    found, plain = (after(m, *other)[0]["fc1"] for m in (method, Magnitude(0.5, NOW, pattern=NM(2, 4))))
    assert (found != plain).any()


UNCORRELATED = {"obs": OBS(0.6, NOW, damping=1e-12), "taylor": OBD(0.6, NOW, taylor=True)}


@pytest.mark.parametrize("method", UNCORRELATED.values(), ids=list(UNCORRELATED))
def test_with_uncorrelated_inputs_at_the_minimum_they_are_obd_and_nothing_is_compensated(method):
    problem = one_layer(np.diag(np.geomspace(0.05, 20, 10)), 4)
    masks, values = after(method, *problem)
    wanted, kept = after(OBD(0.6, NOW), *problem)
    assert_same(masks, wanted)
    np.testing.assert_allclose(values["fc1"], kept["fc1"], rtol=0, atol=1e-9)
    assert (masks["fc1"] != after(Magnitude(0.6, NOW), *problem)[0]["fc1"]).any()


def test_the_set_formula_of_one_weight_is_the_single_one():
    rng = np.random.default_rng(1)
    w, p = rng.standard_normal(7), np.linalg.inv(spd(7, rng))
    for q in range(7):
        at = np.array([q])
        assert rise(w, p, at) == pytest.approx(w[q] ** 2 / (2 * p[q, q]), rel=1e-12)
        assert rise(w, p, at) == pytest.approx(saliency(w, np.diag(p))[q], rel=1e-12)
        np.testing.assert_allclose(compensation(w, p, at), -w[q] / p[q, q] * p[:, q], rtol=1e-12)


def test_with_heavy_damping_woodfisher_is_magnitude():
    problem = one_layer(spd(8, np.random.default_rng(2)), 3)
    heavy = WoodFisher(0.5, NOW, damping=1e12)
    assert_same(after(heavy, *problem)[0], after(Magnitude(0.5, NOW), *problem)[0])


@pytest.mark.parametrize("pattern", [NM(4, 4), NM(2, 2, "dense"), Block(1, 1), Block(2, 2), Row(), Column()])
def test_nothing_to_remove_is_the_identity_whatever_the_pattern(pattern):
    network = mlp((8, 12, 4), np.random.default_rng(3))
    masks, _ = after(Magnitude(0.0, NOW, pattern=pattern), network, np.zeros((2, 8)), np.zeros((2, 4)))
    assert all(mask.all() for mask in masks.values())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.93])
def test_blocks_of_one_weight_are_no_blocks(sparsity):
    network = conv_net(np.random.default_rng(4))
    nothing = np.zeros((2, *network.input_shape)), np.zeros(2, dtype=int), "cross-entropy"
    found, plain = (Magnitude(sparsity, NOW, **p) for p in ({"pattern": Block(1, 1)}, {}))
    assert_same(after(found, network, *nothing)[0], after(plain, network, *nothing)[0])


@pytest.mark.parametrize("every", [1, 7, None])
def test_a_ramp_of_power_one_is_linear_and_of_power_three_cubic(every):
    for power, kind in ((1, Linear), (3, Cubic)):
        curve = kind(0.1, 0.9, every, 0.2).curve(50, 0.9)
        levels = [ramp(0.2, 0.9, (t - 5) / 40, power) for t, _ in curve]
        np.testing.assert_allclose([level for _, level in curve], levels, rtol=1e-15)
    assert Linear(0.1, 0.9, every, 0.9).curve(50, 0.9) == Cubic(0.1, 0.9, every, 0.9).curve(50, 0.9)


@pytest.mark.parametrize("share", [0.0, 0.31, 0.5, 1.0])
def test_an_agent_that_always_says_the_same_prunes_uniformly(share):
    one = np.array([1, 0, 0])
    reads, writes = np.array([[0, 0], [1, 0], [0, 1]]), np.array([[1, 0], [0, 1], [0, 0]])
    bill = Bill(np.array([9, 5, 7]), one, one[::-1], reads, writes, np.array([40, 26]))
    least = least_counts(bill.units, 0.2)
    wanted = counts_of(share, bill, least)
    walk = Walk(bill, np.zeros((2, 8)), least, int(bill.total(wanted)))
    _, kept = walk.play(lambda state: share)
    np.testing.assert_array_equal(kept, wanted)
    np.testing.assert_array_equal(kept, uniform(bill, least, walk.budget))


def watched(method, optimizer):
    seen = []
    run = train(
        mlp((6, 12, 3), np.random.default_rng(5), dtype=np.float32), clusters(np.random.default_rng(6), (6,)),
        method, epochs=8, batch=12, optimizer=optimizer, progress=lambda s: seen.append(s.network.state()),
    )  # fmt: skip
    return run.network, seen


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.9), Adam])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_compression_and_decompression_are_magnitude_that_regrows_for_half_of_each_period(length, optimizer):
    # 32 steps with sparse phases from 4 on, dense ones as long between them, sparse from 28 on
    turns = Magnitude(0.8, Steady(2 * length, 4 / 32, 28 / 32), regrow=length)
    (network, a), (other, b) = (
        watched(m, optimizer()) for m in (turns, ACDC(0.8, begin=4 / 32, phase=length / 32, last=28 / 32))
    )
    # weights that are 0 and present in the one are absent in the other when a sparse phase is just over
    for first, second in zip(a, b, strict=True):
        assert_same(first, second)
    assert_same(network.masks(), other.masks())
    dense, _ = watched(Dense(), optimizer())
    assert any((dense.state()[k] != network.state()[k]).any() for k in network.state() if "weight" in k)


def rescaled(rng):
    """A ReLU network and the same function with hidden units in other units; data and labels."""
    first, second = rng.standard_normal((7, 5)), rng.standard_normal((3, 7))
    c = np.exp2(rng.integers(-3, 4, 7))
    x, t = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    return chain(first, second), chain(first * c[:, None], second / c), x, t


# whether scores are the same for both
GAUGE = {
    "obd": (OBD(0.5), True),
    "obd, with the gradient": (OBD(0.5, taylor=True), True),
    "gradient": (Gradient(0.5), True),
    "lap": (LAP(0.5), True),
    "magnitude": (Magnitude(0.5), False),
    "normalised magnitude": (Magnitude(0.5, normalize=True), False),
    "lamp": (LAMP(0.5), False),
}


@pytest.mark.parametrize(("method", "blind"), GAUGE.values(), ids=list(GAUGE))
def test_which_scores_see_the_units_of_hidden_units(method, blind):
    network, other, x, t = rescaled(np.random.default_rng(7))
    np.testing.assert_allclose(other.forward(x), network.forward(x), rtol=1e-12)
    a, b = (method.score(state_of(each, x, t)) for each in (network, other))
    assert all(np.allclose(a[n], b[n], rtol=1e-9, atol=1e-16) for n in a) == blind


def test_obs_does_not_see_them_without_damping_and_does_with():
    network, other, x, t = rescaled(np.random.default_rng(8))
    found = {}
    for damping in (0.0, 0.1):
        both = []
        for each in (network, other):
            state, w = state_of(each, x, t), each.prunable()["fc1"].weight.dense().ravel()
            # of one layer: the whole matrix is singular along the change of units
            h = ggn_matrix(each, state.loss, x, t)[: w.size, : w.size]
            both.append(saliency(w, np.diag(np.linalg.inv(h + damping * np.eye(w.size)))))
        found[damping] = np.allclose(*both, rtol=1e-6)
    assert found == {0.0: True, 0.1: False}


def test_a_ranking_of_wanda_over_the_layer_sees_them_and_one_within_rows_does_not():
    rng = np.random.default_rng(9)
    w, gram, c = rng.standard_normal((6, 5)), spd(5, rng), np.exp2(np.arange(-3, 3))
    before, after_ = wanda_score(w, gram), wanda_score(w * c[:, None], gram)
    np.testing.assert_array_equal(np.argsort(before, axis=1), np.argsort(after_, axis=1))
    assert (np.argsort(before, axis=None) != np.argsort(after_, axis=None)).any()


def test_one_step_of_movement_does_not_see_them_but_its_path_does():
    network, other, x, t = rescaled(np.random.default_rng(10))
    scores = []
    for each in (network, other):
        state, method = state_of(each, x, t, optimizer=SGD(0.0)), Movement(0.5)
        method.setup(state)
        found = []
        for _ in range(3):
            descend(state)
            state.optimizer.step(each, 0.05)
            found.append(np.concatenate([s.ravel() for s in method.score(state).values()]))
        scores.append(found)
    (first, *_, last), (other_first, *_, other_last) = scores
    np.testing.assert_allclose(other_first, first, rtol=1e-9, atol=1e-15)
    assert not np.allclose(other_last, last, rtol=1e-2)
