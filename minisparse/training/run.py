"""train: one method on one network and one data set, from first step to result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from minisparse.data.batches import batches, probe, steps_per_epoch
from minisparse.data.dataset import Dataset
from minisparse.errors import LayerCollapseError, NonFiniteError, ShapeError, UsageError
from minisparse.methods.base import Method
from minisparse.nn.loss import LOSSES, Loss
from minisparse.nn.lr import Cosine, Rate
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Optimizer
from minisparse.nn.param import Array
from minisparse.training.collapse import collapse
from minisparse.training.loop import fit
from minisparse.training.state import TrainState

PROBE_PER_CLASS = 10


@dataclass
class Record:
    """One row of a history: what was true after `step` updates."""

    step: int
    loss: float
    accuracy: float
    test_loss: float
    sparsity: float
    lr: float


@dataclass
class Run:
    """What training returns. `status` is 'done', 'collapsed' or 'diverged'; `note` says it in words."""

    network: Network
    method: Method
    seed: int
    history: list[Record] = field(default_factory=list)
    status: str = "done"
    note: str = ""
    seconds: float = 0.0
    steps: int = 0

    @property
    def accuracy(self) -> float:
        """Test accuracy at the end; NaN for regression and for a run that diverged."""
        return float("nan") if self.status == "diverged" else self.history[-1].accuracy

    @property
    def sparsity(self) -> float:
        """Share of prunable weights that are absent."""
        return sparsity(self.network)


def sparsity(network: Network) -> float:
    """Share of absent weights over all prunable layers; 0 for a network without any."""
    weights = [layer.weight for layer in network.prunable().values()]
    total = sum(w.size for w in weights)
    return 1 - sum(w.kept for w in weights) / total if total else 0.0


def evaluate(network: Network, loss: Loss, x: Array, target: Array) -> tuple[float, float]:
    """(mean loss, accuracy) in evaluation mode."""
    y = network.predict(x)
    return float(loss.value(y, target)), loss.accuracy(y, target)


def _stream(data: Dataset, size: int, seed: int) -> Iterator[tuple[Array, Array]]:
    for epoch in count():
        yield from batches(data, size, seed, epoch)


def _epoch_loss(sums: list[float]) -> float:
    mean = float(np.mean(sums)) if sums else float("nan")
    sums.clear()
    return mean


def train(
    network: Network,
    data: Dataset,
    method: Method,
    *,
    epochs: int = 30,
    batch: int = 64,
    optimizer: Optimizer | None = None,
    rate: Rate | None = None,
    loss: str | None = None,
    seed: int = 0,
    strict: bool = False,
    progress: Callable[[TrainState], None] = lambda state: None,
) -> Run:
    """Train a copy of `network` with `method`; neither argument is changed.

    epochs is the length of one training; a method that rewinds runs longer (`Method.length`). The loss
    defaults to cross-entropy for classes and MSE for targets. A run that diverges or collapses is
    returned with that status, or raised as NonFiniteError or LayerCollapseError if `strict`.
    """
    _check(network, data, epochs, batch)
    method.check(network)
    work = network.copy()
    data = data.astype(work.dtype)
    per_epoch = steps_per_epoch(data.n_train, batch)
    name = loss or ("mse" if data.classes is None else "cross-entropy")
    sample = probe(data, PROBE_PER_CLASS, seed)
    state = TrainState(
        work, optimizer or SGD(), LOSSES[name](), rate or Cosine(), seed, epochs * per_epoch,
        per_epoch, data.train_x, data.train_y, sample.x, sample.y,
    )  # fmt: skip
    run = Run(work, method, seed)
    losses: list[float] = []

    def record(state: TrainState) -> None:
        if state.step:
            losses.append(state.value)
        if state.step % per_epoch == 0 or state.step == method.length(state.horizon):
            mean = _epoch_loss(losses)
            test_loss, accuracy = evaluate(work, state.loss, data.test_x, data.test_y)
            run.history.append(Record(state.step, mean, accuracy, test_loss, run.sparsity, state.lr))
        progress(state)

    start = time.perf_counter()
    try:
        fit(state, method, _stream(data, batch, seed), record)
    except NonFiniteError as error:
        if strict:
            raise
        run.status, run.note = "diverged", str(error)
    run.seconds, run.steps = time.perf_counter() - start, state.step
    if run.status == "done":
        _judge(run, state, strict)
    work.release()
    return run


def _judge(run: Run, state: TrainState, strict: bool) -> None:
    """Name a collapse in the finished network."""
    note = collapse(state.network, state.probe_x)
    if note is not None:
        if strict:
            raise LayerCollapseError(f"{note}. Use --allocation erk or a lower --sparsity.")
        run.status, run.note = "collapsed", note


def _check(network: Network, data: Dataset, epochs: int, batch: int) -> None:
    for name, value in (("epochs", epochs), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name}: got {value!r}, expected a whole number >= 1.")
    if int(np.prod(network.input_shape)) != int(np.prod(data.sample_shape)):
        raise ShapeError(
            f"network '{network.name}': got inputs {network.input_shape}, expected "
            f"{data.sample_shape} as in data set '{data.name}'."
        )
    if network.outputs != data.outputs:
        raise ShapeError(
            f"network '{network.name}': got {network.outputs} outputs, expected {data.outputs} as in "
            f"data set '{data.name}'."
        )
