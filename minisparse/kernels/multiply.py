"""Y = W X for a batch: column panels of W meet tiles of X that stay in the first-level cache.

    y[i] = sum_p val[p] x[idx[p]]             p in row i                                      (1)

X (in, r), Y (out, r). A tile is 64 samples, 4 vectors wide; a panel is `width` consecutive columns of W.
Their common part of X is copied to a buffer, contiguous and on cache lines, small enough for the
first-level cache, and all rows of a block of W work on it: a tile of y[i] is held in registers while the
entries of row i in the panel pass by. Three loops surround that, from the outside in:

    blocks of rows      their part of Y stays in the second-level cache
    panels              of W: read from memory once, for all tiles of a chunk
    tiles               of a chunk of samples

Where panels are so wide that their part of X leaves that cache (`Order.wide`), a block is all rows, or a
thread's share of them: that part, then in the third-level cache, must serve as many as there are. Elsewhere X
is copied to tiles once for all blocks.

Within a panel the rows of a block are visited in descending order of their number of entries there
(`Order.visit`): the loop over entries then ends where it ended before, which a processor foresees. A row's
entries and its tile of Y are asked for two rows ahead, since the order is not that of memory. In wide panels
it is: to wait for memory costs more there than to be surprised.

Parallel over blocks, or over tiles where these are too few. Each output is summed in the order of its
columns, whatever the tile: neither threads nor the samples beside it change a bit of it. The idea is that
of blocked sparse products, T. Gale et al., Sparse GPU Kernels for Deep Learning, SC 2020,
arXiv:2006.10901, with the loops of K. Goto, R. van de Geijn, Anatomy of High-Performance Matrix
Multiplication, ACM TOMS 34(3), 2008.
"""

from numba import prange

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, aligned, fast, parts, scratch
from minisparse.kernels.order import multiply_plain
from minisparse.kernels.packing import lanes_of, pack, strided
from minisparse.kernels.tiles import copy_whole, rows1, rows2, rows4

WIDE = 4 * LANES  # samples of a tile: four sums, and the two loads of an entry serve four multiply-adds
CHUNK = 4  # tiles that a panel meets before the next one comes


@kernel
def _multiply_part(w, x, y, tile, first_tile, last_tile, first_block, last_block, own, packed):
    """Some tiles of some blocks; w, x, y as `multiply` makes them.

    packed: X as `_pack_tiles` leaves it, or empty: then each panel's part is copied when it is needed.
    own: sum in a buffer instead of in y. Threads that write to neighbouring parts of the same rows would
    otherwise take the cache lines from each other that their processors fetch ahead.
    """
    begin, end, idx, val, visit, width, local, block = w
    flat, step_j, step_s, columns, r = x
    out, ld, rows = y
    buffer, at = scratch((width + LANES) * tile)
    sums, sums_at = scratch(block * CHUNK * tile if own else 0)
    for chunk in range(first_tile, last_tile, CHUNK):
        after = min(chunk + CHUNK, last_tile)
        for row in range(first_block * block, min(last_block * block, rows), block):
            last = min(row + block, rows)
            for lo in range(0, columns, width):
                hi, base = min(lo + width, columns), lo // width * rows
                for number in range(chunk, after):
                    lanes, first = lanes_of(number, r, tile), number * tile
                    if packed.size:
                        panel, start = packed, number * (columns + LANES) * tile + lo * lanes
                    else:
                        panel, start = buffer, at
                        pack(flat, step_j, step_s, first, min(lanes, r - first), lanes, lo, hi, buffer, at)
                    entries = (panel, start if local else start - lo * lanes, idx, val, begin, end)
                    visits = (visit, base, row, last)
                    if own:
                        to, step = sums_at + (number - chunk) * block * tile, tile
                        target = (sums, to - row * step, step, lo)
                    else:
                        target = (out, first, ld, lo)
                    if lanes == 4 * LANES:
                        rows4(*entries, *visits, *target)
                    elif lanes == 2 * LANES:
                        rows2(*entries, *visits, *target)
                    else:
                        rows1(*entries, *visits, *target)
            for number in range(chunk, after if own else chunk):
                lanes, source = lanes_of(number, r, tile), sums_at + (number - chunk) * block * tile
                for i in range(row, last):
                    copy_whole(sums, source + (i - row) * tile, out, i * ld + number * tile, lanes)


@kernel
def _pack_tiles(x, tile, first, last, packed):
    """Copy features first <= j < last of all tiles of X, one tile after the other, each contiguous."""
    flat, step_j, step_s, columns, r = x
    for number in range(-(-r // tile)):
        lanes, sample = lanes_of(number, r, tile), number * tile
        at = number * (columns + LANES) * tile + first * lanes
        pack(flat, step_j, step_s, sample, min(lanes, r - sample), lanes, first, last, packed, at)


@kernel(parallel=True)
def _multiply(w, x, y, tile, tiles, blocks, groups, bands, packed):
    if packed.size:
        columns, shares = x[3], groups * bands
        piece = -(-columns // (shares * LANES)) * LANES  # zeros are written up to a multiple of 16
        for share in prange(shares):
            first, last = share * piece, min((share + 1) * piece, columns)
            if first < last:
                _pack_tiles(x, tile, first, last, packed)
    for task in prange(groups * bands):
        g, band = task // bands, task % bands
        first, last = tiles * g // groups, tiles * (g + 1) // groups
        some, more = blocks * band // bands, blocks * (band + 1) // bands
        _multiply_part(w, x, y, tile, first, last, some, more, groups > 1, packed)


def multiply(order, values, x, y):
    """Fill y (out, >= r) from `packing.room` with W x, x (in, r): equation (1)."""
    columns, samples = x.shape
    if not fast(values, x, y):
        multiply_plain(*order[:5], values, x, y)
        return
    if columns == 0 or samples == 0:
        y[...] = 0
        return
    shares = parts(values.size * samples // 4)
    tile = min(WIDE, order.tile)
    blocks = -(-len(y) // order.block)
    block = order.block * -(-blocks // shares) if order.wide else order.block
    blocks = -(-len(y) // block)
    bands = min(blocks, shares)
    while tile > LANES and -(-samples // tile) * bands < shares:
        tile //= 2
    tiles = -(-samples // tile)
    begin, end, visit = (a.reshape(-1) for a in (order.begin, order.end, order.visit))
    w = (begin, end, order.where, values, visit, order.width, order.local, block)
    source, out = (*strided(x), columns, samples), (y.reshape(-1), y.shape[1], len(y))
    packed = aligned(0 if order.wide or blocks == 1 else tiles * (columns + LANES) * tile)
    if shares > 1:
        _multiply(w, source, out, tile, tiles, blocks, min(tiles, -(-shares // bands)), bands, packed)
        return
    if packed.size:
        _pack_tiles(source, tile, 0, columns, packed)
    _multiply_part(w, source, out, tile, 0, tiles, 0, blocks, False, packed)
