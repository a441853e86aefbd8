"""Channel pruning: find by LASSO which input channels rebuild a layer's output, then refit its weights.

Y. He, X. Zhang, J. Sun. Channel Pruning for Accelerating Very Deep Neural Networks. ICCV 2017.
arXiv:1707.06168

A layer reads channels i with inputs X_i (n, e) through weights W_i (o, e), e taps or pixels of each. Y (n, o)
are its outputs before the activation in the original network, X those inputs in the network pruned so far.

    beta = argmin |Y - sum_i beta_i X_i W_i^T|^2 / (2 n o) + lambda |beta|_1                (1)
    G_ij = sum_{a in i, b in j} C_ab (W^T W)_ab / o,    g_i = sum_{a in i} (D W)_aa / o     (2)
    W' = argmin over the kept columns of |Y - X' W'^T|^2 + mu n |W' - W|^2                  (3)

with C = X^T X / n and D = X^T Y / n, centred if the layer has a bias. (2) are the normal equations of (1):
nothing else is needed of the data, so no row is left out of the LASSO. lambda grows until exactly as many
channels stay as asked. (3) with mu = 0 is least squares, the nearest to W if there are several; its error is
never above that of the weights it starts from, whatever mu. A bias is refitted as well and not damped.

Layers are taken from input to output. Filters and BatchNorm entries nobody reads any more leave with their
channels. Channels of a residual stream stay: only those inside a branch leave.

Departures. (1) and (3) are solved once each, in this order, as the authors' code does by default; the paper
alternates. All samples enter both, of convolutions `positions` places each. The damping mu (0 in the paper)
is a share of the mean squared input and counts where samples are few. The last layer of a branch rebuilds its
own output; it does not make up for errors of the shortcut. The kept share is the same for all layers, the
largest that leaves no more weights than asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from scipy.linalg import eigh

from minisparse.methods.base import Method, setting
from minisparse.methods.reconstruct.layerwise import calibration_batches
from minisparse.methods.registry import register
from minisparse.methods.structured.budget import bill_of_groups, least_counts, uniform
from minisparse.methods.structured.lasso import choose
from minisparse.methods.structured.ranked import masks_without, present, remove
from minisparse.nn.layer import LinearLayer
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real, check_sparsity, check_whole, kept_count
from minisparse.sparsity.groups import Group, groups_of
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState

log = logging.getLogger("minisparse.methods.channel_pruning")


class Moments:
    """Running second moments of a layer's inputs x, with a 1 behind them if it has a bias, and outputs y."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        self.bias = bias
        self.xx = np.zeros((inputs + bias, inputs + bias))
        self.xy = np.zeros((inputs + bias, outputs))
        self.yy = 0.0
        self.rows = 0

    def add(self, x: Array, y: Array) -> None:
        """Rows x (r, inputs) and y (r, outputs), the bias contained in y."""
        if self.bias:
            x = np.concatenate([x, np.ones((len(x), 1), dtype=x.dtype)], axis=1)
        count = self.rows + len(x)
        for name, product in (("xx", x.T @ x), ("xy", x.T @ y), ("yy", float((y * y).sum()))):
            old = getattr(self, name)
            setattr(self, name, old + (product - len(x) * old) / count)
        self.rows = count

    @property
    def centred(self) -> tuple[Array, Array]:
        """C (in, in) and D (in, out), with the means taken off if there is a bias."""
        if not self.bias:
            return self.xx, self.xy
        mean = self.xx[-1, :-1]
        return self.xx[:-1, :-1] - np.outer(mean, mean), self.xy[:-1] - np.outer(mean, self.xy[-1])

    def error(self, weight: Array, bias: Array | None) -> float:
        """Mean over rows of |y - W x - b|^2 for weight (out, in)."""
        theta = _stacked(weight, bias)
        return float(self.yy - 2 * (theta * self.xy).sum() + (theta * (self.xx @ theta)).sum())


def _stacked(weight: Array, bias: Array | None) -> Array:
    """W^T with b below it, (in or in + 1, out), float64."""
    rows = weight.T if bias is None else np.concatenate([weight.T, bias[None]])
    return rows.astype(np.float64)


def normal_equations(weight: Array, columns: Array, moments: Moments) -> tuple[Array, Array]:
    """G (c, c) and g (c,) of equation (2); columns (c, e): those of weight (out, in) that read channel i."""
    second, cross = moments.centred
    product = second * (weight.T @ weight) / len(weight)
    gram = product[np.ix_(columns.ravel(), columns.ravel())]
    channels, each = columns.shape
    gram = gram.reshape(channels, each, channels, each).sum(axis=(1, 3))
    return gram, (cross * weight.T).sum(axis=1)[columns].sum(axis=1) / len(weight)


def refit(
    weight: Array, bias: Array | None, kept: Array, moments: Moments, damping: float = 0.0
) -> tuple[Array, Array | None]:
    """(W', b') of equation (3): kept (in,) bool columns, all others 0; damping: mu / mean squared input."""
    at = np.flatnonzero(np.append(kept, True) if bias is not None else kept)
    theta = _stacked(np.where(kept, weight, 0), bias)
    gram = moments.xx[np.ix_(at, at)]
    missing = moments.xy[at] - moments.xx[at] @ theta
    columns = int(np.count_nonzero(kept))
    gram[np.arange(columns), np.arange(columns)] += (
        damping * np.trace(gram[:columns, :columns]) / max(columns, 1)
    )
    values, vectors = eigh(gram)
    real = values > len(values) * np.finfo(np.float64).eps * values[-1]
    theta[at] += vectors[:, real] @ ((vectors[:, real].T @ missing) / values[real, None])
    return (theta.T, None) if bias is None else (theta[:-1].T, theta[-1])


def branch_groups(network: Network) -> tuple[Group, ...]:
    """Groups that one layer writes and one layer reads, in the order data flows: no residual streams."""
    return tuple(
        g for g in groups_of(network) if len(g.producers) == len(g.consumers) == 1 and not g.paddings
    )


def columns_read(mask: Array) -> Array:
    """(in,) bool: columns of a mask (out, in) with an entry."""
    return np.asarray(np.any(mask, axis=0))


def response_moments(
    pruned: Network, original: Network, name: str, batches: Iterable[Array], positions: int, rng: Generator
) -> Moments:
    """Moments of layer `name`: inputs in `pruned`, outputs in `original`, at so many places of a sample."""
    now, then = pruned.prunable()[name], original.prunable()[name]
    weight = then.weight.dense().astype(np.float64)
    found = Moments(weight.shape[1], len(weight), now.bias is not None)
    for x in batches:
        pruned.forward(x, EVAL)
        original.forward(x, EVAL)
        inputs, old = now.rows, then.rows
        places = inputs.shape[1]
        if positions < places:
            at = rng.permuted(np.tile(np.arange(places), (len(x), 1)), axis=1)[:, :positions, None]
            inputs, old = np.take_along_axis(inputs, at, 1), np.take_along_axis(old, at, 1)
        y = old.reshape(-1, old.shape[-1]).astype(np.float64) @ weight.T
        found.add(
            inputs.reshape(-1, inputs.shape[-1]).astype(np.float64),
            y if then.bias is None else y + then.bias.value,
        )
    return found


# (network pruned so far, group, moments of the layer that reads it, units to keep) -> mask (units,)
Rule = Callable[[Network, Group, Moments, int], Array]


def by_lasso(network: Network, group: Group, moments: Moments, keep: int) -> Array:
    """Equations (1) and (2)."""
    ((name, columns),) = group.consumers
    weight = network.prunable()[name].weight.dense().astype(np.float64)
    return choose(*normal_equations(weight, columns, moments), keep, present(network, group))


def prune_channels(
    network: Network,
    kept: Mapping[Group, int],
    batches: list[Array],
    rng: Generator,
    rule: Rule = by_lasso,
    positions: int = 10,
    damping: float | None = 0.0,
) -> tuple[Network, dict[Group, Array]]:
    """A copy of `network` with `kept[group]` units of each group, masked, and which (units,) those are.

    Groups must have one reader each (`branch_groups`) and come in the order data flows; one that keeps all
    its live units is left alone. batches: calibration inputs; damping None: weights are not refitted.
    """
    work, found = network.copy(), {}
    for group, keep in kept.items():
        if keep >= np.count_nonzero(present(work, group)):
            continue
        ((name, _),) = group.consumers
        moments = response_moments(work, network, name, batches, positions, rng)
        found[group] = rule(work, group, moments, keep)
        for other, mask in masks_without(work, {group: found[group]}).items():
            work.prunable()[other].weight.rewire(mask)
        if damping is not None:
            _rebuild(work.prunable()[name], moments, damping)
    return work, found


def _rebuild(layer: LinearLayer, moments: Moments, damping: float) -> None:
    weight, bias = layer.weight.dense().astype(np.float64), None if layer.bias is None else layer.bias.value
    before = moments.error(weight, bias)
    new, shift = refit(weight, bias, columns_read(layer.weight.mask), moments, damping)
    layer.weight.assign(new)
    if layer.bias is not None and shift is not None:
        layer.bias.value[...] = shift
    log.debug("refitted: error %.3g before, %.3g after", before, moments.error(new, shift))


@register("channel-pruning", family="structured", paper="arXiv:1707.06168")
@dataclass(frozen=True)
class ChannelPruning(Method):
    """Remove input channels a LASSO can do without, and refit what reads the others."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden units"})

    sparsity: float = setting(0.5, "share of prunable weights that leave with their channels, at least")
    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")
    samples: int = setting(512, "training samples the regressions are computed from")
    positions: int = setting(10, "places of each sample that a convolution is regressed on")
    damping: float = setting(0.001, "share of the mean squared input that holds refitted weights to the old")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_whole(self.samples, "samples")
        check_whole(self.positions, "positions")
        check_real(self.damping, "damping", 0.0)

    def setup(self, state: TrainState) -> None:
        self.impose(state)

    def after_update(self, state: TrainState) -> None:
        self.impose(state)

    def impose(self, state: TrainState) -> None:
        """Prune to each level the schedule names for this step."""
        for level in self.schedule.levels(state.step, state.horizon, self.sparsity):
            groups = branch_groups(state.network)
            bill = bill_of_groups(state.network, groups, "weights")
            budget = kept_count(bill.whole, level)
            kept = uniform(bill, least_counts(bill.units, 0.0), budget)
            if bill.total(kept) > budget:
                log.info("channel-pruning: one channel of each layer is left, and more weights than asked")
            batches, rng = calibration_batches(state, self.samples), state.rng("channel positions")
            counts = dict(zip(groups, kept.tolist(), strict=True))
            found = prune_channels(
                state.network, counts, batches, rng, by_lasso, self.positions, self.damping
            )
            adopt(state, *found)


def adopt(state: TrainState, pruned: Network, keep: Mapping[Group, Array]) -> None:
    """Give the state's network what `prune_channels` returned: refitted layers, then units removed."""
    if not keep:
        return
    layers, fitted = state.network.prunable(), pruned.prunable()
    for name, _ in (part for group in keep for part in group.consumers):
        layers[name].weight.assign(fitted[name].weight.dense())
        bias = fitted[name].bias
        if bias is not None:
            layers[name].params()["bias"].value[...] = bias.value
    remove(state, keep)
