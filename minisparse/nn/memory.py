"""Memory that a training step frees and the next one asks for again stays with the process.

The C library of most Linux systems (glibc) returns free memory at the end of its heap to the system as soon
as there is more than twice the largest block freed so far. A step frees its activations, so most of them
would leave and come back in every step, one page fault for 4 KB: a tenth of the time of a sparse step.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

FREE, BLOCK = (
    1 << 28,
    1 << 25,
)  # bytes: free ones kept; of a block that still comes from the heap, the most allowed
TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of <malloc.h>
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@lru_cache(maxsize=1)
def keep() -> None:
    """Have the C library keep FREE bytes, once; elsewhere, or where a variable of its own is set, nothing."""
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM, FREE)
        mallopt(MMAP, BLOCK)
