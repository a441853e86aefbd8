"""Per-layer table of a run or a saved network: kept and dead, MACs, bytes per format, measured time.

Of a .safetensors or .npz file, whatever wrote it: name, shape, type and zeros of each tensor.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from minisparse.cli.arguments import Parser
from minisparse.cli.console import scaled
from minisparse.cli.layers import show_layers
from minisparse.cli.stored import find
from minisparse.exchange import read
from minisparse.exchange.files import KINDS
from minisparse.experiments.inspect import forward_seconds, layer_table, stored_bytes
from minisparse.training.checkpoint import MANIFEST


def add_arguments(parser: Parser) -> None:
    """Which network."""
    parser.add_argument(
        "run", metavar="RUN|FOLDER|FILE",
        help="start of a run's key, a checkpoint folder, or a .safetensors or .npz file",
    )  # fmt: skip


def run(args: Namespace) -> int:
    """Print the table of one network, or of one file's tensors."""
    path = Path(args.run)
    if path.suffix in KINDS and not (path.parent / MANIFEST).exists():
        return tensors(args, path)
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


def tensors(args: Namespace, path: Path) -> int:
    """Print what a file of named arrays holds."""
    found = read(path)
    rows = [
        {
            "name": name, "shape": array.shape, "dtype": str(array.dtype), "size": array.size,
            "nonzero": int(np.count_nonzero(array)), "bytes": array.nbytes,
        }
        for name, array in found.items()
    ]  # fmt: skip
    if args.json:
        args.screen.json({"file": str(path), "tensors": rows})
        return 0
    args.screen.heading(str(path))
    body = [
        [
            name,
            "x".join(map(str, a.shape)) or "-",
            str(a.dtype),
            f"{np.count_nonzero(a):,} / {a.size:,}",
            f"{1 - np.count_nonzero(a) / a.size:.4f}" if a.size else "-",
            scaled(a.nbytes, "B"),
        ]
        for name, a in found.items()
    ]
    args.screen.table(["tensor", "shape", "type", "nonzero / total", "zeros", "bytes"], body)
    return 0
