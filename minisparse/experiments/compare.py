"""compare: run what is not yet in the store, keep each result as it comes, return all of them.

The store is the memory: interrupt a comparison at any moment, give the same command again, and only the runs
that are missing are made. A long run is saved on its way and goes on where it was. A run that collapsed or
diverged is a result like any other. A run that ended in an unexpected error is kept as 'failed', the others
go on, and it is tried again next time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from minisparse.experiments import runner
from minisparse.experiments.plan import DEFAULT_PLAN, Plan, plan
from minisparse.experiments.runner import Outcome, dataset, failure, unfinished
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.experiments.summary import Row, summarise, verdict
from minisparse.training.keeper import Keeping
from minisparse.training.snapshot import discard
from minisparse.training.state import TrainState

__all__ = ["DEFAULT_PLAN", "Outcome", "Plan", "Row", "compare", "plan", "summarise", "verdict"]

Progress = Callable[[float, RunSpec, Outcome | None], None]
Execute = Callable[[RunSpec, str | Path | None, Callable[[TrainState], None]], Outcome]


def silent(done: float, spec: RunSpec, outcome: Outcome | None) -> None:
    """No progress."""


def compare(
    specs: Sequence[RunSpec],
    store: Store,
    progress: Progress = silent,
    data_dir: str | Path | None = None,
    execute: Execute | None = None,
) -> list[Outcome]:
    """The outcomes of all specs, in their order, without their networks (see `Store.network`).

    progress(done, spec, outcome) is called with the number of runs done, in fractions while one is under
    way (outcome None), and with the outcome when it is complete. Data sets are read first: their errors
    are raised before anything runs. execute: what runs a spec, `runner.execute` unless told otherwise.
    """
    for name in dict.fromkeys(spec.data for spec in specs):
        dataset(name, None if data_dir is None else str(data_dir))
    outcomes = []
    for done, spec in enumerate(specs):
        outcome = store.get(spec.key)
        if outcome is None or not outcome.finished:
            progress(done, spec, None)
            place = unfinished(store.folder, spec)
            own = execute or partial(runner.execute, keeping=Keeping(place))
            outcome = _attempt(spec, data_dir, own, _epochs(done, spec, progress))
            store.put(outcome)
            if outcome.finished:
                discard(place)
            outcome.network = None
        outcomes.append(outcome)
        progress(done + 1, spec, outcome)
    return outcomes


def _attempt(
    spec: RunSpec, data_dir: str | Path | None, execute: Execute, watch: Callable[[TrainState], None]
) -> Outcome:
    try:
        return execute(spec, data_dir, watch)
    except Exception as error:  # whatever went wrong with this run, it is what the report must say
        return failure(spec, error)


def _epochs(done: int, spec: RunSpec, progress: Progress) -> Callable[[TrainState], None]:
    """A callback for training that reports once an epoch."""
    method = spec.build()

    def watch(state: TrainState) -> None:
        if state.step % state.steps_per_epoch == 0:
            share = min(1.0, state.step / max(1, method.length(state.horizon)))
            progress(done + share, spec, None)

    return watch
