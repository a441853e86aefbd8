"""Prune one layer at a time at several sparsities and see which layers can spare weights.

    minisparse sensitivity --model lenet-5 --epochs 15
    minisparse sensitivity --method obd --sparsities 0.5,0.9,0.99

A fifth of the training data is kept aside: the network is trained on the rest, scored on the rest, and
measured on that fifth. Nothing is trained after pruning; the test data are not looked at.
"""

from __future__ import annotations

from argparse import Namespace
from math import isnan
from pathlib import Path

from minisparse.cli.arguments import Parser
from minisparse.cli.console import decimal
from minisparse.cli.errors import DONE
from minisparse.cli.flags import add_training, several, sparsity, training_settings
from minisparse.errors import UsageError
from minisparse.experiments.holdout import hold_out
from minisparse.experiments.runner import dataset, trained
from minisparse.experiments.sensitivity import GRID, Point, sensitivity, sensitivity_curves, tolerated
from minisparse.experiments.settings import build_method
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.theme import png
from minisparse.methods.base import Method, Scored
from minisparse.methods.registry import catalogue
from minisparse.nn.models import build
from minisparse.training.checkpoint import write_atomic

HELD = 0.2
DROP = 0.01


def add_arguments(parser: Parser) -> None:
    """The method, the grid and the training."""
    group = parser.add_argument_group("analysis")
    group.add_argument("--method", metavar="NAME", default="magnitude", help="whose scores (%(default)s)")
    group.add_argument("--pattern", metavar="NAME", help="what leaves together, e.g. row; see: list patterns")
    parser.value(
        "--sparsities", read=several("sparsities", sparsity), group=group, metavar="LIST",
        default=GRID, help=",".join(map(str, GRID)),
    )  # fmt: skip
    add_training(parser)


def run(args: Namespace) -> int:
    """Train once, prune every layer alone, print the table and write the plot."""
    settings = {} if args.pattern is None else {"pattern": args.pattern}
    method = scored(args.method, settings)
    spec = RunSpec("dense", seed=args.seed, **training_settings(args))
    data = dataset(spec.data, args.data_dir)
    fit, x, target = hold_out(data, HELD, args.seed)
    network = build(spec.model, data, spec.seed, spec.init)
    args.screen.note(f"training {spec.label}")
    network = trained(spec, network, spec.build(), fit, spec.seed).network
    args.screen.note(f"pruning {len(network.prunable())} layers, one at a time")
    points = sensitivity(network, fit, x, target, method, args.sparsities, args.seed)
    title = f"{args.method}, {spec.model} on {spec.data}"
    path = Path(args.out) / f"sensitivity-{spec.key[:8]}-{args.method}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, png(sensitivity_curves(points, title)))
    if args.json:
        args.screen.json({"model": spec.model, "data": spec.data, "seed": args.seed, "method": args.method,
                          "points": points, "tolerated": tolerated(points, DROP), "plot": path})  # fmt: skip
        return DONE
    show(args, points, title)
    args.screen.line(f"plot: {path}")
    return DONE


def scored(name: str, settings: dict[str, str]) -> Scored:
    """The method of this name; UsageError for one that does not score weights."""
    method: Method = build_method(name, settings)
    if not isinstance(method, Scored):
        known = ", ".join(n for n, entry in catalogue().items() if issubclass(entry.cls, Scored))
        raise UsageError(f"method '{name}': got one without scores of weights, expected one of {known}.")
    return method


def show(args: Namespace, points: list[Point], title: str) -> None:
    """A row per layer, a column per sparsity."""
    levels = list(dict.fromkeys(p.sparsity for p in points))
    rows, most = [], tolerated(points, DROP)
    for name in dict.fromkeys(p.layer for p in points):
        own = {p.sparsity: p for p in points if p.layer == name}
        cells = [value(own[s]) for s in levels]
        rows.append([name, f"{own[levels[0]].total:,}", *cells, f"{most.get(name, 0.0):g}"])
    columns = ["layer", "weights", *(f"{s:g}" for s in levels), "most"]
    args.screen.table(columns, rows, title=f"one layer pruned at a time: {title}")
    args.screen.line(
        "validation accuracy, %, at each sparsity of that layer (loss for regression); most: the highest\n"
        f"sparsity of the grid up to which no more than {100 * DROP:g} points are lost."
    )


def value(point: Point) -> str:
    """Accuracy in percent, or the loss."""
    return decimal(point.loss, ".4g") if isnan(point.accuracy) else f"{100 * point.accuracy:.1f}"
