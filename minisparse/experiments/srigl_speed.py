"""What SRigL's result is worth: the fully connected layer of ViT-B/16 it leaves, timed in each format.

M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou. Dynamic Sparse Training with Structured Sparsity.
ICLR 2024. arXiv:2305.02299, figure 4

A layer of 768 units with 3072 inputs (the second one of an encoder block's perceptron) is trained by SRigL
in a small network on random clusters, without ablation and with the authors' gamma for vision transformers,
0.95: what counts is the topology, constant fan-in and ablated units. More units are ablated here than in the
authors' transformer, where about two in three are. The product Y = X W^T with that layer is then timed:

    masked       dense matrix, BLAS
    structured   ablated units and unread inputs removed, the rest a dense matrix (format `reduced`)
    condensed    values and inputs, unit by unit; sliced, panels, csr: the other formats of this package
    SciPy CSR    scipy.sparse, which has no threads

one library at a time in turns, conversion not counted. `compress` marks what `ms.compress` takes at this
batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.experiments.bench_timing import QUICK_ROUNDS, ROUNDS, pinned, quartiles, timed
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.nn.activation import Activation
from minisparse.nn.init import kaiming_normal
from minisparse.nn.linear import Linear
from minisparse.nn.lr import Constant
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.rng import generator
from minisparse.sparsity.allocation import Uniform
from minisparse.training.run import train
from minisparse.weights.compress import compress
from minisparse.weights.exchange import to_csr
from minisparse.weights.formats import FORMATS, MASKED, accepts, convert

log = logging.getLogger("minisparse.experiments.bench")

SHAPE = (768, 3072)
SPARSITIES, QUICK_SPARSITIES = (0.8, 0.9, 0.95, 0.99), (0.9,)
BATCHES = (1, 256)
GAMMAS = (0.0, 0.95)
CLASSES, SAMPLES, EPOCHS = 10, 640, 6
COMPARED = ("condensed", "sliced", "panels", "csr", "reduced")
NAMES = {"reduced": "structured", MASKED: "masked"}
SCIPY = "SciPy CSR"


@dataclass(frozen=True)
class Trained:
    """The weight of the layer SRigL left, and the network it is in."""

    weight: Weight
    network: Network

    @property
    def active(self) -> int:
        """Units with inputs."""
        return int(np.count_nonzero(np.bincount(self.weight.flat // self.weight.shape[1])))


def clusters(inputs: int) -> Dataset:
    """Noisy patterns, one per class, of which only some inputs carry anything."""
    rng = generator(0, "srigl speed")
    centres = rng.standard_normal((CLASSES, inputs)) * (rng.random(inputs) < 0.5)
    y = rng.permutation(np.arange(SAMPLES) % CLASSES)
    x = (centres[y] + 2 * rng.standard_normal((SAMPLES, inputs))).astype(np.float32)
    return Dataset("clusters", x, y, x[:CLASSES], y[:CLASSES], CLASSES)


def trained_layer(
    sparsity: float, gamma: float, shape: tuple[int, int] = SHAPE, epochs: int = EPOCHS
) -> Trained:
    """in -> out -> classes after a short training by SRigL; the first layer is the one."""
    out, inputs = shape
    rng = generator(0, "srigl speed: weights")

    def linear(o: int, i: int) -> Linear:
        value = kaiming_normal((o, i, 1, 1), rng).astype(np.float32)
        return Linear(MaskedWeight(value), np.zeros(o, np.float32))

    layers = {"fc1": linear(out, inputs), "act1": Activation("relu"), "fc2": linear(CLASSES, out)}
    method = SRigL(sparsity, allocation=Uniform(), every=5, gamma=gamma)
    network = Network(layers, (inputs,), "mlp")
    run = train(network, clusters(inputs), method, epochs=epochs, batch=64, rate=Constant(0.01))
    return Trained(run.network.prunable()["fc1"].weight, run.network)


def records(
    threads: tuple[int, ...], quick: bool = False, shape: tuple[int, int] = SHAPE
) -> list[dict[str, Any]]:
    """A row for each sparsity, batch, number of threads and format; times in microseconds."""
    rows = []
    levels = QUICK_SPARSITIES if quick else SPARSITIES
    for sparsity, gamma in ((s, gamma) for s in levels for gamma in GAMMAS):
        log.info("SRigL on a layer %d x %d at %g %%, gamma %g", *shape, 100 * sparsity, gamma)
        found = trained_layer(sparsity, gamma, shape)
        for count in threads:
            with pinned(count):
                for batch in BATCHES:
                    rows += timed_rows(found, sparsity, count, batch, QUICK_ROUNDS if quick else ROUNDS)
    return rows


def products(weight: Weight, x: Array) -> dict[str, tuple[Callable[[], Array], int | None]]:
    """(Y = X W^T, bytes read) by what computes it; x (batch, in). Formats that fit the mask only."""
    works: dict[str, tuple[Callable[[], Array], int | None]] = {}
    dense = convert(weight, MASKED)
    works[NAMES[MASKED]] = (lambda: dense.apply(x, EVAL), 4 * dense.size)
    for name in COMPARED:
        if accepts(name, weight.mask):
            stored = convert(weight, name)
            works[NAMES.get(name, name)] = (_product(stored, x), getattr(stored, "bytes", None))
    theirs, columns = to_csr(weight), np.ascontiguousarray(x.T)
    works[SCIPY] = (lambda: (theirs @ columns).T, 8 * weight.kept + 4 * (weight.shape[0] + 1))
    return works


def _product(weight: Weight, x: Array) -> Callable[[], Array]:
    return lambda: weight.apply(x, EVAL)


def timed_rows(
    found: Trained, sparsity: float, threads: int, batch: int, rounds: int
) -> list[dict[str, Any]]:
    """All formats of one layer at one batch."""
    weight = found.weight
    x = generator(0, "srigl speed: x").standard_normal((batch, weight.shape[1])).astype(np.float32)
    works = products(weight, x)
    times = timed({name: work for name, (work, _) in works.items()}, rounds)
    medians = {name: quartiles(spent)[1] for name, spent in times.items()}
    kind = type(compress(found.network, batch, cache=False).prunable()["fc1"].weight)
    taken = next((NAMES.get(name, name) for name, cls in FORMATS.items() if cls is kind), NAMES[MASKED])
    rows = []
    for name, spent in times.items():
        low, middle, high = quartiles(spent)
        rows.append(
            {
                "layer": "x".join(map(str, weight.shape)), "sparsity": sparsity, "active": found.active,
                "fan_in": weight.kept // max(1, found.active), "batch": batch, "threads": threads,
                "format": name, "median_us": 1e6 * middle, "q25_us": 1e6 * low, "q75_us": 1e6 * high,
                "masked/it": medians[NAMES[MASKED]] / middle, "SciPy/it": medians[SCIPY] / middle,
                "kB": (works[name][1] or 0) / 1e3, "compress": "takes it" if name == taken else "",
            }
        )  # fmt: skip
    return rows
