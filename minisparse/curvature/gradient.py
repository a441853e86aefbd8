"""The gradient of the mean loss in evaluation mode, and each sample's own gradient.

    g = dL/dw = 1/n sum_n g_n,     g_n = sum_p corow[n,p] row[n,p]^T at a linear layer      (1)

Mini-batch size and batch statistics play no part: what is here is a function of the weights and the
samples alone, as every criterion built on it assumes.
"""

from __future__ import annotations

from minisparse.curvature.point import evaluate
from minisparse.curvature.tree import Tree
from minisparse.nn.layer import Layer
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def pull_to_params(network: Network, dy: Array) -> Tree:
    """J^T dy summed over samples, by one backward pass at the last forward point; grads are kept."""
    params = network.params()
    before = {name: p.grad for name, p in params.items()}
    try:
        for p in params.values():
            p.grad = p.grad.copy()
        network.backward(dy, need_dx=False)
        return {name: p.grad for name, p in params.items()}
    finally:
        for name, p in params.items():
            p.grad = before[name]


def gradient(network: Network, loss: Loss, x: Array, target: Array) -> Tree:
    """Equation (1): tree of dL/dw in evaluation mode; the parameters' own grad stays as it was."""
    evaluate(network, loss, x, target)
    return pull_to_params(network, loss.grad())


def pull_per_sample(network: Network, dy: Array) -> Tree:
    """J_n^T dy for every sample and direction: dy (..., n, o) -> tree of (..., n, *shape)."""
    names = {id(layer): name for name, layer in network.walk()}
    tree: Tree = {}

    def step(layer: Layer, g: Array, need: bool) -> Array | None:
        tree.update({f"{names[id(layer)]}.{key}": a for key, a in layer.param_pull(g).items()})
        return layer.pull(g) if need else None

    network.descend(dy, step, need=False)
    return {name: tree[name] for name in network.params()}


def per_sample_gradients(network: Network, loss: Loss, x: Array, target: Array) -> Tree:
    """g_n (n, *shape) of each sample's own loss; their mean is the gradient. n times the parameters."""
    evaluate(network, loss, x, target)
    return pull_per_sample(network, loss.grad() * len(x))
