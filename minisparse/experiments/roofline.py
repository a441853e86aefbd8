"""What this machine can do at best: bytes per second by memory level, and multiply-adds per second.

S. Williams, A. Waterman, D. Patterson. Roofline: an insightful visual performance model for multicore
architectures. Communications of the ACM 52(4), 65-76, 2009. doi:10.1145/1498765.1498785

    intensity  = flops / bytes moved                                        [flop/byte]              (1)
    attainable = min(peak, intensity * bandwidth)                           [flop/s]                 (2)

with one bandwidth for each level of memory that the bytes may come from. The corner of a roof, its ridge, is
at intensity peak / bandwidth. The paper measures traffic between memory and caches; here it is computed (the
least there can be), so a point lies at the highest intensity it could have.

bandwidth: every thread adds up its own part of an array again and again, in vectors of 16 floats; the array
is half of the second-level caches, four times those (at most half of the third-level cache, of which others
may have their part), and four times the third-level cache. peak: BLAS's product of two square matrices, and a
loop of independent fused multiply-adds on registers alone (2 flops each).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import intrinsic

from minisparse.experiments.bench_timing import pinned, seconds
from minisparse.kernels.jit import COMPILED, kernel
from minisparse.kernels.lanes import FLOAT, I64, LANES, WIDE, Lanes, aligned
from minisparse.nn.param import Array
from minisparse.nn.threads import settle
from minisparse.rng import generator

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL = {2: 1 << 20, 3: 32 << 20}  # bytes, where the system does not tell
STREAMS = 8  # sums that are independent of each other
CHAINS = 12 if WIDE else 6  # the same for multiply-adds: as many as the registers hold
SIDE = 1024  # of the matrices of the BLAS product
TURNS = 5  # measurements, of which the best counts
BYTES = 2e9  # read in one measurement
CALLS = 4_000_000  # steps of the loop of multiply-adds
Code = tuple[Any, Any]


def attainable(intensity: float, peak: float, bandwidth: float) -> float:
    """Equation (2): flop/s at `intensity` flop/byte under a peak in flop/s and a bandwidth in byte/s.

    Any prefix will do if peak and bandwidth have the same one.
    """
    return min(peak, intensity * bandwidth)


def ridge(peak: float, bandwidth: float) -> float:
    """Intensity in flop/byte from which on the peak limits and the memory does not."""
    return peak / bandwidth


def machine(threads: int, quick: bool = False) -> dict[str, Any]:
    """Both measurements: {"threads", "bandwidth": {level: GB/s}, "peak": {kernel: GFLOP/s}}."""
    return {"threads": threads, "bandwidth": bandwidth(threads, quick), "peak": peak(threads, quick)}


def bandwidth(threads: int, quick: bool = False) -> dict[str, float]:
    """GB/s at which so many threads together read: from "L2", "L3" and "RAM"."""
    sizes = levels(threads)
    found = {}
    with pinned(threads):
        for level, size in sizes.items():
            x = aligned(threads * (size // 4 // threads // (LANES * STREAMS)) * LANES * STREAMS)
            x[...] = 1.0
            repeats = max(1, int(BYTES / (10 if quick else 1) / x.nbytes))
            found[level] = repeats * x.nbytes / best(x, threads, repeats) / 1e9
    return found


def best(x: Array, threads: int, repeats: int) -> float:
    """Shortest seconds of adding x up so often; the first call, which compiles, is not counted."""
    sums = np.empty(threads, dtype=np.float32)
    read_all(x, sums, 1)
    return min(seconds(lambda: read_all(x, sums, repeats)) for _ in range(TURNS))


def peak(threads: int, quick: bool = False) -> dict[str, float]:
    """GFLOP/s of BLAS ("sgemm") and of multiply-adds on registers ("fma"), both in float32."""
    rng = generator(0, "bench peak")
    a, b = (rng.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    sums, steps = np.empty(threads, dtype=np.float32), CALLS // (10 if quick else 1)
    with pinned(threads):
        multiply_all(sums, np.float32(0.5), 1)
        settle()
        fma = min(seconds(lambda: multiply_all(sums, np.float32(0.5), steps)) for _ in range(TURNS))
        a @ b
        settle()
        sgemm = min(seconds(lambda: a @ b) for _ in range(2 * TURNS))
    done = 2.0 * LANES * CHAINS * steps * threads
    return {"sgemm": 2 * SIDE**3 / sgemm / 1e9, "fma": done / fma / 1e9}


def levels(threads: int) -> dict[str, int]:
    """Bytes of the arrays that stay in each level: own second-level caches, shared third level, memory."""
    second, third = (cache_size(level) for level in (2, 3))
    beyond = min(4 * threads * second, max(third // 2, 2 * threads * second))
    return {"L2": threads * second // 2, "L3": beyond, "RAM": 4 * third}


@cache
def cache_size(level: int) -> int:
    """Bytes of this processor's cache of that level, or the usual size where the system does not tell."""
    for folder in sorted(CACHES.glob("index*")):
        try:
            found, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if found == str(level) and kind != "Instruction" and size[:-1].isdigit():
            return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 1)
    return USUAL[level]


@intrinsic
def _sum(typingctx: Any, x: Any, begin: Any, end: Any) -> Code:
    """Sum of x[begin:end] in vectors; end - begin a multiple of 16 STREAMS, x float32."""
    signature = types.float32(x, types.intp, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code = Lanes(context, builder, sig, args)
        data = code.array(0)

        def step(k: Any, sums: list[Any]) -> list[Any]:
            here = code.step(data, k)
            return [builder.fadd(s, code.load(here, at * LANES)) for at, s in enumerate(sums)]

        sums = code.loop(args[1], args[2], LANES * STREAMS, [code.zero] * STREAMS, step)
        return code.sum(code.total(sums))

    return signature, codegen


@intrinsic
def _chains(typingctx: Any, factor: Any, count: Any) -> Code:
    """Sum of CHAINS vectors after `count` steps v <- factor v + 1 from different starts; factor float32."""
    signature = types.float32(types.float32, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        code = Lanes(context, builder, sig, args)
        a, one = code.splat(args[0]), code.splat(FLOAT(1.0))
        start = [code.splat(FLOAT(float(k))) for k in range(CHAINS)]
        sums = code.loop(I64(0), args[1], 1, start, lambda k, v: [code.fma(a, each, one) for each in v])
        return code.sum(code.total(sums))

    return signature, codegen


@kernel
def _read(x: Any, begin: Any, end: Any, repeats: Any) -> Any:
    total = np.float32(0)
    for _ in range(repeats):
        total += _sum(x, begin, end)
    return total


@kernel(parallel=True)
def _read_all(x: Any, sums: Any, repeats: Any) -> None:
    share = x.size // sums.size
    for part in prange(sums.size):
        sums[part] = _read(x, part * share, (part + 1) * share, repeats)


@kernel(parallel=True)
def _multiply_all(sums: Any, factor: Any, steps: Any) -> None:
    for part in prange(sums.size):
        sums[part] = _chains(factor, steps)


def read_all(x: Array, sums: Array, repeats: int) -> None:
    """sums[t] = `repeats` times the sum of the t-th part of x; x (16 STREAMS n threads) float32."""
    if COMPILED:
        _read_all(x, sums, repeats)
    else:
        sums[...] = repeats * x.reshape(sums.size, -1).sum(axis=1)


def multiply_all(sums: Array, factor: np.float32, steps: int) -> None:
    """sums[t] = sum of 16 CHAINS numbers after `steps` steps v <- factor v + 1, v = 0, 1, ... at first."""
    if COMPILED:
        _multiply_all(sums, factor, steps)
        return
    v = np.repeat(np.arange(CHAINS, dtype=np.float32), LANES)
    for _ in range(steps):
        v = factor * v + np.float32(1)
    sums[...] = v.sum()
