"""SET and RigL on present weights only, beside masked matrices: steps, exchanges, bytes, and large networks.

Networks are born sparse (`training.born`, Erdos-Renyi) and stored as CSR; the masked ones have the same
topology and values as matrices. A step is forward, loss, backward and the SGD update with momentum, float32,
batch 128, random data; an exchange is one topology change in all layers, slots included, after a step.

    side by side    step and exchange in ms; held: values, gradients, slots and structure of all weights;
                    peak: of the process over what it was before the network was built
    large network   a million hidden units with 20 connections each (100,000 when quick), CSR only
    epoch           an epoch of the large network at several numbers of connections: all its steps, and its
                    exchanges, one under SET, one every 100 steps under RigL
    linear fit      seconds = fixed + slope x connections by least squares, of the steps and SET's exchange

RigL's growth looks at the gradient of every entry of a matrix, present or not, a few rows at a time: memory
is that of the connections, time is not. Where a network has more entries than MOST, the time is measured on
some of the rows and multiplied; the column `measured` says on what share of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from statistics import median
from typing import Any

import numpy as np

from minisparse.experiments.bench_memory import connection_bytes, forget_peak, resident
from minisparse.experiments.bench_sparse_training import (
    BATCH,
    CLASSES,
    FULL,
    QUICK,
    Sizes,
    connections,
    drawn,
    large,
    line,
    seconds,
    state_of,
    step,
)
from minisparse.experiments.bench_timing import pinned
from minisparse.methods.base import DynamicSparse, rounded
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.dynamic.rules import drop_smallest
from minisparse.methods.dynamic.set import SET
from minisparse.nn.largest import largest
from minisparse.nn.network import Network
from minisparse.nn.threads import Threads
from minisparse.training.born import make_sparse
from minisparse.training.state import TrainState
from minisparse.weights.formats import MASKED, convert

log = logging.getLogger("minisparse.experiments.bench")

METHODS: dict[str, DynamicSparse] = {"set": SET(), "rigl": RigL()}
RIGL_INTERVAL = 100
MOST = 25_000_000  # entries whose gradient is formed before the rest is estimated


@dataclass(frozen=True)
class Case:
    """A row of the first table for each method and storage."""

    model: str
    inputs: int
    sparsity: float


CASES = (Case("set-mlp", 3072, 0.95), Case("set-mlp", 3072, 0.981))


def records(
    threads: tuple[int, ...], quick: bool = False, sizes: Sizes | None = None, cases: tuple[Case, ...] = CASES
) -> list[dict[str, Any]]:
    """Rows of the tables in their order; rows of one table have the same keys."""
    chosen, count = sizes or (QUICK if quick else FULL), max(threads)
    with pinned(count):
        warm_up()
        rows = [row for case in cases for row in beside(case, count, chosen)]
        rows.append(large_row(chosen, count))
        epochs = list(epoch_rows(chosen, count))
    return [*rows, *epochs, fit_row(epochs)]


def warm_up() -> None:
    """A step and an exchange of each kind, so that compiling is not measured."""
    x, target = drawn(8, 20, 0)
    state = state_of(make_sparse("mlp:20-30-10", (20,), CLASSES, 0.5), x, target)
    state.step = 1
    step(state, x, target)
    for method in METHODS.values():
        method.exchange_all(state)
        step(state, x, target)


def beside(case: Case, threads: int, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Both methods in both storages."""
    for storage in ("csr", MASKED):
        for label, method in METHODS.items():
            log.info("%s at %g %%, %s, %s", case.model, 100 * case.sparsity, label, storage)
            forget_peak()
            before = resident()
            network = make_sparse(case.model, (case.inputs,), CLASSES, case.sparsity)
            for layer in network.prunable().values():
                layer.weight = convert(layer.weight, storage) if storage == MASKED else layer.weight
            forget_peak()
            state, spent, moved = worked(network, method, case.inputs, sizes.rounds)
            most = resident("VmHWM")
            held = sum(connection_bytes(network, state.optimizer).values())
            yield {
                "side by side": case.model, "sparsity": case.sparsity, "method": label, "storage": storage,
                "threads": threads, "connections": connections(network), "step_ms": 1e3 * spent,
                "exchange_ms": 1e3 * moved, "held_MB": held / 1e6,
                "peak_MB": None if None in (before, most) else ((most or 0) - (before or 0)) / 1e6,
            }  # fmt: skip


def worked(
    network: Network, method: DynamicSparse, inputs: int, rounds: int
) -> tuple[TrainState, float, float]:
    """The state after some steps and exchanges, and the median seconds of each; the first does not count."""
    x, target = drawn(BATCH, inputs, 0)
    state = state_of(network, x, target)
    state.step = 1
    moved = []
    with Threads(network, BATCH):
        spent = [seconds(lambda: step(state, x, target)) for _ in range(rounds + 1)]
        for _ in range(max(2, rounds // 8) + 1):
            moved.append(seconds(lambda: method.exchange_all(state)))
            step(state, x, target)
    return state, median(spent[1:]), median(moved[1:])


def large_row(sizes: Sizes, threads: int) -> dict[str, Any]:
    """Steps, both exchanges and bytes of the large network."""
    log.info("large network: %s units", f"{sizes.units:,}")
    forget_peak()
    before = resident()
    network, _ = large(sizes, 1.0)
    forget_peak()
    x, target = drawn(BATCH, sizes.inputs, 0)
    state = state_of(network, x, target)
    with Threads(network, BATCH):
        spent = [seconds(lambda: step(state, x, target)) for _ in range(4)][1:]
    set_s = seconds(lambda: METHODS["set"].exchange_all(state))
    step(state, x, target)
    rigl_s, share = rigl_exchange(state)
    most = resident("VmHWM")
    held, count = sum(connection_bytes(network, state.optimizer).values()), connections(network)
    return {
        "large network": network.name, "connections": count, "threads": threads, "step_s": median(spent),
        "set_exchange_s": set_s, "rigl_exchange_s": rigl_s, "measured": share, "held_MB": held / 1e6,
        "held_bytes": held / count,
        "peak_MB": None if None in (before, most) else ((most or 0) - (before or 0)) / 1e6,
        "mask_MB": sum(layer.weight.size for layer in network.prunable().values()) / 1e6,
    }  # fmt: skip


def rigl_exchange(state: TrainState) -> tuple[float, float]:
    """(seconds of RigL's exchange, share of the rows it was measured on) after a step's backward pass."""
    layers = state.network.prunable()
    share = min(1.0, MOST / sum(layer.weight.size for layer in layers.values()))
    if share == 1:
        return seconds(lambda: RigL().exchange_all(state)), 1.0
    total = 0.0
    for layer in layers.values():
        weight = layer.weight
        k = rounded(RigL().alpha, weight.kept)
        stay = weight.flat[drop_smallest(weight.values, k)]
        rows = next(iter(layer.gradient_blocks())).shape[0]
        blocks = ceil(weight.shape[0] / rows)
        some = max(1, ceil(share * blocks))
        seen = min(some * rows, weight.shape[0]) * weight.shape[1]
        free = seen - int(np.searchsorted(stay, seen))  # of the entries that pass by, those that may grow
        start = time.perf_counter()
        largest(islice(layer.gradient_blocks(), some), min(rounded(some / blocks, k), free), excluded=stay)
        total += (time.perf_counter() - start) * blocks / some
    return total, share


def epoch_rows(sizes: Sizes, threads: int) -> Iterator[dict[str, Any]]:
    """An epoch of sizes.samples samples at several numbers of connections, from the time of some steps."""
    steps = ceil(sizes.samples / BATCH)
    for factor in sizes.factors:
        network, _ = large(sizes, factor)
        x, target = drawn(BATCH, sizes.inputs, 0)
        state = state_of(network, x, target)
        with Threads(network, BATCH):
            spent = [seconds(lambda: step(state, x, target)) for _ in range(ceil(sizes.part / BATCH) + 1)]  # noqa: B023
        moved = seconds(lambda: METHODS["set"].exchange_all(state))  # noqa: B023
        step(state, x, target)
        rigl_s, share = rigl_exchange(state)
        yield {
            "epoch": f"{factor:g} x", "units": sizes.units, "connections": connections(network),
            "threads": threads, "samples": sizes.samples, "steps_s": steps * median(spent[1:]),
            "set_s": moved, "rigl_s": rigl_s * steps / RIGL_INTERVAL, "measured": share,
        }  # fmt: skip


def fit_row(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """The least-squares line through the epochs of SET."""
    x = np.array([row["connections"] for row in epochs], dtype=float)
    y = np.array([row["steps_s"] + row["set_s"] for row in epochs])
    fixed, slope, r2 = line(x, y)
    return {
        "linear fit": "an epoch of SET = fixed + slope connections", "fixed_s": fixed,
        "slope_ns/sample": 1e9 * slope / epochs[0]["samples"], "R2": r2,
    }  # fmt: skip
