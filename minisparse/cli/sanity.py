"""Pruning at initialisation put to the test: what masks are worth, where they collapse, what they pass on.

minisparse sanity             accuracy with masks shuffled, weights drawn anew, and the worst weights kept
minisparse sanity collapse    paths and accuracy up to the maximal compression
minisparse sanity flow        gradients under sparse masks, with weights for dense and for sparse layers

Without options each takes under two minutes on the embedded digits. Runs are kept in DIR like those of
`minisparse compare`, and an interrupted command goes on from there. Plots go to DIR/sanity.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from minisparse.cli.arguments import Parser
from minisparse.cli.compare import FreshStore, make, status
from minisparse.cli.flags import add_training, choice, seeds, several, sparsity, training_settings
from minisparse.cli.jobs import add_jobs
from minisparse.cli.preflight import preflight
from minisparse.data.batches import probe
from minisparse.errors import UsageError
from minisparse.experiments import gradient_flow, layer_collapse, sanity
from minisparse.experiments.conservation import balances
from minisparse.experiments.flow_traces import Traces
from minisparse.experiments.pai_plots import (
    accuracy_by_control,
    conservation,
    layer_densities,
    survivors,
)
from minisparse.experiments.plan import REFERENCE
from minisparse.experiments.runner import Outcome, dataset
from minisparse.experiments.sanity import Case, Cell
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.experiments.summary import level, mean
from minisparse.experiments.theme import png
from minisparse.nn.loss import LOSSES
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.training.checkpoint import write_atomic
from minisparse.training.run import PROBE_PER_CLASS

FOLDER = "sanity"


def add_arguments(parser: Parser) -> None:
    """Which check, on which runs, and the training."""
    parser.value(
        "what", read=choice("check", list(CHECKS)), nargs="?", default="controls",
        metavar="WHAT", help=f"one of {', '.join(CHECKS)} (%(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("runs")
    for flag, read, text in (
        ("--methods", several("methods", label), ",".join(sanity.METHODS)),
        ("--sparsities", several("sparsities", sparsity), ",".join(map(str, sanity.SPARSITIES))),
        ("--controls", several("controls", choice("control", sanity.CONTROLS)), ",".join(sanity.CONTROLS)),
        ("--seeds", seeds, f"how many, or which: {len(sanity.SEEDS)}, or 0,1,7"),
    ):
        parser.value(flag, read=read, group=group, metavar="LIST", help=text)
    parser.add_argument("--fresh", action="store_true", help="run again what is stored already")
    add_jobs(parser, group)
    add_training(parser)


def label(text: str) -> str:
    """Reads a method: a label of the check, or any method that has a control."""
    sanity.method_of(text)
    return text


def run(args: Namespace) -> int:
    """The check asked for."""
    return CHECKS[args.what](args)


def chosen_seeds(args: Namespace) -> tuple[int, ...]:
    """The seeds that the flags ask for."""
    found = sanity.SEEDS if args.seeds is None else args.seeds
    if isinstance(args.seeds, tuple) and args.seed:
        raise UsageError(f"seeds given twice: got --seed {args.seed} and a list in --seeds, expected one.")
    count = len(found) if isinstance(found, tuple) else found
    return args.seeds if isinstance(args.seeds, tuple) else tuple(range(args.seed, args.seed + count))


class TracedStore(Store):
    """A store that gives away what has a trace beside it."""

    def get(self, key: str) -> Outcome | None:
        outcome = super().get(key)
        known = outcome is not None and Traces(self.folder).get("", outcome.spec) is not None
        return outcome if known else None


def store_of(args: Namespace, specs: Sequence[RunSpec], kind: type[Store]) -> Store:
    """The store in which these runs are to be made, all anew if the flags say so."""
    preflight(specs, args.data_dir)
    store = (FreshStore if args.fresh else kind)(args.out)
    for spec in specs if args.fresh else ():
        store.forget(spec.key)
    return store


def runs(args: Namespace, made: Sequence[Case]) -> tuple[list[Outcome], dict[str, Network]]:
    """Outcomes of all cases, made where they are missing, and the networks that were kept, by key."""
    specs = [case.spec for case in made]
    with store_of(args, specs, Store) as store:
        outcomes = make(args, specs, store)
        keys = {spec.key for spec in specs}
        return outcomes, {key: store.network(key) for key in keys if store.has_network(key)}


def draw(args: Namespace, figures: dict[str, Figure]) -> list[Path]:
    """Write the figures as PNG files into DIR/sanity; their paths."""
    folder = Path(args.out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_atomic(folder / f"{name}.png", png(figure))
    return [folder / f"{name}.png" for name in figures]


def training(args: Namespace) -> dict[str, Any]:
    """Parts of a RunSpec: those of the check, and over them those of the flags."""
    return {**sanity.TRAINING, **training_settings(args)}


def controls(args: Namespace) -> int:
    """Run what is missing; print accuracies under each control and what each costs; draw."""
    made = sanity.cases(
        args.methods or tuple(sanity.METHODS),
        args.sparsities or sanity.SPARSITIES,
        tuple(dict.fromkeys(("none", *(args.controls or sanity.CONTROLS)))),
        chosen_seeds(args),
        training(args),
    )
    outcomes, networks = runs(args, made)
    cells = sanity.cells(made, outcomes)
    figures = {
        "controls": accuracy_by_control(cells, mean(o.chance for o in outcomes)),
        "densities": layer_densities(made, outcomes),
        **initial_figures(args, made, networks),
    }
    plots = draw(args, figures)
    told = sanity.sentences(cells)
    if args.json:
        facts = [{**vars(cell), "mean": cell.mean, "spread": cell.spread} for cell in cells]
        args.screen.json({"cells": facts, "sentences": told, "plots": plots})
    else:
        args.screen.table(*control_table(cells), title="test accuracy in %, mean \u00b1 spread over seeds")
        for sentence in told:
            args.screen.line(sentence)
        args.screen.line(f"\nplots: {Path(args.out) / FOLDER}")
    return status(outcomes, args.strict)


def control_table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row for each method and sparsity, a column for each control."""
    names = list(dict.fromkeys(cell.control for cell in cells))
    found = {(cell.label, cell.sparsity, cell.control): cell for cell in cells}
    rows = []
    for name, asked in dict.fromkeys((cell.label, cell.sparsity) for cell in cells):
        own = [found.get((name, asked, control)) for control in names]
        fallen = sum(cell.collapsed for cell in own if cell is not None)
        made = sum(len(cell.accuracies) for cell in own if cell is not None)
        rows.append([name, level(asked), *(accuracy(cell) for cell in own), f"{fallen}/{made}"])
    return ["method", "sparsity", *names, "collapsed"], rows


def accuracy(cell: Cell | None) -> str:
    """``94.1 \u00b1 0.3``, or a dash."""
    if cell is None or isnan(cell.mean):
        return "-"
    more = "" if isnan(cell.spread) else f" \u00b1 {100 * cell.spread:.1f}"
    return f"{100 * cell.mean:.1f}{more}"


def initial_figures(args: Namespace, made: Sequence[Case], networks: dict[str, Network]) -> dict[str, Figure]:
    """Which initial values survive at the first sparsity, and, of a chain of linear layers, conservation."""
    spec = made[0].spec
    data = dataset(spec.data, args.data_dir)
    initial = build(spec.model, data, spec.seed, spec.init)
    pruned = [c for c in made if c.control == "none" and c.spec.sparsity and c.spec.seed == spec.seed]
    shown = [c for c in pruned if c.spec.sparsity == pruned[0].spec.sparsity and c.spec.key in networks]
    found = {c.label: sanity.standardised_survivors(initial, networks[c.spec.key]) for c in shown}
    figures = {"survivors": survivors(found, sanity.standardised_survivors(initial, initial))}
    sample = probe(data, PROBE_PER_CLASS, spec.seed)
    loss = LOSSES["mse" if data.classes is None else "cross-entropy"]()
    sums = balances(initial, loss, sample.x, sample.y)
    return figures | ({"conservation": conservation(sums)} if sums else {})


def collapse(args: Namespace) -> int:
    """Run each method up to the maximal compression; print where the last path is cut; draw."""
    common = training(args)
    chosen = RunSpec(REFERENCE, **common)
    network = build(chosen.model, dataset(chosen.data, args.data_dir))
    maximum = layer_collapse.maximal_compression(network)
    labels = args.methods or layer_collapse.LABELS
    made = layer_collapse.collapse_cases(network, labels, chosen_seeds(args), common)
    outcomes, networks = runs(args, made)
    points = layer_collapse.points(made, outcomes, networks)
    plots = draw(args, {"collapse": layer_collapse.collapse_figure(points, maximum)})
    found = layer_collapse.critical(points)
    if args.json:
        args.screen.json({"maximal": maximum, "critical": found, "points": points, "plots": plots})
    else:
        body = [[c.label, f"{c.compression:,.0f}", c.cut or "-"] for c in found]
        head = ["method", "critical compression", "then cut at"]
        args.screen.table(head, body, title=f"maximal compression {maximum:,.0f}: one weight a layer")
        args.screen.line(f"plots: {Path(args.out) / FOLDER}")
    return status(outcomes, args.strict)


def flow(args: Namespace) -> int:
    """Gradients while training under sparse masks, by initial weights; print and draw."""
    levels = args.sparsities or gradient_flow.SPARSITIES
    planned = gradient_flow.plan(levels, chosen_seeds(args), training(args))
    if args.cluster is not None:
        raise UsageError(
            f"cluster: got {args.cluster} for sanity flow, expected none, for its workers may not see where "
            "gradients are kept. Use --jobs."
        )
    specs, kept = [spec for _, spec in planned], Traces(Path(args.out))
    with store_of(args, specs, TracedStore) as store:
        outcomes = make(args, specs, store, execute=kept.execute)
    found = [kept.get(kind, spec) for (kind, spec), o in zip(planned, outcomes, strict=True) if o.finished]
    traces = [trace for trace in found if trace is not None]
    depths = {s: gradient_flow.signals(s) for s in levels}
    plots = draw(args, {"flow": gradient_flow.flow_figure(traces, depths)})
    means = gradient_flow.rows(traces)
    if args.json:
        args.screen.json({"rows": means, "signals": {f"{s:g}": depths[s] for s in levels}, "plots": plots})
    else:
        args.screen.table(
            FLOW_HEAD, [flow_cells(row) for row in means], title="squared gradient norm |g|\u00b2"
        )
        args.screen.line(f"plots: {Path(args.out) / FOLDER}")
    return status(outcomes, args.strict)


FLOW_HEAD = ("weights", "sparsity", "before training", "mean while training", "test accuracy (%)")


def flow_cells(row: gradient_flow.Row) -> list[str]:
    """A row of the table."""
    more = "" if isnan(row.spread) else f" \u00b1 {100 * row.spread:.1f}"
    value = f"{100 * row.accuracy:.1f}{more}"
    return [row.kind, level(row.sparsity), f"{row.start:.3g}", f"{row.average:.3g}", value]


CHECKS: dict[str, Callable[[Namespace], int]] = {"controls": controls, "collapse": collapse, "flow": flow}
