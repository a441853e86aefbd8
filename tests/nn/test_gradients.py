"""Gradients and Hessian-vector products of whole random networks against the complex step."""

from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from minisparse.nn import EVAL, Mode
from tests.architectures import EVERYTHING, MARGIN, Problem, random_problem, smooth
from tests.nn.coverage import features
from tests.oracles.complex_step import Twin

GROUPS, PER_GROUP = 20, 14
GRADIENT, CURVATURE = 1e-12, 1e-10

FLOOR = 1e-3  # of 1, or of the largest gradient: where terms of size 1 cancel, 1e-16 is left and means 0

Arrays = dict[str, np.ndarray]


@cache
def drawn(group: int) -> list[Problem]:
    rng = np.random.default_rng([2024, group])
    return [random_problem(rng, EVERYTHING) for _ in range(PER_GROUP)]


def problems(group: int) -> Iterator[tuple[np.random.Generator, Problem]]:
    """The networks of a group, each with a generator for directions."""
    for k, problem in enumerate(drawn(group)):
        yield np.random.default_rng([2025, group, k]), problem
        problem.network.release()


def direction(rng: np.random.Generator, problem: Problem) -> Arrays:
    return {k: rng.standard_normal(p.value.shape) for k, p in problem.network.params().items()}


def loss_value(problem: Problem, mode: Mode = EVAL) -> float:
    return problem.loss.value(problem.network.forward(problem.x, mode), problem.target)


def gradient(problem: Problem) -> tuple[Arrays, np.ndarray]:
    loss_value(problem)
    dx = problem.network.backward(problem.loss.grad())
    return {k: p.grad.copy() for k, p in problem.network.params().items()}, dx


def second_order(problem: Problem, v: Arrays, u: np.ndarray) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """H v of every parameter, R{dx} and dx, along v of the parameters and u of the input."""
    loss_value(problem)
    for k, p in problem.network.params().items():
        p.direction = v[k]
    ry = problem.network.rforward(u)
    dx, rdx = problem.network.rbackward(problem.loss.grad(), problem.loss.rgrad(ry))
    return {k: p.rgrad.copy() for k, p in problem.network.params().items()}, rdx, dx


def agree(got: Arrays, want: Arrays, bound: float) -> None:
    """Each array to a relative error of its own largest entry, or of FLOOR where that is larger."""
    floor = FLOOR * max(1.0, *(np.abs(w).max() for w in want.values()))
    for key, w in want.items():
        scale = max(np.abs(w).max(), floor)
        error = np.abs(got[key] - w).max()
        assert error <= bound * scale, f"{key}: error {error:.2e} at size {scale:.2e}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_gradient_is_the_complex_step(group):
    for rng, problem in problems(group):
        grads, dx = gradient(problem)
        twin = Twin(problem.network, problem.loss, problem.x, problem.target)
        v, u = direction(rng, problem), rng.standard_normal(problem.x.shape)
        floor = FLOOR * max(1.0, *(np.abs(g * v[k]).sum() for k, g in grads.items()))

        def check(terms: list[np.ndarray], slope: float, floor: float = floor) -> None:
            size = sum(np.abs(t).sum() for t in terms)
            error = abs(sum(t.sum() for t in terms) - slope)
            assert error <= GRADIENT * max(size, floor), f"error {error:.2e} at size {size:.2e}"

        check([g * v[k] for k, g in grads.items()], twin.slope(v))
        check([dx * u], twin.slope({}, u))
        for k, g in grads.items():  # each alone, so that no small one hides behind a large one
            check([g * v[k]], twin.slope({k: v[k]}))


@pytest.mark.parametrize("group", range(GROUPS))
def test_single_entries_of_every_gradient_array(group):
    for rng, problem in problems(group):
        grads, dx = gradient(problem)
        twin = Twin(problem.network, problem.loss, problem.x, problem.target)
        arrays = {**grads, "x": dx}
        floor = FLOOR * max(1.0, *(np.abs(g).max() for g in arrays.values()))
        for k, g in arrays.items():
            for i in rng.choice(g.size, min(3, g.size), replace=False):
                one = np.zeros(g.size)
                one[i] = 1
                one = one.reshape(g.shape)
                slope = twin.slope({}, one) if k == "x" else twin.slope({k: one})
                assert abs(g.flat[i] - slope) <= GRADIENT * max(np.abs(g).max(), floor), (k, i)


@pytest.mark.parametrize("group", range(GROUPS))
def test_hessian_vector_products_are_the_complex_step_of_the_gradient(group):
    for rng, problem in problems(group):
        v, u = direction(rng, problem), rng.standard_normal(problem.x.shape)
        grads, dx = gradient(problem)
        twin = Twin(problem.network, problem.loss, problem.x, problem.target)
        for along in (np.zeros_like(u), u):
            want = twin.along(v, along)
            hv, rdx, rdx_dx = second_order(problem, v, along)
            agree(hv, want.rgrads, CURVATURE)
            agree({"x": rdx}, {"x": want.rdx}, CURVATURE)
            agree(grads, want.grads, GRADIENT)
            agree({"a": dx, "b": rdx_dx}, {"a": want.dx, "b": want.dx}, GRADIENT)


@pytest.mark.parametrize("group", range(0, GROUPS, 4))
def test_hessian_is_symmetric_and_linear(group):
    for rng, problem in problems(group):
        v, w = direction(rng, problem), direction(rng, problem)
        zero = np.zeros_like(problem.x)
        hv = second_order(problem, v, zero)[0]
        hw = second_order(problem, w, zero)[0]
        mixed = second_order(problem, {k: 2 * v[k] - 3 * w[k] for k in v}, zero)[0]
        agree(mixed, {k: 2 * hv[k] - 3 * hw[k] for k in v}, 1e-11)
        masks = {f"{n}.weight": m for n, m in problem.network.masks().items()}
        live = {k: masks.get(k, True) for k in v}
        a = sum((w[k] * hv[k] * live[k]).sum() for k in v)
        b = sum((v[k] * hw[k] * live[k]).sum() for k in v)
        size = sum((np.abs(w[k] * hv[k]) + np.abs(v[k] * hw[k])).sum() for k in v)
        assert abs(a - b) <= 1e-12 * size


def test_unset_directions_are_zero():
    for rng, problem in problems(0):
        params = problem.network.params()
        key = sorted(params)[0]
        v = {k: rng.standard_normal(p.value.shape) * (k == key) for k, p in params.items()}
        want = second_order(problem, v, np.zeros_like(problem.x))[0]
        for p in params.values():
            p.direction = None
        params[key].direction = v[key]
        loss_value(problem)
        ry = problem.network.rforward(np.zeros_like(problem.x))
        problem.network.rbackward(problem.loss.grad(), problem.loss.rgrad(ry))
        for k, p in params.items():
            np.testing.assert_array_equal(p.rgrad, want[k])


def test_samples_are_averaged():
    """The gradient of a batch is the mean of the gradients of its samples (evaluation mode)."""
    for _, problem in problems(1):
        whole, _ = gradient(problem)
        each = []
        for i in range(len(problem.x)):
            one = slice(i, i + 1)
            each.append(
                gradient(Problem(problem.network, problem.loss, problem.x[one], problem.target[one]))[0]
            )
        mean = {k: sum(g[k] for g in each) / len(each) for k in whole}
        agree(whole, mean, GRADIENT)


def test_absent_weights_have_no_gradient_and_no_curvature():
    count = 0
    for group in range(4):
        for rng, problem in problems(group):
            grads, _ = gradient(problem)
            hv, _, _ = second_order(problem, direction(rng, problem), np.zeros_like(problem.x))
            for name, mask in problem.network.masks().items():
                count += int((~mask).sum())
                assert not grads[f"{name}.weight"][~mask].any()
                assert not hv[f"{name}.weight"][~mask].any()
    assert count > 100


def test_the_random_networks_cover_the_engine():
    """Counts what the networks above contain, what was rejected, and that no sample sits at a kink."""
    found: Counter[str] = Counter()
    depths, rejected_samples, rejected_networks, samples = Counter(), 0, 0, 0
    for group in range(GROUPS):
        for _, problem in problems(group):
            found.update(features(problem.network))
            found[problem.loss.name] += 1
            depths[min(len(problem.network.prunable()), 7)] += 1
            rejected_samples += problem.rejected_samples
            rejected_networks += problem.rejected_networks
            samples += len(problem.x)
            assert smooth(problem.network, problem.x).all()
    total = GROUPS * PER_GROUP
    print(f"{total} networks, {samples} samples within {MARGIN} of no kink; rejected on the way: ", end="")
    print(f"{rejected_samples} samples, {rejected_networks} networks; {dict(found)}")
    assert total >= 200
    assert 0 < rejected_samples < 20 * samples
    assert rejected_networks < total / 2
    assert all(depths[d] >= 5 for d in range(1, 7)), depths
    for name in EVERYTHING.activations + EVERYTHING.losses:
        assert found[name] >= 30, name
    for name in (
        "images", "rows", "Linear", "Conv2d", "BatchNorm1d", "BatchNorm2d", "MaxPool2d", "AvgPool2d",
        "GlobalAvgPool", "Flatten", "Residual", "SubsamplePad", "Dropout", "shortcut identity",
        "shortcut Conv2d", "shortcut Linear", "shortcut SubsamplePad", "masked", "empty row",
        "empty column", "no bias", "width 1", "width 17", "Conv2d rectangular", "Conv2d stride",
        "Conv2d uneven stride", "Conv2d padding", "Conv2d dilation", "Conv2d kernel 5", "MaxPool2d stride",
        "MaxPool2d padding", "MaxPool2d dilation", "AvgPool2d stride", "AvgPool2d padding",
    ):  # fmt: skip
        assert found[name] >= 8, name
