"""Theory made visible: measure one claim of the literature on small networks; figure, table, numbers.

minisparse study                 what there is
minisparse study trajectory      writes DIR/studies/trajectory.png and .json
minisparse study intrinsic --seeds 5
minisparse study dynamic         all of dynamic sparse training, one after the other
minisparse study criteria        all of the criteria: learned sparsity, gates, collapse, movement, channels
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from minisparse.cli.arguments import Parser
from minisparse.cli.bench import cell
from minisparse.cli.flags import choice, seeds
from minisparse.errors import UsageError
from minisparse.experiments.criteria import channels, collapse, gates, learned, movement
from minisparse.experiments.dynamic import ablation, exploration, flops, flow, layers, outputs, topology
from minisparse.experiments.theory import intrinsic, memorise, taylor, trajectory
from minisparse.experiments.theory.study import Study, write

# Each module has `study(seeds, progress) -> Study`, SEEDS, how many it uses unless told, and a docstring
# whose first line says what is claimed.
STUDIES = {
    "trajectory": trajectory,
    "memorise": memorise,
    "taylor": taylor,
    "intrinsic": intrinsic,
    "dynamic-topology": topology,
    "dynamic-exploration": exploration,
    "dynamic-ablation": ablation,
    "dynamic-layers": layers,
    "dynamic-flops": flops,
    "dynamic-flow": flow,
    "dynamic-outputs": outputs,
    "criteria-learned": learned,
    "criteria-gates": gates,
    "criteria-collapse": collapse,
    "criteria-movement": movement,
    "criteria-channels": channels,
}
# several under one name
GROUPS = {
    group: [name for name in STUDIES if name.startswith(f"{group}-")] for group in ("dynamic", "criteria")
}


def add_arguments(parser: Parser) -> None:
    """Which study, and with which seeds."""
    parser.value(
        "name", read=choice("study", [*STUDIES, *GROUPS]), nargs="?",
        metavar="NAME", help=f"one of {', '.join([*STUDIES, *GROUPS])} (default: say what they are)",
    )  # fmt: skip
    parser.value("--seeds", read=seeds, metavar="LIST", help="how many, or which: 3, or 0,1,7")


def run(args: Namespace) -> int:
    """Make the study, write its files, print its table and what it says."""
    if args.name is None:
        return show_all(args)
    facts = {name: made(args, name) for name in GROUPS.get(args.name, [args.name])}
    if args.json:
        args.screen.json(facts if args.name in GROUPS else facts[args.name])
    return 0


def made(args: Namespace, name: str) -> dict[str, Any]:
    """Make one study, write and show it; its facts."""
    chosen = chosen_seeds(args, name)
    with args.screen.meter(1.0) as meter:
        study = STUDIES[name].study(chosen, progress=meter.move)
    picture, numbers = write(study, name, chosen, args.out)
    others = {ending: picture.with_suffix(f".{ending}") for ending in study.files}
    if not args.json:
        show(args.screen, title(STUDIES[name]), study)
        args.screen.line(f"\nfigure:  {picture}\nnumbers: {numbers}")
        for ending, path in others.items():
            args.screen.line(f"{ending + ':':<8} {path}")
    facts = {"rows": study.rows, "words": study.words, "seeds": chosen}
    return facts | {"figure": picture, "numbers": numbers, **others}


def chosen_seeds(args: Namespace, name: str) -> tuple[int, ...]:
    """As many seeds as the study uses, or the flag says, from --seed on; or the list."""
    if isinstance(args.seeds, tuple):
        if args.seed:
            raise UsageError(
                f"seeds given twice: got --seed {args.seed} and a list in --seeds, expected one."
            )
        return args.seeds
    count = STUDIES[name].SEEDS if args.seeds is None else args.seeds
    return tuple(range(args.seed, args.seed + count))


def title(module: Any) -> str:
    """First line of the docstring."""
    return (module.__doc__ or "").partition("\n")[0]


def show_all(args: Namespace) -> int:
    """Names and claims."""
    rows = [{"name": name, "claim": title(module)} for name, module in STUDIES.items()]
    if args.json:
        args.screen.json(rows)
    else:
        args.screen.table(["study", "claim"], [list(row.values()) for row in rows])
    return 0


def show(screen: Any, heading: str, study: Study) -> None:
    """The table, then the sentences."""
    columns = list(study.rows[0])
    body = [[cell(row[name]) for name in columns] for row in study.rows]
    screen.table([name.replace("_", " ") for name in columns], body, title=heading)
    for sentence in study.words:
        screen.line(sentence)
