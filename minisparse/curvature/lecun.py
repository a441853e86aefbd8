"""The diagonal recursion of Optimal Brain Damage.

Y. LeCun, J. S. Denker, S. A. Solla. Optimal Brain Damage. NIPS 1989.
S. Becker, Y. LeCun. Improving the Convergence of Back-Propagation Learning with Second Order Methods. 1988.

One vector h, the diagonal of d2L/dy2 for each sample, is carried from the loss to the input; products of
different units are dropped at every layer:

    loss           h_o = sum_v S[v,n,o]^2                                                       (1)
    y = W x + b    h_x = (W o W)^T h_y,     dL2/dW2 ~ h_y (x o x)^T,     dL2/db2 ~ h_y          (2)
    y = f(z)       h_z = f'(z)^2 h_y + f''(z) dL/dy                                             (3)
                   Levenberg-Marquardt form: h_z = f'(z)^2 h_y, never negative                  (4)

With shared weights (convolution) the squares of the positions are summed, not the square of their sum.
A max-pool passes h to the winner, a mean over k places divides by k^2, BatchNorm multiplies by its slope
squared, and at a residual block what returns from both paths is added: their cross term is dropped.

It is exact for the last linear layer under MSE and sigmoid losses, for dense networks with one hidden
layer under these losses (both layers), for chains of width one, and nowhere else in general: already the
softmax couples the outputs. See docs/derivations/lecun-recursion.md.
"""

from __future__ import annotations

from minisparse.curvature.point import Sum, cotangents, evaluate
from minisparse.curvature.tree import Tree
from minisparse.nn.layer import Layer
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def lecun_diagonal(
    network: Network, loss: Loss, x: Array, target: Array, levenberg_marquardt: bool = False
) -> Tree:
    """The recursion's diagonal in float64, an approximation; levenberg_marquardt: (4) instead of (3).

    Costs about as much as one gradient.
    """
    evaluate(network, loss, x, target)
    dy = {} if levenberg_marquardt else cotangents(network, loss.grad())
    total = Sum(network)

    def step(layer: Layer, h: Array, need: bool) -> Array | None:
        total.add(layer, layer.param_diagonal(h))
        if not need:
            return None
        down = layer.pull_squares(h)
        if layer.curved and not levenberg_marquardt:
            down = down + layer.curve(dy[id(layer)])
        return down

    network.descend((loss.sqrt_hessian() ** 2).sum(axis=0), step, need=False)
    return total.tree
