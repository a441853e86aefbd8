"""A: derivatives against steps, second order against sums of steps, the list of closed forms.

What is here is drawn anew or was held by no other test; tests/nn/test_gradients.py (complex step of whole
networks), tests/curvature and tests/methods have the rest. docs/reliability.md says which.
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from minisparse.curvature import exact_diagonal, flatten, hutchinson, lecun_diagonal
from minisparse.errors import UsageError
from minisparse.methods.initial.grasp import gradient_flow, hessian_gradient
from minisparse.methods.reconstruct.obs import OBS
from minisparse.methods.registry import catalogue
from minisparse.nn import MSE, Activation, CrossEntropy, MaxPool2d, Network
from minisparse.nn.loss import LOSSES
from minisparse.sparsity import NM, Global, LayerShape, OneShot, Uniform, Unstructured, select
from tests.architectures import EVERYTHING, KINKED, inputs_of, random_problem
from tests.curvature.nets import CURVED, case, mlp, random_case
from tests.curvature.oracles import close, gradient_of_sample, product_by_complex_step
from tests.methods.problems import chain, state_of
from tests.nn.zoo import ZOO, example
from tests.oracles.complex_step import Twin
from tests.reliability.counts import examples

TESTS = Path(__file__).parents[1]
STEP = 1e-5
COMPLEX, CENTRAL = 1e-12, 1e-8  # times the larger of 1 and the derivative


def test_gradients_equal_complex_steps_and_central_differences_entry_by_entry() -> None:
    """A1: single entries of every parameter and of the input, in random networks away from kinks."""
    networks = examples(20, 200, 2_000)
    checked = across = 0
    for k in range(networks):
        rng = np.random.default_rng([7, k])
        problem = random_problem(rng, EVERYTHING)
        network, loss, x, target = problem.network, problem.loss, problem.x, problem.target
        loss.value(network.forward(x), target)
        dx = network.backward(loss.grad())
        twin = Twin(network, loss, x, target)
        masks = {f"{name}.weight": mask for name, mask in network.masks().items()}
        places = [(key, p.value, p.grad.copy()) for key, p in network.params().items()]
        for key, value, grad in [*places, ("x", x, dx)]:
            live = np.flatnonzero(masks.get(key, np.ones(value.shape, bool)))
            for i in rng.choice(live, min(2, live.size), replace=False):
                one = np.zeros(value.size)
                one[i] = 1
                one = one.reshape(value.shape)
                slope = twin.slope({}, one) if key == "x" else twin.slope({key: one})
                g = grad.flat[i]
                assert abs(g - slope) <= COMPLEX * max(1, abs(g)), f"network {k}, {key}[{i}]"
                kept, ends, sides = value.flat[i], [], []
                for end in (kept + STEP, kept - STEP):
                    value.flat[i] = end
                    sides.append(sides_of(network, x))
                    ends.append(loss.value(network.forward(x), target))
                value.flat[i] = kept
                if sides[0] != sides[1]:  # a kink within the step: there is no derivative to compare with
                    across += 1
                    continue
                central = (ends[0] - ends[1]) / (2 * STEP)
                assert abs(g - central) <= CENTRAL * max(1, abs(g), size_of(ends)), f"network {k}, {key}[{i}]"
                checked += 1
    assert checked > 8 * networks and across < checked / 20


def size_of(ends: list[float]) -> float:
    """The loss itself: its rounding errors are divided by the step."""
    return max(abs(end) for end in ends)


def sides_of(network: Network, x: np.ndarray) -> list[bytes]:
    """On which side of its kink every activation is, and which pixel wins every pooling window."""
    found = []
    for layer, z in inputs_of(network, x):
        if isinstance(layer, Activation) and layer.name in KINKED:
            found.append((z > 0).tobytes())
        elif isinstance(layer, MaxPool2d):
            layer.forward(z)
            found.append(np.asarray(layer.where).tobytes())
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_batch_has_no_loss(name: str) -> None:
    target = np.zeros(0, np.int64) if name == "cross-entropy" else np.zeros((0, 3))
    with pytest.raises(UsageError, match="got 0 samples, expected at least 1"):
        LOSSES[name]().value(np.zeros((0, 3)), target)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_an_empty_batch_goes_through_every_layer(name: str, dtype: type) -> None:
    layer, x, network = example(name, np.random.default_rng(0), dtype)
    y = network.forward(x[:0])
    assert y.shape == (0, *network.forward(x).shape[1:]) and y.dtype == dtype


def test_the_recursion_of_lecun_is_exact_for_the_last_layer_and_for_chains_of_width_one() -> None:
    """A3: with squared error and any curved activation; elsewhere it is not, by what is measured here."""
    gaps = []
    for k in range(examples(10, 100, 1_000)):
        rng = np.random.default_rng([8, k])
        activation = CURVED[k % len(CURVED)]
        widths = [int(w) for w in rng.integers(1, 7, rng.integers(3, 6))]
        c = case(mlp(widths, activation, rng), MSE(), int(rng.integers(1, 6)), rng)
        got, want = lecun_diagonal(*c), exact_diagonal(*c)
        last = f"fc{len(widths) - 1}"
        for name in (f"{last}.weight", f"{last}.bias"):
            close({name: got[name]}, {name: want[name]}, rtol=1e-12, atol=1e-15)
        c = case(mlp([1] * len(widths), activation, rng), MSE(), 3, rng)
        close(lecun_diagonal(*c), exact_diagonal(*c), rtol=1e-11, atol=1e-15)
        if len(widths) > 3 and min(widths) > 1:
            first = want["fc1.weight"]
            gaps.append(np.abs(got["fc1.weight"] - first).max() / np.abs(first).max())
    assert gaps and np.median(gaps) > 1e-3


def test_hutchinsons_estimate_lies_within_four_standard_errors_of_the_diagonal() -> None:
    """A3: the number of probes is that of the promise; the error shrinks as its root."""
    probes = examples(200, 2_000, 20_000)
    rng = np.random.default_rng(11)
    c = case(mlp([3, 4, 3], "tanh", rng), CrossEntropy(), 5, rng)
    exact = flatten(exact_diagonal(*c))
    few, many = (hutchinson(*c, rng=np.random.default_rng(12), probes=n) for n in (50, probes))
    for estimate, error in (few, many):
        z = (flatten(estimate) - exact) / flatten(error)
        assert np.abs(z).max() < 4 and 0.5 < np.sqrt(np.mean(z**2)) < 1.7
    ratio = np.median(flatten(few[1]) / flatten(many[1]))
    assert ratio == pytest.approx(np.sqrt(probes / 50), rel=0.3)


def test_scores_of_grasp_are_minus_theta_times_the_complex_step_of_the_gradient_along_itself() -> None:
    """A4: S = -theta (H g) for random networks, g the gradient of the weights."""
    for k in range(examples(20, 100, 1_000)):
        c = random_case(np.random.default_rng([9, k]))
        g = {n: np.zeros(p.value.shape) for n, p in c.network.params().items()}
        for i in range(len(c.x)):
            for n, a in gradient_of_sample(c, i).items():
                g[n] += a / len(c.x)
        names = {f"{n}.weight": n for n in c.network.prunable()}
        hg = product_by_complex_step(c, {n: a if n in names else np.zeros_like(a) for n, a in g.items()})
        weights = {n: layer.weight.dense() for n, layer in c.network.prunable().items()}
        scores = gradient_flow(weights, hessian_gradient(*c))
        close(scores, {n: -weights[n] * hg[f"{n}.weight"] for n in weights}, rtol=1e-11, atol=1e-14)


# A6: where a method claims to be best, all masks of at most twelve weights are tried.


def every_mask(n: int, kept: int) -> np.ndarray:
    """All masks (count, n) that keep so many."""
    bits = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
    return bits[bits.sum(axis=1) == kept].astype(bool)


def test_the_masks_of_magnitude_and_of_n_m_lose_least_of_all() -> None:
    """Layer by layer the largest magnitudes, and the N largest of every M, keep most of sum w^2."""
    for k in range(examples(60, 500, 5_000)):
        rng = np.random.default_rng([10, k])
        shape = LayerShape(int(rng.integers(1, 4)), int(rng.integers(1, 5)))
        w = np.round(rng.standard_normal(shape.matrix), int(rng.integers(1, 4)))
        (mask,) = select({"a": w**2}, {"a": shape}, float(rng.random()), Uniform(), Unstructured()).values()
        flat, kept = w.ravel() ** 2, int(mask.sum())
        assert flat[mask.ravel()].sum() >= (every_mask(w.size, kept).astype(float) @ flat).max() - 1e-12
        m = int(rng.integers(2, 5))
        n, rows = int(rng.integers(1, m + 1)), 12 // m
        w = rng.standard_normal((1, rows * m))
        (mask,) = select({"a": w**2}, {"a": LayerShape(1, rows * m)}, None, Global(), NM(n, m)).values()
        groups = w.reshape(rows, m) ** 2
        best = (every_mask(m, n).astype(float) @ groups.T).max(axis=0)
        np.testing.assert_allclose((groups * mask.reshape(rows, m)).sum(axis=1), best, rtol=1e-12)


def test_obs_deletes_the_one_weight_whose_absence_costs_least() -> None:
    """Linear regression of at most twelve weights: every candidate is refitted by least squares."""
    for k in range(examples(20, 200, 2_000)):
        rng = np.random.default_rng([13, k])
        n = int(rng.integers(2, 13))
        x = rng.standard_normal((3 * n, n)) @ rng.standard_normal((n, n))
        w = rng.standard_normal((1, n))
        network = chain(w)
        target = network.forward(x)  # at the minimum of the loss
        state = state_of(network, x, target, "mse")
        OBS(1 / n, OneShot(0.0), samples=3 * n, damping=1e-12, refreshes=1).setup(state)
        layer = next(iter(network.prunable().values()))
        losses = []
        for q in range(n):
            others = np.delete(x, q, axis=1)
            fit = np.linalg.lstsq(others, target[:, 0], rcond=None)[0]
            losses.append(((others @ fit - target[:, 0]) ** 2).sum() / (2 * len(x)))
        (gone,) = np.flatnonzero(~layer.weight.mask[0])
        left = ((network.forward(x) - target) ** 2).sum() / (2 * len(x))
        assert losses[gone] <= min(losses) * (1 + 1e-6) + 1e-14
        assert left == pytest.approx(min(losses), rel=1e-4, abs=1e-12)


# A5: closed forms by name, and the tests that hold them.

CLOSED_FORMS = {
    "OBD: saliency h w^2 / 2": "methods.test_obd.test_constant_curvature_is_magnitude",
    "OBD: a diagonal quadratic is predicted exactly": (
        "methods.test_obd.test_a_diagonal_hessian_predicts_any_set_exactly"
    ),
    "OBS: w_q becomes 0 and the loss rises by w_q^2 / (2 [H^-1]_qq)": (
        "methods.test_obs.test_predicted_rise_is_the_true_rise_of_a_quadratic_loss"
    ),
    "OBS: a set of weights is the constrained minimum": (
        "methods.test_obs.test_set_formula_is_the_constrained_minimum"
    ),
    "OBS: the recursive inverse is the inverse": (
        "curvature.test_inverse.test_vectors_blocks_and_direct_inverse_agree"
    ),
    "SynFlow: conserved by unit and layer": (
        "methods.test_synflow.test_a_chain_conserves_flow_per_unit_and_per_layer"
    ),
    "SynFlow: conserved by channel": (
        "methods.test_synflow.test_convolution_norm_and_pooling_conserve_flow_per_channel"
    ),
    "SynFlow: no early collapse": (
        "methods.test_synflow.test_one_weight_at_a_time_ends_in_one_whole_path_however_few_are_left"
    ),
    "SNIP: the unit of the loss does not matter": (
        "methods.test_snip.test_scores_sum_to_one_and_do_not_depend_on_the_unit_of_the_loss"
    ),
    "LAMP: order": (
        "methods.test_lamp.test_within_a_layer_the_order_is_that_of_magnitude_and_ties_keep_the_lower_index"
    ),
    "ERK: densities sum to the target": (
        "sparsity.test_allocation.test_erk_densities_solve_the_capped_equation"
    ),
    "cubic schedule: both ends": "sparsity.test_schedule.test_any_run_ends_exactly_at_the_target",
    "N:M: exactly N": "sparsity.test_pattern.test_groups_equal_a_loop_with_dead_entries_last",
    "Wanda: |W| times the norm of the column": "methods.test_wanda.test_worked_example",
    "SparseGPT: with diagonal H, w^2 H_jj": (
        "methods.test_sparsegpt.test_uncorrelated_inputs_are_obd_over_the_block_and_wanda_in_the_groups"
    ),
    "RigL: as many grow as drop": "methods.test_rigl.test_every_layers_count_is_constant_over_a_run",
    "SET: edges are conserved": (
        "methods.test_set.test_an_exchange_keeps_every_layers_count_and_starts_new_entries_at_zero"
    ),
    "DSR: edges are conserved": "methods.test_dsr.test_the_total_is_constant_and_no_layer_empties",
    "GraSP: closed form": (
        "methods.test_grasp.test_closed_form_on_any_quadratic_and_the_order_where_it_is_diagonal"
    ),
}


@pytest.mark.parametrize("place", CLOSED_FORMS.values(), ids=list(CLOSED_FORMS))
def test_every_closed_form_of_the_promise_is_tested(place: str) -> None:
    module, _, name = place.rpartition(".")
    path = TESTS / f"{module.replace('.', '/')}.py"
    assert f"def {name}(" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", catalogue())
def test_every_method_has_three_tests_of_its_own_beside_that_of_its_settings(name: str) -> None:
    path = TESTS / "methods" / f"test_{name.replace('-', '_')}.py"
    inside = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef)]
    tests = [f.name for f in inside if f.name.startswith("test_")]
    of_settings = [t for t in tests if "settings" in t or "refused" in t or "checked" in t]
    assert len(tests) - len(of_settings) >= 3, tests
