"""LLVM vectors from Numba: the register tile that every dense convolution product is made of.

A tile holds 8 rows of V vectors of 16 floats in registers and adds outer products to them:

    acc[j, :] += x[rows[j] + cols[l]] * w[l, :]      j = 0..7,  l = begin..end-1                    (1)

`rows` and `cols` are offsets into x, so one tile serves the forward product (rows = pixels, cols = taps
of the kernel), its transpose, and the weight gradient (rows = taps, cols = pixels, w = dy). LLVM lowers
a 16-float vector to whatever the processor has. The plain loop that says the same is `tile_naive`.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
ROWS = 8
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _data(context, builder, signature, args, k):
    return context.make_array(signature.args[k])(context, builder, args[k]).data


def _declare(builder, name, result, arguments):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _splat(builder, scalar, vector):
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, _I32(0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(one, undefined, zeros)


def _lane_mask(builder, valid, first):
    """True in lanes k with first + k < valid."""
    wide = ir.VectorType(_I64, LANES)
    lanes = ir.Constant(wide, [first + k for k in range(LANES)])
    return builder.icmp_signed("<", lanes, _splat(builder, valid, wide))


class _Memory:
    """Masked vector loads and stores in one builder."""

    def __init__(self, builder):
        pointer = _VECTOR.as_pointer()
        self.builder = builder
        name = f"llvm.masked.{{}}.v{LANES}f32.p0"
        self.load_ = _declare(builder, name.format("load"), _VECTOR, [pointer, _I32, _MASK, _VECTOR])
        self.store_ = _declare(builder, name.format("store"), ir.VoidType(), [_VECTOR, pointer, _I32, _MASK])
        self.zero = ir.Constant(_VECTOR, [0.0] * LANES)

    def load(self, pointer, mask):
        where = self.builder.bitcast(pointer, _VECTOR.as_pointer())
        return self.builder.call(self.load_, [where, _I32(4), mask, self.zero])

    def store(self, vector, pointer, mask):
        where = self.builder.bitcast(pointer, _VECTOR.as_pointer())
        self.builder.call(self.store_, [vector, where, _I32(4), mask])


def tile(vectors):
    """Intrinsic of equation (1) with V = vectors.

    (x, rows, r0, cols, begin, end, w, w0, ldw, y, out, valid, accumulate): the tile starts from
    y[out[r0 + j] : + valid] if accumulate is nonzero, else from 0, and is stored there; `valid` lanes of
    the 16 V exist. x, w, y float32; rows, cols, out int64.
    """

    @intrinsic
    def kernel(typingctx, x, rows, r0, cols, begin, end, w, w0, ldw, y, out, valid, accumulate):
        i = types.intp
        signature = types.void(x, rows, i, cols, i, i, w, i, i, y, out, i, i)

        def codegen(context, builder, sig, args):
            r0, begin, end, w0, ldw, valid, accumulate = (args[k] for k in (2, 4, 5, 7, 8, 11, 12))
            xp, rp, cp, wp, yp, op = (_data(context, builder, sig, args, k) for k in (0, 1, 3, 6, 9, 10))
            memory = _Memory(builder)
            masks = [_lane_mask(builder, valid, v * LANES) for v in range(vectors)]
            steps = [_I64(v * LANES) for v in range(vectors)]
            index = [builder.add(r0, _I64(j)) for j in range(ROWS)]
            base = [builder.gep(xp, [builder.load(builder.gep(rp, [k]))]) for k in index]
            target = [builder.gep(yp, [builder.load(builder.gep(op, [k]))]) for k in index]
            fma = _declare(builder, f"llvm.fma.v{LANES}f32", _VECTOR, [_VECTOR] * 3)
            wanted = builder.icmp_signed("!=", accumulate, _I64(0))
            never = ir.Constant(_MASK, [False] * LANES)
            # a masked-off load reads nothing and gives the zeros a fresh tile starts from
            start = [
                memory.load(builder.gep(t, [s]), builder.select(wanted, m, never))
                for t in target
                for s, m in zip(steps, masks, strict=True)
            ]
            entry = builder.block
            head, body, done = (builder.append_basic_block(n) for n in ("head", "body", "done"))
            builder.branch(head)
            builder.position_at_end(head)
            p = builder.phi(_I64)
            p.add_incoming(begin, entry)
            acc = [builder.phi(_VECTOR) for _ in start]
            for a, s in zip(acc, start, strict=True):
                a.add_incoming(s, entry)
            builder.cbranch(builder.icmp_signed("<", p, end), body, done)
            builder.position_at_end(body)
            offset = builder.load(builder.gep(cp, [p]))
            line = builder.gep(wp, [builder.add(w0, builder.mul(p, ldw))])
            weights = [memory.load(builder.gep(line, [s]), m) for s, m in zip(steps, masks, strict=True)]
            new = []
            for j in range(ROWS):
                scalar = _splat(builder, builder.load(builder.gep(base[j], [offset])), _VECTOR)
                for v in range(vectors):
                    new.append(builder.call(fma, [scalar, weights[v], acc[j * vectors + v]]))
            p.add_incoming(builder.add(p, _I64(1)), builder.block)
            for a, n in zip(acc, new, strict=True):
                a.add_incoming(n, builder.block)
            builder.branch(head)
            builder.position_at_end(done)
            for k, a in enumerate(acc):
                j, v = divmod(k, vectors)
                memory.store(a, builder.gep(target[j], [steps[v]]), masks[v])
            return context.get_dummy_value()

        return signature, codegen

    return kernel


tile1, tile2 = tile(1), tile(2)


def tile_naive(x, rows, r0, cols, begin, end, w, w0, ldw, y, out, valid, accumulate):
    """The same as `tile`, one number at a time."""
    for j in range(ROWS):
        total = [y[out[r0 + j] + k] if accumulate else 0 * y[0] for k in range(valid)]
        for p in range(begin, end):
            for k in range(valid):
                total[k] += x[rows[r0 + j] + cols[p]] * w[w0 + p * ldw + k]
        for k in range(valid):
            y[out[r0 + j] + k] = total[k]
