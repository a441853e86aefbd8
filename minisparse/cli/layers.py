"""The per-layer table, as printed after a run and by `inspect`."""

from __future__ import annotations

from collections.abc import Sequence

from minisparse.cli.console import Screen, duration, scaled
from minisparse.experiments.inspect import LayerRow

HEAD = ("layer", "shape", "kept / total", "sparsity", "dead in/out", "MACs", "FLOPs")


def show_layers(screen: Screen, rows: Sequence[LayerRow], stored: dict[str, int], seconds: float) -> None:
    """One line per layer and a total. stored: bytes of the whole network per format; seconds: measured
    time of the forward pass of 256 samples."""
    formats = list(rows[0].bytes) if rows else []
    body = [[*_cells(row), *(scaled(row.bytes[name], "B") for name in formats)] for row in rows]
    if rows:
        body.append([*_total(rows), *(scaled(sum(row.bytes[f] for row in rows), "B") for f in formats)])
    screen.table([*HEAD, *formats], body)
    kept = sum(row.macs for row in rows)
    dense = sum(row.total * row.positions for row in rows)
    fewer = f"x{dense / kept:.1f} fewer MACs in theory" if kept else "no MACs left"
    whole = ", ".join(f"{name} {scaled(count, 'B')}" for name, count in stored.items())
    screen.line(f"{fewer}; all parameters: {whole}")
    screen.line(f"measured: {duration(seconds)} for 256 samples forward, as it is stored now")


def _cells(row: LayerRow) -> list[str]:
    return [
        row.name,
        "x".join(map(str, row.shape)),
        f"{row.kept:,} / {row.total:,}",
        f"{row.sparsity:.4f}",
        f"{row.dead_in} / {row.dead_out}",
        scaled(row.macs),
        scaled(row.flops),
    ]


def _total(rows: Sequence[LayerRow]) -> list[str]:
    kept, total = sum(row.kept for row in rows), sum(row.total for row in rows)
    dead = f"{sum(row.dead_in for row in rows)} / {sum(row.dead_out for row in rows)}"
    macs = sum(row.macs for row in rows)
    share = f"{1 - kept / total:.4f}"
    return ["total", "prunable", f"{kept:,} / {total:,}", share, dead, scaled(macs), scaled(2 * macs)]
