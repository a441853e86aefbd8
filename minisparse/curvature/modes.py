"""The diagonal of the Hessian by any of its four engines, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import Generator

from minisparse.curvature.ggn import ggn_diagonal
from minisparse.curvature.hessian_diagonal import exact_diagonal
from minisparse.curvature.hutchinson import hutchinson
from minisparse.curvature.lecun import lecun_diagonal
from minisparse.curvature.tree import Tree
from minisparse.errors import UsageError, unknown_name
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def _hutchinson_mean(
    network: Network,
    loss: Loss,
    x: Array,
    target: Array,
    rng: Generator | None = None,
    probes: int = 100,
) -> Tree:
    if rng is None:
        raise UsageError("hessian_diagonal mode 'hutchinson': got no generator, expected rng=Generator.")
    return hutchinson(network, loss, x, target, rng, probes)[0]


MODES: dict[str, Callable[..., Tree]] = {
    "exact": exact_diagonal,
    "ggn": ggn_diagonal,
    "lecun": lecun_diagonal,
    "hutchinson": _hutchinson_mean,
}


def hessian_diagonal(
    network: Network, loss: Loss, x: Array, target: Array, mode: str = "exact", **settings: Any
) -> Tree:
    """Diagonal of the Hessian of the mean loss on a batch, evaluation mode: name -> float64 array.

    mode: exact; ggn (without the network's own curvature, >= 0); lecun (one backward pass, approximate);
    hutchinson (random probes, settings rng and probes). Further settings go to the mode's function.
    Raises UnknownNameError for another mode.
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    return MODES[mode](network, loss, x, target, **settings)
