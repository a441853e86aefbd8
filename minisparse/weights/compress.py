"""compress: give each layer the storage format in which it is fastest on this machine.

Every format that can store a layer's mask is timed on the layer's own input, the masked dense matrix among
them, so no layer becomes slower than it was. A format replaces the dense matrix only if it is clearly
faster; of several that are equally fast the first of FORMATS is taken. What was chosen is remembered per
machine, by the layer's shape, batch, sparsity and shares of units and inputs in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.layer import LinearLayer
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.rng import generator
from minisparse.weights import timings
from minisparse.weights.formats import FORMATS, MASKED, convert

ROUNDS = 9  # of every candidate, in turns, so that a disturbance meets all of them
HOPELESS = 3.0  # times the best: not worth another round
CLEARLY = 0.97  # a time is clearly shorter than another if it is less than this share of it

Choice = tuple[str, dict[str, Any]]


def compress(network: Network, batch: int = 256, cache: bool = True) -> Network:
    """Copy of a network whose layers are stored in the formats that are fastest for batches of this size.

    Outputs equal those of the masked network up to rounding: a row of W with k entries differs by at most
    (k + 2) eps sum |w| |x|. cache=False neither reads nor writes remembered choices.
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise UsageError(f"compress batch: got {batch!r}, expected an integer >= 1.")
    small = network.copy()
    noise = generator(0, "compress").standard_normal((batch, *small.input_shape))
    for name, layer in small.prunable().items():
        if layer.weight.kept < layer.weight.size:
            x = _input(small, layer, noise.astype(small.dtype))
            layer.weight = _fastest(layer, x, cache)
            timings.log.info("%s: %s", name, type(layer.weight).__name__)
    small.release()
    return small


def candidates(weight: Weight) -> dict[str, Choice]:
    """The masked dense matrix and every format and setting that can store this weight's mask, by label."""
    mask = weight.mask
    found: dict[str, Choice] = {MASKED: (MASKED, {})}
    for name, kind in FORMATS.items():
        if not kind.objection(mask):
            for settings in kind.settings:
                label = ", ".join([name, *(f"{k}={v}" for k, v in settings.items())])
                found[label] = (name, settings)
    return found


def measured(works: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each; those that are hopelessly slow are called twice only."""
    times = {name: [_seconds(work), _seconds(work)][1:] for name, work in works.items()}
    best = min(t[0] for t in times.values())
    alive = [name for name, t in times.items() if t[0] <= HOPELESS * best]
    for _ in range(rounds):
        for name in alive:
            times[name].append(_seconds(works[name]))
    return {name: median(t) for name, t in times.items()}


def chosen(times: dict[str, float]) -> str:
    """The first that is not clearly slower than the fastest; the dense matrix unless it is clearly slower."""
    best = min(times.values())
    if best > CLEARLY * times[MASKED]:
        return MASKED
    return next(name for name, t in times.items() if name != MASKED and CLEARLY * t <= best)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _input(network: Network, layer: LinearLayer, x: Array) -> Array:
    """What this layer is given, in memory as it is given it, when the network sees x."""
    seen = []

    def forward(x: Array, mode: Mode = EVAL) -> Array:
        seen.append(x)
        return type(layer).forward(layer, x, mode)

    layer.forward = forward  # type: ignore[method-assign]
    try:
        network.forward(x, EVAL)
    finally:
        del layer.forward
    return seen[0]


def _fastest(layer: LinearLayer, x: Array, cache: bool) -> Weight:
    """The layer's weight in the format in which its forward pass on x is fastest."""
    weight = layer.weight
    choices = candidates(weight)
    key = timings.key(_facts(layer, x, choices)) if cache else ""
    known = timings.load().get(key) if cache else None
    if known in choices:
        name, settings = choices[known]
        return convert(weight, name, **settings)
    stored = {label: convert(weight, name, **settings) for label, (name, settings) in choices.items()}
    times = measured({label: _pass(layer, w, x) for label, w in stored.items()})
    layer.weight = weight
    label = chosen(times)
    if cache:
        timings.remember(key, label)
    return stored[label]


def _pass(layer: LinearLayer, weight: Weight, x: Array) -> Callable[[], object]:
    def run() -> object:
        layer.weight = weight
        return layer.forward(x, EVAL)

    return run


def _facts(layer: LinearLayer, x: Array, choices: dict[str, Choice]) -> dict[str, Any]:
    """All that decides how long a layer takes, but the exact places of its entries."""
    weight = layer.weight
    mask = weight.mask
    return {
        "layer": type(layer).__name__,
        "geometry": weight.geometry,
        "window": str(getattr(layer, "window", "")),
        "input": x.shape,
        "strides": x.strides,
        "dtype": str(np.result_type(weight.dense(), x)),
        "sparsity": round(1 - weight.kept / weight.size, 2),
        "units": round(float(mask.any(axis=1).mean()), 2),
        "inputs": round(float(mask.any(axis=0).mean()), 2),
        "choices": list(choices),
    }
