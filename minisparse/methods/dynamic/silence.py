"""Units that were removed emit 0: without inputs a unit would still emit what its bias makes of nothing.

With all weights of unit i absent, its output is constant. Holding its bias at 0, and the scale and shift of
a normalisation right behind it, makes that constant 0 (for activations with f(0) = 0), so that nothing reads
it: the gradient of the next layer's weights from i is 0, and cutting the unit out changes no output.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from minisparse.nn.layer import LinearLayer
from minisparse.nn.norm import BatchNorm
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.training.state import TrainState


def unused(weight: Weight) -> Array:
    """Units (out,) without a single present input."""
    out, columns = weight.shape
    return np.bincount(weight.flat // columns, minlength=out) == 0


def hidden(state: TrainState) -> dict[str, LinearLayer]:
    """Prunable layers but the last, whose units are the network's outputs."""
    return dict(list(state.network.prunable().items())[:-1])


def silence(state: TrainState, removed: Mapping[str, Array]) -> None:
    """Set to 0 the biases, scales and shifts of `removed` units (out,) by layer name, and their slots."""
    layers = [*state.network.walk(), ("", None)]
    for (name, layer), (following, norm) in pairwise(layers):
        if not isinstance(layer, LinearLayer) or name not in removed or not removed[name].any():
            continue
        held = {} if layer.bias is None else {f"{name}.bias": layer.bias}
        if isinstance(norm, BatchNorm):
            held |= {f"{following}.{key}": p for key, p in norm.params().items()}
        for key, p in held.items():
            p.value[removed[name]] = 0
            state.optimizer.remap(key, np.where(removed[name], -1, np.arange(len(p.value))))
