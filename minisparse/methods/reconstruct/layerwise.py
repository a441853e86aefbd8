"""One layer after the other: what layer-wise reconstruction methods share.

The error that pruning makes in a layer's output Y = X W^T, over r rows X of calibration inputs, is

    E = |X (W' - W)^T|^2 / (2 r) = tr (W' - W) A (W' - W)^T / 2,     A = X^T X / r          (1)

so that A is all a method needs to know of the data, and rows of W do not interact. X are the inputs the
layer has once the layers before it are pruned, or those of the dense network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from minisparse.curvature.gram import Gram, input_grams
from minisparse.curvature.inverse import damped_cholesky
from minisparse.errors import MethodError, SparsityError
from minisparse.methods.base import layer_shapes
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation
from minisparse.sparsity.pattern import NM, Pattern, Unstructured
from minisparse.sparsity.select import FIXED_TOLERANCE
from minisparse.training.state import TrainState

log = logging.getLogger("minisparse.methods.layerwise")

BATCH = 64  # samples of one forward pass; bounds the memory of unfolded patches

Solution = dict[str, tuple[Array, Array]]
# (weight (out, in) float64, A (in, in), live (out, in), entries to keep) -> (mask, values)
Rule = Callable[[Array, Array, Array, int], tuple[Array, Array]]


def output_error(change: Array, gram: Array) -> float:
    """Equation (1) for change = W' - W (out, in) and gram = A (in, in)."""
    return float(np.sum((change @ gram) * change)) / 2


def damped(gram: Array, damping: float) -> Array:
    """A + lambda I (in, in), lambda = damping x mean diagonal or what it takes to be positive definite."""
    _, amount = damped_cholesky(gram, damping)
    log.info("layer of %d inputs: %.3g added to the diagonal of its Gram matrix", len(gram), amount)
    return gram + amount * np.eye(len(gram))


def calibration_batches(state: TrainState, samples: int) -> list[Array]:
    """Calibration inputs in batches."""
    x, _ = state.calibration(samples)
    return [x[k : k + BATCH] for k in range(0, len(x), BATCH)]


def kept_per_layer(network: Network, sparsity: float, allocation: Allocation) -> dict[str, int]:
    """Entries to keep in each layer; MethodError for an allocation that ranks all layers together."""
    caps = {name: layer.weight.kept for name, layer in network.prunable().items()}
    counts = allocation.counts(layer_shapes(network), sparsity, caps)
    if counts is None:
        raise MethodError(
            "layer-wise reconstruction: got allocation global, expected one that gives each layer a share, "
            "as errors of different layers cannot be compared. Use allocation uniform or erk."
        )
    return counts


def groups_of(pattern: Pattern, sparsity: float) -> NM | None:
    """The N:M pattern, or None for single weights; MethodError or SparsityError for what cannot be met.

    N:M has one sparsity: at the levels a gradual schedule passes through on the way nothing is pruned.
    """
    if pattern == Unstructured():
        return None
    if not isinstance(pattern, NM):
        raise MethodError(
            f"layer-wise reconstruction: got pattern {pattern}, expected single weights or N:M groups."
        )
    if abs(sparsity - pattern.fixed_sparsity) > FIXED_TOLERANCE:
        raise SparsityError(
            f"sparsity does not fit the pattern: got {sparsity}, expected {pattern.fixed_sparsity:.6g}, the "
            "one it has."
        )
    return pattern


def _gram(network: Network, name: str, batches: list[Array]) -> Array:
    layer = network.prunable()[name]
    gram = Gram(layer.weight.shape[1])
    for x in batches:
        network.forward(x, EVAL)
        gram.add(layer.rows)
    return gram.mean


def reconstruct(
    state: TrainState, samples: int, kept: Mapping[str, int], rule: Rule, propagate: bool
) -> Solution:
    """Apply `rule` to every prunable layer in the order data flows; the state stays as it is.

    propagate: inputs come through the layers already pruned, otherwise from the dense network.
    """
    work = state.network.copy()
    batches = calibration_batches(state, samples)
    dense = {} if propagate else input_grams(work, batches)
    solution: Solution = {}
    for name, layer in work.prunable().items():
        gram = _gram(work, name, batches) if propagate else dense[name]
        weight = layer.weight
        mask, values = rule(weight.dense().astype(np.float64), gram, weight.mask, kept[name])
        weight.rewire(mask)
        weight.assign(values)
        solution[name] = mask, values
    return solution
