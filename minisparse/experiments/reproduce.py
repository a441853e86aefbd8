"""The commands that make the same runs again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from minisparse.errors import MinisparseError
from minisparse.experiments.plan import DEFAULT_PLAN, REFERENCE, plan
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec

TRAINING = ("model", "data", "epochs", "batch", "optimizer", "rate", "init", "storage")


def commands(outcomes: Sequence[Outcome]) -> list[str]:
    """One `minisparse compare` if it makes exactly these runs, else one `minisparse run` for each."""
    specs = [outcome.spec for outcome in outcomes]
    keys = {spec.key for spec in specs}
    for command, made in _comparisons(specs):
        if {spec.key for spec in made} == keys:
            return [command]
    return [_run(spec) for spec in specs]


def _comparisons(specs: Sequence[RunSpec]) -> list[tuple[str, list[RunSpec]]]:
    """Candidates: the default grid, and the grid of all methods, sparsities and seeds that occur."""
    try:
        found = [("minisparse compare", plan())]
        methods = [m for m in dict.fromkeys(spec.method for spec in specs) if m != REFERENCE]
        levels = sorted({spec.sparsity for spec in specs if spec.sparsity})
        seeds = sorted({spec.seed for spec in specs})
        if not methods or not levels or len({_training(spec) for spec in specs}) != 1:
            return found
        training = dict(zip(TRAINING, _training(specs[0]), strict=True))
        made = plan(methods, levels, seeds, **training)
    except MinisparseError:  # a method that is not installed here
        return []
    flags = ["--methods", ",".join(methods), "--sparsities", ",".join(f"{s!r}" for s in levels)]
    flags += ["--seeds", ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")]
    for name, value in training.items():
        if value != DEFAULT_PLAN.training.get(name, getattr(RunSpec, name)):
            flags += [f"--{name}", str(value)]
    return [*found, (shlex.join(["minisparse", "compare", *flags]), made)]


def _training(spec: RunSpec) -> tuple[object, ...]:
    return tuple(getattr(spec, name) for name in TRAINING)


def _run(spec: RunSpec) -> str:
    flags = []
    for name, value in (*spec.settings, *((n, str(getattr(spec, n))) for n in (*TRAINING, "dtype", "seed"))):
        if name in TRAINING + ("dtype", "seed") and value == str(getattr(RunSpec, name)):
            continue
        flag = name.replace("_", "-")
        if value in ("true", "false"):
            flags.append(f"--{flag}" if value == "true" else f"--no-{flag}")
        else:
            flags += [f"--{flag}", value]
    if spec.weights:
        flags += ["--weights", f"{spec.weights}.safetensors"]  # a file's name is not kept
    return shlex.join(["minisparse", "run", spec.method, *flags])
