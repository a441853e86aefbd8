"""From scores to masks: exact counts, defined ties, one routine behind every method.

    kept = n - rhe(s n) entries of highest score, equal scores by lower flat index         (1)

n is a layer, or all layers in order under a global ranking. For a pattern whose units are larger
than one entry the count is rounded to whole units: the lowest-scoring units are removed, their
number being the one for which the removed entries come nearest to s n                     (2)
(halfway: the even number of units). If all units have the same size, (2) is (1) counted in units.

An O(n) selection is used: `kernels/rank.py` finds the threshold *value*, which does not depend on how equal
elements are ordered, and ties are then filled by index. np.argpartition would not do: the tied elements it
picks change with the SIMD level of the processor.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from minisparse.errors import NonFiniteError, ShapeError, SparsityError, UsageError
from minisparse.kernels.rank import smallest
from minisparse.sparsity.allocation import Allocation, too_few_left
from minisparse.sparsity.count import check_sparsity, is_whole, kept_count
from minisparse.sparsity.pattern import Pattern
from minisparse.sparsity.shape import Array, LayerShape, Mask

# A sparsity typed with six digits (0.666667 for 1:3) means the pattern's own.
FIXED_TOLERANCE = 1e-6

__all__ = ["check_scores", "check_sparsity", "kept_count", "select", "top_k", "top_units"]


def check_scores(name: str, array: Any) -> Array:
    """`array` as an ndarray of finite real scores.

    UsageError for complex, object, bool or text; NonFiniteError, with the number of them, for NaN
    or infinite entries.
    """
    scores = np.asarray(array)
    if scores.dtype.kind not in "iuf":
        raise UsageError(
            f"scores of {name} cannot be ranked: got dtype {scores.dtype}, expected real numbers."
        )
    bad = scores.size - int(np.count_nonzero(np.isfinite(scores)))
    if bad:
        raise NonFiniteError(
            f"scores of {name} are not finite: got {bad} of {scores.size} NaN or infinite, expected none."
        )
    return scores


def top_k(scores: Any, k: int, among: Mask | None = None) -> Mask:
    """Mask of exactly the k largest scores, ties to the lower flat (row-major) index: (1). O(n).

    scores: any shape; among: bool of the same shape, the entries that may be chosen. UsageError if
    k is not a whole number from 0 to the number of candidates; errors of `check_scores`.
    """
    scores = check_scores("top_k", scores)
    flat = scores.reshape(-1)
    allowed = None if among is None else _check_mask("among", among, scores.shape).reshape(-1)
    pool = flat if allowed is None else flat[allowed]
    if not is_whole(k) or not 0 <= k <= pool.size:
        raise UsageError(
            f"top_k cannot choose that many: got k={k!r}, expected a whole number from 0 to "
            f"{pool.size}, the number of candidates."
        )
    if k == 0:
        return np.zeros(scores.shape, dtype=bool)
    threshold = smallest(pool, pool.size - k)
    chosen, tied = flat > threshold, flat == threshold
    if allowed is not None:
        chosen &= allowed
        tied &= allowed
    chosen[np.flatnonzero(tied)[: k - np.count_nonzero(chosen)]] = True
    return chosen.reshape(scores.shape)


def top_units(scores: Array, sizes: Array, live: Array, sparsity: float) -> Mask:
    """The units kept by equation (2); all arguments but the sparsity have shape (units,).

    sizes: entries of each unit; live: how many of them may be kept (0 = the unit may not).
    SparsityError when more would be kept than is live.
    """
    flat = sizes.min() == sizes.max() and bool(np.all((live == 0) | (live == sizes)))
    if flat:
        keep = kept_count(sizes.size, sparsity)
        if keep > np.count_nonzero(live):
            unit = int(sizes[0])
            raise too_few_left(sparsity, int(live.sum()), keep * unit)
        return top_k(scores, keep, among=live > 0)
    candidates = np.flatnonzero(live)
    best = candidates[np.argsort(-scores[candidates], kind="stable")]
    total, kept = int(sizes.sum()), np.concatenate(([0], np.cumsum(live[best])))
    wanted = kept_count(total, sparsity)
    if kept[-1] + sizes.max() < wanted:  # not a matter of rounding to units
        raise too_few_left(sparsity, int(kept[-1]), wanted)
    error = np.abs((total - kept) - sparsity * total)
    nearest = np.flatnonzero(error == error.min())
    even = nearest[(sizes.size - nearest) % 2 == 0]
    mask = np.zeros(sizes.shape, dtype=bool)
    mask[best[: (even if even.size else nearest)[0]]] = True
    return mask


def select(
    scores: Mapping[str, Any],
    shapes: Mapping[str, LayerShape],
    sparsity: float | None,
    allocation: Allocation,
    pattern: Pattern,
    among: Mapping[str, Mask] | None = None,
) -> dict[str, Mask]:
    """Masks (out, in) of the entries to keep, per layer, in the order of `shapes`.

    scores: (out, in) per layer. among: entries that may be kept; give the present masks to prune
    without revival. sparsity: in [0, 1), over all layers together; None only for a pattern that
    fixes it. The inputs are not modified. Layers in the order of `shapes` are the flat order of a
    global ranking. Counts: equations (1) and (2); per layer as the allocation says.

    Raises SparsityError, UsageError, ShapeError, NonFiniteError.
    """
    ranked, live = _check_layers(scores, shapes, among)
    if pattern.fixed_sparsity is not None:
        return _select_fixed(ranked, shapes, sparsity, allocation, pattern, live)
    asked = check_sparsity(sparsity)
    pooled = {n: pattern.pool(ranked[n], shape, live[n]) for n, shape in shapes.items()}
    sizes = {n: pattern.sizes(shape) for n, shape in shapes.items()}
    units = {n: pattern.total(live[n].astype(np.int64), shape) for n, shape in shapes.items()}
    layer_sparsities = allocation.sparsities(shapes, asked)
    if layer_sparsities is None:
        kept = _rank_together(pooled, sizes, units, asked)
    elif all(grid.max() == 1 for grid in sizes.values()):
        caps = {n: int(np.count_nonzero(live[n])) for n in shapes}
        counts = allocation.counts(shapes, asked, caps) or {}
        kept = {n: top_k(pooled[n], counts[n], among=units[n] > 0) for n in shapes}
    else:
        kept = {n: _rank_alone(pooled[n], sizes[n], units[n], layer_sparsities[n]) for n in shapes}
    return {n: pattern.spread(kept[n], shape) & live[n] for n, shape in shapes.items()}


def _rank_alone(scores: Array, sizes: Array, live: Array, sparsity: float) -> Mask:
    """`top_units` on a unit grid of any shape."""
    mask = top_units(scores.reshape(-1), sizes.reshape(-1), live.reshape(-1), sparsity)
    return mask.reshape(scores.shape)


def _rank_together(
    scores: dict[str, Array], sizes: dict[str, Array], live: dict[str, Array], sparsity: float
) -> dict[str, Mask]:
    """`top_units` on the units of all layers, concatenated in order."""
    ranked, entries, alive = (
        np.concatenate([grid.reshape(-1) for grid in grids.values()]) for grids in (scores, sizes, live)
    )
    mask = top_units(ranked, entries, alive, sparsity)
    ends = np.cumsum([grid.size for grid in scores.values()])
    parts = np.split(mask, ends[:-1])
    return {n: part.reshape(scores[n].shape) for n, part in zip(scores, parts, strict=True)}


def _select_fixed(
    scores: dict[str, Array],
    shapes: Mapping[str, LayerShape],
    sparsity: float | None,
    allocation: Allocation,
    pattern: Pattern,
    live: dict[str, Mask],
) -> dict[str, Mask]:
    """Masks of a pattern that fixes the sparsity; the allocation may only exempt whole layers."""
    fixed = pattern.fixed_sparsity or 0.0
    if sparsity is not None and abs(check_sparsity(sparsity) - fixed) > FIXED_TOLERANCE:
        raise SparsityError(
            f"sparsity does not fit the pattern: got {sparsity}, expected {fixed:.6g}, the one it "
            f"has. Ask for sparsity {fixed:.6g} or leave it out, or use another pattern."
        )
    rates = allocation.sparsities(shapes, fixed) or dict.fromkeys(shapes, fixed)
    masks = {}
    for name, shape in shapes.items():
        if rates[name] != 0 and abs(rates[name] - fixed) > FIXED_TOLERANCE:
            raise SparsityError(
                f"layer {name!r} does not fit the pattern: got sparsity {rates[name]:.6g} from the "
                f"allocation, expected 0 or {fixed:.6g}. Use allocation global or uniform."
            )
        dense = rates[name] == 0
        masks[name] = live[name] if dense else pattern.eligible(scores[name], shape, live[name])
    return masks


def _check_layers(
    scores: Mapping[str, Any],
    shapes: Mapping[str, LayerShape],
    among: Mapping[str, Mask] | None,
) -> tuple[dict[str, Array], dict[str, Mask]]:
    """Scores and admissible entries per layer, checked, copied where needed, in order of `shapes`."""
    given = {"scores": scores} if among is None else {"scores": scores, "among": among}
    for what, layers in given.items():
        if not shapes or set(layers) != set(shapes):
            raise UsageError(
                f"{what} do not match the layers: got {sorted(layers)}, expected {sorted(shapes)} "
                "and at least one."
            )
    ranked, live = {}, {}
    for name, shape in shapes.items():
        ranked[name] = check_scores(f"layer {name!r}", scores[name])
        if ranked[name].shape != shape.matrix:
            raise ShapeError(
                f"scores of layer {name!r} have the wrong shape: got {ranked[name].shape}, expected "
                f"{shape.matrix}."
            )
        allowed = np.ones(shape.matrix, dtype=bool) if among is None else among[name]
        live[name] = _check_mask(f"among of layer {name!r}", allowed, shape.matrix).copy()
    return ranked, live


def _check_mask(name: str, mask: Any, shape: tuple[int, ...]) -> Mask:
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != shape:
        raise ShapeError(
            f"{name} is not a mask of the layer: got {array.dtype} {array.shape}, expected bool {shape}."
        )
    return array
