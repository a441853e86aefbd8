"""A run's network in files that other programs read: safetensors, npz, scipy or csv.

Weights are matrices (out, in), absent entries 0, and masks say which entries are present. For a
convolution in = kh*kw*channels, and kernel position (ky, kx), channel c is column (ky*kw + kx)*channels + c;
`<layer>.geometry` holds (out, channels, kh, kw). Values are exact in every format.

    safetensors, npz   <layer>.weight, <layer>.mask, <layer>.geometry, and all other arrays by name
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
from pathlib import Path

import numpy as np
from safetensors.numpy import save as to_safetensors
from scipy import sparse

from minisparse.cli.arguments import Parser
from minisparse.cli.flags import choice
from minisparse.cli.stored import find
from minisparse.errors import UsageError
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training.checkpoint import write_atomic
from minisparse.weights.exchange import to_csr
from minisparse.weights.formats import entries

Files = dict[str, bytes]


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


def as_safetensors(network: Network) -> Files:
    """One file."""
    about = {"model": network.name, "weights": "(out, in); column (ky*kw + kx)*channels + c"}
    return {".safetensors": to_safetensors(arrays(network), metadata=about)}


def as_npz(network: Network) -> Files:
    """One file, without pickled objects."""
    return {".npz": _npz(arrays(network))}


def as_scipy(network: Network) -> Files:
    """A CSR file per layer, made from its entries alone, and the rest."""
    files = {}
    for name, layer in network.prunable().items():
        stream = io.BytesIO()
        sparse.save_npz(stream, to_csr(layer.weight))
        files[f"/{name}.npz"] = stream.getvalue()
    geometry = {name: list(layer.weight.geometry) for name, layer in network.prunable().items()}
    return files | {
        "/others.npz": _npz(others(network)),
        "/geometry.json": json.dumps(geometry, indent=1).encode(),
    }


def as_csv(network: Network) -> Files:
    """One table; a number is the shortest text that reads back equal in its precision."""
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


def _npz(values: dict[str, Array]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **values)
    return stream.getvalue()


# Each gives the files of a network: what is added to the chosen path, and the content.
WRITERS: dict[str, Callable[[Network], Files]] = {
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
    parser.add_argument(
        "--file", metavar="PATH", help="file (scipy: folder) to write; default DIR/exports/KEY"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(args: Namespace) -> int:
    """Write the files and print their paths."""
    found = find(args.run, args.out)
    base = Path(args.out) / "exports" / found.name
    files = {place(args.file, base, suffix): text for suffix, text in WRITERS[args.to](found.network).items()}
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
