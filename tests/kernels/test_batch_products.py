"""The batched products (multiply, scatter, sample) on raw arrays: SciPy, float64, plain loops, threads."""

import numba
import numpy as np
import pytest
import scipy.sparse as sp

from minisparse.kernels import adjoint, lanes, packing
from minisparse.kernels import multiply as multiplication
from minisparse.kernels.jit import COMPILED
from minisparse.kernels.multiply import multiply
from minisparse.kernels.order import MOST_ROWS, Order, cut, multiply_plain, sample_plain, scatter_plain
from tests.structures import BATCHES, VALUES, csr_arrays, masks

EPS = np.finfo(np.float32).eps
MOST = numba.config.NUMBA_NUM_THREADS
PANELS = (1, 3, 16, 64, 1 << 17)


def row_order(mask, width):
    indptr, indices = csr_arrays(mask)
    width = min(width, max(1, mask.shape[1]))
    cuts = np.empty((-(-mask.shape[1] // width) + 1, len(mask)), dtype=np.int64)
    cut(indptr, indices, width, cuts)
    kind = np.uint16 if mask.shape[1] <= 1 << 16 else np.int32
    return Order.of(cuts[:-1], cuts[1:], indices.astype(kind), width, False, indptr)


def product(call, order, values, x, rows):
    y = packing.room(rows, x.shape[1], x.dtype)
    y[...] = np.nan  # whatever lay there must not matter
    call(order, values, x, y)
    return y[:, : x.shape[1]]


def cases():
    for name, mask in masks():
        rng = np.random.default_rng(len(name))
        for width in PANELS:
            if mask.shape[1] / width <= 200:
                batch = BATCHES[int(rng.integers(len(BATCHES)))] if mask.size < 1 << 15 else 3
                yield name, mask, width, batch, rng


def test_the_three_products_equal_scipy_and_keep_the_error_bound():
    for name, mask, width, batch, rng in cases():
        out, columns = mask.shape
        order = row_order(mask, width)
        make = VALUES[list(VALUES)[int(rng.integers(len(VALUES)))]]
        values = make(rng, order.where.size).astype(np.float32)
        x, dy = (rng.standard_normal((n, batch)).astype(np.float32) for n in (columns, out))
        if rng.random() < 0.5:
            x, dy = np.asfortranarray(x), np.asfortranarray(dy)
        w = sp.csr_array((values.astype(float), order.where.astype(int), order.starts), shape=mask.shape)
        size = abs(w)

        y = product(multiply, order, values, x, out)
        terms = np.diff(order.starts)[:, None] + 2
        # a product of two tiny numbers is rounded to a multiple of the smallest denormal
        tiny = terms * np.finfo(np.float32).smallest_subnormal
        error = abs(y - w @ x.astype(float))
        assert (error <= terms * EPS * (size @ abs(x).astype(float)) + tiny).all(), (name, width, batch)

        dx = product(adjoint.scatter, order, values, dy, columns)
        terms = np.bincount(order.where, minlength=columns)[:, None] + 2
        tiny = terms * np.finfo(np.float32).smallest_subnormal
        error = abs(dx - w.T @ dy.astype(float))
        assert (error <= terms * EPS * (size.T @ abs(dy).astype(float)) + tiny).all(), (name, width, batch)

        dw = np.full(values.size, np.nan, dtype=np.float32)
        adjoint.sample(order, x, dy, dw)
        rows = np.repeat(np.arange(out), np.diff(order.starts))
        a, b = dy.astype(float)[rows], x.astype(float)[order.where]
        error = abs(dw - (a * b).sum(axis=1))
        assert (error <= (batch + 2) * EPS * (abs(a) * abs(b)).sum(axis=1)).all(), (name, width, batch)


def test_plain_loops_are_exact_on_integers_and_so_are_the_vectors():
    for name, mask, width, batch, rng in cases():
        if mask.size > 5000:
            continue
        order = row_order(mask, width)
        w = np.zeros(mask.shape)
        w[mask] = rng.integers(-3, 4, order.where.size)
        x, dy = (rng.integers(-3, 4, (n, batch)).astype(np.float64) for n in mask.shape[::-1])
        exact = w @ x, w.T @ dy, (dy @ x.T)[mask]
        for dtype in (np.float32, np.float64, np.complex128):
            values, xs, dys = w[mask].astype(dtype), x.astype(dtype), dy.astype(dtype)
            got = np.empty(values.size, dtype=dtype)
            adjoint.sample(order, xs, dys, got)
            found = (
                product(multiply, order, values, xs, len(mask)),
                product(adjoint.scatter, order, values, dys, mask.shape[1]),
                got,
            )
            for a, b in zip(exact, found, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{name} {width} {batch} {dtype}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_multiplied_where_there_is_nothing(dtype):
    for out, columns, batch in ((0, 0, 3), (0, 5, 3), (5, 0, 3), (4, 6, 0), (0, 0, 0)):
        order = row_order(np.zeros((out, columns), dtype=bool), 4)
        x, dy = np.ones((columns, batch), dtype), np.ones((out, batch), dtype)
        values = np.empty(0, dtype)
        assert not product(multiply, order, values, x, out).any()
        assert not product(adjoint.scatter, order, values, dy, columns).any()
        adjoint.sample(order, x, dy, values)


def test_vectors_and_plain_loops_agree_on_local_columns():
    rng = np.random.default_rng(3)
    mask = rng.random((21, 50)) < 0.4
    width = 16
    whole = row_order(mask, width)
    panel = whole.where.astype(int) // width
    place = np.argsort(panel, kind="stable")
    rows = np.repeat(np.arange(21), np.diff(whole.starts))
    ends = np.concatenate([[0], np.cumsum(np.bincount(panel * 21 + rows, minlength=4 * 21))])
    where = (whole.where[place] % width).astype(np.uint16)
    order = Order.of(ends[:-1].reshape(4, 21), ends[1:].reshape(4, 21), where, width, True, whole.starts)
    values = rng.integers(-3, 4, place.size).astype(np.float32)
    x, dy = (rng.integers(-3, 4, (n, 20)).astype(np.float32) for n in (50, 21))
    for call, plain, source, size in (
        (multiply, multiply_plain, x, 21),
        (adjoint.scatter, scatter_plain, dy, 50),
    ):
        expected = np.empty((size, 20))
        plain(*order[:5], values, source, expected)
        np.testing.assert_array_equal(product(call, order, values, source, size), expected)
    got, expected = np.empty_like(values), np.empty(values.size)
    adjoint.sample(order, x, dy, got)
    sample_plain(*order[:5], x, dy, expected)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(got, (dy @ x.T)[mask][place])


def test_wide_panels_take_narrow_tiles():
    rng = np.random.default_rng(4)
    mask = np.zeros((3, 70_001), dtype=bool)
    mask[rng.integers(0, 3, 200), rng.integers(0, 70_001, 200)] = True
    order = row_order(mask, 70_001)
    assert order.tile < packing.TILE
    x = rng.integers(-3, 4, (70_001, 37)).astype(np.float32)
    w = sp.csr_array((np.ones(order.where.size), order.where.astype(int), order.starts), shape=mask.shape)
    values = np.ones(order.where.size, dtype=np.float32)
    np.testing.assert_array_equal(product(multiply, order, values, x, 3), w @ x)
    dy = rng.integers(-3, 4, (3, 37)).astype(np.float32)
    np.testing.assert_array_equal(product(adjoint.scatter, order, values, dy, 70_001), w.T @ dy)


@pytest.mark.skipif(not COMPILED or MOST < 2, reason="needs the compiler and two threads")
def test_thread_count_does_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(lanes, "SMALL", 0)
    rng = np.random.default_rng(5)
    for out, columns, batch, density in (
        (70, 90, 20, 0.3),
        (33, 300, 300, 0.1),
        (5, 900, 129, 0.05),
        (MOST_ROWS + 40, 60, 70, 0.1),
        (2 * MOST_ROWS + 10, 5_003, 70, 0.002),  # so wide that a block is a thread's share of the rows
    ):
        mask = rng.random((out, columns)) < density
        mask[0] = True  # one row with most of the work
        mask[-3:] = False
        for width in (columns // 2 - 5, columns):
            order = row_order(mask, width)
            values = rng.standard_normal(order.where.size).astype(np.float32)
            x, dy = (rng.standard_normal((n, batch)).astype(np.float32) for n in (columns, out))
            results = []
            for threads in (1, MOST, 1):
                numba.set_num_threads(threads)
                dw = np.empty_like(values)
                adjoint.sample(order, x, dy, dw)
                y = product(multiply, order, values, x, out).copy()
                results.append((y, product(adjoint.scatter, order, values, dy, columns).copy(), dw))
            for one, other in zip(results, results[1:], strict=False):
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_parts_have_about_equally_many_entries():
    starts = np.array([0, 1000, 1000, 1001, 1002, 2000])
    nothing = np.zeros((1, 5), dtype=np.int64)
    order = Order.of(nothing, nothing, np.empty(2000), 1, False, starts)
    assert order.bounds(2).tolist() == [0, 1, 5]
    assert order.bounds(1).tolist() == [0, 5]
    for parts in (3, 5, 9):
        bounds = order.bounds(parts)
        assert (
            len(bounds) == parts + 1 and bounds[0] == 0 and bounds[-1] == 5 and (np.diff(bounds) >= 0).all()
        )


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_no_part_has_more_than_its_share_and_a_row(kind):
    """Rows sorted by length, long first; the last ones, empty, belong to the last part."""
    counts = np.repeat([40, 7, 1, 0], 6)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(kind)
    for parts in range(1, 9):
        bounds = lanes.evenly(starts, parts)
        assert bounds[0] == 0 and bounds[-1] == counts.size and (np.diff(bounds) >= 0).all()
        held = np.diff(starts[bounds])
        assert held.sum() == counts.sum() and held.max() <= counts.sum() / parts + 40
    assert lanes.evenly(starts[:1].repeat(4), 2).tolist()[::2] == [0, 3]  # no entry at all
    assert lanes.evenly(starts[:1], 3).tolist() == [0, 0, 0, 0]  # no row at all


def test_visits_are_all_rows_of_their_block_longest_first():
    rng = np.random.default_rng(6)
    for out, columns, width in ((1, 5, 2), (50, 40, 16), (2 * MOST_ROWS + 3, 30, 7), (9, 0, 4)):
        mask = rng.random((out, columns)) < rng.random((out, 1))
        order = row_order(mask, width)
        counts = order.end - order.begin
        blocks = -(-out // order.block)
        assert order.block <= MOST_ROWS and (blocks == 1 or blocks % 2 == 0)
        for visit, count in zip(order.visit, counts, strict=True):
            for first in range(0, out, order.block):
                rows = visit[first : first + order.block]
                assert sorted(rows) == list(range(first, min(first + order.block, out)))
                # a stable sort: longest first, equals in their order
                np.testing.assert_array_equal(rows, first + np.argsort(-count[sorted(rows)], kind="stable"))


def test_a_sample_has_the_same_bits_whatever_stands_beside_it():
    rng = np.random.default_rng(7)
    mask = rng.random((90, 200)) < 0.2
    order = row_order(mask, 64)
    values = rng.standard_normal(order.where.size).astype(np.float32)
    x = rng.standard_normal((200, 300)).astype(np.float32)
    whole = product(multiply, order, values, x, 90)
    for batch in (1, 16, 17, 40, 64, 65, 200):
        np.testing.assert_array_equal(product(multiply, order, values, x[:, :batch], 90), whole[:, :batch])


def test_any_division_of_the_work_gives_the_same_bits(monkeypatch):
    rng = np.random.default_rng(8)
    for out, columns, batch, width in (
        (60, 100, 300, 16),
        (2 * MOST_ROWS + 10, 43, 70, 16),
        (20, 30, 40, 16),
        (3 * MOST_ROWS, 5_003, 40, 5_000),
    ):
        mask = rng.random((out, columns)) < min(0.2, 20 / columns)
        order = row_order(mask, width)
        values = rng.standard_normal(order.where.size).astype(np.float32)
        x = rng.standard_normal((columns, batch)).astype(np.float32)
        monkeypatch.setattr(multiplication, "parts", lambda entries: 1)
        expected = product(multiply, order, values, x, out).copy()
        w = sp.csr_array((values.astype(float), order.where.astype(int), order.starts), shape=mask.shape)
        np.testing.assert_allclose(expected, w @ x, rtol=1e-4, atol=1e-4)
        for shares in (1, 2, 3, 4, 9):
            monkeypatch.setattr(multiplication, "parts", lambda entries, n=shares: n)
            for lies in (x, np.asfortranarray(x)):
                np.testing.assert_array_equal(product(multiply, order, values, lies, out), expected)


def test_wide_panels_are_visited_as_they_lie_in_memory():
    mask = np.random.default_rng(9).random((900, 5_000)) < 0.002
    for width, wide in ((4_096, False), (4_097, True)):
        order = row_order(mask, width)
        assert order.wide == wide and (order.visit == np.arange(900)).all() == wide
