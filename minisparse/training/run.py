"""train: one method on one network and one data set, from first step to result."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from itertools import count, islice

import numpy as np

from minisparse.data.batches import batches, probe, steps_per_epoch
from minisparse.data.dataset import Dataset
from minisparse.errors import LayerCollapseError, NonFiniteError, ShapeError, UsageError, check_name
from minisparse.methods.base import Method
from minisparse.nn.loss import LOSSES, Loss
from minisparse.nn.lr import Cosine, Rate
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Optimizer
from minisparse.nn.param import Array
from minisparse.nn.threads import Threads
from minisparse.training.collapse import collapse
from minisparse.training.files import Folder
from minisparse.training.interrupt import Interrupts
from minisparse.training.keeper import Keeper, Keeping, identity
from minisparse.training.loop import fit
from minisparse.training.snapshot import Snapshot
from minisparse.training.state import TrainState
from minisparse.training.storage import adopt, adopt_first, check_storage, layout

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
    checkpoint: Folder | None = None,
    every: int | None = None,
    resume: bool = True,
) -> Run:
    """Train a copy of `network` with `method`; no argument is changed, and an optimizer starts anew.

    epochs is the length of one training; a method that rewinds runs longer (`Method.length`). The loss
    defaults to cross-entropy for classes and MSE for targets. A run that diverges or collapses is
    returned with that status, or raised as NonFiniteError or LayerCollapseError if `strict`.

    storage names a format (of `weights.formats`, or "masked") in which layers with absent weights are kept
    and trained from the step on that prunes them; None leaves every weight as it comes. MethodError before
    the first step for a method that cannot train so, SparseFormatError for masks the format cannot store.

    checkpoint names a folder in which the run is saved every so many steps (None: at ends of epochs, some
    seconds apart), and from which it goes on if it is there already and `resume`, bit for bit as if it had
    never stopped. Ctrl-C and SIGTERM then save the run and raise KeyboardInterrupt after the step; a second
    one, at once. ResumeMismatchError if another run is there, CheckpointError if it is damaged or the disk
    refuses. The folder stays when the run is done: `snapshot.discard` removes it.
    """
    optimizer = SGD() if optimizer is None else optimizer
    rate = Cosine() if rate is None else rate
    _check_kinds(network=network, data=data, method=method, optimizer=optimizer, rate=rate)
    _check(network, data, epochs, batch)
    method.check(network)
    per_epoch = steps_per_epoch(data.n_train, batch)
    check_storage(storage, method, epochs * per_epoch)
    data = data.astype(network.dtype)
    usual = "mse" if data.classes is None else "cross-entropy"
    name, optimizer = check_name("loss", usual if loss is None else loss, LOSSES), _anew(optimizer)
    sample = probe(data, PROBE_PER_CLASS, seed)
    with ExitStack() as stack:
        keeper, there = None, None
        if checkpoint is not None:
            facts = {"epochs": epochs, "batch": batch, "loss": name, "seed": seed, "storage": layout(storage)}
            which = identity(network, data, method, optimizer, rate, **facts)
            interrupts = stack.enter_context(Interrupts())
            keeper = Keeper(Keeping(checkpoint, every, resume), which, interrupts)
            there = keeper.found()
        state = TrainState(
            network.copy() if there is None else there.network, optimizer, LOSSES[name](), rate, seed,
            epochs * per_epoch, per_epoch, data.train_x, data.train_y, sample.x, sample.y,
        )  # fmt: skip
        course = Course(state, method, data, storage, progress, keeper)
        if there is not None:
            there.network.init = network.init
            there.restore(state)
            course.restore(there)
        return course.follow(batch, strict, resumed=there is not None)


@dataclass
class Course:
    """The steps of one run and what is written down of them."""

    state: TrainState
    method: Method
    data: Dataset
    storage: str | None
    progress: Callable[[TrainState], None]
    keeper: Keeper | None
    run: Run = field(init=False)
    threads: Threads = field(init=False)
    losses: list[float] = field(default_factory=list)
    start: float = 0.0

    def __post_init__(self) -> None:
        self.run = Run(self.state.network, self.method, self.state.seed)

    def restore(self, there: Snapshot) -> None:
        """What was written down before the run was interrupted."""
        rows = zip(*(there.columns[f.name].tolist() for f in fields(Record)), strict=True)
        self.run.history = [Record(int(step), *rest) for step, *rest in rows]
        self.losses = there.columns["losses"].tolist()
        self.run.seconds = there.seconds

    def columns(self) -> dict[str, Array]:
        """The same as arrays: history, field by field, and losses of the unfinished epoch."""
        rows = self.run.history
        parts = {f.name: np.array([getattr(row, f.name) for row in rows], float) for f in fields(Record)}
        return parts | {"losses": np.array(self.losses, float)}

    def follow(self, batch: int, strict: bool, resumed: bool) -> Run:
        """All steps that are left, and the end."""
        run, state = self.run, self.state
        self.start = time.perf_counter() - run.seconds
        try:
            with Threads(state.network, batch) as self.threads:
                fit(state, self.method, _stream(self.data, batch, state), self.record, resumed)
        except NonFiniteError as error:
            if strict:
                raise
            run.status, run.note = "diverged", str(error)
        run.seconds, run.steps = time.perf_counter() - self.start, state.step
        if run.status == "done":
            _judge(run, state, strict)
        state.network.release()
        return run

    def record(self, state: TrainState) -> None:
        """After each step: formats, loss, history, and a snapshot if it is time."""
        if self.storage is not None:
            adopt(state, self.storage) if state.step else adopt_first(state, self.storage, self.method)
            self.threads.suit(state.network)
        if state.step:
            self.losses.append(state.value)
        if state.step % state.steps_per_epoch == 0 or state.step == self.method.length(state.horizon):
            mean, data = _epoch_loss(self.losses), self.data
            test_loss, accuracy = evaluate(state.network, state.loss, data.test_x, data.test_y)
            row = Record(state.step, mean, accuracy, test_loss, self.run.sparsity, state.lr)
            self.run.history.append(row)
        self.progress(state)
        if self.keeper is not None:
            self.keeper.after_step(state, self.columns, time.perf_counter() - self.start)


def _judge(run: Run, state: TrainState, strict: bool) -> None:
    """Name a collapse in the finished network."""
    note = collapse(state.network, state.probe_x)
    if note is not None:
        if strict:
            raise LayerCollapseError(f"{note}. Use --allocation erk or a lower --sparsity.")
        run.status, run.note = "collapsed", note


def _anew(optimizer: Optimizer) -> Optimizer:
    """A copy that remembers nothing: what a run does is decided by its settings, not by earlier runs."""
    fresh = copy.deepcopy(optimizer)
    fresh.reset()
    return fresh


# What an argument of `train` must be, and what says so.
KINDS: dict[str, tuple[type, str]] = {
    "network": (Network, "a Network such as models.build(name, data)"),
    "data": (Dataset, "a Dataset such as data.load('digits')"),
    "method": (Method, "a Method such as RigL(sparsity=0.9)"),
    "optimizer": (Optimizer, "an Optimizer such as SGD(0.9)"),
    "rate": (Rate, "a Rate such as Cosine(0.1)"),
}


def _check_kinds(**given: object) -> None:
    for name, value in given.items():
        kind, words = KINDS[name]
        if not isinstance(value, kind):
            got = repr(value) if isinstance(value, str | float | int | None) else type(value).__name__
            raise UsageError(f"{name}: got {got}, expected {words}.")


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
