"""Ticket transfer: a mask and early weights found on one data set, trained on another.

A. S. Morcos, H. Yu, M. Paganini, Y. Tian. One Ticket to Win Them All: Generalizing Lottery Ticket
Initializations across Datasets and Optimizers. NeurIPS 2019. arXiv:1906.02773

With (m, theta_k) a ticket of the source, body its layers but the last, the target trains

    body  m theta_k                    head  new weights for the target's classes, dense   (1)

from the beginning of its own schedule. It is compared with the target's own ticket and with two controls of
the same head: the body's mask shuffled within each layer (counts kept; uniform masks over all layers would
fail for another reason), and the body's weights drawn anew.

Trainings are kept and found again, see `experiments.trainings`.

Data sets must agree in the size of their images. The embedded digits count the black points in 4x4 fields of
a 32x32 bitmap, and `fields` does the same to 28x28 pictures: padded to 32x32, averaged over 4x4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.random import Generator

from minisparse.data.dataset import Dataset
from minisparse.errors import ShapeError, UsageError
from minisparse.experiments.connectivity import ticket
from minisparse.experiments.runner import dataset
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.tickets import Continued, Ladder, impose
from minisparse.experiments.trainings import Trainings, horizon, planned
from minisparse.methods.base import layer_shapes
from minisparse.nn.network import Network
from minisparse.nn.param import Param
from minisparse.nn.weight import MaskedWeight
from minisparse.rng import generator
from minisparse.sparsity.control import shuffled
from minisparse.sparsity.pattern import Unstructured

ARMS = ("transferred", "own ticket", "shuffled mask", "new weights")


def fields(data: Dataset, size: int, side: int) -> Dataset:
    """Images (n, c, size, size) as means of square fields: padded with 0 all round to `side`, then averaged.

    UsageError unless the padding is even on both sides and `size` divides `side`; ShapeError for no images.
    """
    _, h, w = data.images().sample_shape
    margin, rest = divmod(side - h, 2)
    if h != w or rest or margin < 0 or size < 1 or side % size:
        raise UsageError(
            f"data set '{data.name}' cannot be cut into fields: got {h}x{w} pictures, side {side} and size "
            f"{size}, expected square pictures, an even margin and a size that divides the side."
        )
    return replace(
        data,
        name=f"{data.name} at {size}x{size}",
        train_x=_fields(data.train_x, size, margin),
        test_x=_fields(data.test_x, size, margin),
    )


def _fields(x: np.ndarray, size: int, margin: int) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (0, 0), (margin, margin), (margin, margin)])
    n, c, side, _ = padded.shape
    return padded.reshape(n, c, size, side // size, size, side // size).mean(axis=(3, 5), dtype=x.dtype)


def fitted(data: Dataset, shape: tuple[int, ...]) -> Dataset:
    """The data set with samples of this shape, by `fields` where 28x28 pictures are wanted as 8x8."""
    if data.sample_shape == shape:
        return data
    if data.sample_shape == (1, 28, 28) and shape == (1, 8, 8):
        return fields(data, 8, 32)
    raise ShapeError(
        f"data set '{data.name}' does not fit the other: got samples {data.sample_shape}, expected {shape}. "
        "Choose another pair."
    )


def transfer(start: Network, masks: Mapping[str, np.ndarray], outputs: int, rng: Generator) -> Network:
    """The ticket (dense network of step k, masks) with a new dense head for `outputs` classes: (1).

    Biases and BatchNorm of the body go with it.
    """
    other = start.copy()
    impose(other, masks)
    head = list(other.prunable().values())[-1]
    geometry = (outputs, *head.weight.geometry[1:])
    head.weight = MaskedWeight(start.init(geometry, rng).astype(start.dtype), geometry)
    if head.bias is not None:
        head.bias = Param(np.zeros(outputs, dtype=start.dtype), decay=False)
    made = Network(other.layers, other.input_shape, other.name)
    made.init = start.init
    return made


def shuffled_body(network: Network, dense: Network, rng: Generator) -> Network:
    """A copy whose masks are shuffled in all layers but the head; weights that come are those of `dense`."""
    other, masks, shapes = network.copy(), network.masks(), layer_shapes(network)
    *body, _ = other.prunable()
    values = dense.prunable()
    for name in body:
        weight = other.prunable()[name].weight
        weight.rewire(np.ones_like(masks[name]))
        weight.assign(values[name].weight.dense())
        weight.rewire(shuffled(masks[name], shapes[name], Unstructured(), rng))
    return other


def renewed(network: Network, rng: Generator) -> Network:
    """A copy with the same masks and new weights."""
    other = network.copy()
    other.reinitialise(rng)
    return other


def transfers(
    source: str,
    target: str,
    sparsities: Sequence[float],
    seeds: Sequence[int],
    training: Mapping[str, Any],
    data_dir: str | None = None,
    rounds: int | None = None,
    rewind: float = 0.0,
    tell: Callable[[str], None] = lambda text: None,
    kept: Trainings | None = None,
) -> list[dict[str, Any]]:
    """Test accuracies on the target, a row per level and arm: mean and spread over seeds.

    tell, kept: as of `connectivity.stability`.
    """
    first, second = dataset(source, data_dir), dataset(target, data_dir)
    small = min((first.sample_shape, second.sample_shape), key=prod)
    first, second = fitted(first, small), fitted(second, small)
    ladder = Ladder(tuple(sparsities), tuple(seeds), rounds=rounds, rewind=rewind, training=training)
    found: dict[tuple[float, str], list[float]] = {}
    with planned(kept, len(seeds) * _steps(ladder, first, second)) as made:
        for seed in seeds:
            for level, arm, accuracy in _arms(made, ladder, seed, first, second):
                found.setdefault((level, arm), []).append(accuracy)
            tell(f"tickets of {first.name} and of {second.name}, seed {seed}")
    return [
        {"level": level, "arm": arm, "accuracy": mean(a), "spread": spread(a), "runs": len(a)}
        for (level, arm), a in found.items()
    ]


def _steps(ladder: Ladder, source: Dataset, target: Dataset) -> int:
    """Steps of the trainings of one seed: a ladder on each, and all arms on the target."""
    spec = ladder.chain(ladder.seeds[0])
    there, here = horizon(spec, source), horizon(spec, target)
    length = spec.build().length
    return length(there) + length(here) + len(ARMS) * len(ladder.rungs) * here


def _arms(
    made: Trainings, ladder: Ladder, seed: int, source: Dataset, target: Dataset
) -> list[tuple[float, str, float]]:
    spec = ladder.chain(seed)
    (start, there), (own, here) = ticket(made, spec, source), ticket(made, spec, target)
    scores = []
    for rung in ladder.rungs:
        if len(there) < rung or len(here) < rung:
            continue
        level, rng = ladder.levels[rung - 1], generator(seed, "transfer", step=rung)
        # one stream for both heads: from a data set to itself the two tickets are the same
        moved, native = (
            transfer(network, masks[rung - 1], target.outputs, generator(seed, "transfer head", step=rung))
            for network, masks in ((start, there), (own, here))
        )
        networks = (
            moved,
            native,
            shuffled_body(moved, start, rng),
            renewed(moved, rng),
        )
        for arm, network in zip(ARMS, networks, strict=True):
            label, method = f"{arm}, {level:.4f} sparse, seed {seed}", Continued(0, 0, network.masks())
            scores.append((level, arm, made.train(label, spec, network, method, target, seed).accuracy))
    return scores
