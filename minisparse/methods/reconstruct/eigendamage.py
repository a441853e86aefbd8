"""EigenDamage: prune rows and columns of each weight matrix in the basis where its Fisher matrix is diagonal.

C. Wang, R. Grosse, S. Fidler, G. Zhang. EigenDamage: Structured Pruning in the Kronecker-Factored
Eigenbasis. ICML 2019. arXiv:1905.05934 (section 4.2)

With F ~ S (x) A (`kron_factors.py`), S = L diag(l) L^T and A = R diag(a) R^T,

    W* = L^T W R,     theta_ij = l_i a_j W*_ij^2 / 2,     sum theta = vec(W)^T F vec(W) / 2     (1)

so that removing row i of W* costs the i-th row sum of theta, column j the j-th column sum. All rows and
columns of all layers are ranked together; the cheapest leave. What stays is trained on as the bottleneck
W = L[:,rows] W* R[:,columns]^T (`weights/factored.py`).

For a convolution R acts on channels: A is the mean over taps of the taps' channel moments, and sums over
a row or column of W* run over all taps as well. Pruning again turns the core's own bases.

The sparsity is that of the cores, in whole rows and columns as near as they come. Bases are not counted:
on small layers a bottleneck can have more numbers than the layer it replaces, and a message says how many.

Departures: the output layer stays as it is; bases stay fixed (the authors may train them); no layer is
skipped for its bottleneck's size; biases are left out. Derivation: docs/derivations/kfac-eigenbasis.md.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
from scipy.linalg import eigh

from minisparse.methods.base import Method, setting
from minisparse.methods.reconstruct.kron_factors import EXPECTATIONS, kron_factors
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_share, check_sparsity, check_whole, kept_count
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState
from minisparse.weights.factored import FactoredWeight

log = logging.getLogger("minisparse.methods.eigendamage")


@dataclass
class Core:
    """W* (r, taps, c) of one layer with its bases, and theta of equation (1)."""

    left: Array
    core: Array
    right: Array
    theta: Array

    @property
    def importance(self) -> tuple[Array, Array]:
        """Sums of theta over each row (r,) and each column (c,)."""
        return self.theta.sum(axis=(1, 2)), self.theta.sum(axis=(0, 1))


def channel_moment(a: Array, taps: int) -> Array:
    """Mean over taps of the diagonal blocks (c, c) of A (taps c, taps c)."""
    blocks = a.reshape(taps, len(a) // taps, taps, len(a) // taps)
    return np.einsum("tctd->cd", blocks) / taps


def rotate(left: Array, core: Array, right: Array, a: Array, s: Array) -> Core:
    """Turn the core (r, taps, c) between its bases so that the Fisher matrix is diagonal: equation (1).

    a = A (channels, channels) and s = S (out, out) in the layer's own coordinates; eigenvalues below 0,
    which only rounding makes, count as 0.
    """
    outputs, q_s = eigh(left.T @ s @ left)
    inputs, q_a = eigh(right.T @ a @ right)
    turned = np.einsum("io,itc,cj->otj", q_s, core, q_a)
    theta = outputs.clip(0)[:, None, None] * inputs.clip(0) * turned**2 / 2
    return Core(left @ q_s, turned, right @ q_a, theta)


def cheapest(cores: dict[str, Core], target: int, floor: float) -> dict[str, tuple[Array, Array]]:
    """(rows (r,), columns (c,)) to keep, bool, by layer; their cores' sizes sum as near `target` as can be.

    Units leave in ascending order of importance, of equal ones the later first; the best ceil(floor x) of
    each layer's rows and columns never do.
    """
    kept: dict[str, tuple[Array, Array]] = {}
    units = []
    for name, core in cores.items():
        rows, columns = core.importance
        kept[name] = np.ones(len(rows), dtype=bool), np.ones(len(columns), dtype=bool)
        for axis, cost in enumerate((rows, columns)):
            best = np.argsort(-cost, kind="stable")[: max(1, ceil(floor * len(cost)))]
            units += [(cost[i], name, axis, i) for i in range(len(cost)) if i not in set(best)]
    total = sum(core.theta.size for core in cores.values())
    for _, name, axis, i in sorted(reversed(units), key=lambda unit: unit[0]):
        fewer = total - int(kept[name][1 - axis].sum()) * cores[name].theta.shape[1]
        if total <= target or abs(fewer - target) >= total - target:
            break
        kept[name][axis][i] = False
        total = fewer
    return kept


@register("eigendamage", family="structured", paper="arXiv:1905.05934")
@dataclass(frozen=True)
class EigenDamage(Method):
    """Replace each hidden layer by a bottleneck in its Kronecker-factored eigenbasis."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    sparsity: float = setting(0.5, "share of prunable weights that the cores lack at the end")
    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")
    samples: int = setting(512, "training samples the curvature is computed from")
    expectation: str = setting("exact", "targets of the Fisher matrix: exact or sampled")
    floor: float = setting(0.05, "share of a layer's rows and columns that never leave")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_whole(self.samples, "samples")
        check_choice(self.expectation, "expectation", tuple(EXPECTATIONS))
        check_share(self.floor, "floor")

    def setup(self, state: TrainState) -> None:
        self.impose(state)

    def after_update(self, state: TrainState) -> None:
        self.impose(state)

    def impose(self, state: TrainState) -> None:
        """Prune to each level the schedule names for this step, in bases computed anew for each."""
        for level in self.schedule.levels(state.step, state.horizon, self.sparsity):
            layers = state.network.prunable()
            hidden = dict(list(layers.items())[:-1])
            factors = kron_factors(state, self.samples, self.expectation) if hidden else {}
            cores = {name: self._core(state, name, *factors[name]) for name in hidden}
            total = sum(layer.weight.size for layer in layers.values())
            target = kept_count(total, level) - sum(
                x.weight.kept for n, x in layers.items() if n not in hidden
            )
            for name, (rows, columns) in cheapest(cores, target, self.floor).items():
                if not (rows.all() and columns.all()):
                    self._replace(state, name, cores[name], rows, columns)

    def _core(self, state: TrainState, name: str, a: Array, s: Array) -> Core:
        """The layer's core in its eigenbasis; its bases so far are in the state's memory."""
        weight = state.network.prunable()[name].weight
        out, channels, kh, kw = weight.geometry
        left = state.memory.get("left", {}).get(name, np.eye(out))
        right = state.memory.get("right", {}).get(name, np.eye(channels))
        dense = weight.dense().astype(np.float64).reshape(out, kh * kw, channels)
        core = np.einsum("oi,otc,cj->itj", left, dense, right)
        return rotate(left, core, right, channel_moment(a, kh * kw), s)

    def _replace(self, state: TrainState, name: str, core: Core, rows: Array, columns: Array) -> None:
        """Put the kept part of a core in place of the layer's weight; its optimiser slots start anew."""
        layer: LinearLayer = state.network.prunable()[name]
        old, dtype = layer.weight, state.network.dtype
        left, right = core.left[:, rows], core.right[:, columns]
        kept = np.ascontiguousarray(core.core[rows][:, :, columns]).reshape(len(left.T), -1)
        layer.weight = FactoredWeight(
            left.astype(dtype), kept.astype(dtype), right.astype(dtype), old.geometry
        )
        for key in old.params():
            state.optimizer.slots.pop(f"{name}.{key}", None)
        state.memory.setdefault("left", {})[name] = left
        state.memory.setdefault("right", {})[name] = right
        state.topology += 1
        log.info(
            "eigendamage: layer '%s' has a core of %d numbers between bases of %d; the matrix had %d",
            name, kept.size, left.size + right.size, old.size,
        )  # fmt: skip
