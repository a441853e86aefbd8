"""Units of every pattern, and N:M against enumeration."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import ShapeError, UsageError
from minisparse.sparsity import NM, Block, Column, InChannel, LayerShape, Pattern, Row, Unstructured
from minisparse.sparsity.pattern import top_of_groups

PATTERNS = [
    Unstructured(),
    Block(1, 1),
    Block(2, 3),
    Block(3, 2),
    Block(100, 100),
    Row(),
    Column(),
    InChannel(),
]
SHAPE = st.builds(LayerShape, st.integers(1, 9), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))


def unit_of(pattern: Pattern, shape: LayerShape, row: int, column: int) -> tuple[int, ...]:
    """Where entry (row, column) belongs, said once more and without arrays."""
    tap, channel = divmod(column, shape.channels)
    assert 0 <= tap < shape.taps
    if isinstance(pattern, Block):
        return row // pattern.rows, column // pattern.cols
    keys = {Row: (row,), Column: (column,), InChannel: (channel,), Unstructured: (row, column)}
    return keys[type(pattern)]


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@given(shape=SHAPE, data=st.data())
def test_total_pool_sizes_and_spread_agree_with_a_loop_over_entries(
    pattern: Pattern, shape: LayerShape, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    score = rng.integers(-9, 9, size=shape.matrix).astype(float)
    among = rng.random(shape.matrix) < 0.6
    members: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for row, column in np.ndindex(shape.matrix):
        members.setdefault(unit_of(pattern, shape, row, column), []).append((row, column))
    total, sizes = pattern.total(score, shape), pattern.sizes(shape)
    pool, live_pool = pattern.pool(score, shape), pattern.pool(score, shape, among)
    assert total.size == len(members)
    chosen = rng.random(total.shape) < 0.5
    mask = pattern.spread(chosen, shape)
    assert mask.shape == shape.matrix
    assert mask.dtype == np.bool_
    for unit, entries in members.items():
        values = [score[entry] for entry in entries]
        alive = [score[entry] for entry in entries if among[entry]]
        assert sizes[unit] == len(entries)
        assert total[unit] == sum(values)
        assert pool[unit] == pytest.approx(np.mean(values))
        if alive:
            assert live_pool[unit] == pytest.approx(np.mean(alive))
        assert all(mask[entry] == chosen[unit] for entry in entries)


@pytest.mark.parametrize("pattern", [*PATTERNS, NM(1, 1)], ids=repr)
def test_functions_leave_their_inputs_alone_and_return_new_arrays(pattern: Pattern) -> None:
    shape = LayerShape(4, 3, 2, 2)
    units = np.ones(pattern.sizes(shape).shape, dtype=bool)
    units.flags.writeable = False
    mask = pattern.spread(units, shape)
    mask[:] = False
    assert units.all()


def test_single_entries_keep_their_precision() -> None:
    shape = LayerShape(2, 2)
    score = np.array([[2**62, 2**62 + 1], [1, 0]])
    assert Unstructured().pool(score, shape).dtype == np.int64
    small = np.array([[1e-8, 1.0], [0.1, 3.0]], dtype=np.float32)
    np.testing.assert_array_equal(Block(1, 1).pool(small, shape), small)


def test_pooling_low_precision_scores_does_not_lose_small_terms() -> None:
    shape = LayerShape(1, 4000)
    assert Row().pool(np.full(shape.matrix, 0.1, dtype=np.float16), shape)[0] == np.float16(0.1)


def test_in_channel_of_a_linear_layer_is_a_column() -> None:
    shape = LayerShape(3, 5)
    score = np.arange(15.0).reshape(3, 5)
    np.testing.assert_array_equal(InChannel().pool(score, shape), Column().pool(score, shape))


def test_edge_blocks_are_averaged_over_what_they_have() -> None:
    shape = LayerShape(3, 5)
    assert Block(2, 2).sizes(shape).tolist() == [[4, 4, 2], [2, 2, 1]]
    assert np.all(Block(2, 2).pool(np.ones(shape.matrix), shape) == 1)


def everything(shape: LayerShape) -> np.ndarray:
    return np.ones(shape.matrix, dtype=bool)


def test_two_four_worked_example() -> None:
    score = np.array([[4.0, 1, 3, 2, 0, 0, 5, 0], [1, 1, 1, 1, 0, 2, 1, 2]])
    shape = LayerShape(2, 8)
    expected = [[1, 0, 1, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 1, 0, 1]]
    np.testing.assert_array_equal(NM(2, 4).eligible(score, shape, everything(shape)), expected)


@pytest.mark.parametrize(("keep", "of"), [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (2, 3), (1, 1)])
def test_nm_keeps_the_most_energy_of_all_nm_masks(keep: int, of: int) -> None:
    rng = np.random.default_rng(of)
    shape = LayerShape(3, 2 * of)
    weight = rng.normal(size=shape.matrix).round(1)
    mask = NM(keep, of).eligible(np.abs(weight), shape, everything(shape))
    for row, group in np.ndindex(3, 2):
        part = slice(group * of, (group + 1) * of)
        assert mask[row, part].sum() == keep
        energy = [(weight[row, part][list(c)] ** 2).sum() for c in combinations(range(of), keep)]
        assert (weight[row, part] ** 2)[mask[row, part]].sum() == pytest.approx(max(energy))
    assert NM(keep, of).fixed_sparsity == pytest.approx(1 - mask.mean())


def test_two_four_reaches_all_six_patterns_and_no_other() -> None:
    scores = np.array([np.random.default_rng(i).permutation(4) for i in range(99)], dtype=float)
    shape = LayerShape(99, 4)
    mask = NM(2, 4).eligible(scores, shape, everything(shape))
    assert len({tuple(row) for row in mask.tolist()}) == 6


def test_ties_in_a_group_keep_the_lower_index() -> None:
    shape = LayerShape(2, 8)
    for value in (0.0, -0.0, 7.0):
        mask = NM(2, 4).eligible(np.full(shape.matrix, value), shape, everything(shape))
        assert mask.tolist() == [[True, True, False, False] * 2] * 2
    mixed = np.array([[-0.0, 0.0, -0.0, 0.0]])
    assert NM(1, 4).eligible(mixed, LayerShape(1, 4), mixed == 0).tolist() == [[1, 0, 0, 0]]


def test_a_group_as_wide_as_the_row_is_the_best_of_each_row() -> None:
    score = np.random.default_rng(0).integers(0, 4, size=(5, 6)).astype(float)
    mask = NM(2, 6).eligible(score, LayerShape(5, 6), np.ones((5, 6), bool))
    for row, kept in zip(score, mask, strict=True):
        assert set(np.flatnonzero(kept)) == set(np.argsort(-row, kind="stable")[:2])


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_groups_equal_a_loop_with_dead_entries_last(of: int, keep: int, seed: int) -> None:
    keep = min(keep, of)
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, size=(4, 3, of))
    among = rng.random(scores.shape) < 0.5
    mask = top_of_groups(scores, keep, among)
    for index in np.ndindex(4, 3):
        live = [i for i in range(of) if among[index][i]]
        best = sorted(live, key=lambda i: (-scores[index][i], i))[:keep]
        assert np.flatnonzero(mask[index]).tolist() == sorted(best)


def test_extreme_integers_in_groups_do_not_wrap_around() -> None:
    lowest = np.iinfo(np.int64).min
    assert top_of_groups(np.array([lowest, 0]), 1, np.ones(2, bool)).tolist() == [False, True]
    bytes_ = np.array([0, 255, 1, 254], dtype=np.uint8)
    assert top_of_groups(bytes_, 2, np.ones(4, bool)).tolist() == [False, True, False, True]


def test_groups_of_a_convolution_run_along_input_channels() -> None:
    shape = LayerShape(out=2, channels=4, kh=3, kw=3)
    kernel = np.random.default_rng(3).random((2, 3, 3, 4))  # (out, ky, kx, channel)
    mask = NM(2, 4).eligible(kernel.reshape(shape.matrix), shape, everything(shape))
    by_kernel = mask.reshape(kernel.shape)
    for out, ky, kx in np.ndindex(2, 3, 3):
        channels = kernel[out, ky, kx]
        assert set(np.flatnonzero(by_kernel[out, ky, kx])) == set(np.argsort(-channels)[:2])


@pytest.mark.parametrize(("columns", "whole"), [(10, 8), (11, 8), (3, 0), (8, 8)])
def test_remainder_columns(columns: int, whole: int) -> None:
    shape = LayerShape(3, columns)
    score = np.random.default_rng(0).random(shape.matrix)
    mask = NM(2, 4, remainder="dense").eligible(score, shape, everything(shape))
    assert mask[:, whole:].all()
    assert mask[:, :whole].sum() == 3 * whole // 2
    if whole == columns:
        np.testing.assert_array_equal(mask, NM(2, 4).eligible(score, shape, everything(shape)))
    else:
        with pytest.raises(ShapeError, match=f"got {columns} input columns.*multiple of 4"):
            NM(2, 4).eligible(score, shape, everything(shape))


def test_dead_entries_stay_dead_in_groups_and_remainder() -> None:
    shape = LayerShape(1, 6)
    among = np.array([[False, True, False, False, False, True]])
    mask = NM(2, 4, remainder="dense").eligible(np.ones((1, 6)), shape, among)
    assert mask.tolist() == among.tolist()
    assert mask is not among


@pytest.mark.parametrize(
    "build",
    [
        lambda: NM(0, 4),
        lambda: NM(5, 4),
        lambda: NM(2, 0),
        lambda: NM(2.0, 4),  # type: ignore[arg-type]
        lambda: NM(True, 4),
        lambda: NM(2, 4, "pad"),
        lambda: Block(0, 1),
        lambda: Block(1, "4"),  # type: ignore[arg-type]
        lambda: Block(rows=None),  # type: ignore[arg-type]
    ],
)
def test_unusable_settings_raise_at_construction(build) -> None:
    with pytest.raises(UsageError):
        build()


def test_only_nm_fixes_the_sparsity() -> None:
    assert {pattern.fixed_sparsity for pattern in PATTERNS} == {None}
    assert NM(2, 4).fixed_sparsity == 0.5
    assert NM(4, 4).fixed_sparsity == 0
    assert NM(9, 10).fixed_sparsity == 0.1
