"""Pictures of networks: which pixels are read, the masks themselves, and the wires that are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from minisparse.experiments.plots import WIDTH, shown_levels
from minisparse.experiments.runner import Outcome
from minisparse.experiments.summary import label_of
from minisparse.experiments.theme import LIGHT, Theme, bare, in_lines, themed
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.measure import effective_masks

Networks = Mapping[str, Network]
MOST_WIRES = 3000
TITLE = 9.0


def pictured(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The runs that are drawn: the lowest seed, pruned, at the sparsities shown."""
    first = min((o.spec.seed for o in outcomes), default=0)
    levels = shown_levels(outcomes)
    return [o for o in outcomes if o.spec.seed == first and o.sparsity_asked in levels and o.total]


@themed
def masks(outcomes: Sequence[Outcome], networks: Networks, *, theme: Theme = LIGHT) -> Figure:
    """The first layer at the usual sparsity, per method: kept connections per pixel, and its mask.

    Pixels only if the layer reads every pixel of an image by itself.
    """
    usual = shown_levels(outcomes)[:1]
    runs = [o for o in pictured(outcomes) if o.sparsity_asked in usual and o.spec.key in networks]
    figure, axes = theme.figure(WIDTH, 4.3, 2, max(1, len(runs)), height_ratios=(1, 1.9))
    size = min(TITLE, 6 * TITLE / max(1, len(runs)))
    for column, outcome in enumerate(runs):
        network = networks[outcome.spec.key]
        name, layer = next(iter(network.prunable().items()))
        mask = layer.weight.mask
        title = in_lines(label_of(outcome), 0.9 * WIDTH / len(runs), size)
        axes[0][column].set_title(title, fontsize=size)
        _pixels(axes[0][column], mask, network.input_shape, theme)
        _matrix(axes[1][column], mask, theme)
        axes[1][column].set_xlabel(f"{mask.shape[1]} inputs", fontsize=8)
        if column == 0:
            axes[0][0].set_ylabel("pixels read", fontsize=8.5)
            axes[1][0].set_ylabel(f"mask of '{name}', {mask.shape[0]} units", fontsize=8.5)
    return figure


def _pixels(axes: Axes, mask: Array, shape: Sequence[int], theme: Theme) -> None:
    """Kept connections of each input, summed over channels, as an image; dark or bright is many."""
    bare(axes)
    if len(shape) != 3 or mask.shape[1] != np.prod(shape):
        axes.text(0.5, 0.5, "reads patches", ha="center", va="center", transform=axes.transAxes, fontsize=8)
        return
    counts = mask.sum(axis=0).reshape(shape).sum(axis=0)
    axes.imshow(counts, cmap=theme.ramp, vmin=0, vmax=max(1, counts.max()))
    unread = int((counts == 0).sum())
    axes.set_xlabel(f"{unread} unread" if unread else "all read", fontsize=8)


def _matrix(axes: Axes, mask: Array, theme: Theme) -> None:
    """Kept entries as dots, of a size that leaves them visible at any density."""
    bare(axes)
    rows, columns = np.nonzero(mask)
    size = float(np.clip(900 / np.sqrt(mask.size) / max(0.05, mask.mean()) ** 0.5, 1.0, 9.0)) / 6
    axes.plot(columns, rows, "s", color=theme.hues[0], markersize=size, markeredgewidth=0, rasterized=True)
    axes.set_xlim(-0.5, mask.shape[1] - 0.5)
    axes.set_ylim(mask.shape[0] - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(True)


@themed
def wires(outcomes: Sequence[Outcome], networks: Networks, *, theme: Theme = LIGHT) -> Figure | None:
    """Every kept weight at the highest sparsity as a line, inputs left, outputs right.

    In colour: on a path from an input to an output. Grey: leads nowhere. None if that cannot be drawn:
    too many weights, or layers that are not one chain of linear ones.
    """
    top = shown_levels(outcomes)[-1:]
    runs = [o for o in pictured(outcomes) if o.sparsity_asked in top and o.spec.key in networks]
    chains = [(o, _chain(networks[o.spec.key])) for o in runs if o.kept <= MOST_WIRES]
    drawn = [(outcome, chain) for outcome, chain in chains if chain]
    if not drawn:
        return None
    columns = min(4, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, axes = theme.figure(WIDTH, 0.4 + 2.6 * rows, rows, columns)
    for at in axes.flat:
        at.set_axis_off()
    for at, (outcome, chain) in zip(axes.flat, drawn, strict=False):
        paths = effective_masks(chain)
        _wiring(at, chain, paths, theme)
        on_path = sum(int(mask.sum()) for mask in paths)
        at.set_title(in_lines(label_of(outcome), 0.9 * WIDTH / columns, TITLE), fontsize=TITLE)
        color = theme.ink if on_path else theme.alarm
        text = f"{outcome.kept} weights, {on_path} on a path"
        at.text(0.03, -0.01, text, transform=at.transAxes, fontsize=8, va="top", color=color)
    return figure


def _chain(network: Network) -> list[Array]:
    """Masks of a chain of linear layers, (out, in) each; empty if the network is something else."""
    weights = [layer.weight for layer in network.prunable().values()]
    follow = all(a.shape[0] == b.shape[1] for a, b in zip(weights, weights[1:], strict=False))
    linear = all(weight.geometry[2:] == (1, 1) for weight in weights)
    return [weight.mask for weight in weights] if follow and linear else []


def _wiring(axes: Axes, chain: Sequence[Array], paths: Sequence[Array], theme: Theme) -> None:
    """Units in columns from left to right, kept weights as lines between them."""
    for column, (mask, path) in enumerate(zip(chain, paths, strict=True)):
        for chosen, color, width, order in (
            (mask & ~path, theme.soft, 0.6, 1),
            (path, theme.hues[column % len(theme.hues)], 1.1, 2),
        ):
            out, inputs = np.nonzero(chosen)
            starts = np.column_stack([np.full(len(out), column), _height(inputs, mask.shape[1])])
            ends = np.column_stack([np.full(len(out), column + 1), _height(out, mask.shape[0])])
            lines = np.stack([starts, ends], axis=1)
            axes.add_collection(LineCollection(list(lines), colors=color, linewidths=width, zorder=order))
    sizes = [chain[0].shape[1], *(mask.shape[0] for mask in chain)]
    axes.set_xlim(-0.08, len(chain) + 0.08)
    axes.set_ylim(1.1, -0.03)
    for column, size in enumerate(sizes):
        heights = _height(np.arange(size), size)
        axes.plot(np.full(size, column), heights, ".", color=theme.soft, markersize=1.6, zorder=0)
        axes.text(column, 1.07, f"{size}", ha="center", va="center", fontsize=7, color=theme.soft)


def _height(units: Array, size: int) -> Array:
    """Vertical places in [0, 1] of units of a layer with `size` of them."""
    return (units + 0.5) / size
