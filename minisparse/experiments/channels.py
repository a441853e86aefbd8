"""One-shot channel pruning of a trained network, nothing retrained: what selection and refit are worth.

Every rule removes the same number of channels (filters, neurons) of every hidden layer of the same trained
networks, layer by layer from the input, so that rules differ only in which channels go and in whether the
layer that reads the others is refitted by least squares:

    random            any
    filters           of smallest L1 norm of the weights that make them (Li et al.)
    response          of smallest L1 norm of the weights that read them (He et al.'s "max response")
    lasso             that a LASSO on the reading layer's response drops (He et al.)

The refit uses 512 training samples; the LASSO sees the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.experiments.second_order import Result
from minisparse.methods.dense import Dense
from minisparse.methods.reconstruct.layerwise import BATCH
from minisparse.methods.structured.channel_pruning import (
    ChannelPruning,
    Moments,
    Rule,
    branch_groups,
    by_lasso,
    prune_channels,
)
from minisparse.methods.structured.ranked import present
from minisparse.nn.loss import LOSSES
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.rng import generator
from minisparse.sparsity.count import kept_count
from minisparse.sparsity.groups import Group
from minisparse.sparsity.select import top_k
from minisparse.training.run import evaluate, train

SAMPLES = 512
POSITIONS = ChannelPruning().positions
DAMPING = ChannelPruning().damping


def by_filters(network: Network, group: Group, moments: Moments, keep: int) -> Array:
    """Units (units,) of largest L1 norm of the rows that write them."""
    layers = network.prunable()
    sizes = [np.abs(layers[name].weight.dense()[rows]).sum(axis=(1, 2)) for name, rows in group.producers]
    return top_k(np.sum(sizes, axis=0), keep, present(network, group))


def by_response(network: Network, group: Group, moments: Moments, keep: int) -> Array:
    """Units (units,) of largest L1 norm of the columns that read them."""
    layers = network.prunable()
    sizes = [np.abs(layers[n].weight.dense()[:, columns]).sum(axis=(0, 2)) for n, columns in group.consumers]
    return top_k(np.sum(sizes, axis=0), keep, present(network, group))


def by_chance(seed: int) -> Rule:
    """Units at random."""

    def rule(network: Network, group: Group, moments: Moments, keep: int) -> Array:
        draws = generator(seed, f"channels of {group.name}").random(len(group))
        return top_k(draws, keep, present(network, group))

    return rule


# name -> (rule, whether readers are refitted); the rule None stands for chance
RULES: dict[str, tuple[Rule | None, bool]] = {
    "random": (None, False),
    "filters": (by_filters, False),
    "response": (by_response, False),
    "lasso": (by_lasso, False),
    "random, refit": (None, True),
    "filters, refit": (by_filters, True),
    "response, refit": (by_response, True),
    "lasso, refit": (by_lasso, True),
}


def one_shot_channels(
    data: Dataset,
    model: str = "lenet-5",
    sparsities: Sequence[float] = (0.3, 0.5, 0.7, 0.8),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    epochs: int = 20,
    rules: Mapping[str, tuple[Rule | None, bool]] | None = None,
) -> list[Result]:
    """Train `model` once per seed, prune copies of it by each rule, and test them: accuracies and losses.

    sparsities: share of the channels of every group that leaves, at least one staying. The first result is
    the dense network, as method "dense" at sparsity 0. Losses are of the training samples.
    """
    chosen = RULES if rules is None else rules
    keys = [("dense", 0.0), *((name, s) for name in chosen for s in sparsities)]
    found: dict[tuple[str, float], list[tuple[float, float]]] = {key: [] for key in keys}
    for seed in seeds:
        network = train(build(model, data, seed), data, Dense(), epochs=epochs, seed=seed).network
        order = generator(seed, "calibration").permutation(data.n_train)[:SAMPLES]
        batches = [data.train_x[order[k : k + BATCH]] for k in range(0, len(order), BATCH)]
        found["dense", 0.0].append(_measured(network, data))
        for name, sparsity in keys[1:]:
            rule, fitted = chosen[name]
            counts = {g: max(1, kept_count(len(g), sparsity)) for g in branch_groups(network)}
            pruned, _ = prune_channels(
                network, counts, batches, generator(seed, "channel positions"), rule or by_chance(seed),
                POSITIONS, DAMPING if fitted else None,
            )  # fmt: skip
            found[name, sparsity].append(_measured(pruned, data))
    return [Result(name, s, *map(tuple, zip(*runs, strict=True))) for (name, s), runs in found.items()]


def _measured(network: Network, data: Dataset) -> tuple[float, float]:
    loss = LOSSES["cross-entropy"]()
    _, accuracy = evaluate(network, loss, data.test_x, data.test_y)
    value, _ = evaluate(network, loss, data.train_x, data.train_y)
    return accuracy, value
