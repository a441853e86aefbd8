"""L-OBS: Optimal Brain Surgeon on the error of each layer's own output.

X. Dong, S. Chen, S. J. Pan. Learning to Prune Deep Neural Networks via Layer-wise Optimal Brain Surgeon.
NIPS 2017. arXiv:1705.07565

The layer's error (`layerwise.py`, equation (1)) on the inputs X of the dense network has the same Hessian
A for every row of W, the bias being a weight whose input is 1. With P = (A + alpha I)^-1

    L_ri = W_ri^2 / (2 P_ii),     W_r <- W_r - (W_ri / P_ii) P e_i                          (1)

All L of a layer are ranked once; the lowest leave. Biases never leave but take up what they can. With
L layers, ReLU between them and eps_l = |X_l (W'_l - W_l)^T|_F / sqrt(n) on the dense network's inputs,

    |change of the outputs|_F / sqrt(n)  <=  sum_k eps_k prod_{l>k} |W'_l|_F                (2)

Departures: the values are those of the set formula (`obs.py`, (2)) for what leaves each row, the best for
that mask. With `exact` off they are those of the authors' code: (1) for one weight after the other in
ascending order of L, always with the first P, zeros put back after each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.curvature.gram import input_grams
from minisparse.curvature.inverse import cholesky_inverse, damped_cholesky
from minisparse.methods.base import Reconstructed, setting
from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.layerwise import Solution, calibration_batches, damped, kept_per_layer
from minisparse.methods.reconstruct.obc import compensated
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Uniform
from minisparse.sparsity.count import check_flag, check_real
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState


def in_turn(weight: Array, inverse: Array, leaving: Array) -> Array:
    """Values (out, in) by equation (1), ascending, with one P (in, in) for all; leaving (out, in) bool."""
    values = weight.copy()
    scores = saliency(weight, np.diag(inverse))
    for row, gone, order in zip(values, leaving, np.argsort(scores, axis=1, kind="stable"), strict=True):
        absent = np.zeros(len(row), dtype=bool)
        for i in order[gone[order]]:
            row -= row[i] / inverse[i, i] * inverse[i]
            absent[i] = True
            row[absent] = 0
    return values


def output_bound(errors: list[float], norms: list[float]) -> float:
    """Right-hand side of (2): eps_l and |W'_l|_F of layers 1..L."""
    return sum(eps * float(np.prod(norms[k + 1 :])) for k, eps in enumerate(errors))


def lobs(weight: Array, hessian: Array, live: Array, kept: int, exact: bool = True) -> tuple[Array, Array]:
    """(mask, values) (out, in [+ 1]) of one layer; hessian (in [+ 1], in [+ 1]) damped.

    Coordinates of the Hessian beyond the columns of live (out, in), such as a bias, always stay.
    """
    inverse = cholesky_inverse(damped_cholesky(hessian)[0])
    columns = live.shape[1]
    mask = np.ones(weight.shape, dtype=bool)
    mask[:, :columns] = top_k(saliency(weight, np.diag(inverse))[:, :columns], kept, among=live)
    if exact:
        return mask, compensated(weight, hessian, mask)
    return mask, in_turn(weight, inverse, ~mask)


@register("lobs", family="reconstruct", paper="arXiv:1705.07565")
@dataclass(frozen=True)
class LOBS(Reconstructed):
    """Prune by the compensated error of each layer's output."""

    damping: float = setting(1e-6, "alpha as a share of the Gram matrix's mean diagonal")
    bias: bool = setting(True, "let biases take part in the compensation")
    exact: bool = setting(True, "set formula; otherwise one after the other with the first inverse")
    allocation: Allocation = setting(Uniform(), "how the kept weights are shared among layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.damping, "lobs damping", 0)
        check_flag(self.bias, "lobs bias")
        check_flag(self.exact, "lobs exact")

    def solve(self, state: TrainState, sparsity: float) -> Solution:
        """As in the base; the biases, which a solution does not hold, are set here."""
        network = state.network
        kept = kept_per_layer(network, sparsity, self.allocation)
        grams = input_grams(network, calibration_batches(state, self.samples), self.bias)
        solution: Solution = {}
        for name, layer in network.prunable().items():
            weight, live = layer.weight.dense().astype(np.float64), layer.weight.mask
            bias = layer.bias if self.bias else None
            if bias is not None:
                weight = np.column_stack([weight, bias.value])
            mask, values = lobs(weight, damped(grams[name], self.damping), live, kept[name], self.exact)
            if bias is not None:
                bias.value[...] = values[:, -1]
            columns = live.shape[1]
            solution[name] = mask[:, :columns], values[:, :columns]
        return solution
