"""Lists of positions merged in one pass, against dictionaries and sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minisparse.kernels.merge import places, skip

positions = st.sets(st.integers(0, 60)).map(lambda s: np.array(sorted(s), dtype=np.int64))


@given(positions, positions)
def test_places(new, old):
    where = {int(p): k for k, p in enumerate(old)}
    assert places(new, old).tolist() == [where.get(int(p), -1) for p in new]


@given(positions, positions)
def test_skip(ranks, excluded):
    free = [p for p in range(200) if p not in set(excluded.tolist())]
    assert skip(ranks, excluded).tolist() == [free[r] for r in ranks]


def test_read_only_lists_are_read():
    old = np.arange(0, 9, 3)
    old.flags.writeable = False
    assert places(np.array([0, 1, 6]), old).tolist() == [0, -1, 2]
