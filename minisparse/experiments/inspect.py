"""The per-layer table: what is kept, what is dead, what it would cost, and how long it takes.

Four numbers are kept apart: zeros in the mask, bytes stored, theoretical multiply-accumulates (MACs;
FLOPs = 2 MACs), and time measured. The first three say nothing about the fourth.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from minisparse.nn.layer import LinearLayer
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.rng import generator
from minisparse.sparsity.measure import bytes_bitmask, bytes_csr, bytes_dense, macs

FORMATS = ("dense", "csr", "bitmask")


@dataclass(frozen=True)
class LayerRow:
    """One prunable layer. Bytes are those of the weights alone, in each storage format.

    dead_in: inputs no kept weight reads; dead_out: outputs no kept weight feeds.
    """

    name: str
    shape: tuple[int, int]
    kept: int
    total: int
    sparsity: float
    dead_in: int
    dead_out: int
    positions: int
    macs: int
    flops: int
    bytes: dict[str, int]


def layer_table(network: Network) -> list[LayerRow]:
    """One row per prunable layer, in the order data flows."""
    positions = network.positions()
    return [_row(name, layer, positions[name]) for name, layer in network.prunable().items()]


def _row(name: str, layer: LinearLayer, positions: int) -> LayerRow:
    weight = layer.weight
    (out, inputs), kept, total = weight.shape, weight.kept, weight.size
    rows, columns = np.divmod(weight.flat, inputs)
    work = macs(kept, positions)
    stored = {
        "dense": bytes_dense(weight.shape, itemsize(layer)),
        "csr": bytes_csr(kept, out, itemsize(layer)),
        "bitmask": bytes_bitmask(weight.shape, kept, itemsize(layer)),
    }
    return LayerRow(
        name, weight.shape, kept, total, 1 - kept / total, _unused(columns, inputs), _unused(rows, out),
        positions, work, 2 * work, stored,
    )  # fmt: skip


def _unused(used: Array, count: int) -> int:
    """How many of the numbers 0 .. count - 1 are not among those used."""
    return count - int(np.count_nonzero(np.bincount(used, minlength=count)))


def itemsize(layer: LinearLayer) -> int:
    """Bytes of one number of this layer's weight."""
    return next(iter(layer.weight.params().values())).value.itemsize


def dense_macs(rows: Sequence[LayerRow]) -> int:
    """MACs of one sample if nothing were pruned."""
    return sum(row.total * row.positions for row in rows)


def stored_bytes(network: Network, rows: Sequence[LayerRow]) -> dict[str, int]:
    """Bytes of the whole network per format: weights in that format, all other parameters dense."""
    rest = sum(array.nbytes for array in others(network))
    return {name: rest + sum(row.bytes[name] for row in rows) for name in FORMATS}


def others(network: Network) -> list[Array]:
    """The parameters that are not prunable: biases and normalisation."""
    weights = {f"{n}.{k}" for n, layer in network.prunable().items() for k in layer.weight.params()}
    return [p.value for key, p in network.params().items() if key not in weights]


def forward_seconds(network: Network, batch: int = 256, repeats: int = 7) -> float:
    """Median measured time of one forward pass of `batch` samples, as the network is stored now."""
    x = generator(0, "forward_seconds").random((batch, *network.input_shape)).astype(network.dtype)
    network.predict(x, batch)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        network.predict(x, batch)
        times.append(time.perf_counter() - start)
    network.release()
    return median(times)
