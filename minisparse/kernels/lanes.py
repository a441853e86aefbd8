"""What the vector kernels of the sparse formats are written with: pointers, vectors of 16 floats, one loop.

A kernel is a function of a `Lanes` object that emits LLVM code. LLVM lowers a 16-float vector on any
processor; one instruction, `lookup`, has no portable form and is used only where `WIDE` is true. Every
kernel made here has a plain loop beside it that says the same, serves all other dtypes, and runs with the
compiler off.

Numba's cache looks at the file of the function it compiles, not at this one or `tiles.py`: after a change
here delete the cached kernels (`__pycache__/*.nb*` of this folder).
"""

import numpy as np
from llvmlite import ir
from numba import get_num_threads
from numba.core.registry import cpu_target

from minisparse.kernels.jit import COMPILED, kernel
from minisparse.kernels.vector import LANES, _data, _declare, _lane_mask, _splat

FLOAT, I1, I8, I16, I32, I64 = ir.FloatType(), *(ir.IntType(n) for n in (1, 8, 16, 32, 64))
VECTOR = ir.VectorType(FLOAT, LANES)
MASK = ir.VectorType(I1, LANES)
INDEX = ir.VectorType(I32, LANES)
SMALL = 1 << 17  # entries below which waking a second thread costs more than it brings
FLOAT32 = np.dtype(np.float32)
LINE = 64  # bytes of a cache line; a 16-float vector that straddles two costs two loads


_, PROCESSOR, _features = cpu_target.target_context.codegen().magic_tuple()  # the one code is compiled for
# Whether it looks 16 floats up in two registers at once (AVX-512), and whether it gains when a stream of
# values is asked for ahead of its use: this one fetches them itself, and each request costs it half a load.
WIDE = COMPILED and "+avx512f" in _features.split(",")
ASKED = PROCESSOR != "znver4"


class Lanes:
    """Emits code into one Numba intrinsic. Offsets and counts are 64-bit integers in elements."""

    def __init__(self, context, builder, signature, arguments):
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        self.zero = ir.Constant(VECTOR, [0.0] * LANES)
        self.none = FLOAT(0.0)

    def array(self, k, offset=None):
        """Pointer to element `offset` of the array that is argument k."""
        start = _data(self.context, self.builder, self.signature, self.arguments, k)
        return start if offset is None else self.builder.gep(start, [offset])

    def call(self, name, result, arguments):
        """Call an LLVM intrinsic of this name."""
        declared = _declare(self.builder, name, result, [a.type for a in arguments])
        return self.builder.call(declared, arguments)

    def step(self, pointer, offset):
        """pointer + offset elements; offset an integer or a value."""
        return self.builder.gep(pointer, [I64(offset) if isinstance(offset, int) else offset])

    def integer(self, pointer, offset=0):
        """Unsigned integer of any width, as 64 bits."""
        value = self.builder.load(self.step(pointer, offset))
        return value if value.type.width == 64 else self.builder.zext(value, I64)

    def integers(self, pointer, offset, count):
        """`count` unsigned integers from `offset` on, as 64 bits each; narrow ones come several in a word."""
        bits = pointer.type.pointee.width
        per_word = min(64 // bits, count)
        word_type = ir.IntType(bits * per_word)
        found = []
        for first in range(0, count, per_word):
            at = self.step(self.step(pointer, offset), first)
            word = self.builder.load(self.builder.bitcast(at, word_type.as_pointer()))
            word.align = bits // 8
            word = word if word_type.width == 64 else self.builder.zext(word, I64)
            for k in range(per_word):
                one = self.builder.lshr(word, I64(bits * k)) if k else word
                found.append(one if bits == 64 else self.builder.and_(one, I64((1 << bits) - 1)))
        return found

    def fixed(self, pointer):
        """The same pointer in a register of its own.

        The compiler would add base and index anew in every instruction that uses the address, which on
        some processors splits a multiply-add that loads its operand in two.
        """
        kind = ir.FunctionType(I64, [I64])
        address = self.builder.asm(kind, "", "=r,0", [self.builder.ptrtoint(pointer, I64)], False)
        return self.builder.inttoptr(address, pointer.type)

    def settled(self, mask):
        """The same mask, as the compiler must take it: it would turn a comparison round to save a negation,
        and then not see that a multiply-add can keep the other lanes by itself.
        """
        kind = ir.FunctionType(I16, [I16])
        bits = self.builder.bitcast(mask, I16)
        return self.builder.bitcast(self.builder.asm(kind, "", "=k,0", [bits], False), MASK)

    def scalar(self, pointer, offset=0):
        """One element, as it is."""
        return self.builder.load(self.step(pointer, offset))

    def load(self, pointer, offset=0, vector=VECTOR):
        """A vector from any address."""
        where = self.builder.bitcast(self.step(pointer, offset), vector.as_pointer())
        value = self.builder.load(where)
        value.align = 4 if vector.element == FLOAT else vector.element.width // 8
        return value

    def load_repeated(self, pointer, offset, count):
        """`count` floats from any address, over and over in the 16 lanes."""
        some = self.load(pointer, offset, ir.VectorType(FLOAT, count))
        pick = ir.Constant(INDEX, [lane % count for lane in range(LANES)])
        return some if count == LANES else self.builder.shuffle_vector(some, some, pick)

    def load_some(self, pointer, mask):
        """The floats at pointer in the lanes of mask, 0 elsewhere; what is not wanted is not touched."""
        where = self.builder.bitcast(pointer, VECTOR.as_pointer())
        name = f"llvm.masked.load.v{LANES}f32.p0"
        return self.call(name, VECTOR, [where, I32(4), mask, self.zero])

    def store(self, vector, pointer, offset=0):
        """A vector to any address of floats."""
        where = self.builder.bitcast(self.step(pointer, offset), vector.type.as_pointer())
        self.builder.store(vector, where).align = 4

    def store_some(self, vector, pointer, mask):
        """A vector to any address, in the lanes of mask only."""
        where = self.builder.bitcast(pointer, VECTOR.as_pointer())
        self.call(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), [vector, where, I32(4), mask])

    def splat(self, scalar):
        """A float in all lanes."""
        return _splat(self.builder, scalar, VECTOR)

    def fma(self, a, b, c):
        """a b + c, rounded once."""
        return self.call(f"llvm.fma.v{a.type.count}f32", a.type, [a, b, c])

    def fma_where(self, mask, a, b, c):
        """a b + c in the lanes of mask; c elsewhere, whatever a and b hold there."""
        return self.builder.select(mask, self.fma(a, b, c), c)

    def sum(self, vector):
        """Sum of the lanes, pairwise."""
        declared = _declare(self.builder, f"llvm.vector.reduce.fadd.v{LANES}f32", FLOAT, [FLOAT, VECTOR])
        return self.builder.call(declared, [FLOAT(0.0), vector], fastmath=["reassoc"])

    def below(self, count):
        """Mask of the lanes k < count."""
        return _lane_mask(self.builder, count, 0)

    def transposed(self, rows):
        """Transpose of 16 vectors: in round k, lanes that differ from their row in bit k change places."""
        rows = list(rows)
        for k in (1, 2, 4, 8):
            low = [lane if lane & k == 0 else LANES + lane - k for lane in range(LANES)]
            high = [lane + k if lane & k == 0 else LANES + lane for lane in range(LANES)]
            for i in range(LANES):
                if i & k == 0:
                    pair = rows[i], rows[i + k]
                    rows[i] = self.builder.shuffle_vector(*pair, ir.Constant(INDEX, low))
                    rows[i + k] = self.builder.shuffle_vector(*pair, ir.Constant(INDEX, high))
        return rows

    def four_sums(self, vectors):
        """The sums of the lanes of four vectors as a vector of four, with fewer shuffles than one by one."""
        b = self.builder

        def merge(one, other, low, high):
            pick = [ir.Constant(INDEX, p) for p in (low, high)]
            return b.fadd(*(b.shuffle_vector(one, other, p) for p in pick))

        # within each 128 bits: (a0, b0, a1, b1) + (a2, b2, a3, b3), then (a, b, ...) with (c, d, ...)
        quads = range(0, LANES, 4)
        low = [q + k for q in quads for k in (0, LANES, 1, LANES + 1)]
        high = [q + k for q in quads for k in (2, LANES + 2, 3, LANES + 3)]
        pairs = [merge(vectors[k], vectors[k + 1], low, high) for k in (0, 2)]
        low = [q + k for q in quads for k in (0, 1, LANES, LANES + 1)]
        high = [q + k for q in quads for k in (2, 3, LANES + 2, LANES + 3)]
        whole = merge(*pairs, low, high)
        while whole.type.count > 4:
            half = whole.type.count // 2
            picks = [ir.Constant(ir.VectorType(I32, half), list(range(k, k + half))) for k in (0, half)]
            whole = b.fadd(*(b.shuffle_vector(whole, whole, p) for p in picks))
        return whole

    def total(self, vectors):
        """Sum of vectors, lane by lane, in their order."""
        first, *rest = vectors
        for v in rest:
            first = self.builder.fadd(first, v)
        return first

    def ask_for_stream(self, pointer, offset):
        """`prefetch` in a loop that reads everything from there on, where that is of use."""
        if ASKED:
            self.prefetch(pointer, offset)

    def prefetch(self, pointer, offset):
        """Ask for the line `offset` elements ahead; beyond the end of an array it does nothing."""
        ahead = self.builder.bitcast(self.step(pointer, offset), I8.as_pointer())
        self.call("llvm.prefetch.p0", ir.VoidType(), [ahead, I32(0), I32(3), I32(1)])

    def lookup(self, low, index, high):
        """Lane k becomes element index[k] mod 32 of the 32 floats (low, high). Only where WIDE."""
        return self.call("llvm.x86.avx512.vpermi2var.ps.512", VECTOR, [low, index, high])

    def lookup_in(self, numbers, index, group):
        """Lane k becomes element index[k] mod group of numbers, repeated from `group` on. Only where WIDE."""
        name = {4: "vpermilvar.ps.512", LANES: "permvar.sf.512"}[group]
        return self.call(f"llvm.x86.avx512.{name}", VECTOR, [numbers, index])

    def loop(self, begin, end, step, start, body):
        """for k in range(begin, end, step): state = body(k, state); the state after the last one."""
        b = self.builder
        entry = b.block
        head, inside, done = (b.append_basic_block(name) for name in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64)
        k.add_incoming(begin, entry)
        state = [b.phi(value.type) for value in start]
        for phi, value in zip(state, start, strict=True):
            phi.add_incoming(value, entry)
        b.cbranch(b.icmp_signed("<", k, end), inside, done)
        b.position_at_end(inside)
        new = body(k, list(state))
        k.add_incoming(b.add(k, I64(step)), b.block)
        for phi, value in zip(state, new, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(done)
        return state

    def nothing(self):
        """What an intrinsic without a result returns."""
        return self.context.get_dummy_value()


def aligned(size):
    """float32 array of this length that starts on a cache line; its content is arbitrary."""
    buffer = np.empty(size + LINE // 4, dtype=np.float32)
    skip = -buffer.__array_interface__["data"][0] % LINE // 4
    return buffer[skip : skip + size]


@kernel
def scratch(size):
    """The same inside a kernel: a float32 array and where in it `size` floats start on a cache line."""
    buffer = np.empty(size + LINE // 4, np.float32)
    return buffer, (-buffer.ctypes.data % LINE) // 4


@kernel
def padded(x, size):
    """Copy of a float32 vector on a cache line, with zeros up to `size`."""
    buffer, at = scratch(size)
    for i in range(x.size):  # several times as fast as an assignment to a slice
        buffer[at + i] = x[i]
    for i in range(x.size, size):
        buffer[at + i] = 0
    return buffer[at : at + size]


@kernel
def at_least(x, size):
    """x itself if it has `size` floats or more, else a copy with zeros up to there."""
    if x.size >= size:
        return x
    return padded(x, size)


@kernel
def evenly(starts, parts):
    """(parts + 1) rows that cut a matrix into parts with about as many entries each.

    starts (rows + 1): the entries before each row.
    """
    rows = starts.size - 1
    bounds = np.searchsorted(starts[:rows], starts[rows] * np.arange(parts + 1) // parts)
    bounds[parts] = rows  # empty rows at the end included
    return bounds


def fast(*arrays):
    """Whether the vector kernels serve these arrays: all float32, and the compiler on."""
    for a in arrays:  # a product of one sample takes as long as twenty lines of Python: no generator
        if a.dtype != FLOAT32:
            return False
    return COMPILED


def parts(entries):
    """Into how many parts a kernel that reads so many entries is cut: one per thread, if that pays."""
    return get_num_threads() if COMPILED and entries >= SMALL else 1
