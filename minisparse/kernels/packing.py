"""Activations as the batched sparse products read and write them: tiles of samples, on cache lines.

A tile is 16, 32, 64 or 128 neighbouring samples, a multiple of one vector; the samples of a batch that do not
fill their tile count as 0. Its part of X is contiguous, feature after feature.
"""

import numpy as np

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, aligned, fast, scratch
from minisparse.kernels.tiles import copy, copy_whole, turn

TILE = 8 * LANES  # samples of the widest tile


@kernel
def pack(x, step_j, step_s, first, count, lanes, lo, hi, buffer, at):
    """buffer[at + (j - lo) lanes + s] = x[j, first + s] for lo <= j < hi; 0 from s = count on.

    x is flat; its entry (j, s) is at j step_j + s step_s, and one of the steps is 1. Up to 15 rows of
    zeros are written after the last.
    """
    if step_s == 1:
        for j in range(lo, hi):
            if count == lanes:
                copy_whole(x, j * step_j + first, buffer, at + (j - lo) * lanes, lanes)
            else:
                copy(x, j * step_j + first, count, buffer, at + (j - lo) * lanes, lanes)
    else:
        for s in range(0, lanes, LANES):  # 16 rows from end to end: a processor foresees no more of them
            for j in range(lo, hi, LANES):
                source, to = (first + s) * step_s + j, at + (j - lo) * lanes + s
                turn(x, source, step_s, count - s, hi - j, buffer, to, lanes)


@kernel
def packed_tile(x, first, lanes):
    """Samples first .. first + lanes of x = (flat, step_j, step_s, columns, samples), on a cache line."""
    flat, step_j, step_s, columns, r = x
    buffer, at = scratch((columns + LANES) * lanes)
    pack(flat, step_j, step_s, first, min(lanes, r - first), lanes, 0, columns, buffer, at)
    return buffer, at


@kernel
def lanes_of(number, r, tile):
    """Samples that tile `number` of r samples is wide: `tile`, or for the last perhaps 16, 32 or 64."""
    rest = r - number * tile
    lanes = LANES
    while lanes < rest and lanes < tile:
        lanes *= 2
    return lanes


def strided(x):
    """(flat, step_j, step_s) of x (features, samples); no copy if either axis lies contiguously."""
    x = np.require(x, requirements=["ALIGNED", "WRITEABLE"])
    if x.T.flags.c_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    x = np.ascontiguousarray(x)
    return x.reshape(-1), x.shape[1], 1


def room(features, samples, dtype):
    """Array (features, >= samples) for a product to be written to; the first `samples` columns count."""
    if not fast(np.empty(0, dtype)):
        return np.empty((features, samples), dtype=dtype)
    rest = samples % TILE
    width = samples - rest + (lanes_of(0, rest, TILE) if rest else 0)
    return aligned(features * width).reshape(features, width)
