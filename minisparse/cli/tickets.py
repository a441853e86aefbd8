"""Lottery tickets and the controls they must beat: do mask, weights and data order matter?

    minisparse tickets                   a winning ticket, the same with new weights, and with a shuffled mask
    minisparse tickets scratch           pruned in training, then trained again: scratch-e, scratch-b, lottery
    minisparse tickets connectivity      two orders of the data from one point: is there a barrier between?
    minisparse tickets alignment         a mask on another initialisation, its units permuted or not
    minisparse tickets transfer --data digits --target mnist --data-dir DIR

On the embedded digits the first takes about a minute. All trainings are kept in DIR: the same command again,
after an interruption too, makes only what is missing, and a training that was under way goes on. The runs of
the first two are kept like those of compare and take --jobs. Tables, curves and plots go to DIR/tickets.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from minisparse.cli.arguments import Parser
from minisparse.cli.compare import FreshStore, make, status
from minisparse.cli.console import Meter, decimal, plain
from minisparse.cli.errors import DONE
from minisparse.cli.flags import add_training, choice, seeds, several, sparsity, training_settings, whole
from minisparse.cli.jobs import add_jobs
from minisparse.cli.preflight import preflight
from minisparse.errors import UsageError
from minisparse.experiments.cells import Cell, arm_rows, curves
from minisparse.experiments.connectivity import stability
from minisparse.experiments.realigned import alignments
from minisparse.experiments.store import Store
from minisparse.experiments.theme import png
from minisparse.experiments.ticket_plots import accuracy_of_arms, barriers, learning_curves
from minisparse.experiments.tickets import ARMS, FOLDER, Climb, Ladder, scratch_cells
from minisparse.experiments.trainings import Report, Trainings
from minisparse.experiments.transfer import transfers
from minisparse.sparsity.count import check_share
from minisparse.sparsity.parse import parse_control, to_text
from minisparse.training.checkpoint import write_atomic

SEEDS = 3
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
TRAINING = {"epochs": 12, "batch": 32}
REWINDS = (0.0, 0.05, 0.1, 0.25, 0.5)
Figures = dict[str, Figure]


def add_arguments(parser: Parser) -> None:
    """Which experiment, its grid and the training."""
    parser.value(
        "study", read=choice("ticket experiment", list(STUDIES)), nargs="?", default="controls",
        metavar="STUDY", help=f"one of {', '.join(STUDIES)} (%(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("grid")
    arms = ",".join(to_text(arm) for arm in ARMS)
    for flag, read, text in (
        ("--sparsities", several("sparsities", sparsity), ",".join(map(str, SPARSITIES))),
        ("--seeds", seeds, f"how many, or which: {SEEDS}, or 0,1,7"),
        ("--controls", several("controls", parse_control), f"{arms}; see: minisparse list controls"),
        ("--rewind", several("rewind", share), "k as a share of one training: 0; connectivity: several"),
    ):
        parser.value(flag, read=read, group=group, metavar="LIST", help=text)
    parser.value(
        "--rounds", read=whole("rounds", 1), group=group, metavar="N",
        help="rounds to the highest sparsity (so many that each removes a fifth)",
    )  # fmt: skip
    group.add_argument("--target", metavar="NAME", help="data set that tickets are transferred to")
    parser.add_argument("--fresh", action="store_true", help="run again what is stored already")
    add_jobs(parser, group)
    add_training(parser)


def share(text: str) -> float:
    """Reads a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    return check_share(number, "rewind")


def run(args: Namespace) -> int:
    """Run the experiment, print its table and keep table, curves and plots."""
    return STUDIES[args.study](args)


def ladder_of(args: Namespace) -> Ladder:
    """The ladder that the flags describe."""
    return Ladder(
        args.sparsities or SPARSITIES, seeds_of(args), args.controls or ARMS, args.rounds,
        one_rewind(args, 0.0), TRAINING | training_settings(args),
    )  # fmt: skip


def seeds_of(args: Namespace) -> tuple[int, ...]:
    """Which seeds."""
    chosen = SEEDS if args.seeds is None else args.seeds
    return tuple(range(args.seed, args.seed + chosen)) if isinstance(chosen, int) else chosen


def one_rewind(args: Namespace, default: float) -> float:
    """The one rewind point of an experiment that has no more."""
    values = (default,) if args.rewind is None else args.rewind
    if len(values) > 1:
        raise UsageError(f"rewind: got {len(values)} points, expected one, except for connectivity.")
    return float(values[0])


def controls(args: Namespace) -> int:
    """A ticket against its controls, by level."""
    ladder = ladder_of(args)
    args.screen.note(
        f"{ladder.height} rounds to {max(ladder.sparsities):g}; compared after rounds "
        f"{', '.join(map(str, ladder.rungs))}"
    )
    climb = Climb(ladder, Path(args.out))
    if args.fresh:
        climb.forget()
    if args.cluster is not None:  # its workers may not see our tickets: every run from its beginning
        return compared(args, ladder.cells)
    return compared(args, ladder.cells, execute=climb.execute, alone=climb.alone)


def scratch(args: Namespace) -> int:
    """Gale's protocol."""
    training = TRAINING | training_settings(args)
    return compared(args, scratch_cells(args.sparsities or SPARSITIES, seeds_of(args), training))


def compared(args: Namespace, cells: Sequence[Cell], **how: Any) -> int:
    """Run what is missing of the cells, and show their arms. how: see `compare.make`."""
    specs = [cell.spec for cell in cells]
    preflight(specs, args.data_dir)
    with (FreshStore if args.fresh else Store)(args.out) as store:
        for spec in specs if args.fresh else ():
            store.forget(spec.key)
        outcomes = make(args, specs, store, **how)
    rows, learned = arm_rows(cells, outcomes), curves(cells, outcomes)
    table = [
        {
            "arm": row.arm,
            "sparsity": f"{row.level:.4f}",
            "accuracy": within(row.accuracy, row.spread),
            "behind the first": within(row.gap, row.gap_error),
            "lowest loss at": decimal(row.early, ".0f"),
            "runs": ", ".join(f"{n} {name}" for name, n in row.statuses.items()),
        }
        for row in rows
    ]
    figures = {"": accuracy_of_arms(rows), "-curves": learning_curves(learned)}
    show(args, table, LEGEND, {"rows": rows, "curves": learned}, figures)
    return status(outcomes, args.strict)


LEGEND = (
    "accuracy: test, %, mean \u00b1 spread over seeds; behind the first: points of accuracy below the first\n"
    "arm on the same seeds, \u00b1 standard error; lowest loss at: step of lowest test loss, last training."
)


@contextmanager
def kept(args: Namespace, pieces: int = 1) -> Iterator[tuple[Meter, Trainings]]:
    """Where trainings are kept, with progress over so many pieces of work.

    UsageError for --jobs and --cluster: these trainings are no runs of a grid.
    """
    if args.jobs > 1 or args.cluster is not None:
        raise UsageError(
            f"jobs: got {args.cluster or args.jobs} for tickets {args.study}, expected 1, for its trainings "
            "are no runs of a grid."
        )
    with args.screen.meter(pieces) as meter:
        try:
            yield meter, Trainings(Path(args.out), meter.move, args.fresh)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"trainings are saved in {args.out} as far as they were; the same command resumes"
            ) from None


def onward(meter: Meter, done: int) -> Report:
    """Progress of the piece of work that comes after so many."""
    return lambda share, label: meter.move(done + share, label)


def connectivity(args: Namespace) -> int:
    """Barriers between two trainings from each rewind point."""
    chosen = args.sparsities or (0.9,)
    rows = []
    with kept(args, len(chosen)) as (meter, trainings):
        for done, level in enumerate(chosen):
            trainings.report = onward(meter, done)
            rows += stability(
                level, args.rewind or REWINDS, seeds_of(args), TRAINING | training_settings(args),
                args.data_dir, args.rounds, meter.log, trainings,
            )  # fmt: skip
    table = [
        {
            "network": "dense" if row["level"] == 0 else f"ticket {row['level']:g}",
            "from step k": f"{row['rewind']:.0%}",
            "error": f"{100 * row['error']:.1f}",
            "barrier": f"{100 * row['barrier']:.1f}",
            "above the chord": f"{100 * row['chord']:.1f}",
            "apart": f"{row['distance']:.2f}",
            "way from k": f"{row['path']:.2f}",
        }
        for row in rows
    ]
    legend = "error, barrier: of the test set, in points; apart, way: distances of weights; means over seeds."
    show(args, table, legend, {"rows": rows}, {"": barriers(rows)})
    return DONE


def transfer(args: Namespace) -> int:
    """Tickets of --data, trained on --target."""
    settings = TRAINING | training_settings(args)
    source = settings.pop("data", "digits")
    if args.target is None:
        raise UsageError("target: got none, expected a data set, such as --target mnist.")
    with kept(args) as (meter, trainings):
        rows = transfers(
            source, args.target, args.sparsities or SPARSITIES, seeds_of(args), settings, args.data_dir,
            args.rounds, one_rewind(args, 0.0), meter.log, trainings,
        )  # fmt: skip
    return accuracies(args, rows)


def alignment(args: Namespace) -> int:
    """A mask on another initialisation."""
    with kept(args) as (meter, trainings):
        rows = alignments(
            args.sparsities or SPARSITIES, seeds_of(args), TRAINING | training_settings(args), args.data_dir,
            args.rounds, one_rewind(args, 0.1), meter.log, trainings,
        )  # fmt: skip
    return accuracies(args, rows)


def accuracies(args: Namespace, rows: Sequence[Mapping[str, Any]]) -> int:
    """A table of arms by level."""
    table = [
        {
            "arm": row["arm"],
            "sparsity": f"{row['level']:.4f}",
            "accuracy": within(row["accuracy"], row["spread"]),
            "runs": str(row["runs"]),
        }
        for row in rows
    ]
    show(args, table, "accuracy: test, %, mean \u00b1 spread over seeds.", {"rows": rows}, {})
    return DONE


def within(value: float, spread: float) -> str:
    """'97.2 \u00b1 0.4' of shares."""
    ends = decimal(100 * spread, ".1f")
    return decimal(100 * value, ".1f") + (f" \u00b1 {ends}" if ends != "-" else "")


def show(
    args: Namespace, table: list[dict[str, str]], legend: str, facts: dict[str, Any], figures: Figures
) -> None:
    """Print the table, or the facts as JSON, and write the facts and figures."""
    folder = Path(args.out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"study": args.study, **facts}
    paths = [folder / f"{args.study}.json"]
    write_atomic(paths[0], (json.dumps(plain(facts), indent=1, allow_nan=False) + "\n").encode())
    for suffix, figure in figures.items():
        paths.append(folder / f"{args.study}{suffix}.png")
        write_atomic(paths[-1], png(figure))
    if args.json:
        args.screen.json(facts | {"files": paths})
        return
    args.screen.table(list(table[0]), [list(row.values()) for row in table], title=args.study)
    args.screen.line(f"{legend}\n")
    for path in paths:
        args.screen.line(str(path))


STUDIES: dict[str, Callable[[Namespace], int]] = {
    "controls": controls,
    "scratch": scratch,
    "connectivity": connectivity,
    "alignment": alignment,
    "transfer": transfer,
}
