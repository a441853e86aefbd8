"""What the records of `bench kernels` come to: break-even sparsities, and the targets of the design.

For a format, r(s) = its time / dense time at sparsity s. The work of a sparse product is affine in the number
of entries, hence r is nearly affine between two neighbouring sparsities, and where r passes 1

    s* = s_0 + (s_1 - s_0) (r_0 - 1) / (r_0 - r_1),       r_0 > 1 >= r_1                              (1)

is the break-even. Of several crossings the last counts: from there on the format is always the faster one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minisparse.experiments.bench_cases import TARGETS, Target

Record = dict[str, Any]
SWEPT = 8  # sparsities that a kernel must have been measured at for a break-even
BEST = "best"


def break_even(points: Iterable[tuple[float, float]]) -> tuple[str, float | None]:
    """Equation (1) for (sparsity, time / dense time): ("at", s*).

    ("below", s) if the format is as fast or faster at all sparsities, s being the lowest of them; ("never",
    None) if it is slower at the highest, or if there are no points.
    """
    known = sorted(points)
    if not known or known[-1][1] > 1:
        return "never", None
    for (s0, r0), (s1, r1) in reversed(list(zip(known, known[1:], strict=False))):
        if r0 > 1:
            return "at", s0 + (s1 - s0) * (r0 - 1) / (r0 - r1)
    return "below", known[0][0]


def break_evens(rows: Sequence[Record]) -> list[Record]:
    """One dict per format, and "best" for the fastest of each sparsity, of every kernel that was swept."""
    found = []
    for kernel, shape, batch, threads in settings(rows):
        own = [
            r
            for r in rows
            if (r["kernel"], r["shape"], r["batch"], r["threads"]) == (kernel, shape, batch, threads)
        ]
        if len({r["sparsity"] for r in own}) < SWEPT:
            continue
        curves = {
            name: [r for r in own if r["format"] == name] for name in dict.fromkeys(r["format"] for r in own)
        }
        for name, curve in (curves | {BEST: fastest(own)}).items():
            side, sparsity = break_even((r["sparsity"], r["median_s"] / r["dense_s"]) for r in curve)
            found.append({
                "kernel": kernel, "shape": shape, "batch": batch, "threads": threads, "format": name,
                "side": side, "sparsity": sparsity,
            })  # fmt: skip
    return found


def settings(rows: Iterable[Record]) -> list[tuple[str, str, int, int]]:
    """(kernel, shape, batch, threads) in the order they come."""
    return list(dict.fromkeys((r["kernel"], r["shape"], r["batch"], r["threads"]) for r in rows))


def fastest(rows: Iterable[Record]) -> list[Record]:
    """Of each product the record of the format that is fastest, in the order they come."""
    found: dict[tuple[Any, ...], Record] = {}
    for row in rows:
        key = tuple(row[name] for name in ("kernel", "shape", "batch", "sparsity", "threads"))
        if key not in found or row["median_s"] < found[key]["median_s"]:
            found[key] = row
    return list(found.values())


def merits(rows: Sequence[Record], targets: Sequence[Target] = TARGETS) -> list[Record]:
    """One dict per target and library: ranges of the ratio, fastest formats, met or not.

    A product counts with its fastest format, as `compress` chooses it. `ranges` is [threads, lowest, highest]
    per number of threads; a target that nothing was measured for has none, and None for `met`.
    """
    found = []
    for target in targets:
        own = fastest(r for r in rows if target.asks(r["kernel"], r["batch"], r["sparsity"], r["threads"]))
        found.append(_merit(target, "dense", target.dense, own))
        if target.scipy is not None:
            found.append(_merit(target, "scipy", target.scipy, own))
    return found


def _merit(target: Target, against: str, least: float, rows: Sequence[Record]) -> Record:
    ratios: dict[int, list[float]] = {}
    for r in rows:
        ratios.setdefault(r["threads"], []).append(r[f"speedup_{against}"])
    ranges = [[count, min(own), max(own)] for count, own in sorted(ratios.items())]
    return {
        "target": target.name, "work": what(target), "sparsities": sorted(target.sparsities),
        "against": against, "required": least, "strict": target.strict, "ranges": ranges,
        "formats": list(dict.fromkeys(r["format"] for r in rows)),
        "met": all(target.reached(low, least) for _, low, _ in ranges) if ranges else None,
    }  # fmt: skip


def what(target: Target) -> str:
    """Kernels and batch of a target in words."""
    first, *rest = target.kernels
    kernels = first + "".join(f" and {name.rpartition(' ')[2]}" for name in rest)
    return f"{kernels}, batch {target.batch}"


def levels(sparsities: Sequence[float]) -> str:
    """'90 %' or '30 to 99 %'."""
    low, high = (f"{100 * s:g}" for s in (min(sparsities), max(sparsities)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def lines(found: Sequence[Record]) -> list[Record]:
    """`merits` as rows of text, a column per number of threads."""
    counts = sorted({count for m in found for count, *_ in m["ranges"]})
    rows = []
    for m in found:
        ranges = {count: f"{low:.2f}x to {high:.2f}x" for count, low, high in m["ranges"]}
        rows.append({
            "target": m["target"], "work": m["work"], "sparsity": levels(m["sparsities"]),
            "against": {"dense": "dense BLAS", "scipy": "SciPy CSR"}[m["against"]],
            "required": f"{'>' if m['strict'] else '>='} {m['required']:g}x",
            **{f"{count} thread{'s' if count > 1 else ''}": ranges.get(count) for count in counts},
            "met": {True: "met", False: "NOT MET", None: "not measured"}[m["met"]],
            "fastest": ", ".join(m["formats"]) or None,
        })  # fmt: skip
    return rows


def crossing(side: str, sparsity: float | None) -> str:
    """A break-even in words: '54 %', '< 10 %' or 'never'."""
    if sparsity is None:
        return side
    return f"{'< ' if side == 'below' else ''}{100 * sparsity:.0f} %"
