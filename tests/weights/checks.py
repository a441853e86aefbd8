"""The gradients of a weight, on its own, against the complex step."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from minisparse.nn import EVAL, MaskedWeight, Mode, Weight, Window
from tests.oracles.complex_step import H

Array = np.ndarray
WINDOW = Window.of((3, 2), (2, 1), 1)


def masked(rng: Generator, share: float = 1.0) -> MaskedWeight:
    """A 3x2 kernel over 2 channels, 4 outputs; float64."""
    return MaskedWeight(0.5 * rng.standard_normal((4, 12)), (4, 2, 3, 2), rng.random((4, 12)) < share)


def modes(seed: int) -> dict[str, Callable[[], Mode]]:
    """Evaluation, and training with the same draws whenever it is asked for."""
    return {"evaluation": lambda: EVAL, "training": lambda: Mode(True, np.random.default_rng(seed))}


def _rows(weight: Weight, x: Array, mode: Mode) -> Array:
    return weight.apply(x, mode)


def _image(weight: Weight, x: Array, mode: Mode) -> Array:
    return weight.correlate(x, WINDOW, mode)


def _slope(weight: Weight, forward: Callable, x: Array, dy: Array, mode: Mode, v: dict, u: Array) -> float:
    """Derivative of sum(dy * y) along v of the parameters and u of the input."""
    twin = copy.deepcopy(weight)
    for key, p in twin.params().items():
        p.set(p.value + 1j * H * v[key])
    return float((dy * forward(twin, x + 1j * H * u, mode)).sum().imag / H)


def check(weight: Weight, rng: Generator, mode: Callable[[], Mode], image: bool, directions: int = 4) -> None:
    """Compare pullback and pull with the complex step along random directions."""
    x = rng.standard_normal((3, 4, 4, 2) if image else (5, 12))
    forward = _image if image else _rows
    dy = rng.standard_normal(forward(weight, x, mode()).shape)
    if image:
        weight.correlate_pullback(x, dy, WINDOW)
        dx = weight.correlate_pull(dy, WINDOW, x.shape[1:3])
    else:
        weight.pullback(x, dy)
        dx = weight.pull(dy)
    support = weight.carrier.mask
    for _ in range(directions):
        v = {k: rng.standard_normal(p.value.shape) for k, p in weight.params().items()}
        v = {k: d * support if d.shape == support.shape else d for k, d in v.items()}
        u = rng.standard_normal(x.shape)
        terms = [dx * u] + [weight.params()[k].grad * d for k, d in v.items()]
        size = sum(np.abs(t).sum() for t in terms)
        got = sum(t.sum() for t in terms)
        want = _slope(weight, forward, x, dy, mode(), v, u)
        assert abs(got - want) <= 1e-12 * max(size, 1), f"{got} is not {want}"
    for p in weight.params().values():
        if p.value.shape == support.shape:
            assert not p.grad[~support].any()
