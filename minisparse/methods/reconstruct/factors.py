"""Factors of curvature over the live weights of a network: the GGN's, and the empirical Fisher's.

    G = sum_m q_m q_m^T,   q = J_n^T S[v,n]   for every sample n and output v of the mean loss     (1)
    F = 1/n sum_n g_n g_n^T                                                                        (2)

J_n are the derivatives of the outputs, S the square root of the loss's Hessian, g_n the gradient of a
sample's own loss. A network's live weights are one vector: layers in order, each row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from minisparse.curvature.gradient import pull_per_sample
from minisparse.curvature.point import evaluate, pieces
from minisparse.errors import UsageError
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array

CHUNK_NUMBERS = 1 << 24  # of factors pulled at a time

Masks = Mapping[str, Array]


def live_values(network: Network) -> Array:
    """All present weights (n,), float64."""
    layers = network.prunable().values()
    return np.concatenate([layer.weight.dense()[layer.weight.mask] for layer in layers]).astype(np.float64)


def live_columns(tree: Mapping[str, Array], masks: Masks) -> Array:
    """Entries (..., out, in) by parameter name, as rows (m, n) over the live weights."""
    parts = [tree[f"{name}.weight"].reshape(-1, mask.size)[:, mask.ravel()] for name, mask in masks.items()]
    return np.concatenate(parts, axis=1)


def split_live(vector: Array, masks: Masks) -> dict[str, Array]:
    """A vector (n,) over the live weights as matrices (out, in) by layer, 0 where absent."""
    matrices, at = {}, 0
    for name, mask in masks.items():
        count = int(mask.sum())
        matrices[name] = np.zeros(mask.shape, dtype=vector.dtype)
        matrices[name][mask] = vector[at : at + count]
        at += count
    return matrices


def ggn_factors(network: Network, loss: Loss, x: Array, target: Array) -> Iterator[Array]:
    """q_m^T of equation (1) as rows (m, n), some samples at a time; outputs x samples rows in all."""
    masks = network.masks()
    for part, t, share in pieces(x, target, _samples(network, network.outputs)):
        evaluate(network, loss, part, t)
        yield live_columns(pull_per_sample(network, loss.sqrt_hessian() * np.sqrt(share)), masks)


def fisher_factors(network: Network, loss: Loss, x: Array, target: Array) -> Iterator[Array]:
    """g_n^T / sqrt(n) of equation (2) as rows, some samples at a time."""
    masks = network.masks()
    for part, t, _ in pieces(x, target, _samples(network, 1)):
        evaluate(network, loss, part, t)
        scale = len(part) / np.sqrt(len(x))
        yield live_columns(pull_per_sample(network, loss.grad() * scale), masks)


def _samples(network: Network, columns: int) -> int:
    numbers = sum(p.value.size for p in network.params().values()) * columns
    return max(1, CHUNK_NUMBERS // numbers)


BLOCKS: dict[str, Callable[[Masks], list[int]]] = {
    "network": lambda masks: [sum(int(mask.sum()) for mask in masks.values())],
    "layer": lambda masks: [int(mask.sum()) for mask in masks.values()],
    "row": lambda masks: [int(n) for mask in masks.values() for n in mask.sum(axis=1)],
}


def check_block(block: str | int) -> str:
    """A key of BLOCKS or a number of weights, as text; UsageError for anything else."""
    text = str(block)
    if text not in BLOCKS and not (text.isdecimal() and int(text) >= 1) or isinstance(block, bool):
        raise UsageError(f"block: got {block!r}, expected {', '.join(BLOCKS)} or a number of weights >= 1.")
    return text


def block_sizes(block: str, masks: Masks) -> list[int]:
    """Live weights in each diagonal block: the network, its layers, their rows, or runs of a length.

    Runs are cut within a layer; the last one of each is the shorter.
    """
    if block in BLOCKS:
        sizes = BLOCKS[block](masks)
    else:
        sizes = [
            min(int(block), int(mask.sum()) - k)
            for mask in masks.values()
            for k in range(0, int(mask.sum()), int(block))
        ]
    return [size for size in sizes if size]
