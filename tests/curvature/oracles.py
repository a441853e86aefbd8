"""Slow, obvious twins for the curvature tests: complex steps of plain forward and backward passes."""

import numpy as np

from minisparse.nn import EVAL
from tests.curvature.nets import Case

STEP = 1e-30


def _complex(case: Case):
    network = case.network.astype(np.complex128)
    x = case.x.astype(np.complex128)

    def backward():
        case.loss.value(network.forward(x, EVAL), case.target)
        network.backward(case.loss.grad())

    return network, backward


def diagonal_by_complex_step(case: Case) -> dict[str, np.ndarray]:
    """d2L/dw_i2 = Im g_i(w + i h e_i) / h, one parameter after another."""
    network, backward = _complex(case)
    out = {}
    for name, p in network.params().items():
        d = np.zeros(p.value.size)
        mask = np.ones(p.value.size, dtype=bool)
        if name.endswith("weight") and name[: -len(".weight")] in network.prunable():
            mask = network.prunable()[name[: -len(".weight")]].weight.mask.ravel()
        for i in np.flatnonzero(mask):
            kept = p.value.flat[i]
            p.value.flat[i] = kept + 1j * STEP
            backward()
            d[i] = p.grad.flat[i].imag / STEP
            p.value.flat[i] = kept
        out[name] = d.reshape(p.value.shape)
    return out


def product_by_complex_step(case: Case, v: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """H v = Im g(w + i h v) / h; v must be 0 at absent weights."""
    network, backward = _complex(case)
    for name, p in network.params().items():
        p.value += 1j * STEP * v[name]
    backward()
    return {name: p.grad.imag / STEP for name, p in network.params().items()}


def gradient_of_sample(case: Case, k: int) -> dict[str, np.ndarray]:
    """Gradient of the loss of sample k alone, by the plain backward pass."""
    case.loss.value(case.network.forward(case.x[k : k + 1], EVAL), case.target[k : k + 1])
    case.network.backward(case.loss.grad())
    return {name: p.grad.copy() for name, p in case.network.params().items()}


def close(a, b, rtol=1e-10, atol=0.0):
    """Every array of tree a against b: |a - b| <= rtol * max|b| over the array + atol."""
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(
            a[name], b[name], rtol=rtol, atol=rtol * np.abs(b[name]).max(initial=0) + atol, err_msg=name
        )
