"""Greedy deletion with compensation among all weights of a network, at the price of matrix products.

One deletion changes every score, and bringing all of them up to date reads the whole inverse. Here

    Q = the POOL x per_solve weights of lowest score                                        (1)
    delete per_solve of Q one at a time, with scores, values and inverse of Q up to date    (2)
    then adjust all other values, scores and the inverse for the set that left, at once     (3)

(3) is exact: after any order of deletions values and inverse are those of the set formula. Only a weight
outside Q that would have become the lowest between two updates is missed; with per_solve = 1 none is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minisparse.methods.reconstruct.block_inverse import BlockInverse
from minisparse.nn.param import Array
from minisparse.sparsity.select import top_k

POOL = 4


def saliency(w: Array, diagonal: Array) -> Array:
    """w^2 / (2 P_qq), the smallest rise of a quadratic loss; w and the diagonal of P: any one shape."""
    return w * w / (2 * diagonal)


def deletions(w: Array, p: Array, group: Array, room: Array, count: int) -> Array:
    """Indices of `count` weights in the order they leave, one at a time, each the lowest at its turn.

    w (n,), p (n, n) inverse; at most room[g] leave of those whose group (n,) is g, and fewer than `count`
    if that is all. Of equal scores the higher index leaves, so that the lower one is kept.
    """
    w, p, room = w.copy(), p.copy(), room.copy()
    alive = np.ones(len(w), dtype=bool)
    order: list[int] = []
    while len(order) < count:
        free = np.flatnonzero(alive & (room[group] > 0))
        if not free.size:
            break
        scores = saliency(w[free], p[free, free])
        q = free[len(free) - 1 - np.argmin(scores[::-1])]
        column = p[:, q] / p[q, q]
        w -= w[q] * column
        p -= np.outer(column, p[q])
        alive[q] = False
        room[group[q]] -= 1
        order.append(int(q))
    return np.array(order, dtype=np.int64)


def prune(
    w: Array, inverses: list[BlockInverse], group: Array, room: Array, count: int, per_solve: int
) -> tuple[Array, Array]:
    """(mask, values) (n,) after `count` deletions by equations (1)-(3); the inverses are used up.

    The blocks of `inverses` follow each other in w (n,); group and room as in `deletions`.
    """
    w, alive, room = w.copy(), np.ones(len(w), dtype=bool), room.copy()
    starts = np.cumsum([0] + [len(block.diagonal) for block in inverses])
    while count:
        batch = min(per_solve, count)
        diagonal = np.concatenate([block.diagonal for block in inverses])
        free = alive & (room[group] > 0)
        pool = _lowest(saliency(w, np.where(free, diagonal, 1.0)), POOL * batch, free)
        order = deletions(w[pool], _submatrix(inverses, starts, pool), group[pool], room, batch)
        leaving = pool[order]
        for k, at in _by_block(leaving, starts):
            block = w[starts[k] : starts[k + 1]]
            block -= inverses[k].leave(at, block[at])
        np.subtract.at(room, group[leaving], 1)
        alive[leaving] = False
        w[~alive] = 0
        count -= len(leaving)
    return alive, w


def _lowest(scores: Array, count: int, among: Array) -> Array:
    """Indices of the `count` lowest scores (all, if fewer), of equal ones the higher indices."""
    rest = top_k(scores, max(0, int(np.count_nonzero(among)) - count), among=among)
    return np.flatnonzero(among & ~rest)


def _by_block(at: Array, starts: Array) -> Iterator[tuple[int, Array]]:
    """(block, indices within it) for every block that holds some of the indices `at`."""
    owner = np.searchsorted(starts, at, side="right") - 1
    for k in np.unique(owner):
        yield int(k), at[owner == k] - starts[k]


def _submatrix(inverses: list[BlockInverse], starts: Array, at: Array) -> Array:
    """P[at, at] over all blocks, 0 between them; at is ascending."""
    p = np.zeros((len(at), len(at)))
    first = 0
    for k, inside in _by_block(at, starts):
        here = slice(first, first + len(inside))
        p[here, here] = inverses[k].submatrix(inside)
        first += len(inside)
    return p
