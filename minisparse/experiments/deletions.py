"""What deleting single weights costs: forecast by each criterion, and carried out.

For every weight w_q of a small network, its deletion alone is carried out and compared with forecasts,
g being the gradient, h the diagonal of the Hessian and P the inverse of the damped Gauss-Newton matrix:

    first order    -w_q g_q                        OBD    h_q w_q^2 / 2                          (1)
    second order   -w_q g_q + h_q w_q^2 / 2        OBS    w_q^2 / (2 P_qq)                       (2)

OBS is held against the change with its own update u = -(w_q / P_qq) P e_q of all other weights. Magnitude
forecasts an order only. Forecasts come from the modules of the criteria; all is float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from minisparse.curvature.gradient import gradient
from minisparse.curvature.hessian_diagonal import exact_diagonal
from minisparse.curvature.inverse import cholesky_inverse, damped_cholesky
from minisparse.errors import UsageError
from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.factors import ggn_factors, live_columns, live_values, split_live
from minisparse.methods.reconstruct.obs import compensation
from minisparse.methods.saliency.gradient import loss_change
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.methods.saliency.obd import obd_saliency, taylor_saliency
from minisparse.nn.loss import Loss
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array

LIMIT = 5000
DAMPING = 1e-2


@dataclass(frozen=True)
class Deletions:
    """Changes of the loss when each of n weights is deleted alone; all arrays (n,).

    layer: number of the weight's layer; alone: with the other weights as they are; adjusted: with the
    update of OBS; forecasts: by criterion, in units of loss except for magnitude.
    """

    layer: Array
    names: tuple[str, ...]
    alone: Array
    adjusted: Array
    forecasts: dict[str, Array]

    def came(self, criterion: str) -> Array:
        """What the criterion's forecast is to be compared with."""
        return self.adjusted if criterion == "obs" else self.alone

    def correlation(self, criterion: str) -> float:
        """Spearman's rank correlation of forecast and outcome; NaN if either is constant."""
        return spearman(self.forecasts[criterion], self.came(criterion))


def spearman(a: Array, b: Array) -> float:
    """Correlation of ranks, ties sharing their mean rank; NaN if all of a or all of b are equal."""
    a, b = (rankdata(v) - (len(v) + 1) / 2 for v in (a, b))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def deletions(
    network: Network, loss: Loss, x: Array, target: Array, damping: float = DAMPING, limit: int = LIMIT
) -> Deletions:
    """Delete every present weight once, alone and with OBS's update; two forward passes for each.

    damping: alpha of P in units of the mean diagonal. UsageError above `limit` weights.
    """
    work, x = network.astype(np.float64), x.astype(np.float64)
    masks, w = work.masks(), live_values(work)
    if len(w) > limit:
        raise UsageError(f"single deletions: got {len(w)} weights, expected at most {limit}.")
    g = live_columns(gradient(work, loss, x, target), masks)[0]
    h = live_columns(exact_diagonal(work, loss, x, target), masks)[0]
    ggn = sum(part.T @ part for part in ggn_factors(work, loss, x, target))
    p = cholesky_inverse(damped_cholesky(ggn, damping)[0])
    each = np.arange(len(w))[:, None]
    sizes = [int(mask.sum()) for mask in masks.values()]
    return Deletions(
        layer=np.repeat(np.arange(len(sizes)), sizes),
        names=tuple(masks),
        alone=changes(work, loss, x, target, (np.where(each[:, 0] == q, 0, w) for q in each)),
        adjusted=changes(work, loss, x, target, (w + compensation(w, p, q) for q in each)),
        forecasts={
            "obd": obd_saliency(w, h),
            "obs": saliency(w, np.diag(p)),
            "taylor": loss_change(w, g),
            "second order": taylor_saliency(w, g, h),
            "magnitude": magnitude(w),
        },
    )


def changes(network: Network, loss: Loss, x: Array, target: Array, points: Iterable[Array]) -> Array:
    """Loss at each point (n,), minus the loss as it is; a point holds all present weights in order."""
    masks, w = network.masks(), live_values(network)
    base = loss.value(network.forward(x, EVAL), target)
    found = []
    for point in points:
        _put(network, point, masks)
        found.append(loss.value(network.forward(x, EVAL), target) - base)
    _put(network, w, masks)
    return np.array(found)


def _put(network: Network, point: Array, masks: Mapping[str, Array]) -> None:
    layers = network.prunable()
    for name, values in split_live(point, masks).items():
        layers[name].weight.assign(values)
