"""Two ascending lists of positions side by side, in one pass over both."""

import numpy as np

from minisparse.kernels.jit import kernel


@kernel
def _places(new, old, at):
    k = 0
    for i in range(new.size):
        while k < old.size and old[k] < new[i]:
            k += 1
        at[i] = k if k < old.size and old[k] == new[i] else -1


def places(new, old):
    """(new,) int64: where each entry of `new` stands in `old`, -1 if it does not; both ascending int64."""
    at = np.empty(new.size, dtype=np.int64)
    _places(new, old, at)
    return at


@kernel
def _skip(ranks, excluded, found):
    k = 0
    for i in range(ranks.size):
        while k < excluded.size and excluded[k] - k <= ranks[i]:
            k += 1
        found[i] = ranks[i] + k


def skip(ranks, excluded):
    """(ranks,) int64: the numbers of these ranks among those not `excluded`; both ascending int64."""
    found = np.empty(ranks.size, dtype=np.int64)
    _skip(ranks, excluded, found)
    return found
