"""Exact counts and ties by index, against a stable argsort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.sparsity import check_scores, kept_count, top_k

TINY = 5e-324  # the smallest denormal


def tied(dtype: type) -> st.SearchStrategy[float]:
    """Few distinct values: ties everywhere, both zeros, denormals, neighbours in the last bit."""
    info = np.finfo(dtype)
    tiny, one = info.smallest_subnormal, dtype(1)
    values = [0, -0.0, tiny, -tiny, 2 * tiny, one, np.nextafter(one, dtype(2)), -one, info.max]
    return st.sampled_from([float(value) for value in values])


TIED = tied(np.float64)


def by_stable_argsort(scores: np.ndarray, k: int, among: np.ndarray | None = None) -> np.ndarray:
    """The rule itself: order by score descending, flat index ascending, keep the first k."""
    flat = scores.reshape(-1)
    order = np.argsort(-flat, kind="stable")
    if among is not None:
        order = order[among.reshape(-1)[order]]
    mask = np.zeros(flat.size, dtype=bool)
    mask[order[:k]] = True
    return mask.reshape(scores.shape)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=9), elements=TIED), st.data())
def test_equals_the_stable_sort_under_massive_ties(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, scores.size))
    np.testing.assert_array_equal(top_k(scores, k), by_stable_argsort(scores, k))


@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=9), elements=tied(np.float32)),
    st.data(),
)
def test_equals_the_stable_sort_among_candidates(scores: np.ndarray, data: st.DataObject) -> None:
    among = data.draw(hnp.arrays(bool, scores.shape))
    k = data.draw(st.integers(0, int(among.sum())))
    mask = top_k(scores, k, among=among)
    np.testing.assert_array_equal(mask, by_stable_argsort(scores, k, among))
    assert not np.any(mask & ~among)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64])
def test_large_arrays_of_any_real_type_equal_the_stable_sort(dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 50, size=(300, 100)).astype(dtype)
    for k in (0, 1, 2999, 15000, 29999, 30000):
        wide = scores.astype(np.float64)  # the negation in the oracle must not wrap around
        np.testing.assert_array_equal(top_k(scores, k), by_stable_argsort(wide, k))


def test_every_count_of_every_small_size_with_equal_scores() -> None:
    for size in range(1, 65):
        for sparsity in (0, 1 / size, 0.1, 0.25, 0.5, 0.9, 0.999, 1):
            kept = kept_count(size, sparsity)
            expected = np.arange(size) < kept
            np.testing.assert_array_equal(top_k(np.zeros(size), kept), expected)


def test_both_zeros_tie() -> None:
    scores = np.array([-0.0, 0.0, -0.0, 0.0])
    assert top_k(scores, 2).tolist() == [True, True, False, False]


def test_denormals_are_not_flushed() -> None:
    assert top_k(np.array([0.0, TINY, 0.0]), 1).tolist() == [False, True, False]


def test_extreme_integers_are_ranked_as_integers() -> None:
    info = np.iinfo(np.int64)
    scores = np.array([info.min, info.max - 1, info.max, info.min + 1])
    assert top_k(scores, 1).tolist() == [False, False, True, False]
    assert top_k(scores, 3).tolist() == [False, True, True, True]


def test_a_single_entry() -> None:
    assert top_k(np.array([[3.0]]), 1).tolist() == [[True]]
    assert top_k(np.array([[3.0]]), 0).tolist() == [[False]]


def test_empty_scores() -> None:
    assert top_k(np.empty((0, 3)), 0).shape == (0, 3)
    assert top_k(np.ones(3), 0, among=np.zeros(3, bool)).tolist() == [False] * 3


def test_flat_index_is_row_major_for_any_memory_layout() -> None:
    base = np.zeros((4, 6))
    expected = np.arange(24).reshape(4, 6) < 7
    layouts = [base, np.asfortranarray(base), base.T.copy().T, np.zeros((8, 12))[::2, ::2]]
    for scores in [*layouts, np.broadcast_to(0.0, (4, 6)), base[::-1, ::-1], base.astype(">f8")]:
        np.testing.assert_array_equal(top_k(scores, 7), expected)
        np.testing.assert_array_equal(top_k(scores, 7, among=np.ones((4, 6), bool)), expected)


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3), unique=True))
def test_permuting_distinct_scores_permutes_the_mask(scores: np.ndarray) -> None:
    rng = np.random.default_rng(scores.size)
    order = rng.permutation(scores.size)
    for k in (0, scores.size // 3, scores.size):
        np.testing.assert_array_equal(top_k(scores[order], k), top_k(scores, k)[order])


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=TIED))
def test_masks_of_growing_size_are_nested(scores: np.ndarray) -> None:
    masks = [top_k(scores, k) for k in range(scores.size + 1)]
    for small, large in zip(masks, masks[1:], strict=False):
        assert not np.any(small & ~large)


def test_inputs_are_left_alone() -> None:
    scores, among = np.arange(6.0), np.array([True, False] * 3)
    scores.flags.writeable = among.flags.writeable = False
    mask = top_k(scores, 3, among=among)
    assert mask is not among
    mask[:] = False
    assert among.tolist() == [True, False] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_counted(bad: float) -> None:
    scores = np.ones((3, 4))
    scores[1, :2] = bad
    with pytest.raises(NonFiniteError, match="got 2 of 12 NaN or infinite"):
        top_k(scores, 3)
    with pytest.raises(NonFiniteError, match="layer 'fc1'"):
        check_scores("layer 'fc1'", scores)


def test_a_bad_score_raises_even_where_nothing_may_be_chosen() -> None:
    with pytest.raises(NonFiniteError):
        top_k(np.array([1.0, np.nan]), 1, among=np.array([True, False]))


@pytest.mark.parametrize(
    "bad",
    [np.ones(3, complex), np.ones(3, object), np.ones(3, bool), np.array(["a", "b", "c"]), None],
)
def test_scores_without_an_order_are_refused(bad: object) -> None:
    with pytest.raises(UsageError, match="cannot be ranked"):
        top_k(bad, 1)


@pytest.mark.parametrize("bad", [-1, 4, 1.0, True, "1", None, float("nan")])
def test_counts_that_cannot_be_met_are_refused(bad: object) -> None:
    with pytest.raises(UsageError, match="from 0 to 3"):
        top_k(np.ones(3), bad)  # type: ignore[arg-type]


def test_more_than_the_candidates_is_refused() -> None:
    with pytest.raises(UsageError, match="from 0 to 2"):
        top_k(np.ones(4), 3, among=np.array([True, False, True, False]))


@pytest.mark.parametrize("bad", [np.ones(3, int), np.ones(4, bool), np.ones((1, 3), bool), None])
def test_among_must_be_a_mask_of_the_scores(bad: object) -> None:
    if bad is None:
        assert top_k(np.ones(3), 2, among=None).sum() == 2
        return
    with pytest.raises(ShapeError, match="not a mask"):
        top_k(np.ones(3), 1, among=bad)  # type: ignore[arg-type]


def test_top_magnitudes_minimise_the_distance_over_all_masks_of_the_size() -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(size=10).round(1)
    subsets = (np.arange(2**10)[:, None] >> np.arange(10)) & 1
    removed = ((1 - subsets) * weight**2).sum(axis=1)
    for k in range(11):
        mask = top_k(np.abs(weight), k)
        best = removed[subsets.sum(axis=1) == k].min()
        assert np.sum(weight[~mask] ** 2) == pytest.approx(best, abs=1e-15)
