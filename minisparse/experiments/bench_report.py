"""The folder of `bench kernels`: a page with tables and figures, each figure as a file, and all as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from matplotlib.figure import Figure

from minisparse.experiments import bench_bars, bench_plots, roofline
from minisparse.experiments.bench_plots import duration
from minisparse.experiments.bench_summary import Record, break_evens, crossing, lines, merits
from minisparse.experiments.environment import environment
from minisparse.experiments.page import document, facts, node, picture, row, section, table
from minisparse.experiments.theme import DARK, LIGHT, Theme, png
from minisparse.training.checkpoint import write_atomic

Tables = list[tuple[str, list[Record]]]
LIBRARIES = ("OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "NUMBA_")  # starts of their variables' names
PAGE, DATA = "kernels.html", "kernels.json"
CEILINGS = "What this machine can do"
EVEN = "Sparsity from which a format beats dense BLAS"
TARGETS = "Targets, each product in its fastest format"
TITLE = "minisparse: sparse products on this machine"
SHOWN: dict[str, Callable[[Any], str]] = {  # columns of the table of products, and how they are written
    "kernel": str,
    "shape": str,
    "batch": str,
    "sparsity": lambda value: f"{100 * value:g} %",
    "threads": str,
    "format": str,
    "median_s": duration,
    "q25_s": duration,
    "q75_s": duration,
    "dense_s": duration,
    "scipy_s": duration,
    "torch_dense_s": duration,
    "torch_csr_s": duration,
    "mkl_s": duration,
    "speedup_dense": lambda value: f"{value:.2f}x",
    "speedup_scipy": lambda value: f"{value:.2f}x",
    "bytes": lambda value: f"{value:,}",
    "dense_bytes": lambda value: f"{value:,}",
    "flops": lambda value: f"{value:,}",
    "bytes_moved": lambda value: f"{value:,}",
    "gflops": lambda value: f"{value:.3g}",
    "gbytes_per_s": lambda value: f"{value:.3g}",
    "target": str,
    "met": lambda value: "yes" if value else "no",
}
SHORT = (
    "kernel", "shape", "batch", "sparsity", "threads", "format", "median_s", "dense_s", "scipy_s",
    "torch_dense_s", "torch_csr_s", "mkl_s", "speedup_dense", "speedup_scipy", "bytes", "gflops", "met",
)  # fmt: skip
CURVES = (
    "median time and quartiles against sparsity. Below the black line a format beats dense BLAS; rings mark "
    "where that begins."
)
CAPTIONS = {
    "time-batch-1": f"One sample: {CURVES}",
    "time-batch-256": f"256 samples, packing included: {CURVES}",
    "memory": "Bytes of values and structure as stored, padding included, against sparsity. Masks of all "
    "kernels together; below the dashed line is less than CSR can do.",
    "roofline": "Every product under the measured ceilings. Operations are those the mask asks for, bytes "
    "the least there can be; a point above the slope of RAM reads from a cache.",
    "vit": "The second linear layer of an encoder block's MLP in ViT-B/16. Half of the neurons are ablated, "
    "the others have constant fan-in: the layout of figure 4 of Lasby et al., ICLR 2024, arXiv:2305.02299. "
    "Above each bar its speed-up over dense BLAS. Structured: the active neurons as a smaller dense matrix.",
}


def write(rows: Sequence[Record], folder: Path, quick: bool = False) -> tuple[Tables, list[Path]]:
    """Measure the machine, write page, figures and JSON into `folder`; tables for the screen, and files."""
    found = conclude(rows, quick)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / PAGE, folder / DATA]
    pictures = {}
    for name, draw in figures(rows, found["roofline"]).items():
        paths.append(folder / f"{name}.png")
        light = png(draw(LIGHT))
        write_atomic(paths[-1], light)
        caption = CAPTIONS[name]
        pictures[name] = picture(light, png(draw(DARK)), caption.partition(".")[0], caption)
    write_atomic(folder / DATA, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    write_atomic(folder / PAGE, page(found, pictures))
    return tables(found), paths


def conclude(rows: Sequence[Record], quick: bool = False) -> dict[str, Any]:
    """Records and what follows from them, with the measured ceilings for each number of threads."""
    threads = bench_plots.distinct(rows, "threads")
    return {
        "quick": quick,
        "environment": environment(),
        "variables": variables(os.environ),
        "targets": merits(rows),
        "break_even": break_evens(rows),
        "roofline": [roofline.machine(count, quick) for count in threads],
        "records": list(rows),
    }


def variables(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that change what the libraries do, and with it what they are compared with.

    OPENBLAS_CORETYPE, for instance, can make dense BLAS half as fast as it is on this processor.
    """
    return {name: settings[name] for name in sorted(settings) if name.startswith(LIBRARIES)}


def figures(rows: Sequence[Record], machines: Sequence[Any]) -> dict[str, Callable[[Theme], Figure]]:
    """What can be drawn of these records, by name."""
    kernels = {(r["kernel"], r["batch"]) for r in rows}
    draws: dict[str, Callable[[Theme], Figure]] = {
        f"time-batch-{batch}": partial(_times, rows, batch)
        for batch, kernel in bench_plots.SWEPT.items()
        if (kernel, batch) in kernels
    }
    if rows:
        draws["memory"] = lambda theme: bench_plots.memory(rows, theme=theme)
        draws["roofline"] = lambda theme: bench_bars.rooflines(rows, machines, theme=theme)
    if any(kernel == bench_bars.VIT for kernel, _ in kernels):
        draws["vit"] = lambda theme: bench_bars.vit(rows, theme=theme)
    return draws


def _times(rows: Sequence[Record], batch: int, theme: Theme) -> Figure:
    return bench_plots.times(rows, batch, theme=theme)


def tables(found: dict[str, Any]) -> Tables:
    """What the screen shows: products, machine, break-evens, and last of all the targets."""
    return [
        ("Sparse products: median times", products(found["records"], SHORT)),
        (CEILINGS, ceilings(found["roofline"], found["environment"]["blas"])),
        ("Set in the environment, and able to change the figures", facts_of(found["variables"])),
        (EVEN, crossings(found["break_even"])),
        (TARGETS, lines(found["targets"])),
    ]


def products(rows: Sequence[Record], columns: Sequence[str]) -> list[Record]:
    """Records as text; columns without any figure are left out."""
    kept = [name for name in columns if any(r.get(name) is not None for r in rows)]
    return [{name: None if r[name] is None else SHOWN[name](r[name]) for name in kept} for r in rows]


def facts_of(settings: Mapping[str, str]) -> list[Record]:
    """A row per variable."""
    return [{"variable": name, "value": value} for name, value in settings.items()]


def ceilings(machines: Sequence[dict[str, Any]], blas: str) -> list[Record]:
    """A row per number of threads; `blas` says what sgemm is."""
    return [
        {"threads": str(m["threads"])}
        | {f"read {level}": f"{rate:.0f} GB/s" for level, rate in m["bandwidth"].items()}
        | {name: f"{rate:.0f} GFLOP/s" for name, rate in m["peak"].items()}
        | {"blas": blas}
        for m in machines
    ]


def crossings(rows: Sequence[Record]) -> list[Record]:
    """A row per kernel, shape and number of threads, a column per format."""
    found: dict[tuple[Any, ...], Record] = {}
    names = bench_plots.distinct(rows, "format")
    for r in rows:
        facts = {
            "kernel": r["kernel"],
            "shape": r["shape"],
            "batch": str(r["batch"]),
            "threads": str(r["threads"]),
        }
        own = found.setdefault(tuple(facts.values()), facts | dict.fromkeys(names))
        own[r["format"]] = crossing(r["side"], r["sparsity"])
    return list(found.values())


def page(found: dict[str, Any], pictures: dict[str, Element]) -> bytes:
    """One self-contained HTML page."""
    shown = dict(tables(found))
    drawn = {name: [pictures[name]] if name in pictures else [] for name in CAPTIONS}
    rough = [node("p", "Measured with few repetitions (--quick): rough figures.")] if found["quick"] else []
    body = [
        section("targets", TARGETS, *rough, grid(shown[TARGETS])),
        section("time", "Time against sparsity", *drawn["time-batch-1"], *drawn["time-batch-256"]),
        section("break-even", EVEN, grid(shown[EVEN])),
        section("memory", "Memory against sparsity", *drawn["memory"]),
        section("roofline", "Roofline", *drawn["roofline"], grid(shown[CEILINGS])),
        section("vit", "A layer of ViT-B/16", *drawn["vit"]),
        section("products", "All products", grid(products(found["records"], tuple(SHOWN)))),
        section("environment", "Where it ran", facts((found["environment"] | found["variables"]).items())),
    ]
    return document(TITLE, node("header", node("h1", TITLE)), node("main", *body))


def grid(rows: Sequence[Record]) -> Element:
    """Rows of text as a table, '-' for nothing."""
    if not rows:
        return node("p", "Nothing was measured.")
    head = [[name.replace("_", " ") for name in rows[0]]]
    return table(head, [[row("-" if cell is None else str(cell) for cell in r.values()) for r in rows]])
