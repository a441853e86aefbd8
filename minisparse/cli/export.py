"""A run's network in files that other programs read: safetensors, npz, scipy or csv.

Without --names, weights are matrices (out, in), absent entries 0, and masks say which entries are present.
For a convolution in = kh*kw*channels, and kernel position (ky, kx), channel c is column
(ky*kw + kx)*channels + c; `<layer>.geometry` holds (out, channels, kh, kw). Values are exact in every format.

    safetensors, npz   <layer>.weight, <layer>.mask, <layer>.geometry, and all other arrays by name;
                       --names torch: a PyTorch state_dict, kernels (out, channels, kh, kw), absent weights 0;
                       --names torch-prune: the same with <layer>.weight_orig and <layer>.weight_mask
    scipy              a folder: <layer>.npz for scipy.sparse.load_npz (CSR; an entry that is present and 0
                       is stored), others.npz, geometry.json
    csv                array,row,column,value: a line per present weight and per other value
"""

from __future__ import annotations

import csv
import io
import json
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse

from minisparse.cli.arguments import Parser
from minisparse.cli.flags import choice
from minisparse.cli.stored import find
from minisparse.errors import UsageError
from minisparse.exchange import npz_file, safetensors_file, to_torch
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training.checkpoint import write_atomic
from minisparse.weights.exchange import to_csr
from minisparse.weights.formats import entries

Files = dict[str, bytes]
OURS = "minisparse"
ABOUT = {OURS: {"weights": "(out, in); column (ky*kw + kx)*channels + c"}}


def matrices(network: Network) -> dict[str, Array]:
    """Effective weight (out, in) of each prunable layer."""
    return {name: layer.weight.dense() for name, layer in network.prunable().items()}


def others(network: Network) -> dict[str, Array]:
    """Biases, normalisation and buffers by name."""
    held = {f"{n}.{key}" for n, layer in network.prunable().items() for key in layer.weight.params()}
    found = {key: p.value for key, p in network.params().items() if key not in held}
    return found | network.buffers()


def arrays(network: Network) -> dict[str, Array]:
    """Every array by name, as safetensors and npz hold them."""
    found = {f"{name}.weight": w for name, w in matrices(network).items()}
    for name, layer in network.prunable().items():
        found[f"{name}.mask"] = layer.weight.mask
        found[f"{name}.geometry"] = np.array(layer.weight.geometry, dtype=np.int64)
    found |= others(network)
    return {key: np.ascontiguousarray(found[key]) for key in sorted(found)}


# What the arrays of a file are called and how they lie.
NAMES: dict[str, Callable[[Network], dict[str, Array]]] = {
    OURS: arrays,
    "torch": to_torch,
    "torch-prune": partial(to_torch, masks=True),
}


def as_safetensors(network: Network, names: str = OURS) -> Files:
    """One file."""
    about = {"model": network.name} | ABOUT.get(names, {"format": "pt"})
    return {".safetensors": safetensors_file.encode(NAMES[names](network), about)}


def as_npz(network: Network, names: str = OURS) -> Files:
    """One file, without pickled objects."""
    return {".npz": npz_file.encode(NAMES[names](network))}


def as_scipy(network: Network, names: str = OURS) -> Files:
    """A CSR file per layer, made from its entries alone, and the rest."""
    _only_ours(names)
    files = {}
    for name, layer in network.prunable().items():
        stream = io.BytesIO()
        sparse.save_npz(stream, to_csr(layer.weight))
        files[f"/{name}.npz"] = stream.getvalue()
    geometry = {name: list(layer.weight.geometry) for name, layer in network.prunable().items()}
    return files | {
        "/others.npz": npz_file.encode(others(network)),
        "/geometry.json": json.dumps(geometry, indent=1).encode(),
    }


def as_csv(network: Network, names: str = OURS) -> Files:
    """One table; a number is the shortest text that reads back equal in its precision."""
    _only_ours(names)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["array", "row", "column", "value"])
    for name, layer in network.prunable().items():
        pattern, values = entries(layer.weight)
        for row, column, value in zip(pattern.rows, pattern.indices, values, strict=True):
            writer.writerow([f"{name}.weight", row, column, str(value)])
    for name, values in others(network).items():
        for row, value in enumerate(values.ravel()):
            writer.writerow([name, row, "", str(value)])
    return {".csv": stream.getvalue().encode()}


def _only_ours(names: str) -> None:
    if names != OURS:
        raise UsageError(f"names: got {names!r}, expected it with --to safetensors or npz.")


# Each gives the files of a network: what is added to the chosen path, and the content.
WRITERS: dict[str, Callable[[Network, str], Files]] = {
    "safetensors": as_safetensors,
    "npz": as_npz,
    "scipy": as_scipy,
    "csv": as_csv,
}


def add_arguments(parser: Parser) -> None:
    """Which network, which format, where to."""
    parser.add_argument("run", metavar="RUN|FOLDER", help="start of a run's key, or a checkpoint folder")
    parser.value(
        "--to", read=choice("export format", list(WRITERS)), required=True,
        metavar="FORMAT", help=f"one of {', '.join(WRITERS)}",
    )  # fmt: skip
    parser.value(
        "--names", read=choice("naming", list(NAMES)), default=OURS,
        metavar="NAMES", help=f"one of {', '.join(NAMES)} (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--file", metavar="PATH", help="file (scipy: folder) to write; default DIR/exports/KEY"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(args: Namespace) -> int:
    """Write the files and print their paths."""
    found = find(args.run, args.out)
    base = Path(args.out) / "exports" / found.name
    made = WRITERS[args.to](found.network, args.names)
    files = {place(args.file, base, suffix): text for suffix, text in made.items()}
    taken = [path for path in files if path.exists()]
    if taken and not args.force:
        raise UsageError(f"file {str(taken[0])!r} exists: got it as target, expected a new one or --force.")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    written = [{"file": str(path), "bytes": len(content)} for path, content in files.items()]
    if args.json:
        args.screen.json(written)
    else:
        for entry in written:
            args.screen.line(entry["file"])
    return 0


def place(asked: str | None, base: Path, suffix: str) -> Path:
    """Where a file goes: the path asked for as it is, or `base`, with what the format adds."""
    if suffix.startswith("/"):
        return Path(asked or base) / suffix[1:]
    return Path(asked) if asked else base.with_name(base.name + suffix)
