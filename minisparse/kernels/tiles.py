"""Register tiles of the batched sparse products: a row of W, up to 8 vectors of samples.

A tile of x is `vectors` * 16 samples wide and lies contiguously, row after row, from x0 on. The row's
entries are begin <= p < end; its indices are rows of the tile. In a convolution rows overlap: they begin
`apart` floats after each other.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisparse.kernels.lanes import FLOAT, I64, LANES, Lanes

FOUR = ir.VectorType(FLOAT, 4)


@intrinsic
def copy_whole(typingctx, x, x0, y, y0, lanes):
    """y[y0 : y0 + lanes] = x[x0 : x0 + lanes]; 16 divides lanes."""
    i = types.intp

    def codegen(context, builder, sig, args):
        code = Lanes(context, builder, sig, args)
        x, y = code.array(0, args[1]), code.array(2, args[3])

        def vector(k, _):
            code.store(code.load(x, k), y, k)
            return []

        code.loop(I64(0), args[4], LANES, [], vector)
        return code.nothing()

    return types.void(x, i, y, i, i), codegen


@intrinsic
def copy(typingctx, x, x0, count, y, y0, lanes):
    """y[y0 : y0 + lanes] = x[x0 : x0 + count], then zeros; 16 divides lanes."""
    i = types.intp
    signature = types.void(x, i, i, y, i, i)

    def codegen(context, builder, sig, args):
        code = Lanes(context, builder, sig, args)
        _, x0, count, _, y0, lanes = args
        x, y = code.array(0, x0), code.array(3, y0)

        def some(k, _):
            wanted = code.below(builder.sub(count, k))
            code.store(code.load_some(code.step(x, k), wanted), y, k)
            return []

        code.loop(I64(0), lanes, LANES, [], some)
        return code.nothing()

    return signature, codegen


@intrinsic
def ask(typingctx, x, k):
    """Have the cache line of x[k] fetched; a place beyond the end does no harm."""

    def codegen(context, builder, sig, args):
        code = Lanes(context, builder, sig, args)
        code.prefetch(code.array(0, args[1]), 0)
        return code.nothing()

    return types.void(x, types.intp), codegen


def _turn(strict):
    """Intrinsic that transposes a block of 16 x 16; strict: nothing is written beyond rows and columns."""

    @intrinsic
    def block(typingctx, x, x0, step, rows, columns, y, y0, ld):
        i = types.intp
        signature = types.void(x, i, i, i, i, y, i, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, x0, step, rows, columns, _, y0, ld = args
            x, y = code.array(0, x0), code.array(5, y0)
            block = []
            for s in range(LANES):
                there = builder.icmp_signed("<", I64(s), rows)
                wanted = code.below(builder.select(there, columns, I64(0)))
                block.append(code.load_some(code.step(x, builder.mul(step, I64(s))), wanted))
            for j, row in enumerate(code.transposed(block)):
                to = code.step(y, builder.mul(ld, I64(j)))
                if strict:
                    there = builder.icmp_signed("<", I64(j), columns)
                    code.store_some(row, to, code.below(builder.select(there, rows, I64(0))))
                else:
                    code.store(row, to)
            return code.nothing()

        return signature, codegen

    return block


# y[y0 + j ld + s] = x[x0 + s step + j] for s < rows, j < columns, at most 16 of each. `turn` writes zeros
# where s or j is larger, up to 16; `turn_only` leaves those places alone.
turn, turn_only = _turn(False), _turn(True)


def _swept(code, x, idx, val, begin, end, start, chains, apart):
    """`start`, a tile, plus sum_p val[p] x[idx[p]]; entries take turns at `chains` (1, 2 or 4) sums.

    Four entries are taken together: their indices come in as few words as hold them.
    """
    builder, vectors = code.builder, len(start)

    def entry(column, p, acc):
        w = code.splat(code.scalar(val, p))
        row = code.fixed(code.step(x, builder.mul(column, I64(apart))))
        return [code.fma(w, code.load(row, v * LANES), acc[v]) for v in range(vectors)]

    def four(p, acc):
        sums = [acc[k * vectors : (k + 1) * vectors] for k in range(chains)]
        for u, column in enumerate(code.integers(idx, p, 4)):
            sums[u % chains] = entry(column, builder.add(p, I64(u)), sums[u % chains])
        return [a for chain in sums for a in chain]

    def single(p, acc):
        return entry(code.integer(idx, p), p, acc)

    last = builder.add(begin, builder.and_(builder.sub(end, begin), I64(-4)))
    acc = code.loop(begin, last, 4, start + [code.zero] * (vectors * (chains - 1)), four)
    return code.loop(last, end, 1, [code.total(acc[v::vectors]) for v in range(vectors)], single)


def _kept(code, y, vectors, add):
    """The tile at y if add is not 0; otherwise zeros, whatever y holds."""
    b = code.builder
    valid = b.select(b.icmp_signed("!=", add, I64(0)), I64(LANES), I64(0))
    kept = code.below(valid)
    return [b.select(kept, code.load(y, v * LANES), code.zero) for v in range(vectors)]


def axpy(vectors, chains, apart):
    """Intrinsic y[0:T] (+)= sum_p val[p] x[idx[p], 0:T] over begin <= p < end."""

    @intrinsic
    def one_row(typingctx, x, x0, idx, val, begin, end, y, y0, add):
        i = types.intp
        signature = types.void(x, i, idx, val, i, i, y, i, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, x0, _, _, begin, end, _, y0, add = args
            x, idx, val, y = code.array(0, x0), code.array(2), code.array(3), code.array(6, y0)
            start = _kept(code, y, vectors, add)
            for v, a in enumerate(_swept(code, x, idx, val, begin, end, start, chains, apart)):
                code.store(a, y, v * LANES)
            return code.nothing()

        return signature, codegen

    return one_row


AHEAD = 2  # rows that a tile of y is asked for before it is needed


def axpy_rows(vectors):
    """Intrinsic y[i ld : i ld + T] (+)= sum_p val[p] x[idx[p], 0:T], p in row i, for the rows of a list.

    These are i = visit[k], first <= k < last, with the entries begin[i] <= p < end[i]; begin, end and
    visit are counted from element `base` on.
    """

    @intrinsic
    def rows(typingctx, x, x0, idx, val, begin, end, visit, base, first, last, y, y0, ld, add):
        i = types.intp
        signature = types.void(x, i, idx, val, begin, end, visit, i, i, i, y, i, i, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, x0, _, _, _, _, _, base, first, last, _, y0, ld, add = args
            x, idx, val, y = code.array(0, x0), code.array(2), code.array(3), code.array(10, y0)
            begin, end, visit = (code.array(k, base) for k in (4, 5, 6))
            final = builder.sub(last, I64(1))

            def row(k, _):
                later = builder.add(k, I64(AHEAD))
                later = builder.select(builder.icmp_signed("<", later, final), later, final)
                later = code.integer(visit, later)
                needed = code.step(y, builder.mul(later, ld))
                for v in range(vectors):
                    code.prefetch(needed, v * LANES)
                entries = code.integer(begin, later)
                code.prefetch(code.step(val, entries), 0)
                code.prefetch(code.step(idx, entries), 0)
                i = code.integer(visit, k)
                tile = code.fixed(code.step(y, builder.mul(i, ld)))
                start = _kept(code, tile, vectors, add)
                bounds = code.integer(begin, i), code.integer(end, i)
                for v, a in enumerate(_swept(code, x, idx, val, *bounds, start, 1, vectors * LANES)):
                    code.store(a, tile, v * LANES)
                return []

            code.loop(first, last, 1, [], row)
            return code.nothing()

        return signature, codegen

    return rows


def spread(vectors, apart=None):
    """Intrinsic dx[idx[p], 0:T] += val[p] dy[0:T]."""
    apart = apart or vectors * LANES

    @intrinsic
    def one_row(typingctx, dy, dy0, idx, val, begin, end, dx, dx0):
        i = types.intp
        signature = types.void(dy, i, idx, val, i, i, dx, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, dy0, _, _, begin, end, _, dx0 = args
            dy, idx, val, dx = code.array(0, dy0), code.array(2), code.array(3), code.array(6, dx0)
            tile = [code.load(dy, v * LANES) for v in range(vectors)]

            def entry(p, _):
                w = code.splat(code.scalar(val, p))
                row = code.fixed(code.step(dx, builder.mul(code.integer(idx, p), I64(apart))))
                for v, d in enumerate(tile):
                    code.store(code.fma(w, d, code.load(row, v * LANES)), row, v * LANES)
                return []

            code.loop(begin, end, 1, [], entry)
            return code.nothing()

        return signature, codegen

    return one_row


def dots(vectors, apart=None):
    """Intrinsic dval[p] (+)= <dy[0:T], x[idx[p], 0:T]>; add = 0 writes, else adds to what dval holds."""
    apart = apart or vectors * LANES

    @intrinsic
    def one_row(typingctx, dy, dy0, idx, x, x0, begin, end, dval, add):
        i = types.intp
        signature = types.void(dy, i, idx, x, i, i, i, dval, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, dy0, _, _, x0, begin, end, _, add = args
            dy, idx, x, dval = code.array(0, dy0), code.array(2), code.array(3, x0), code.array(7)
            tile = [code.load(dy, v * LANES) for v in range(vectors)]
            adding = builder.icmp_signed("!=", add, I64(0))

            def products(p):
                row = code.fixed(code.step(x, builder.mul(code.integer(idx, p), I64(apart))))
                acc = builder.fmul(tile[0], code.load(row))
                for v in range(1, vectors):
                    acc = code.fma(tile[v], code.load(row, v * LANES), acc)
                return acc

            def put(p, sums):
                old = builder.select(adding, code.load(dval, p, FOUR), ir.Constant(FOUR, [0.0] * 4))
                code.store(builder.fadd(old, sums), dval, p)

            def four(p, _):
                sums = code.four_sums([products(builder.add(p, I64(k))) for k in range(4)])
                put(p, sums)
                return []

            def single(p, _):
                old = builder.select(adding, code.scalar(dval, p), code.none)
                builder.store(builder.fadd(old, code.sum(products(p))), code.step(dval, p))
                return []

            last = builder.add(begin, builder.and_(builder.sub(end, begin), I64(-4)))
            code.loop(begin, last, 4, [], four)
            code.loop(last, end, 1, [], single)
            return code.nothing()

        return signature, codegen

    return one_row


rows4, rows2, rows1 = axpy_rows(4), axpy_rows(2), axpy_rows(1)
spread8, spread4, spread2, spread1 = spread(8), spread(4), spread(2), spread(1)
dots8, dots4, dots2, dots1 = dots(8), dots(4), dots(2), dots(1)

# One pixel of 16 samples apart: the tiles of a convolution are some neighbouring pixels of 16 samples each.
pixels_axpy8, pixels_axpy4 = axpy(8, 1, LANES), axpy(4, 2, LANES)
pixels_axpy2, pixels_axpy1 = axpy(2, 4, LANES), axpy(1, 4, LANES)
pixels_spread8, pixels_spread4 = spread(8, LANES), spread(4, LANES)
pixels_spread2, pixels_spread1 = spread(2, LANES), spread(1, LANES)
pixels_dots8, pixels_dots4 = dots(8, LANES), dots(4, LANES)
pixels_dots2, pixels_dots1 = dots(2, LANES), dots(1, LANES)
