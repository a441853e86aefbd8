"""Every storage format against the masked dense weight: products, gradients, conversions, rewiring, bytes."""

import copy

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minisparse.errors import ShapeError, SparseFormatError, UnknownNameError, UsageError
from minisparse.kernels import lanes
from minisparse.kernels.jit import COMPILED
from minisparse.nn.linear import Linear
from minisparse.nn.mode import EVAL
from minisparse.nn.optim import OPTIMIZERS
from minisparse.nn.weight import MaskedWeight
from minisparse.weights import pattern as patterns
from minisparse.weights.formats import FORMATS, accepts, convert, entries
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.sliced import longest_first, side_by_side
from tests.strategies import SETTINGS, generators
from tests.strategies import masks as random_masks
from tests.structures import BATCHES, MASKS, VALUES, blocks, fan_in, groups, layouts, masks

MOST = numba.config.NUMBA_NUM_THREADS
SAME = dict(rtol=1e-12, atol=1e-12)


def variants(mask):
    """(label, class, settings) of every format and setting that stores this mask."""
    for name, kind in FORMATS.items():
        if not kind.objection(mask):
            for settings in kind.settings:
                yield f"{name} {settings}", kind, settings


def small_masks():
    return [(name, mask) for name, mask in masks() if mask.size <= 1 << 14]


def both(kind, settings, mask, rng, dtype=np.float64):
    dense = rng.standard_normal(mask.shape).astype(dtype)
    return kind.from_dense(dense, mask, **settings), MaskedWeight(dense.copy(), None, mask)


def on_matrix(weight, values):
    """Numbers laid out as the Param is, at their places in a matrix."""
    pattern, slots = weight.rows()
    flat = values.reshape(-1)
    dense = np.zeros(weight.size, dtype=values.dtype)
    dense[pattern.flat] = flat if slots is None else flat[slots]
    return dense.reshape(weight.shape)


def test_every_format_has_masks_it_stores_and_says_why_not_for_others():
    stored = {name: 0 for name in FORMATS}
    for _, mask in small_masks():
        for name, kind in FORMATS.items():
            if accepts(name, mask):
                stored[name] += 1
            else:
                with pytest.raises(SparseFormatError, match=r"got .+\. Use \w+Weight instead\."):
                    kind.from_dense(np.ones(mask.shape), mask)
    assert min(stored.values()) >= 5, stored


def test_structure_is_lossless():
    for name, mask in masks():
        rng = np.random.default_rng(0)
        dense = rng.standard_normal(mask.shape)
        dense[mask] *= rng.random(np.count_nonzero(mask)) < 0.9  # present zeros stay present
        for label, kind, settings in variants(mask):
            weight = kind.from_dense(dense, mask, **settings)
            np.testing.assert_array_equal(weight.mask, mask, err_msg=f"{name} {label}")
            np.testing.assert_array_equal(weight.dense(), dense * mask, err_msg=f"{name} {label}")
            assert weight.kept == np.count_nonzero(mask) and weight.shape == mask.shape


def test_products_and_gradients_equal_masked_dense():
    for name, mask in small_masks():
        rng = np.random.default_rng(1)
        for label, kind, settings in variants(mask):
            weight, reference = both(kind, settings, mask, rng)
            for batch in BATCHES[:6]:
                x, dy = (rng.standard_normal((batch, n)) for n in mask.shape[::-1])
                message = f"{name} {label} {batch}"
                y = weight.apply(x, EVAL)
                assert y.shape == (batch, len(mask))
                np.testing.assert_allclose(y, reference.apply(x, EVAL), err_msg=message, **SAME)
                np.testing.assert_allclose(weight.pull(dy), reference.pull(dy), err_msg=message, **SAME)
                weight.pullback(x, dy)
                reference.pullback(x, dy)
                grad = on_matrix(weight, weight.param.grad)
                np.testing.assert_allclose(grad, reference.param.grad, err_msg=message, **SAME)


def test_r_passes_and_entries_equal_masked_dense():
    rng = np.random.default_rng(2)
    for name in ("prime", "2:4", "fan-in 7", "blocks 8x3", "ablated", "all dense"):
        mask = MASKS[name](np.random.default_rng(0))
        for label, kind, settings in variants(mask):
            weight, reference = both(kind, settings, mask, rng)
            x, rx = (rng.standard_normal((5, mask.shape[1])) for _ in range(2))
            dy, rdy = (rng.standard_normal((5, mask.shape[0])) for _ in range(2))
            v = rng.standard_normal(mask.shape)
            reference.param.direction = v
            weight.param.direction = weight.entries(v)["weight"]
            np.testing.assert_array_equal(weight.rdense(), reference.rdense(), err_msg=label)
            weight.rpullback(x, rx, dy, rdy)
            reference.rpullback(x, rx, dy, rdy)
            got = on_matrix(weight, weight.param.rgrad)
            np.testing.assert_allclose(got, reference.param.rgrad, err_msg=label, **SAME)
            several = rng.standard_normal((2, 3, *mask.shape))
            laid = weight.entries(several)["weight"]
            assert laid.shape == (2, 3, *weight.param.value.shape)
            np.testing.assert_array_equal(on_matrix(weight, laid[1, 2]), several[1, 2] * mask)


def test_float32_keeps_the_error_bound_whatever_the_values():
    eps, least = np.finfo(np.float32).eps, np.finfo(np.float32).smallest_subnormal
    for name, mask in masks():
        rng = np.random.default_rng(3)
        batches = (1, 2, 5, 17) if mask.size < 1 << 14 else (1, 5)
        for kind_of_values, make in VALUES.items() if mask.size < 1 << 14 else [("normal", VALUES["normal"])]:
            dense = np.zeros(mask.shape, dtype=np.float32)
            dense[mask] = make(rng, np.count_nonzero(mask))
            wide = dense.astype(float)
            terms = np.count_nonzero(mask, axis=1) + 2
            for label, kind, settings in variants(mask):
                weight = kind.from_dense(dense, mask, **settings)
                for batch in batches:
                    x = rng.standard_normal((batch, mask.shape[1])).astype(np.float32)
                    error = abs(weight.apply(x, EVAL) - x.astype(float) @ wide.T)
                    size = abs(x).astype(float) @ abs(wide).T
                    fine = error <= terms * (eps * size + least)
                    assert fine.all(), f"{name} {label} {kind_of_values} {batch}"


def test_input_may_lie_in_memory_in_any_way():
    rng = np.random.default_rng(4)
    for name in ("prime", "2:4", "fan-in 33", "blocks 4x4"):
        mask = MASKS[name](np.random.default_rng(0))
        for label, kind, settings in variants(mask):
            for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-4)):
                weight, reference = both(kind, settings, mask, rng, dtype)
                for batch in (1, 3, 40):
                    x, dy = (rng.standard_normal((batch, n)).astype(dtype) for n in mask.shape[::-1])
                    expected = reference.apply(x, EVAL), reference.pull(dy)
                    reference.pullback(x, dy)
                    for (where, a), (_, b) in zip(layouts(x), layouts(dy), strict=True):
                        weight.pullback(a, b)
                        grad = on_matrix(weight, weight.param.grad)
                        got = weight.apply(a, EVAL), weight.pull(b), grad
                        for one, other in zip(got, (*expected, reference.param.grad), strict=True):
                            np.testing.assert_allclose(
                                one, other, tolerance, tolerance, err_msg=f"{name} {label} {where} {batch}"
                            )
                    same = np.broadcast_to(x[:1], x.shape)
                    np.testing.assert_allclose(
                        weight.apply(same, EVAL), reference.apply(same.copy(), EVAL), tolerance, tolerance
                    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_stored_non_finite_values_propagate_and_absent_ones_do_nothing(dtype, bad):
    for name, mask in small_masks():
        if not mask.any():
            continue
        rng = np.random.default_rng(5)
        i, j = (int(k) for k in np.argwhere(mask)[len(np.argwhere(mask)) // 2])
        for label, kind, settings in variants(mask):
            if kind is FORMATS["reduced"]:
                continue  # a dense matrix inside, with a dense matrix's rules
            dense = rng.random(mask.shape).astype(dtype) + 1
            for batch in (1, 3, 20):
                x, dy = (np.ones((batch, n), dtype) for n in mask.shape[::-1])
                x[0, j], dy[0, i] = bad, bad
                message = f"{name} {label} {batch}"
                weight = kind.from_dense(dense, mask, **settings)
                y, dx = weight.apply(x, EVAL), weight.pull(dy)
                weight.pullback(x, dy)
                hit_rows, hit_columns = mask[:, j], mask[i]
                assert not np.isfinite(y[0, hit_rows]).any(), message
                assert np.isfinite(y[0, ~hit_rows]).all() and np.isfinite(y[1:]).all(), message
                assert not np.isfinite(dx[0, hit_columns]).any(), message
                assert np.isfinite(dx[0, ~hit_columns]).all() and np.isfinite(dx[1:]).all(), message
                dense[i, j] = bad
                y = kind.from_dense(dense, mask, **settings).apply(np.ones_like(x), EVAL)
                assert not np.isfinite(y[:, i]).any() and np.isfinite(np.delete(y, i, axis=1)).all(), message
                dense[i, j] = 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_absent_inputs_of_a_row_may_be_infinite(dtype):
    for name, mask in small_masks():
        rng = np.random.default_rng(15)
        for label, kind, settings in variants(mask):
            if kind is FORMATS["reduced"]:
                continue
            dense = rng.integers(1, 4, mask.shape).astype(dtype)
            weight = kind.from_dense(dense, mask, **settings)
            for i in {0, len(mask) - 1, int(rng.integers(len(mask)))}:
                for batch in (1, 3, 20):
                    x = np.ones((batch, mask.shape[1]), dtype)
                    x[:, ~mask[i]] = np.inf
                    y = weight.apply(x, EVAL)[:, i]
                    assert (y == dense[i, mask[i]].sum()).all(), f"{name} {label} row {i} batch {batch}"


def test_every_conversion_keeps_mask_and_values_bit_for_bit():
    for name in ("all dense", "2:4", "blocks 16x1", "ablated", "prime", "1x1 empty", "nnz 17"):
        mask = MASKS[name](np.random.default_rng(0))
        rng = np.random.default_rng(6)
        for dtype in (np.float32, np.float64, np.complex128):
            dense = rng.standard_normal(mask.shape).astype(dtype)
            stored = [kind.from_dense(dense, mask, **settings) for _, kind, settings in variants(mask)]
            for weight in [MaskedWeight(dense.copy(), (*mask.shape, 1, 1), mask), *stored]:
                for target in [*(n for n in FORMATS if accepts(n, mask)), "masked"]:
                    other = convert(weight, target)
                    assert other.geometry == weight.geometry
                    np.testing.assert_array_equal(other.mask, mask)
                    np.testing.assert_array_equal(other.dense(), dense * mask)
                    assert other.dense().dtype == dtype
                    assert other.params()["weight"].value is not weight.params()["weight"].value
    with pytest.raises(UnknownNameError, match="csr"):
        convert(weight, "crs")
    with pytest.raises(UnknownNameError):
        accepts("crs", mask)


def test_assign_keeps_the_mask():
    rng = np.random.default_rng(7)
    for _, mask in small_masks():
        for label, kind, settings in variants(mask):
            weight, _ = both(kind, settings, mask, rng)
            new = rng.standard_normal(mask.shape)
            weight.assign(new)
            np.testing.assert_array_equal(weight.dense(), new * mask, err_msg=label)
            assert np.count_nonzero(weight.param.value) == np.count_nonzero(mask)  # padding stays 0


def mask_pairs():
    """(format, two masks of one shape that it stores); any masks for formats that store them all."""
    rng = np.random.default_rng(0)
    for name in ("csr", "panels", "sliced", "bitmask", "reduced"):
        yield name, rng.random((31, 50)) < 0.2, rng.random((31, 50)) < 0.6
    yield "condensed", fan_in(rng, 9, 50, 7), fan_in(rng, 9, 50, 20)
    yield "nm", groups(rng, 5, 44, 2, 4), groups(rng, 5, 44, 3, 4)
    yield "block", blocks(rng, 21, 40, 4, 4), blocks(rng, 21, 40, 2, 5)


def test_rewiring_follows_the_masked_weight_with_every_optimizer():
    rng = np.random.default_rng(8)
    for name, first, second in mask_pairs():
        assert accepts(name, first) and accepts(name, second), name
        for optimizer in OPTIMIZERS.values():
            dense = rng.standard_normal(first.shape)
            weights = [FORMATS[name].from_dense(dense, first), MaskedWeight(dense.copy(), None, first)]
            optimizers = [optimizer(weight_decay=0.01) for _ in weights]
            draws = np.random.default_rng(9)
            for step in range(6):
                x, dy = (draws.standard_normal((4, n)) for n in first.shape[::-1])
                for weight, opt in zip(weights, optimizers, strict=True):
                    weight.pullback(x, dy)
                    opt.step(_Holder(weight), 0.1)
                    if step in (1, 3):
                        for key, source in weight.rewire(second if step == 1 else first).items():
                            opt.remap(key, source)
                np.testing.assert_allclose(weights[0].dense(), weights[1].dense(), err_msg=name, **SAME)
                np.testing.assert_array_equal(weights[0].mask, weights[1].mask)
                assert weights[0].kept == weights[1].kept


class _Holder:
    """As much of a network as an optimiser looks at."""

    def __init__(self, weight):
        self.params = weight.params


def test_rewiring_moves_gradients_and_starts_new_entries_at_zero():
    rng = np.random.default_rng(10)
    first, second = rng.random((12, 20)) < 0.4, rng.random((12, 20)) < 0.4
    weight, _ = both(FORMATS["csr"], {}, first, rng)
    weight.param.grad[...] = rng.standard_normal(weight.kept)
    value, grad = weight.dense(), on_matrix(weight, weight.param.grad)
    source = weight.rewire(second)["weight"]
    np.testing.assert_array_equal(weight.dense(), value * (first & second))
    np.testing.assert_array_equal(on_matrix(weight, weight.param.grad), grad * (first & second))
    places = np.full(first.size, -1)
    places[np.flatnonzero(first)] = np.arange(np.count_nonzero(first))
    np.testing.assert_array_equal(source, places[np.flatnonzero(second)])
    with pytest.raises(ShapeError):
        weight.rewire(second.astype(int))
    with pytest.raises(ShapeError):
        weight.rewire(second[:-1])
    condensed = FORMATS["condensed"].from_dense(np.ones((3, 4)), np.eye(3, 4, dtype=bool))
    with pytest.raises(SparseFormatError, match="2 entries in row 1"):
        condensed.rewire(np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool))
    np.testing.assert_array_equal(condensed.mask, np.eye(3, 4, dtype=bool))  # nothing happened


@given(generators, random_masks(), random_masks())
@SETTINGS
def test_rewiring_of_any_mask_into_any_other(rng, first, second):
    shape = np.minimum(first.shape, second.shape)
    first, second = (m[: shape[0], : shape[1]] for m in (first, second))
    for name in ("csr", "panels", "sliced", "bitmask", "reduced"):
        weight, reference = both(FORMATS[name], {}, first, rng)
        old = weight.param.value.reshape(-1).copy()
        source = weight.rewire(second)["weight"]
        reference.rewire(second)
        np.testing.assert_array_equal(weight.dense(), reference.dense())
        assert source.shape == (weight.param.value.size,)
        moved = np.where(source >= 0, old[source] if old.size else 0, 0)
        np.testing.assert_array_equal(weight.param.value.reshape(-1), moved)


def test_copies_share_nothing_that_changes_and_lie_on_cache_lines():
    rng = np.random.default_rng(11)
    for _, kind, settings in variants(MASKS["all dense"](rng)):
        weight, _ = both(kind, settings, np.ones((17, 13), dtype=bool), rng, np.float32)
        other = copy.deepcopy(weight)
        before = weight.dense().copy()
        other.param.value += 1
        other.param.grad += 1
        np.testing.assert_array_equal(weight.dense(), before)
        assert not weight.param.grad.any()
        other.rewire(np.zeros((17, 13), dtype=bool)) if kind is FORMATS["csr"] else None
        np.testing.assert_array_equal(weight.mask, True)
        for w in (weight, other):
            assert w.param.value.size == 0 or w.param.value.ctypes.data % 64 == 0


def test_mixed_types_give_the_wider_one():
    rng = np.random.default_rng(12)
    mask = rng.random((6, 20)) < 0.5
    for label, kind, settings in variants(mask):
        weight, reference = both(kind, settings, mask, rng, np.float32)
        for batch in (1, 9):
            x = rng.standard_normal((batch, 20))
            y = weight.apply(x, EVAL)
            assert y.dtype == np.float64, label
            np.testing.assert_allclose(y, reference.apply(x, EVAL), **SAME)
            assert weight.apply(x.astype(np.complex128), EVAL).dtype == np.complex128


@pytest.mark.parametrize("limits", [((10, np.uint16), (20, np.int32)), ((5, np.uint16),), ()])
def test_index_limits_without_the_memory(monkeypatch, limits):
    monkeypatch.setattr(patterns, "INDEX_TYPES", (*limits, (1 << 63, np.int64)))
    rng = np.random.default_rng(13)
    for name in ("prime", "2:4", "fan-in 7", "blocks 4x4", "nnz 17", "banded"):
        mask = MASKS[name](np.random.default_rng(0))
        for label, kind, settings in variants(mask):
            for dtype in (np.float32, np.float64):
                weight, reference = both(kind, settings, mask, rng, dtype)
                reference = MaskedWeight(reference.dense().astype(float), None, mask)
                np.testing.assert_array_equal(weight.mask, mask)
                for batch in (1, 20):
                    x = rng.integers(-3, 4, (batch, mask.shape[1])).astype(dtype)
                    got, expected = weight.apply(x, EVAL), reference.apply(x.astype(float), EVAL)
                    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=label)


def test_column_numbers_take_the_smallest_type():
    assert patterns.index_type(1) == patterns.index_type(1 << 16) == np.uint16
    assert patterns.index_type((1 << 16) + 1) == patterns.index_type(1 << 31) == np.int32
    assert patterns.index_type((1 << 31) + 1) == np.int64
    for columns in (1 << 16, (1 << 16) + 1):
        weight = FORMATS["csr"].from_dense(
            np.ones((1, columns), np.float32), np.eye(1, columns, columns - 1, bool)
        )
        x = np.arange(2 * columns, dtype=np.float32).reshape(2, -1)
        np.testing.assert_array_equal(weight.apply(x[:1], EVAL), [[columns - 1]])
        np.testing.assert_array_equal(weight.apply(np.repeat(x, 3, 0), EVAL)[3:], 2.0 * columns - 1)


def test_bytes_are_counted_exactly():
    mask = MASKS["2:4"](np.random.default_rng(0))  # 18 x 36, 18 entries a row
    expected = {
        "csr": 324 * (4 + 2) + 19 * 8,
        "condensed": 324 * (4 + 2) + 18 * 2,
        "bitmask": 324 * 4 + 5 * 4 * 3 * 2 + 5 * 8,  # 5 groups of 4 rows, 3 blocks of 16 columns
        "nm": 32 * 2 * 16 * 4 + 32 * 2 * 4,  # 2 words of 16 values a row, 32 rows
        "reduced": 18 * 36 * (4 + 1) + (18 + 36) * 2,
    }
    for name, count in expected.items():
        assert FORMATS[name].from_dense(np.ones(mask.shape, np.float32), mask).bytes == count, name
    weight = FORMATS["csr"].from_dense(np.ones(mask.shape, np.float32), mask)
    assert weight.bits == 324 * 6 + 18 * 9  # ceil(log2 36) = 6, ceil(log2 324) = 9
    for _, kind, settings in variants(np.ones((16, 32), dtype=bool)):
        assert kind.from_dense(np.ones((16, 32), np.float32), **settings).bytes >= 16 * 32 * 4


@pytest.mark.skipif(not COMPILED or MOST < 2, reason="needs the compiler and two threads")
def test_thread_count_does_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(lanes, "SMALL", 0)
    rng = np.random.default_rng(14)
    for name in ("power law", "65537x3", "2:4", "1:4", "4:8", "2:8", "2:16", "fan-in 33", "blocks 4x4"):
        mask = MASKS[name](np.random.default_rng(0))
        for label, kind, settings in variants(mask):
            weight, _ = both(kind, settings, mask, rng, np.float32)
            for batch in (1, 40):
                x, dy = (rng.standard_normal((batch, n)).astype(np.float32) for n in mask.shape[::-1])
                results = []
                for threads in (1, MOST):
                    numba.set_num_threads(threads)
                    weight.pullback(x, dy)
                    results.append((weight.apply(x, EVAL), weight.pull(dy), weight.param.grad.copy()))
                if kind is FORMATS["reduced"]:
                    continue  # BLAS promises nothing of the kind
                for a, b in zip(*results, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{name} {label}")


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slices_of_all_kinds(rows, share, dtype):
    rng = np.random.default_rng(rows)
    for label, mask in small_masks():
        dense = np.where(mask, rng.standard_normal(mask.shape), 0).astype(dtype)
        settings = {"rows_per_lane": rows, "steps_per_window": share}
        weight = FORMATS["sliced"].from_dense(dense, mask, **settings)
        assert (weight.dense() == dense).all() and (weight.mask == mask).all(), label
        x = rng.standard_normal((1, mask.shape[1])).astype(dtype)
        for number in (1.0, np.inf, np.nan):  # what is absent adds nothing to them
            x[0, rng.integers(mask.shape[1])] = number
            with np.errstate(invalid="ignore"):
                wanted = np.where(mask, dense * x, 0).sum(axis=1)
            assert_allclose(weight.apply(x, EVAL)[0], wanted, rtol=1e-4, atol=1e-4, err_msg=label)


def test_slices_of_uneven_rows_hold_few_empty_slots():
    rng = np.random.default_rng(0)
    even = rng.random((320, 400)) < 0.2
    half = even & (np.arange(320) % 2 == 0)[:, None]  # every second row is empty
    for mask, moved in ((even, False), (half, True), (half[::2], False)):
        dense = rng.standard_normal(mask.shape) * mask
        weight = FORMATS["sliced"].from_dense(dense, mask)
        assert (weight._order.size > 0) == moved
        assert weight.param.value.size < 1.4 * mask.sum()
        assert (weight.dense() == dense).all()
        assert weight.bytes == weight.param.value.nbytes + sum(a.nbytes for a in weight._structure())
    counts = np.array([3, 9, 3, 0] * 8)
    order = longest_first(counts, 1)
    assert order.tolist() == np.argsort(-counts, kind="stable").tolist()
    assert longest_first(np.full(40, 5), 2).size == 0


def test_slices_of_rows_from_different_parts_of_the_matrix():
    """Rows that keep to the left half or to the right one go together; drawn from all columns they do not."""
    rng = np.random.default_rng(3)
    anywhere = rng.random((320, 400)).argsort(axis=1) < 40
    left = rng.random((320, 200)).argsort(axis=1) < 40
    halves = np.zeros((320, 400), dtype=bool)
    halves[::2, :200], halves[1::2, 200:] = left[::2], left[1::2]
    empty = halves & (np.arange(320) % 40 != 0)[:, None]
    for mask, moved in ((anywhere, False), (halves, True), (empty, True), (np.ones((64, 8), bool), False)):
        dense = rng.standard_normal(mask.shape).astype(np.float32) * mask
        weight = FORMATS["sliced"].from_dense(dense, mask)
        assert (weight._order.size > 0) == moved
        assert (weight.dense() == dense).all() and (weight.mask == mask).all()
        assert weight.param.value.size < 1.3 * max(mask.sum(), 320)
        x = rng.standard_normal((1, mask.shape[1])).astype(np.float32)
        assert_allclose(weight.apply(x, EVAL)[0], dense @ x[0], rtol=1e-4, atol=1e-4)
    order = side_by_side(CSRPattern.from_mask(empty))
    assert (order[:152] % 2 == 0).all() and (order[152:312] % 2 == 1).all()
    assert order[312:].tolist() == list(range(0, 320, 40))  # empty rows last
    assert side_by_side(CSRPattern.from_mask(np.zeros((5, 9), dtype=bool))).size == 0


def test_bad_arguments_name_themselves():
    csr = FORMATS["csr"]
    with pytest.raises(ShapeError, match="mask"):
        csr.from_dense(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ShapeError, match="mask"):
        csr.from_dense(np.ones((2, 3)), np.ones((3, 2), dtype=bool))
    with pytest.raises(ShapeError, match="geometry"):
        csr.from_dense(np.ones((2, 3)), None, (2, 1, 2, 2))
    with pytest.raises(ShapeError, match="both >= 1"):
        csr.from_dense(np.ones((0, 3)))
    pattern, _ = entries(csr.from_dense(np.ones((2, 3))))
    with pytest.raises(ShapeError, match="values"):
        csr(pattern, np.ones(5))
    for wrong in (0, 4, True, 1.5, "2"):
        with pytest.raises(UsageError, match="rows_per_lane"):
            FORMATS["sliced"].from_dense(np.ones((2, 3)), rows_per_lane=wrong)
    for wrong in (0, 3, True, 1.5, "2"):
        with pytest.raises(UsageError, match="steps_per_window"):
            FORMATS["sliced"].from_dense(np.ones((2, 3)), steps_per_window=wrong)
    for wrong in (0, True, 1.5, "2"):
        with pytest.raises(UsageError, match="narrower"):
            FORMATS["panels"].from_dense(np.ones((2, 3)), narrower=wrong)


@given(st.integers(1, 40), st.integers(1, 90), st.floats(0, 1), st.integers(1, 70), generators)
@SETTINGS
def test_any_mask_in_any_format(out, columns, density, batch, rng):
    mask = rng.random((out, columns)) < density
    x = rng.integers(-4, 5, (batch, columns)).astype(np.float32)
    dense = rng.integers(-4, 5, mask.shape).astype(np.float32)
    for label, kind, settings in variants(mask):
        y = kind.from_dense(dense, mask, **settings).apply(x, EVAL)
        np.testing.assert_array_equal(y, x @ (dense * mask).T, err_msg=label)


def test_gradients_of_a_masked_layer_lie_in_memory_as_its_inputs_do():
    rng = np.random.default_rng(11)
    w, x, dy = (rng.standard_normal(shape) for shape in ((3, 7), (5, 7), (5, 3)))
    for order, along in (("C", 0), ("F", 1)):
        layer = Linear(MaskedWeight(w, (3, 7, 1, 1)), np.zeros(3))
        layer.forward(np.asarray(x, order=order))
        dx = layer.backward(dy)
        np.testing.assert_allclose(dx, dy @ w, rtol=1e-14)
        np.testing.assert_allclose(layer.weight.param.grad, dy.T @ x, rtol=1e-14)
        assert (dx.flags.c_contiguous, dx.flags.f_contiguous)[along]
