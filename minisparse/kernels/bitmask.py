"""One sample times a matrix stored as values and one bit per place.

    y[i] = sum over j with bit (i, j) set of w_ij x_j                                       (1)

A block is 16 columns of a row, its mask a 16-bit word; `expandload` brings the present weights of a block
to their lanes. Four rows are interleaved: all values lie in one stream in the order (four rows, block, row,
bit), a block of x is loaded once for four rows, and the four places in the stream come from one 64-bit
word of masks by counting bits, so that no addition waits for the one before.

Absent lanes take no part in the multiply-add: what is absent adds nothing even to an infinite x.
"""

import numpy as np
from numba import prange, types
from numba.extending import intrinsic

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import I64, LANES, MASK, VECTOR, Lanes, at_least, fast, parts

ROWS = 4
AHEAD = 512  # floats: how far ahead of their use the values are asked for


@intrinsic
def _four_rows(typingctx, masks, m0, blocks, val, v0, x, y, y0):
    """y[y0 : y0 + 4] of four interleaved rows of so many blocks; masks uint16, val, x, y float32."""
    i = types.intp
    signature = types.void(masks, i, i, val, i, x, y, i)

    def codegen(context, builder, sig, args):
        code = Lanes(context, builder, sig, args)
        _, m0, blocks, _, v0, _, _, y0 = args
        masks, val, x, y = code.array(0, m0), code.array(3), code.array(5), code.array(6, y0)

        def block(k, state):
            at, *acc = state
            here = code.step(masks, builder.mul(k, I64(ROWS)))
            word = builder.load(builder.bitcast(here, I64.as_pointer()))
            word.align = 2
            inputs = code.load(x, builder.mul(k, I64(LANES)))
            for r in range(ROWS):
                before = builder.and_(word, I64((1 << LANES * r) - 1))
                place = builder.add(at, code.call("llvm.ctpop.i64", I64, [before])) if r else at
                mask = builder.bitcast(code.scalar(here, r), MASK)
                values = code.step(val, place)
                code.ask_for_stream(values, AHEAD)
                # Lanes that stay empty are filled with x and not with 0: the instruction otherwise waits
                # for whatever its result register held before.
                name = f"llvm.masked.expandload.v{LANES}f32"
                weights = code.call(name, VECTOR, [values, mask, inputs])
                acc[r] = code.fma_where(mask, weights, inputs, acc[r])
            return [builder.add(at, code.call("llvm.ctpop.i64", I64, [word])), *acc]

        _, *acc = code.loop(I64(0), blocks, 1, [v0] + [code.zero] * ROWS, block)
        for r, a in enumerate(acc):
            builder.store(code.sum(a), code.step(y, r))
        return code.nothing()

    return signature, codegen


@kernel
def _matvec_part(masks, first, val, x, y, begin, end):
    blocks = masks.shape[1]
    words, inputs = masks.reshape(-1), at_least(x, blocks * LANES)
    for g in range(begin, end):
        _four_rows(words, g * blocks * ROWS, blocks, val, first[g], inputs, y, g * ROWS)


@kernel(parallel=True)
def _matvec(masks, first, val, x, y, shares):
    groups = masks.shape[0]
    for part in prange(shares):
        begin, end = groups * part // shares, groups * (part + 1) // shares
        _matvec_part(masks, first, val, x, y, begin, end)


@kernel
def matvec_plain(masks, first, val, x, y):
    """(1) for any dtype, one bit at a time."""
    groups, blocks, rows = masks.shape
    y[:] = 0
    for g in range(groups):
        p = first[g]
        for k in range(blocks):
            for r in range(rows):
                for bit in range(LANES):
                    if (masks[g, k, r] >> bit) & 1:
                        y[g * rows + r] += val[p] * x[k * LANES + bit]
                        p += 1


def matvec(masks, first, val, x, y):
    """Fill y (4 groups) with W x: equation (1); rows beyond the matrix have no bits set.

    masks (groups, blocks, 4) uint16, first (groups) the place of each group's first value, x (in).
    """
    if not fast(val, x, y):
        matvec_plain(masks, first, val, x, y)
        return
    shares = parts(masks.size * LANES)
    if shares > 1:
        _matvec(masks, first, val, x, y, shares)
    else:
        _matvec_part(masks, first, val, x, y, 0, len(masks))


def pack(mask):
    """masks (groups, blocks, 4) of a Boolean matrix, as `matvec` takes them."""
    out, columns = mask.shape
    groups, blocks = -(-out // ROWS), -(-columns // LANES)
    whole = np.zeros((groups * ROWS, blocks * LANES), dtype=bool)
    whole[:out, :columns] = mask
    bits = np.packbits(whole.reshape(groups, ROWS, blocks, LANES), axis=3, bitorder="little")
    words = bits.astype(np.uint16)
    return np.ascontiguousarray((words[..., 0] | words[..., 1] << 8).transpose(0, 2, 1))
