"""Does a ticket's mask fit another initialisation once its units are in that one's order?

M. Adnan, R. Jain, E. Sharma, R. G. Krishnan, Y. Ioannou. Sparse Training from Random Initialization: Aligning
Lottery Ticket Masks using Weight Symmetry. ICML 2025. arXiv:2505.05143

A and B are two initialisations of one network. Both are trained dense; a mask m is found on A; A's trained
units are brought into the order of B's, P (see `methods.lottery.alignment`). Then, from step k on,

    own mask      (w_A^k, m)                                                               (1)
    as it is      (w_B^k, m)                                                               (2)
    permuted      (w_B^k, P m)                                                             (3)

The paper finds (1) > (3) > (2) for k of a few epochs, more so for wide networks, and (3) = (2) for k = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.experiments.connectivity import OTHER, ticket
from minisparse.experiments.runner import dataset, trained
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.tickets import Continued, Ladder
from minisparse.methods.base import rounded
from minisparse.methods.dense import Dense
from minisparse.methods.lottery.alignment import match_activations, match_weights, permuted_masks
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.rng import generator
from minisparse.training.state import TrainState

ARMS = ("own mask", "as it is", "permuted by weights", "permuted by activations")
SAMPLES = 512


def dense_pair(spec: RunSpec, seed: int, rewind: float, data: Dataset) -> tuple[Network, Network]:
    """(network of step k, trained network) of a dense training of the initialisation of `seed`."""
    start, early = build(spec.model, data, seed, spec.init), dict[str, Array]()

    def watch(state: TrainState) -> None:
        if state.step == rounded(rewind, state.horizon):
            early.update(state.network.state())

    run = trained(spec, start, Dense(), data, seed, watch)
    start.restore(early)
    return start, run.network


def alignments(
    sparsities: Sequence[float],
    seeds: Sequence[int],
    training: Mapping[str, Any],
    data_dir: str | None = None,
    rounds: int | None = None,
    rewind: float = 0.1,
    tell: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Test accuracies, a row per level and arm: mean and spread over seeds."""
    ladder = Ladder(tuple(sparsities), tuple(seeds), rounds=rounds, rewind=rewind, training=training)
    found: dict[tuple[float, str], list[float]] = {}
    for seed in seeds:
        tell(f"a ticket and its mask on another initialisation, seed {seed}")
        for level, arm, accuracy in _arms(ladder, seed, data_dir):
            found.setdefault((level, arm), []).append(accuracy)
    return [
        {"level": level, "arm": arm, "accuracy": mean(a), "spread": spread(a), "runs": len(a)}
        for (level, arm), a in found.items()
    ]


def _arms(ladder: Ladder, seed: int, data_dir: str | None) -> list[tuple[float, str, float]]:
    spec = ladder.chain(seed)
    data = dataset(spec.data, data_dir)
    a, tickets = ticket(spec, data)
    _, trained_a = dense_pair(spec, seed, ladder.rewind, data)
    b, trained_b = dense_pair(spec, seed + OTHER, ladder.rewind, data)
    by_weights = match_weights(trained_a, trained_b, generator(seed, "matching"))
    by_activations = match_activations(trained_a, trained_b, data.train_x[:SAMPLES])
    k = rounded(ladder.rewind, spec.epochs * -(-data.n_train // spec.batch))
    scores = []
    for rung in ladder.rungs:
        masks = tickets.masks[rung - 1]
        pairs: tuple[tuple[Network, Mapping[str, np.ndarray]], ...] = (
            (a, masks),
            (b, masks),
            (b, permuted_masks(trained_a, masks, by_weights)),
            (b, permuted_masks(trained_a, masks, by_activations)),
        )
        for arm, (network, mask) in zip(ARMS, pairs, strict=True):
            run = trained(spec, network, Continued(k, k, mask), data, seed + 2 * OTHER)
            scores.append((ladder.levels[rung - 1], arm, run.accuracy))
    return scores
