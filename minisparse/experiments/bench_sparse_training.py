"""Truly sparse training: steps and exchanges in ms, a million hidden units, and cost against connections.

Networks are born sparse (`training.born`, Erdos-Renyi): no dense matrix exists at any time, layers that the
allocation leaves dense excepted. A step is forward, loss, backward and the SGD update with momentum, float32,
on random data. An exchange is one topology change of SET in all layers, slots included, and what the next
step takes longer for it. The dense step is our own, of the same network without zeros. Both take turns of
ten steps and have the threads of BLAS that a training would have; before each turn those of the other are
left to go to sleep.

The networks of targets P5 and P7 of the design and of D. C. Mocanu et al., arXiv:1707.04780, and S. Liu et
al., arXiv:1901.09181:

    sparse step      ms of a step and of an exchange; dense/ours is the speed-up
    sparse epoch     many units with 20 connections each, data drawn batch by batch. Bytes are divided by the
                     connections: held ones are all arrays of weights, gradients, slots and structure; peak
                     bytes are measured from outside, equation (1). peak_MB: of the whole process, at most
    cost             seconds of a part of an epoch at other numbers of connections, units fixed
    linear fit       seconds = fixed + slope x connections by least squares, over those rows

With P(n) the largest resident memory of the process while it makes a step of n samples, less what it had
before the network was built, what does not grow with the batch (activations do) is

    P(0) = 2 P(n / 2) - P(n)                                                               (1)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from typing import Any

import numpy as np

from minisparse.experiments.bench_memory import activation_bytes, connection_bytes, forget_peak, resident
from minisparse.experiments.bench_timing import pinned
from minisparse.methods.dynamic.set import SET
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.lr import Constant
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.param import Array
from minisparse.nn.threads import Threads, settle
from minisparse.rng import generator
from minisparse.training.born import make_sparse
from minisparse.training.state import TrainState

log = logging.getLogger("minisparse.experiments.bench")

CLASSES, BATCH = 10, 128
LR, MOMENTUM = 0.01, 0.9
ENDLESS = 1 << 30  # steps: no exchange is the last


@dataclass(frozen=True)
class StepCase:
    """A row of the first table."""

    model: str
    inputs: int
    sparsity: float
    target: str


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    rounds    steps of each network; dense ones a quarter of them, two at least
    units     hidden units of the large network, in three layers; fan_in: its connections for each of them
    samples   of the epoch; part: of the epochs that the line is fitted to, at `factors` times the connections
    """

    rounds: int
    units: int
    samples: int
    part: int
    inputs: int = 1000
    fan_in: int = 20
    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)


CASES = (
    StepCase("set-mlp", 3072, 0.95, "P5: dense/ours >= 6"),
    StepCase("mlp:784-1000-1000-1000-10", 784, 0.955, "step <= 3 ms, exchange < 20 ms"),
    StepCase("set-mlp", 3072, 0.981, "step <= 8 ms, exchange < 20 ms"),
)
FULL = Sizes(rounds=40, units=1_000_000, samples=10_000, part=5 * BATCH)
QUICK = Sizes(rounds=8, units=100_000, samples=8 * BATCH, part=3 * BATCH)


def records(
    threads: tuple[int, ...], quick: bool = False, sizes: Sizes | None = None
) -> list[dict[str, Any]]:
    """Rows of the tables in their order; rows of one table have the same keys. Times in ms or seconds.

    The large network is measured with the most threads only.
    """
    chosen = sizes or (QUICK if quick else FULL)
    rows: list[dict[str, Any]] = []
    for count in threads:
        with pinned(count):
            for case in CASES:
                log.info("sparse step: %s at %.3g %%, %d threads", case.model, 100 * case.sparsity, count)
                rows.append(step_row(case, count, chosen))
    with pinned(max(threads)):
        rows.append(epoch_row(chosen, max(threads)))
        costs = list(cost_rows(chosen, max(threads)))
    return [*rows, *costs, fit_row(costs)]


def step_row(case: StepCase, threads: int, sizes: Sizes) -> dict[str, Any]:
    """Median and quartiles of a step, the dense step beside it, and the median exchange; ms."""
    network = make_sparse(case.model, (case.inputs,), CLASSES, case.sparsity)
    dense = make(case.model, (case.inputs,), CLASSES)
    x, target = drawn(BATCH, case.inputs, 0)
    state, other = state_of(network, x, target), state_of(dense, x, target)
    ours: list[float] = []
    theirs: list[float] = []
    for part in parts(sizes.rounds):  # in turns, so that both meet the same disturbances
        theirs += timed_steps(other, x, target, ceil(part / 4) + 1)
        ours += timed_steps(state, x, target, part + 1)
    exchanges, following = timed_exchanges(state, x, target, max(3, sizes.rounds // 4) + 1)
    low, middle, high = (1e3 * float(q) for q in np.quantile(ours, (0.25, 0.5, 0.75)))
    against, moved = 1e3 * median(theirs), 1e3 * exchange_cost(exchanges, following, ours)
    return {
        "sparse step": case.model, "sparsity": case.sparsity, "batch": BATCH, "threads": threads,
        "connections": connections(network), "median_ms": middle, "q25_ms": low, "q75_ms": high,
        "dense_ms": against, "dense/ours": against / middle, "exchange_ms": moved, "target": case.target,
    }  # fmt: skip


def epoch_row(sizes: Sizes, threads: int) -> dict[str, Any]:
    """One epoch of the large network: seconds, and where its bytes are."""
    log.info("sparse epoch: %s units, %s samples", f"{sizes.units:,}", f"{sizes.samples:,}")
    step_once(replace(sizes, units=3_000))  # kernels are compiled before memory is looked at
    forget_peak()
    before = resident()
    network, built = large(sizes, 1.0)
    forget_peak()
    state, spent = epoch(network, sizes.samples, sizes.inputs, "epoch")
    most, work = resident("VmHWM"), activation_bytes(network)
    held, count = connection_bytes(network, state.optimizer), connections(network)
    lasting = lasting_bytes(state, sizes)
    moved = seconds(lambda: exchange(state))
    known = None not in (before, most, lasting)
    return {
        "sparse epoch": network.name, "units": sizes.units, "connections": count, "threads": threads,
        "samples": sizes.samples, "seconds": sum(spent), "step_s": median(spent), "build_s": built,
        "exchange_s": moved, "held_bytes": sum(held.values()) / count,
        **{f"{name}_bytes": size / count for name, size in held.items()},
        "peak_bytes": ((lasting or 0) - (before or 0)) / count if known else None,
        "peak_MB": ((most or 0) - (before or 0)) / 1e6 if known else None, "activations_MB": work / 1e6,
        "target": "P7: held <= 24",
    }  # fmt: skip


def lasting_bytes(state: TrainState, sizes: Sizes) -> int | None:
    """Equation (1), with all that the process had before; None where memory is not known."""
    most = []
    for samples in (BATCH, BATCH // 2):
        state.network.release()
        forget_peak()
        step(state, *drawn(samples, sizes.inputs, 0))
        most.append(resident("VmHWM") or 0)
    state.network.release()
    return 2 * most[1] - most[0] if all(most) else None


def cost_rows(sizes: Sizes, threads: int) -> Iterator[dict[str, Any]]:
    """Seconds of a part of an epoch at several numbers of connections; a first step does not count."""
    for factor in sizes.factors:
        network, _ = large(sizes, factor)
        steps = ceil(sizes.part / BATCH)
        _, spent = epoch(network, sizes.part + BATCH, sizes.inputs, f"{factor:g} x connections")
        yield {
            "cost": f"{factor:g} x", "units": sizes.units, "connections": connections(network),
            "threads": threads, "samples": sizes.part, "seconds": steps * median(spent[1:]),
        }  # fmt: skip


def fit_row(costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least-squares line through the rows of `cost_rows`."""
    x = np.array([row["connections"] for row in costs], dtype=float)
    y = np.array([row["seconds"] for row in costs])
    fixed, slope, r2 = line(x, y)
    return {
        "linear fit": "seconds = fixed + slope connections", "fixed_s": fixed,
        "slope_ns": 1e9 * slope, "slope_ns/sample": 1e9 * slope / costs[0]["samples"], "R2": r2,
        "target": "P7: linear",
    }  # fmt: skip


def line(x: Array, y: Array) -> tuple[float, float, float]:
    """(intercept, slope, R^2) of the least-squares line; R^2 = 1 - residual over total sum of squares."""
    slope, fixed = np.polyfit(x, y, 1)
    rest = y - fixed - slope * x
    total = float(((y - y.mean()) ** 2).sum())
    return float(fixed), float(slope), 1 - float((rest**2).sum()) / total if total else 1.0


def large(sizes: Sizes, factor: float) -> tuple[Network, float]:
    """The large network with `factor` times its connections, and the seconds it took to build."""
    third = sizes.units // 3
    widths = [sizes.inputs, sizes.units - 2 * third, third, third, CLASSES]
    size = sum(i * o for i, o in zip(widths, widths[1:], strict=False))
    sparsity = 1 - factor * sizes.fan_in * sizes.units / size
    start = time.perf_counter()
    network = make_sparse(f"mlp:{'-'.join(map(str, widths))}", (sizes.inputs,), CLASSES, sparsity)
    return network, time.perf_counter() - start


def epoch(network: Network, samples: int, inputs: int, what: str) -> tuple[TrainState, list[float]]:
    """The state after one pass over `samples` samples, and the seconds of each step, drawing included."""
    state = state_of(network, *drawn(1, inputs, 0))
    spent = []
    steps = ceil(samples / BATCH)
    with Threads(network, BATCH):
        for k in range(steps):
            start = time.perf_counter()
            step(state, *drawn(min(BATCH, samples - k * BATCH), inputs, k))
            spent.append(time.perf_counter() - start)
            if k + 1 == steps or (k + 1) % 20 == 0:
                log.info("%s: step %d of %d, %.3g s each", what, k + 1, steps, median(spent))
    return state, spent


def step_once(sizes: Sizes) -> None:
    """One step and one exchange of a network of this size."""
    network, _ = large(sizes, 1.0)
    state, _ = epoch(network, BATCH, sizes.inputs, "first step")
    exchange(state)


def step(state: TrainState, x: Array, target: Array) -> None:
    """Forward, loss, backward, update."""
    state.loss.value(state.network.forward(x, state.training()), target)
    state.network.backward(state.loss.grad(), need_dx=False)
    state.optimizer.step(state.network, state.lr)


def parts(rounds: int, most: int = 10) -> list[int]:
    """Rounds in parts of at most so many."""
    return [len(part) for part in np.array_split(np.arange(rounds), ceil(rounds / most))]


def timed_steps(state: TrainState, x: Array, target: Array, count: int) -> list[float]:
    """Seconds of each of so many steps but the first, with the threads a training has.

    It waits for those of what was done before to stop spinning.
    """
    settle()
    with Threads(state.network, len(x)):
        return [seconds(lambda: step(state, x, target)) for _ in range(count)][1:]


def timed_exchanges(
    state: TrainState, x: Array, target: Array, count: int
) -> tuple[list[float], list[float]]:
    """Seconds of each of so many exchanges but the first, and of the step after each.

    That step builds what the kernels need to know of the new topology.
    """
    settle()
    with Threads(state.network, len(x)):
        spent = [
            (seconds(lambda: exchange(state)), seconds(lambda: step(state, x, target))) for _ in range(count)
        ]
    exchanges, following = zip(*spent[1:], strict=True)
    return list(exchanges), list(following)


def exchange_cost(exchanges: Sequence[float], following: Sequence[float], steps: Sequence[float]) -> float:
    """Seconds of an exchange and of what the step after it takes longer, medians each.

    A following step that noise has made the faster one adds nothing: it never makes an exchange cheaper.
    """
    return median(exchanges) + max(0.0, median(following) - median(steps))


def exchange(state: TrainState) -> None:
    """One exchange of SET, as at the end of an epoch."""
    state.step += 1
    SET().after_update(state)


def state_of(network: Network, x: Array, target: Array) -> TrainState:
    """A state in which every step ends an epoch."""
    optimizer = SGD(MOMENTUM)
    return TrainState(network, optimizer, CrossEntropy(), Constant(LR), 0, ENDLESS, 1, x, target, x, target)


def drawn(samples: int, inputs: int, batch: int) -> tuple[Array, Array]:
    """Standard normal samples and random classes of one batch."""
    rng = generator(0, "bench sparse training", step=batch)
    return rng.standard_normal((samples, inputs), dtype=np.float32), rng.integers(0, CLASSES, samples)


def connections(network: Network) -> int:
    """Present weights of all prunable layers."""
    return sum(layer.weight.kept for layer in network.prunable().values())


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
