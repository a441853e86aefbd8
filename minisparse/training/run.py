"""train: one method on one network and one data set, from first step to result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice

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
from minisparse.training.storage import adopt, adopt_first, check_storage

PROBE_PER_CLASS = 10
PIECE = 1024  # samples evaluated at once,
WIDEST = 1 << 26  # or fewer, so that no layer's outputs are more numbers than this


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
    widest = max([layer.weight.shape[0] for layer in network.prunable().values()], default=1)
    y = network.predict(x, max(1, min(PIECE, WIDEST // widest)))
    return float(loss.value(y, target)), loss.accuracy(y, target)


def _stream(data: Dataset, size: int, state: TrainState) -> Iterator[tuple[Array, Array]]:
    """All batches from the step on at which the state is when the first is asked for."""
    epoch, done = divmod(state.step, state.steps_per_epoch)
    yield from islice(batches(data, size, state.seed, epoch), done, None)
    for later in count(epoch + 1):
        yield from batches(data, size, state.seed, later)


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
    storage: str | None = None,
    progress: Callable[[TrainState], None] = lambda state: None,
) -> Run:
    """Train a copy of `network` with `method`; neither argument is changed.

    epochs is the length of one training; a method that rewinds runs longer (`Method.length`). The loss
    defaults to cross-entropy for classes and MSE for targets. A run that diverges or collapses is
    returned with that status, or raised as NonFiniteError or LayerCollapseError if `strict`.

    storage names a format (of `weights.formats`, or "masked") in which layers with absent weights are kept
    and trained from the step on that prunes them; None leaves every weight as it comes. MethodError before
    the first step for a method that cannot train so, SparseFormatError for masks the format cannot store.
    """
    _check(network, data, epochs, batch)
    method.check(network)
    per_epoch = steps_per_epoch(data.n_train, batch)
    check_storage(storage, method, epochs * per_epoch)
    work = network.copy()
    data = data.astype(work.dtype)
    name = loss or ("mse" if data.classes is None else "cross-entropy")
    sample = probe(data, PROBE_PER_CLASS, seed)
    state = TrainState(
        work, optimizer or SGD(), LOSSES[name](), rate or Cosine(), seed, epochs * per_epoch,
        per_epoch, data.train_x, data.train_y, sample.x, sample.y,
    )  # fmt: skip
    run = Run(work, method, seed)
    losses: list[float] = []

    def record(state: TrainState) -> None:
        if storage is not None:
            adopt(state, storage) if state.step else adopt_first(state, storage, method)
        if state.step:
            losses.append(state.value)
        if state.step % per_epoch == 0 or state.step == method.length(state.horizon):
            mean = _epoch_loss(losses)
            test_loss, accuracy = evaluate(work, state.loss, data.test_x, data.test_y)
            run.history.append(Record(state.step, mean, accuracy, test_loss, run.sparsity, state.lr))
        progress(state)

    start = time.perf_counter()
    try:
        fit(state, method, _stream(data, batch, state), record)
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
