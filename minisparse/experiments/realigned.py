"""Does a ticket's mask fit another initialisation once its units are in that one's order?

M. Adnan, R. Jain, E. Sharma, R. G. Krishnan, Y. Ioannou. Sparse Training from Random Initialization: Aligning
Lottery Ticket Masks using Weight Symmetry. ICML 2025. arXiv:2505.05143

A and B are two initialisations of one network. Both are trained dense; a mask m is found on A; A's trained
units are brought into the order of B's, P (see `methods.lottery.alignment`). Then, from step k on,

    own mask      (w_A^k, m)                                                               (1)
    as it is      (w_B^k, m)                                                               (2)
    permuted      (w_B^k, P m)                                                             (3)

The paper finds (1) > (3) > (2) for k of a few epochs, more so for wide networks, and (3) = (2) for k = 0.

Trainings are kept and found again, see `experiments.trainings`; units are matched anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.experiments.connectivity import OTHER, ticket
from minisparse.experiments.runner import dataset
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.tickets import Continued, Ladder
from minisparse.experiments.trainings import Trainings, horizon, planned
from minisparse.methods.base import rounded
from minisparse.methods.dense import Dense
from minisparse.methods.lottery.alignment import match_activations, match_weights, permuted_masks
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.rng import generator

ARMS = ("own mask", "as it is", "permuted by weights", "permuted by activations")
SAMPLES = 512
EARLY = "step-k"


def dense_pair(made: Trainings, spec: RunSpec, seed: int, k: int, data: Dataset) -> tuple[Network, Network]:
    """(network of step k, trained network) of a dense training of the initialisation of `seed`."""
    start = build(spec.model, data, seed, spec.init)
    found = made.train(f"dense, seed {seed}", spec, start, Dense(), data, seed, {k: EARLY})
    start.restore(found.at(EARLY).state())
    return start, found.network


def alignments(
    sparsities: Sequence[float],
    seeds: Sequence[int],
    training: Mapping[str, Any],
    data_dir: str | None = None,
    rounds: int | None = None,
    rewind: float = 0.1,
    tell: Callable[[str], None] = lambda text: None,
    kept: Trainings | None = None,
) -> list[dict[str, Any]]:
    """Test accuracies, a row per level and arm: mean and spread over seeds.

    tell, kept: as of `connectivity.stability`.
    """
    ladder = Ladder(tuple(sparsities), tuple(seeds), rounds=rounds, rewind=rewind, training=training)
    found: dict[tuple[float, str], list[float]] = {}
    with planned(kept, len(seeds) * _steps(ladder, data_dir)) as made:
        for seed in seeds:
            for level, arm, accuracy in _arms(made, ladder, seed, data_dir):
                found.setdefault((level, arm), []).append(accuracy)
            tell(f"a ticket and its mask on another initialisation, seed {seed}")
    return [
        {"level": level, "arm": arm, "accuracy": mean(a), "spread": spread(a), "runs": len(a)}
        for (level, arm), a in found.items()
    ]


def _steps(ladder: Ladder, data_dir: str | None) -> int:
    """Steps of the trainings of one seed: the ladder, two dense ones, and from step k on all arms."""
    spec = ladder.chain(ladder.seeds[0])
    whole = horizon(spec, dataset(spec.data, data_dir))
    last = whole - rounded(ladder.rewind, whole)
    return spec.build().length(whole) + 2 * whole + len(ARMS) * len(ladder.rungs) * last


def _arms(made: Trainings, ladder: Ladder, seed: int, data_dir: str | None) -> list[tuple[float, str, float]]:
    spec = ladder.chain(seed)
    data = dataset(spec.data, data_dir)
    k = rounded(ladder.rewind, horizon(spec, data))
    a, tickets = ticket(made, spec, data)
    _, trained_a = dense_pair(made, spec, seed, k, data)
    b, trained_b = dense_pair(made, spec, seed + OTHER, k, data)
    by_weights = match_weights(trained_a, trained_b, generator(seed, "matching"))
    by_activations = match_activations(trained_a, trained_b, data.train_x[:SAMPLES])
    scores = []
    for rung in ladder.rungs:
        if len(tickets) < rung:
            continue
        masks, level = tickets[rung - 1], ladder.levels[rung - 1]
        pairs: tuple[tuple[Network, Mapping[str, np.ndarray]], ...] = (
            (a, masks),
            (b, masks),
            (b, permuted_masks(trained_a, masks, by_weights)),
            (b, permuted_masks(trained_a, masks, by_activations)),
        )
        for arm, (network, mask) in zip(ARMS, pairs, strict=True):
            label, method = f"{arm}, {level:.4f} sparse, seed {seed}", Continued(k, k, mask)
            run = made.train(label, spec, network, method, data, seed + 2 * OTHER, begin=k)
            scores.append((level, arm, run.accuracy))
    return scores
