"""compress: give each layer the storage format in which it is fastest on this machine.

Every format that can store a layer's mask is timed on the layer's own input, the masked dense matrix among
them, so no layer becomes slower than it was. A format replaces the dense matrix only if it is clearly
faster; of several that are equally fast the first of FORMATS is taken. Products of BLAS and of kernels are
timed apart, as their threads disturb each other.

On several threads the fastest layers need not make the fastest network, because only one of the two has
the threads (`nn.threads`). So three networks are timed as a whole, that of the fastest layers, one whose
layers are all stored for kernels, and the masked one, and the first than which none is clearly faster is
taken.

What was chosen is remembered per machine, by the layers' shapes, batch, sparsity and shares of units and
inputs in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from math import inf
from statistics import median
from typing import Any

import numba
import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.layer import LinearLayer
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.threads import kernels_alone, settle
from minisparse.nn.weight import Weight
from minisparse.rng import generator
from minisparse.weights import timings
from minisparse.weights.formats import FORMATS, MASKED, convert

TURNS = 3  # of BLAS and kernels, so that a disturbance meets both
ROUNDS = 3  # of every candidate in a turn, one after the other
HOPELESS = 3.0  # times the best: not worth another round
CLEARLY = 0.97  # a time is clearly shorter than another if it is less than this share of it

Choice = tuple[str, dict[str, Any]]
PLANS = FASTEST, KERNELS, AS_IT_IS = ("fastest", "kernels", "masked")


def compress(network: Network, batch: int = 256, cache: bool = True) -> Network:
    """Copy of a network whose layers are stored in the formats that are fastest for batches of this size.

    Outputs equal those of the masked network up to rounding: a row of W with k entries differs by at most
    (k + 2) eps sum |w| |x|. cache=False neither reads nor writes remembered choices.
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise UsageError(f"compress batch: got {batch!r}, expected an integer >= 1.")
    small = network.copy()
    noise = generator(0, "compress").standard_normal((batch, *small.input_shape)).astype(small.dtype)
    options, keys = {}, []
    for name, layer in small.prunable().items():
        if layer.weight.kept < layer.weight.size:
            x = _input(small, layer, noise)
            keys.append(timings.key(_facts(layer, x, candidates(layer.weight))) if cache else "")
            options[name] = _options(layer, x, keys[-1])
    _put(small, options, FASTEST)
    if options and numba.get_num_threads() > 1:
        _put(small, options, _plan(small, options, noise, timings.key({"layers": keys}) if cache else ""))
    for name in options:
        timings.log.info("%s: %s", name, type(small.prunable()[name].weight).__name__)
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


def measured(works: dict[str, Callable[[], object]], by_blas: Collection[str] = ()) -> dict[str, float]:
    """Median seconds of each; those that are hopelessly slow are called twice only.

    by_blas: works whose time is that of BLAS. The others are done with BLAS at rest and on one thread.
    """
    groups = [[n for n in works if n in by_blas], [n for n in works if n not in by_blas]]
    limits: tuple[Callable[[], AbstractContextManager[None]], ...] = (nullcontext, kernels_alone)
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TURNS + 1):
        best = min(min(t, default=inf) for t in times.values())
        for group, limit in zip(groups, limits, strict=True):
            alive = [name for name in group if not times[name] or times[name][0] <= HOPELESS * best]
            if alive:
                settle()
            with limit():
                for _ in range(ROUNDS if turn else 2):
                    for name in alive:
                        times[name].append(_seconds(works[name]))
        if turn == 0:
            times = {name: t[1:] for name, t in times.items()}  # without the first call
    return {name: median(times[name]) for name in works}


def chosen(times: dict[str, float]) -> str:
    """The first that is not clearly slower than the fastest; the dense matrix unless it is clearly slower."""
    best = min(times.values())
    if best > CLEARLY * times.get(MASKED, inf):
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


def _options(layer: LinearLayer, x: Array, key: str) -> dict[str, Weight]:
    """The layer's weight in each plan: in the fastest format, in the fastest for kernels, and as it is."""
    weight = layer.weight
    choices = candidates(weight)
    known = timings.load().get(key) if key else None
    if not (isinstance(known, list) and len(known) == 2 and all(label in choices for label in known)):
        stored = {label: convert(weight, name, **settings) for label, (name, settings) in choices.items()}
        by_blas = {label for label, w in stored.items() if _multiplied_by_blas(layer, w)}
        times = measured({label: _pass(layer, w, x) for label, w in stored.items()}, by_blas)
        layer.weight = weight
        kernels = {label: t for label, t in times.items() if label not in by_blas}
        known = [chosen(times), chosen(kernels or times)]
        if key:
            timings.remember(key, known)
    made = [convert(weight, choices[label][0], **choices[label][1]) for label in known]
    return dict(zip(PLANS, (*made, weight), strict=True))


def _plan(network: Network, options: dict[str, dict[str, Weight]], x: Array, key: str) -> str:
    """The plan of which the whole network is fastest."""
    known = timings.load().get(key) if key else None
    if known in PLANS:
        return known
    times: dict[str, list[float]] = {plan: [] for plan in PLANS}
    for _ in range(TURNS):
        for plan in PLANS:
            _put(network, options, plan)
            settle()
            network.predict(x, len(x))
            times[plan] += [_seconds(lambda: network.predict(x, len(x))) for _ in range(ROUNDS)]
    middle = {plan: median(t) for plan, t in times.items()}
    found = next(plan for plan in PLANS if CLEARLY * middle[plan] <= min(middle.values()))
    if key:
        timings.remember(key, found)
    return found


def _put(network: Network, options: dict[str, dict[str, Weight]], plan: str) -> None:
    layers = network.prunable()
    for name, weights in options.items():
        layers[name].weight = weights[plan]


def _multiplied_by_blas(layer: LinearLayer, weight: Weight) -> bool:
    before, layer.weight = layer.weight, weight
    try:
        return layer.by_blas
    finally:
        layer.weight = before


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
