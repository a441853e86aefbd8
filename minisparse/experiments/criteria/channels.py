"""Channels by LASSO against channels by norm: does what a layer's reader needs agree with what is large?

Y. He, X. Zhang, J. Sun. Channel Pruning for Accelerating Very Deep Neural Networks. ICCV 2017.
arXiv:1707.06168; H. Li et al. Pruning Filters for Efficient ConvNets. ICLR 2017. arXiv:1608.08710

The same trained networks lose the same number of channels of every hidden layer by three rules: the smallest
L1 norm of the filters, the smallest norm of the weights that read a channel, and a LASSO on what the reading
layer puts out. Layers are pruned one after the other, so a norm is that of what is left of a filter when it
is its layer's turn; the order in the figure is that of whole filters. Two sets of k of n channels drawn by
lot share k/n of their members in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from minisparse.data.digits import load
from minisparse.experiments.channels import DAMPING, POSITIONS, SAMPLES, by_filters, by_response
from minisparse.experiments.criteria.runs import Recipe, trained
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, bare, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.dense import Dense
from minisparse.methods.reconstruct.layerwise import BATCH
from minisparse.methods.structured.channel_pruning import Rule, branch_groups, by_lasso, prune_channels
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.rng import generator
from minisparse.sparsity.count import kept_count

SEEDS = 5
MODEL, SHARE = "lenet-5", 0.5
TRAINING = Recipe(epochs=10)
RULES: dict[str, Rule] = {"filters, L1": by_filters, "reading weights, L1": by_response, "LASSO": by_lasso}
Kept = dict[str, Array]


def choices(network: Network, share: float, seed: int) -> tuple[dict[str, Kept], Kept]:
    """Rule -> layer -> channels kept (units,), and the L1 norms of the filters by layer."""
    data = load().astype(network.dtype)
    order = generator(seed, "calibration").permutation(data.n_train)[:SAMPLES]
    batches = [data.train_x[order[k : k + BATCH]] for k in range(0, len(order), BATCH)]
    groups = branch_groups(network)
    counts = {group: max(1, kept_count(len(group), share)) for group in groups}
    found = {}
    for name, rule in RULES.items():
        rng = generator(seed, "channel positions")
        _, kept = prune_channels(network, counts, batches, rng, rule, POSITIONS, DAMPING)
        found[name] = {group.producers[0][0]: chosen for group, chosen in kept.items()}
    sizes = {}
    for group in groups:
        ((name, rows),) = group.producers
        weight = network.prunable()[name].weight.dense()
        sizes[name] = np.abs(weight)[rows].reshape(len(group), -1).sum(axis=1)
    return found, sizes


def shared(one: Array, other: Array) -> float:
    """Share of the channels kept by one that the other keeps as well; both keep as many."""
    return float((one & other).sum() / one.sum())


Runs = list[tuple[dict[str, Kept], Kept]]


def study(
    seeds: Sequence[int], progress: Progress = silent, share: float = SHARE, training: Recipe = TRAINING
) -> Study:
    """Rows by layer: what LASSO shares with the two norms, and what a lot would."""
    runs: Runs = []
    for done, seed in enumerate(seeds):
        progress(done / len(seeds), f"seed {seed}")
        network = trained(Dense(), seed, MODEL, training).network
        runs.append(choices(network, share, seed))
    rows = [_row(layer, runs) for layer in runs[0][1]]
    told = ", ".join(
        f"{row['layer']} {100 * row['filters']:.0f} % (by lot {100 * row['by_lot']:.0f} %)" for row in rows
    )
    words = [f"Of the channels that LASSO keeps, the L1 norm of filters keeps too: {told}."]
    return Study(rows, words, channel_figure(runs))


def _row(layer: str, runs: Runs) -> dict[str, Any]:
    filters, response, lasso = ([found[name][layer] for found, _ in runs] for name in RULES)
    return {
        "layer": layer,
        "channels": lasso[0].size,
        "kept": int(lasso[0].sum()),
        "filters": mean(map(shared, lasso, filters)),
        "reading_weights": mean(map(shared, lasso, response)),
        "by_lot": float(lasso[0].mean()),
    }


@themed
def channel_figure(runs: Runs, *, theme: Theme = LIGHT) -> Figure:
    """Left, who keeps which channels of one network, by ascending norm; right, who agrees with LASSO."""
    layers = list(runs[0][1])
    figure = theme.figure(10.4, 1.25 * len(layers) + 1.2)[0]
    figure.clear()
    grid = figure.add_gridspec(len(layers), 2, width_ratios=(1.5, 1))
    found, sizes = runs[0]
    for place, layer in enumerate(layers):
        at = figure.add_subplot(grid[place, 0])
        _strip(at, layer, [found[name][layer][np.argsort(sizes[layer])] for name in RULES], theme)
    at.set_xlabel("channels by ascending L1 norm of their filter; filled: kept")
    _agreement(figure.add_subplot(grid[:, 1]), layers, runs, theme)
    return figure


def _strip(axes: Axes, layer: str, kept: Sequence[Array], theme: Theme) -> None:
    colors = [theme.faint, *(theme.hues[k] for k in range(len(kept)))]
    cells = np.array([(k + 1) * chosen for k, chosen in enumerate(kept)])
    axes.imshow(
        cells, cmap=ListedColormap(colors), vmin=0, vmax=len(kept), aspect="auto", interpolation="nearest"
    )
    bare(axes)
    for edge in np.arange(0.5, len(kept) - 1):
        axes.axhline(edge, color=theme.paper, linewidth=3)
    axes.set_yticks(range(len(kept)), list(RULES), fontsize=8)
    axes.set_title(f"{layer}: {int(kept[0].sum())} of {kept[0].size} channels stay")


def _agreement(axes: Axes, layers: Sequence[str], runs: Runs, theme: Theme) -> None:
    place = np.arange(len(layers))
    for k, name in enumerate(list(RULES)[:-1]):
        values = np.array(
            [[shared(found["LASSO"][layer], found[name][layer]) for layer in layers] for found, _ in runs]
        )
        shift, color = 0.12 * (2 * k - 1), theme.hues[k]
        axes.plot(100 * values.T, (place + shift), MARKERS[k], color=color, markersize=3.5, alpha=0.5)
        axes.plot(100 * values.mean(axis=0), place + shift, MARKERS[k], color=color, markersize=8, label=name)
    lot = [100 * runs[0][0]["LASSO"][layer].mean() for layer in layers]
    for at, share in zip(place, lot, strict=True):
        axes.plot([share, share], [at - 0.35, at + 0.35], color=theme.soft, linestyle=(0, (3, 2)))
    axes.plot([], [], color=theme.soft, linestyle=(0, (3, 2)), label="by lot")
    axes.set_yticks(place, layers)
    axes.set_ylim(len(layers) + 0.1, -0.6)
    axes.set_xlim(0, 103)
    axes.set_xlabel("channels of LASSO that the rule keeps too (%)")
    axes.set_title("Agreement with LASSO")
    axes.legend(loc="lower center", ncols=3, columnspacing=1.2, handletextpad=0.4)
