"""Backward through a rectifier in one pass over memory."""

from numba import prange

from minisparse.kernels.jit import kernel


@kernel(parallel=True)
def gate(z, dy, dz):
    """dz = dy where z > 0, elsewhere 0 dy; all flat and of one length and type."""
    one, none = dz.dtype.type(1), dz.dtype.type(0)
    for i in prange(z.size):
        dz[i] = (one if z[i] > 0 else none) * dy[i]
