"""Register tiles of the batched sparse products of `panels.py`: one row of W, up to 8 vectors of samples.

A tile of x is `vectors` * 16 samples wide and lies contiguously, row after row, from x0 on. The row's
entries are begin <= p < end; its indices are rows of the tile.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisparse.kernels.lanes import FLOAT, I64, LANES, Lanes

FOUR = ir.VectorType(FLOAT, 4)


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
def turn(typingctx, x, x0, step, samples, features, y, y0, lanes):
    """y[y0 + j lanes + s] = x[x0 + s step + j] for s, j < 16; 0 where s >= samples or j >= features."""
    i = types.intp
    signature = types.void(x, i, i, i, i, y, i, i)

    def codegen(context, builder, sig, args):
        code = Lanes(context, builder, sig, args)
        _, x0, step, samples, features, _, y0, lanes = args
        x, y = code.array(0, x0), code.array(5, y0)
        rows = []
        for s in range(LANES):
            there = builder.icmp_signed("<", I64(s), samples)
            wanted = code.below(builder.select(there, features, I64(0)))
            rows.append(code.load_some(code.step(x, builder.mul(step, I64(s))), wanted))
        for j, row in enumerate(code.transposed(rows)):
            code.store(row, y, builder.mul(lanes, I64(j)))
        return code.nothing()

    return signature, codegen


def axpy(vectors, unroll):
    """Intrinsic y[0:T] (+)= sum_p val[p] x[idx[p], 0:T]; `unroll` entries go to chains of their own."""

    @intrinsic
    def one_row(typingctx, x, x0, idx, val, begin, end, y, y0, add):
        i = types.intp
        signature = types.void(x, i, idx, val, i, i, y, i, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, x0, _, _, begin, end, _, y0, add = args
            x, idx, val, y = code.array(0, x0), code.array(2), code.array(3), code.array(6, y0)

            def entry(p, acc):
                w = code.splat(code.scalar(val, p))
                row = code.step(x, builder.mul(code.integer(idx, p), I64(vectors * LANES)))
                return [code.fma(w, code.load(row, v * LANES), acc[v]) for v in range(vectors)]

            def several(p, acc):
                new = []
                for u in range(unroll):
                    new += entry(builder.add(p, I64(u)), acc[u * vectors : (u + 1) * vectors])
                return new

            valid = builder.select(builder.icmp_signed("!=", add, I64(0)), I64(LANES), I64(0))
            kept = code.below(valid)  # a fresh tile starts from 0 whatever y holds
            start = [builder.select(kept, code.load(y, v * LANES), code.zero) for v in range(vectors)]
            last = begin
            if unroll > 1:
                count = builder.and_(builder.sub(end, begin), I64(-unroll))
                last = builder.add(begin, count)
                chains = start + [code.zero] * (vectors * (unroll - 1))
                chains = code.loop(begin, last, unroll, chains, several)
                start = [code.total(chains[v::vectors]) for v in range(vectors)]
            acc = code.loop(last, end, 1, start, entry)
            for v, a in enumerate(acc):
                code.store(a, y, v * LANES)
            return code.nothing()

        return signature, codegen

    return one_row


def spread(vectors):
    """Intrinsic dx[idx[p], 0:T] += val[p] dy[0:T]."""

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
                row = code.step(dx, builder.mul(code.integer(idx, p), I64(vectors * LANES)))
                for v, d in enumerate(tile):
                    code.store(code.fma(w, d, code.load(row, v * LANES)), row, v * LANES)
                return []

            code.loop(begin, end, 1, [], entry)
            return code.nothing()

        return signature, codegen

    return one_row


def dots(vectors):
    """Intrinsic dval[p] (+)= <dy[0:T], x[idx[p], 0:T]>; add = 0 writes, else adds to what dval holds."""

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
                row = code.step(x, builder.mul(code.integer(idx, p), I64(vectors * LANES)))
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


axpy8, axpy4, axpy2, axpy1 = axpy(8, 1), axpy(4, 2), axpy(2, 4), axpy(1, 4)
spread8, spread4, spread2, spread1 = spread(8), spread(4), spread(2), spread(1)
dots8, dots4, dots2, dots1 = dots(8), dots(4), dots(2), dots(1)
