"""Lists of positions merged in one pass, against dictionaries and sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minisparse.kernels.merge import gather, places, rows, skip, union

positions = st.sets(st.integers(0, 60)).map(lambda s: np.array(sorted(s), dtype=np.int64))


@given(positions, positions)
def test_places(new, old):
    where = {int(p): k for k, p in enumerate(old)}
    assert places(new, old).tolist() == [where.get(int(p), -1) for p in new]


@given(positions, positions)
def test_skip(ranks, excluded):
    free = [p for p in range(200) if p not in set(excluded.tolist())]
    assert skip(ranks, excluded).tolist() == [free[r] for r in ranks]


@given(positions, positions)
def test_union(a, b):
    assert union(a, b).tolist() == sorted(a.tolist() + b.tolist())  # twice what is in both


@given(st.integers(1, 6), st.integers(1, 300), st.data())
def test_rows(count, columns, data):
    flat = np.array(sorted(data.draw(st.sets(st.integers(0, count * columns - 1)))), dtype=np.int64)
    indptr, indices = np.full(count + 1, -1), np.full(flat.size, 7, dtype=np.uint16)
    rows(flat, columns, indptr, indices)
    assert indptr.tolist() == [int(np.sum(flat < i * columns)) for i in range(count + 1)]
    assert indices.tolist() == (flat % columns).tolist()


def test_read_only_lists_are_read():
    old = np.arange(0, 9, 3)
    old.flags.writeable = False
    assert places(np.array([0, 1, 6]), old).tolist() == [0, -1, 2]


@given(
    st.lists(st.integers(-1, 6), max_size=20), st.sampled_from(["f2", "f4", ">f4", "f8", ">f8", "c16", "i8"])
)
def test_gather(order, dtype):
    values = np.array([0.0, -0.0, np.nan, np.inf, -1, 5, 1e30], dtype="f8")
    values = values.astype(dtype) if dtype not in ("i8", "f2") else np.arange(7).astype(dtype)
    empty = -1 if dtype == "i8" else 0
    taken = np.full(len(order), 9, dtype=dtype)
    gather(values, np.array(order, dtype=np.int64), empty, taken)
    wanted = np.array([values[k] if k >= 0 else empty for k in order], dtype=dtype)
    assert taken.tobytes() == wanted.tobytes()


def test_gather_from_nothing():
    taken = np.full(3, 9.0)
    gather(np.empty(0), np.full(3, -1), 0, taken)
    assert taken.tolist() == [0, 0, 0]
