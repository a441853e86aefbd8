"""Flow traces: the squared gradient norm of a training at some sixty of its steps, kept with its run.

    <folder>/traces/<key>.json    steps and norms by the key of the run, with the SHA-256 of the content

While a run is under way its trace is in `TrainState.memory`, and so in its snapshots. Measuring changes
nothing: gradients and activations are written anew by every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np

from minisparse.curvature.flow import gradient_flow
from minisparse.errors import CheckpointError
from minisparse.experiments.runner import Outcome, execute, plain, unfinished
from minisparse.experiments.spec import RunSpec
from minisparse.nn.param import Array
from minisparse.training import files, snapshot
from minisparse.training.keeper import Keeping
from minisparse.training.state import TrainState

FORMAT, KIND = 1, "minisparse trace"
FOLDER = "traces"
MEMORY = "trace of |dL/dw|^2"
POINTS = 60
Progress = Callable[[TrainState], None]


@dataclass(frozen=True)
class Trace:
    """Squared gradient norms of one training at some steps, 0 and the last among them.

    kind: what it is an example of, for people.
    """

    kind: str
    spec: RunSpec
    steps: tuple[int, ...]
    flows: tuple[float, ...]
    accuracy: float


class Tracer:
    """A callback for training that measures, in `memory`, and calls another."""

    def __init__(self, progress: Progress = lambda state: None) -> None:
        self.progress = progress
        self.steps, self.flows = np.zeros(0, np.int64), np.zeros(0)

    def __call__(self, state: TrainState) -> None:
        """Called after every step, and once before the first."""
        if state.step % max(1, state.horizon // POINTS) == 0 or state.step == state.horizon:
            norm = gradient_flow(state.network, state.loss, state.probe_x, state.probe_t)
            self.steps, self.flows = np.append(self.steps, state.step), np.append(self.flows, norm)
            state.memory[MEMORY] = {"steps": self.steps, "flows": self.flows}
        self.progress(state)

    def restore(self, noted: dict[str, Array]) -> None:
        """Go on from what was in the memory of a snapshot."""
        self.steps, self.flows = noted["steps"], noted["flows"]

    def trace(self, kind: str, spec: RunSpec, accuracy: float) -> Trace:
        """What was measured."""
        return Trace(kind, spec, tuple(self.steps.tolist()), tuple(self.flows.tolist()), accuracy)


def trace(kind: str, spec: RunSpec, data_dir: str | Path | None = None) -> Trace:
    """Train once and measure at some sixty steps."""
    tracer = Tracer()
    return tracer.trace(kind, spec, execute(spec, data_dir, tracer).accuracy)


class Traces:
    """Traces in a folder of results; `execute` goes where `compare` expects one, here or in a worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def execute(self, spec: RunSpec, data_dir: str | Path | None, progress: Progress) -> Outcome:
        """The outcome of a spec, as of `runner.execute`, its trace being kept."""
        tracer, place = Tracer(progress), unfinished(self.folder, spec, "traced")
        if snapshot.latest(place) is not None:
            tracer.restore(snapshot.load(place).memory[MEMORY])
        outcome = execute(spec, data_dir, tracer, Keeping(place))
        self._keep(tracer.trace("", spec, outcome.accuracy))
        return outcome

    def get(self, kind: str, spec: RunSpec) -> Trace | None:
        """The trace of a spec, or None if there is none or it is damaged."""
        path = self._path(spec.key)
        try:
            facts = files.decode(path, files.read(path, files.MAX_MANIFEST), KIND, FORMAT)
            *flows, accuracy = (nan if v is None else float(v) for v in (*facts["flows"], facts["accuracy"]))
            return Trace(kind, spec, tuple(facts["steps"]), tuple(flows), accuracy)
        except (CheckpointError, KeyError, TypeError, ValueError):
            return None

    def _path(self, key: str) -> Path:
        return self.folder / FOLDER / f"{key}.json"

    def _keep(self, found: Trace) -> None:
        path = self._path(found.spec.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.sweep_temporary(path.parent)
        facts = {"steps": found.steps, "flows": found.flows, "accuracy": found.accuracy}
        files.write_atomic(path, files.encode(plain({"format": FORMAT, "kind": KIND, **facts})))
