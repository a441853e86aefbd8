"""Per-layer table of a run or a saved network: kept and dead, MACs, bytes per format, measured time."""

from __future__ import annotations

from argparse import Namespace

from minisparse.cli.arguments import Parser
from minisparse.cli.layers import show_layers
from minisparse.cli.stored import find
from minisparse.experiments.inspect import forward_seconds, layer_table, stored_bytes


def add_arguments(parser: Parser) -> None:
    """Which network."""
    parser.add_argument("run", metavar="RUN|FOLDER", help="start of a run's key, or a checkpoint folder")


def run(args: Namespace) -> int:
    """Print the table of one network."""
    found = find(args.run, args.out)
    rows = layer_table(found.network)
    stored, seconds = stored_bytes(found.network, rows), forward_seconds(found.network)
    if args.json:
        args.screen.json(
            {
                "name": found.title, "layers": rows, "bytes": stored, "forward_seconds": seconds,
                "forward_samples": 256,
            }
        )  # fmt: skip
        return 0
    args.screen.heading(found.title)
    if found.outcome is not None:
        asked, got = found.outcome.sparsity_asked, found.outcome.sparsity
        args.screen.line(f"sparsity asked {asked:.4f}, obtained {got:.4f}; status: {found.outcome.status}")
    show_layers(args.screen, rows, stored, seconds)
    return 0
