"""Why a run went wrong, in words: which layer has nothing left, and what left it so."""

from __future__ import annotations

from minisparse.errors import MinisparseError
from minisparse.experiments.inspect import LayerRow
from minisparse.experiments.runner import Outcome
from minisparse.sparsity.allocation import Global

BY_SCORE = "one ranking over all layers: a layer with small scores starves"
BY_SHARE = "every layer got its share, but nothing made the kept weights of neighbouring layers meet"


def starved(outcome: Outcome) -> LayerRow | None:
    """The layer with the largest share of units without any input; of equals the one with fewest weights.

    None when every unit of every layer still has an input.
    """
    hurt = [row for row in outcome.layers if row.dead_out]
    return max(hurt, key=lambda row: (row.dead_out / row.shape[0], -row.kept), default=None)


def weakest(outcome: Outcome) -> str:
    """The starved layer in words: ``'fc1' keeps 42 of 19,200 weights, which feed 37 of its 300 units``.

    If the layer above reads those units one by one, it is said how many of them it reads.
    """
    row = starved(outcome)
    if row is None:
        return ""
    units = row.shape[0]
    kept = f"'{row.name}' keeps {row.kept:,} of {row.total:,} weights"
    fed = f"{kept}, which feed {units - row.dead_out:,} of its {units:,} units"
    above = next(iter(outcome.layers[outcome.layers.index(row) + 1 :]), None)
    if above is None or above.shape[1] != units:
        return fed
    return f"{fed}, and '{above.name}' reads {units - above.dead_in:,} of the {units:,}"


def cause(outcome: Outcome) -> str:
    """What shared the kept weights out so; empty when the method has no allocation or is not installed."""
    try:
        allocation = getattr(outcome.spec.build(), "allocation", None)
    except MinisparseError:
        return ""
    if allocation is None:
        return ""
    return BY_SCORE if isinstance(allocation, Global) else BY_SHARE


def explain(outcome: Outcome) -> str:
    """The run's note and, for a collapsed one, the layer that starved and why."""
    if outcome.status != "collapsed":
        return outcome.note
    more = [weakest(outcome), cause(outcome)]
    return "; ".join(part for part in (outcome.note, *more) if part)
