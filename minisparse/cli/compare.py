"""Train methods at several sparsities with several seeds, and compare them: the main job.

    minisparse compare
    minisparse compare --methods magnitude,rigl --sparsities 0.9,0.98 --seeds 5 --model lenet-5
    minisparse compare state-of-sparsity --data-dir DIR
    minisparse compare mine.toml

Without options: a handful of methods on the embedded digits, under a minute on two cores. The dense
network is always among them. A grid is a list of runs in a file (see: minisparse list grids); the flags of
a training given beside it replace what it says. Finished runs are kept in DIR; the same command again,
after an interruption too, makes only the runs that are missing.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from math import isnan, nan
from typing import Any

from minisparse.cli.arguments import Parser
from minisparse.cli.console import Meter, decimal, duration, percent, scaled
from minisparse.cli.errors import DONE, FAILED, INCOMPLETE
from minisparse.cli.flags import add_training, seeds, several, sparsity, training_settings
from minisparse.cli.jobs import add_jobs, pool
from minisparse.cli.pages import write_page
from minisparse.cli.preflight import preflight
from minisparse.errors import UsageError
from minisparse.experiments.grid import load
from minisparse.experiments.plan import DEFAULT_PLAN, plan
from minisparse.experiments.runner import Outcome, unfinished
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.experiments.summary import Row, summarise, tasks, verdict
from minisparse.methods.registry import find
from minisparse.training.snapshot import discard


class FreshStore(Store):
    """A store that gives nothing away, so that every run is made again and replaces its old result."""

    def get(self, key: str) -> Outcome | None:
        return None


def add_arguments(parser: Parser) -> None:
    """The grid and the training."""
    parser.add_argument("grid", nargs="?", metavar="GRID", help="a grid by name, or a TOML file")
    group = parser.add_argument_group("grid")
    for flag, read, text in (
        ("--methods", several("methods", lambda name: find(name).name), ",".join(DEFAULT_PLAN.methods)),
        ("--sparsities", several("sparsities", sparsity), ",".join(map(str, DEFAULT_PLAN.sparsities))),
        ("--seeds", seeds, f"how many, or which: {len(DEFAULT_PLAN.seeds)}, or 0,1,7"),
    ):
        parser.value(flag, read=read, group=group, metavar="LIST", help=text)
    parser.add_argument("--fresh", action="store_true", help="run again what is stored already")
    add_jobs(parser, group)
    add_training(parser)


def run(args: Namespace) -> int:
    """Run the grid, print the table and the verdict, write the report."""
    specs = grid(args)
    preflight(specs, args.data_dir)
    for spec in specs if args.fresh else ():
        discard(unfinished(args.out, spec))
    with (FreshStore if args.fresh else Store)(args.out) as store:
        outcomes = make(args, specs, store)
        rows = summarise(outcomes)
        page = write_page(args.screen, outcomes, store, title(outcomes))
    if args.json:
        args.screen.json(
            {
                "rows": rows,
                "verdict": verdict(rows),
                "report": page,
                "outcomes": [o.to_json() for o in outcomes],
            }
        )
    else:
        for task, own in tasks(rows).items():
            args.screen.table(HEAD, [cells(row) for row in own], title=task)
        args.screen.line(f"{LEGEND}\n")
        for sentence in verdict(rows):
            args.screen.line(sentence)
        args.screen.line(f"\nreport: {page}\nplots:  {page.parent / 'plots'}")
    return status(outcomes, args.strict)


def grid(args: Namespace) -> list[RunSpec]:
    """The runs that the flags, or a grid and the flags, ask for."""
    if args.grid is not None:
        return _from_file(args)
    chosen = len(DEFAULT_PLAN.seeds) if args.seeds is None else args.seeds
    if isinstance(chosen, int):
        chosen = tuple(range(args.seed, args.seed + chosen))
    elif args.seed:
        raise UsageError(f"seeds given twice: got --seed {args.seed} and a list in --seeds, expected one.")
    return plan(args.methods, args.sparsities, chosen, **training_settings(args))


def _from_file(args: Namespace) -> list[RunSpec]:
    for flag in ("methods", "sparsities"):
        if getattr(args, flag) is not None:
            raise UsageError(f"--{flag}: got one beside the grid '{args.grid}', expected one or the other.")
    return list(load(args.grid, args.seeds, **training_settings(args)).specs)


def make(args: Namespace, specs: Sequence[RunSpec], store: Store, **how: Any) -> list[Outcome]:
    """Run what is missing, with progress; on Ctrl-C say what is kept.

    how: what runs a spec, if not `runner.execute`; see `cli.jobs.pool`.
    """
    known = [store.get(spec.key) for spec in specs]
    missing = sum(outcome is None or not outcome.finished for outcome in known)
    if missing < len(specs):
        args.screen.note(f"{len(specs) - missing} of {len(specs)} runs are in {args.out} already")
    with args.screen.meter(max(1, missing)) as meter:
        watch = Watch(meter, len(specs) - missing, len(specs))
        try:
            with pool(args.jobs, args.cluster, args.threads) as run_all:
                return run_all(specs, store, watch, args.data_dir, **how)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{watch.finished} of {len(specs)} runs are saved in {args.out}; the same command resumes"
            ) from None


class Watch:
    """Progress of a grid: the runs under way, and a line for each that was made."""

    def __init__(self, meter: Meter, stored: int, total: int) -> None:
        self.meter = meter
        self.finished = stored
        self.total = total
        self.made = 0
        self.start: float | None = None

    def __call__(self, done: float, spec: RunSpec, outcome: Outcome | None) -> None:
        """done: runs complete, stored ones included; outcome: None while the run is under way."""
        if outcome is None:
            self.start = done if self.start is None else self.start
            self.meter.move(self.made + done - self.start, spec.label)
        elif self.start is not None:  # otherwise it came from the store
            self.start = None
            self.made += 1
            self.finished += 1
            self.meter.move(self.made, spec.label)
            self.meter.log(
                f"[{self.finished}/{self.total}] {spec.label}: {outcome.status}, "
                f"{percent(outcome.accuracy)}, {duration(outcome.seconds)}"
            )


def title(outcomes: Sequence[Outcome]) -> str:
    """Models, data sets and length of training."""
    specs = [outcome.spec for outcome in outcomes]
    parts = [
        " and ".join(dict.fromkeys(spec.model for spec in specs)),
        " and ".join(dict.fromkeys(spec.data for spec in specs)),
    ]
    return " on ".join(parts)


HEAD = ("method", "asked", "sparsity", "accuracy", "MACs", "CSR", "fwd ms", "train s", "runs")


def cells(row: Row) -> list[str]:
    """A row of the table, means over seeds; what the columns are is said below the table."""
    spread = "" if isnan(row.spread) else f" \u00b1 {100 * row.spread:.1f}"
    return [
        row.label,
        f"{row.sparsity_asked:g}",
        decimal(row.sparsity, ".4f"),
        decimal(100 * row.accuracy, ".1f") + spread,
        scaled(row.macs),
        scaled(row.bytes.get("csr", nan), "B"),
        decimal(1000 * row.forward_seconds, ".2f"),
        decimal(row.seconds, ".1f"),
        row.status,
    ]


LEGEND = (
    "asked, sparsity: zeros among the prunable weights; accuracy: test, %, mean \u00b1 spread over seeds;\n"
    "MACs: theory, one sample; CSR: bytes of all parameters in that format; fwd ms: measured, 256\n"
    "samples, stored as trained (a masked matrix takes the same time at any sparsity); train s: measured."
)


def status(outcomes: Sequence[Outcome], strict: bool) -> int:
    """4 if a run is missing; 1 if one is bad and that matters; else 0: in a comparison, diverging and
    collapsing are results."""
    if not all(outcome.finished for outcome in outcomes):
        return INCOMPLETE
    return FAILED if strict and any(outcome.status != "done" for outcome in outcomes) else DONE
