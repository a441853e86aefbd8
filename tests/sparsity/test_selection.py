"""From scores to masks over whole networks: counts, ties, order, patterns, no revival."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfc, ndtri

from minisparse.errors import NonFiniteError, ShapeError, SparsityError, UsageError
from minisparse.sparsity import (
    ERK,
    NM,
    Allocation,
    Block,
    Column,
    Cubic,
    EqualPerLayer,
    ErdosRenyi,
    Explicit,
    FirstDense,
    FirstLast,
    Global,
    InChannel,
    LayerShape,
    Pattern,
    Rounds,
    Row,
    Uniform,
    Unstructured,
    kept_count,
    select,
)
from minisparse.sparsity.select import top_units
from tests.reliability.counts import examples

ALLOCATIONS = [Global(), Uniform(), ErdosRenyi(), ERK(), EqualPerLayer()]
UNIT_PATTERNS = [Block(2, 2), Block(3, 2), Row(), Column(), InChannel()]
SHAPE = st.builds(LayerShape, st.integers(1, 7), st.integers(1, 7), st.integers(1, 2), st.integers(1, 2))
SHAPES = st.lists(SHAPE, min_size=1, max_size=4).map(
    lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)}
)
SPARSITY = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.1, 0.25, 0.5, 0.9])
SEED = st.integers(0, 10**6)
MANY = examples(100, 1_000, 10_000)
NET = {"conv": LayerShape(8, 4, 3, 3), "fc1": LayerShape(12, 32), "fc2": LayerShape(4, 12)}


def random_scores(shapes: dict[str, LayerShape], seed: int, values: int = 5) -> dict[str, np.ndarray]:
    """Scores with many ties, of alternating dtype."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, values, size=shape.matrix).astype([np.float64, np.float32][i % 2])
        for i, (name, shape) in enumerate(shapes.items())
    }


def distinct_scores(shapes: dict[str, LayerShape], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape.matrix) for name, shape in shapes.items()}


def kept(masks: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


def size_of(shapes: dict[str, LayerShape]) -> int:
    return sum(shape.size for shape in shapes.values())


# Single weights


@settings(max_examples=MANY)
@given(SHAPES, SPARSITY, SEED)
def test_global_ranking_equals_one_stable_sort_of_everything(shapes, sparsity, seed) -> None:
    scores = random_scores(shapes, seed)
    flat = np.concatenate([scores[name].ravel() for name in shapes]).astype(float)
    order = np.argsort(-flat, kind="stable")[: kept_count(flat.size, sparsity)]
    expected = np.zeros(flat.size, dtype=bool)
    expected[order] = True
    masks = select(scores, shapes, sparsity, Global(), Unstructured())
    np.testing.assert_array_equal(np.concatenate([m.ravel() for m in masks.values()]), expected)


@pytest.mark.parametrize("allocation", ALLOCATIONS[1:], ids=repr)
@settings(max_examples=MANY)
@given(shapes=SHAPES, sparsity=SPARSITY, seed=SEED)
def test_layers_equal_a_stable_sort_of_each(allocation: Allocation, shapes, sparsity, seed) -> None:
    scores = random_scores(shapes, seed)
    masks = select(scores, shapes, sparsity, allocation, Unstructured())
    counts = allocation.counts(shapes, sparsity) or {}
    assert sum(counts.values()) == kept_count(size_of(shapes), sparsity)
    for name in shapes:
        expected = np.zeros(shapes[name].size, dtype=bool)
        flat = scores[name].ravel()
        expected[np.argsort(-flat, kind="stable")[: counts[name]]] = True
        np.testing.assert_array_equal(masks[name].ravel(), expected)


def test_global_magnitude_can_collapse_a_layer_and_uniform_cannot() -> None:
    shapes = {"a": LayerShape(1, 10), "b": LayerShape(1, 10)}
    scores = {"a": np.full((1, 10), 0.01), "b": np.ones((1, 10))}
    assert kept(select(scores, shapes, 0.5, Global(), Unstructured())) == {"a": 0, "b": 10}
    assert kept(select(scores, shapes, 0.5, Uniform(), Unstructured())) == {"a": 5, "b": 5}


def test_scaling_a_layer_changes_the_global_mask_only() -> None:
    scores = distinct_scores(NET, 0)
    scaled = scores | {"fc1": 10 * scores["fc1"]}
    for allocation, same in ((Global(), False), (Uniform(), True), (ERK(), True)):
        before = select(scores, NET, 0.8, allocation, Unstructured())
        after = select(scaled, NET, 0.8, allocation, Unstructured())
        assert all(np.array_equal(before[n], after[n]) for n in NET) == same


def test_among_equal_scores_the_lower_layers_and_indices_stay() -> None:
    shapes = {"b": LayerShape(2, 3), "a": LayerShape(2, 3)}
    zeros = {name: np.zeros((2, 3)) for name in shapes}
    masks = select(zeros, shapes, 1 / 3, Global(), Unstructured())
    assert masks["b"].all()
    assert masks["a"].ravel().tolist() == [True, True, False, False, False, False]
    masks = select(zeros, shapes, 0.5, Uniform(), Unstructured())
    assert [m.ravel().tolist() for m in masks.values()] == [[True] * 3 + [False] * 3] * 2


def test_the_order_of_the_scores_does_not_matter_and_the_result_follows_the_shapes() -> None:
    scores = random_scores(NET, 1)
    backwards = dict(reversed(scores.items()))
    for allocation in ALLOCATIONS:
        a = select(scores, NET, 0.7, allocation, Unstructured())
        b = select(backwards, NET, 0.7, allocation, Unstructured())
        assert list(a) == list(b) == list(NET)
        assert all(np.array_equal(a[name], b[name]) for name in NET)


@pytest.mark.parametrize("allocation", [*ALLOCATIONS, FirstLast(), FirstDense(), Explicit()], ids=repr)
@pytest.mark.parametrize("pattern", [Unstructured(), *UNIT_PATTERNS], ids=repr)
def test_sparsity_zero_is_the_identity(allocation: Allocation, pattern: Pattern) -> None:
    masks = select(random_scores(NET, 2), NET, 0, allocation, pattern)
    assert all(mask.all() and mask.dtype == np.bool_ for mask in masks.values())


@pytest.mark.parametrize("pattern", [Unstructured(), *UNIT_PATTERNS], ids=repr)
def test_single_entry_layers(pattern: Pattern) -> None:
    shapes = {name: LayerShape(1, 1) for name in "abcd"}
    scores = {name: np.array([[float(i)]]) for i, name in enumerate(shapes)}
    masks = select(scores, shapes, 0.5, Global(), pattern)
    assert kept(masks) == {"a": 0, "b": 0, "c": 1, "d": 1}
    masks = select(scores, shapes, 0.5, Uniform(), pattern)
    assert kept(masks) == {"a": 1, "b": 1, "c": 0, "d": 0}


@pytest.mark.parametrize(
    ("density", "fractions", "sigmas"),
    [(0.2, (0.34241, 0.05759), (1, 0.5)), (0.05, (0.09903, 0.00097), (1, 0.5))],
)
def test_global_magnitude_of_gaussian_layers_follows_the_error_function(
    density: float, fractions: tuple, sigmas: tuple
) -> None:
    n = 20000
    quantiles = np.abs(ndtri((np.arange(n) + 0.5) / n)).reshape(100, 200)
    shapes = {"a": LayerShape(100, 200), "b": LayerShape(100, 200)}
    scores = {"a": sigmas[0] * quantiles, "b": sigmas[1] * quantiles}
    masks = select(scores, shapes, 1 - density, Global(), Unstructured())
    assert [m.mean() for m in masks.values()] == pytest.approx(fractions, abs=2e-4)
    threshold = max(float(scores[name][~masks[name]].max()) for name in shapes)
    for name, sigma in zip(shapes, sigmas, strict=True):
        assert masks[name].mean() == pytest.approx(erfc(threshold / sigma / 2**0.5), abs=2e-4)


def test_global_magnitude_of_he_initialised_lenet_empties_the_wide_layers_first() -> None:
    shapes = {"a": LayerShape(300, 784), "b": LayerShape(100, 300), "c": LayerShape(10, 100)}
    scores = {}
    for name, shape in shapes.items():
        uniform = (np.arange(shape.size) + 0.5) / shape.size
        scores[name] = np.abs(ndtri(uniform)).reshape(shape.matrix) * np.sqrt(2 / shape.channels)
    masks = select(scores, shapes, 0.9, Global(), Unstructured())
    assert [m.mean() for m in masks.values()] == pytest.approx((0.07617, 0.27264, 0.52651), abs=1e-3)


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=repr)
def test_magnitude_is_nearest_among_all_masks_with_its_layer_counts(allocation: Allocation) -> None:
    shapes = {"a": LayerShape(2, 3), "b": LayerShape(1, 4)}
    weights = {n: np.random.default_rng(4).normal(size=s.matrix).round(1) for n, s in shapes.items()}
    masks = select({n: np.abs(w) for n, w in weights.items()}, shapes, 0.6, allocation, Unstructured())
    for name, weight in weights.items():
        size, left = weight.size, int(masks[name].sum())
        energy = [(weight.ravel()[list(c)] ** 2).sum() for c in combinations(range(size), left)]
        assert (weight[masks[name]] ** 2).sum() == pytest.approx(max(energy))


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=repr)
def test_permuting_units_permutes_the_masks(allocation: Allocation) -> None:
    shapes = {"a": LayerShape(6, 5), "b": LayerShape(4, 6)}
    scores = distinct_scores(shapes, 5)
    rng = np.random.default_rng(6)
    rows = {name: rng.permutation(shape.out) for name, shape in shapes.items()}
    columns = {name: rng.permutation(shape.channels) for name, shape in shapes.items()}
    moved = {name: scores[name][rows[name]][:, columns[name]] for name in shapes}
    for pattern in (Unstructured(), Row(), Column()):
        before = select(scores, shapes, 0.55, allocation, pattern)
        after = select(moved, shapes, 0.55, allocation, pattern)
        for name in shapes:
            np.testing.assert_array_equal(after[name], before[name][rows[name]][:, columns[name]])


# Pruning again


@given(SHAPES, st.lists(SPARSITY, min_size=1, max_size=6), SEED)
def test_global_masks_of_growing_sparsity_are_nested(shapes, levels, seed) -> None:
    scores = random_scores(shapes, seed)
    masks = [select(scores, shapes, s, Global(), Unstructured()) for s in sorted(levels)]
    for loose, tight in zip(masks, masks[1:], strict=False):
        assert not any(np.any(tight[name] & ~loose[name]) for name in shapes)


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=repr)
@settings(max_examples=40)
@given(shapes=SHAPES, target=SPARSITY, seed=SEED, horizon=st.integers(0, 12))
def test_gradual_pruning_never_revives_and_meets_every_count(
    allocation: Allocation, shapes, target, seed, horizon
) -> None:
    """New scores at every update, as in training; what is pruned may even score highest."""
    masks = {name: np.ones(shape.matrix, dtype=bool) for name, shape in shapes.items()}
    for i, (_, level) in enumerate(Cubic(0, 1, 1).curve(horizon, target)):
        new = select(random_scores(shapes, seed + i), shapes, level, allocation, Unstructured(), masks)
        assert not any(np.any(new[name] & ~masks[name]) for name in shapes)
        assert sum(kept(new).values()) == kept_count(size_of(shapes), level)
        masks = new


@pytest.mark.parametrize("pattern", UNIT_PATTERNS, ids=repr)
@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=repr)
@settings(max_examples=25)
@given(shapes=SHAPES, target=SPARSITY, seed=SEED)
def test_gradual_pruning_by_units_never_revives_and_keeps_whole_units(
    allocation: Allocation, pattern: Pattern, shapes, target, seed
) -> None:
    masks = {name: np.ones(shape.matrix, dtype=bool) for name, shape in shapes.items()}
    for i, (_, level) in enumerate(Cubic(0, 1, 1).curve(4, target)):
        new = select(random_scores(shapes, seed + i), shapes, level, allocation, pattern, masks)
        for name, shape in shapes.items():
            assert not np.any(new[name] & ~masks[name])
            live = pattern.total(new[name].astype(int), shape)
            assert np.all((live == 0) | (live == pattern.sizes(shape)))
        masks = new


@pytest.mark.parametrize("pattern", [Unstructured(), Row(), Block(2, 2)], ids=repr)
@pytest.mark.parametrize(
    "allocation",
    [FirstDense(), FirstDense(True), FirstLast("never"), FirstLast(), Explicit({"layer0": 0.25})],
    ids=repr,
)
@settings(max_examples=40)
@given(shapes=SHAPES, target=SPARSITY, seed=SEED)
def test_layers_with_exceptions_can_be_pruned_gradually(allocation, pattern, shapes, target, seed) -> None:
    masks = {name: np.ones(shape.matrix, dtype=bool) for name, shape in shapes.items()}
    for i, (_, level) in enumerate(Cubic(0, 1, 1).curve(6, target)):
        try:
            new = select(random_scores(shapes, seed + i), shapes, level, allocation, pattern, masks)
        except SparsityError as error:  # the exceptions leave too little, however it is reached
            assert "keeps more than is left" not in str(error)
            with pytest.raises(SparsityError):
                allocation.counts(shapes, level)
            return
        assert not any(np.any(new[name] & ~masks[name]) for name in shapes)
        masks = new


def test_explicit_rows_do_not_come_back_when_the_named_layers_reach_their_sparsity() -> None:
    """0.25 of 6 entries rounds to 2, a third: rows must follow the 0.25 all the way."""
    shapes = {"a": LayerShape(2, 3), "b": LayerShape(20, 30)}
    allocation, masks = Explicit({"a": 0.25, "b": 0.5}), None
    for removed in (301, 302):  # one entry before all is reached, and there
        rates = allocation.sparsities(shapes, removed / 606) or {}
        assert rates == pytest.approx({"a": 0.25 * removed / 302, "b": 0.5 * removed / 302})
        masks = select(distinct_scores(shapes, 0), shapes, removed / 606, allocation, Row(), masks)
        assert masks["a"].all()


@pytest.mark.parametrize("pattern", [Unstructured(), Row()], ids=repr)
@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=repr)
def test_rounds_with_fixed_scores_equal_one_shot(allocation: Allocation, pattern: Pattern) -> None:
    """Weights that do not interact: iterative and one-shot magnitude pruning agree."""
    shapes = {"a": LayerShape(20, 20), "b": LayerShape(20, 20)}
    scores, masks = distinct_scores(shapes, 7), None
    for _, level in Rounds(5).curve(100, 0.9):
        masks = select(scores, shapes, level, allocation, pattern, masks)
    once = select(scores, shapes, 0.9, allocation, pattern)
    assert masks is not None
    assert all(np.array_equal(masks[name], once[name]) for name in shapes)


def test_dead_entries_rank_below_live_ones_whatever_their_scores() -> None:
    shapes = {"a": LayerShape(1, 4)}
    scores = {"a": np.array([[9.0, 9.0, 0.0, -5.0]])}
    among = {"a": np.array([[False, False, True, True]])}
    masks = select(scores, shapes, 0.5, Uniform(), Unstructured(), among)
    assert masks["a"].tolist() == [[False, False, True, True]]


def test_repeating_a_level_changes_nothing() -> None:
    scores = random_scores(NET, 8)
    for allocation in ALLOCATIONS:
        for pattern in (Unstructured(), *UNIT_PATTERNS):
            first = select(scores, NET, 0.7, allocation, pattern)
            again = select(scores, NET, 0.7, allocation, pattern, first)
            assert all(np.array_equal(first[name], again[name]) for name in NET)


@pytest.mark.parametrize("allocation", [Global(), Uniform()], ids=repr)
@pytest.mark.parametrize("pattern", [Unstructured(), Row(), Block(5, 3)], ids=repr)
def test_asking_back_what_is_gone_raises(allocation: Allocation, pattern: Pattern) -> None:
    scores = random_scores(NET, 9)
    masks = select(scores, NET, 0.9, allocation, pattern)
    with pytest.raises(SparsityError, match="keeps more than is left"):
        select(scores, NET, 0.2, allocation, pattern, masks)


# Units larger than one weight


def nearest_units(scores: np.ndarray, sizes: np.ndarray, live: np.ndarray, sparsity: float) -> np.ndarray:
    """The rule by trying every number of removed units."""
    order = sorted(np.flatnonzero(live), key=lambda i: (-scores[i], i))
    best, goal = None, sparsity * sizes.sum()
    for number in range(len(order) + 1):
        removed = sizes.sum() - sum(live[i] for i in order[:number])
        key = (abs(removed - goal), (sizes.size - number) % 2)
        best = min(best, (key, number)) if best else (key, number)
    mask = np.zeros(sizes.size, dtype=bool)
    mask[order[: best[1]] if best else []] = True
    return mask


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(0, 63).map(lambda part: part / 64),  # products with counts are exact
)
def test_units_equal_the_rule_by_enumeration(pairs, sparsity: float) -> None:
    sizes, scores = np.array(pairs).T
    mask = top_units(scores.astype(float), sizes, sizes, sparsity)
    np.testing.assert_array_equal(mask, nearest_units(scores, sizes, sizes, sparsity))


def test_halfway_between_two_numbers_of_units_the_even_number_goes() -> None:
    sizes = np.array([2, 2, 4])
    scores = np.array([0.0, 1, 2])
    for eighths, removed in ((1, 0), (3, 2), (6, 2), (2, 1)):  # 6 is halfway between 4 and 8
        mask = top_units(scores, sizes, sizes, eighths / 8)
        assert mask.tolist() == [unit >= removed for unit in range(3)]


@given(st.integers(1, 9), st.integers(1, 5), SPARSITY)
def test_units_of_equal_size_are_counted_like_weights(units: int, size: int, sparsity: float) -> None:
    sizes = np.full(units, size)
    mask = top_units(np.zeros(units), sizes, sizes, sparsity)
    assert mask.tolist() == [i < kept_count(units, sparsity) for i in range(units)]


@given(SHAPES, SPARSITY, SEED)
def test_one_by_one_blocks_are_single_weights(shapes, sparsity: float, seed: int) -> None:
    scores = random_scores(shapes, seed)
    for allocation in ALLOCATIONS:
        blocks = select(scores, shapes, sparsity, allocation, Block(1, 1))
        single = select(scores, shapes, sparsity, allocation, Unstructured())
        assert all(np.array_equal(blocks[name], single[name]) for name in shapes)


def test_a_block_over_the_whole_matrix_keeps_or_drops_it() -> None:
    shapes = {"a": LayerShape(5, 6)}
    scores = random_scores(shapes, 0)
    assert select(scores, shapes, 0.5, Uniform(), Block(8, 8))["a"].all()
    assert not select(scores, shapes, 0.51, Uniform(), Block(8, 8))["a"].any()


def test_rows_and_channels_are_counted_exactly_in_every_layer() -> None:
    scores = distinct_scores(NET, 10)
    for sparsity in np.linspace(0, 0.999, 37):
        rows = select(scores, NET, sparsity, Uniform(), Row())
        channels = select(scores, NET, sparsity, Uniform(), InChannel())
        for name, shape in NET.items():
            assert rows[name].any(axis=1).sum() == kept_count(shape.out, sparsity)
            alive = channels[name].reshape(shape.out, shape.taps, shape.channels).any(axis=(0, 1))
            assert alive.sum() == kept_count(shape.channels, sparsity)
            assert set(channels[name].mean(axis=0)) <= {0.0, 1.0}


def test_filters_are_ranked_by_their_mean() -> None:
    shapes = {"conv": LayerShape(3, 2, 2, 2)}
    score = np.zeros((3, 8))
    score[0, :4], score[1, 0], score[2, :] = 0.9, 3.5, 0.5  # means 0.45, 0.4375, 0.5
    masks = select({"conv": score}, shapes, 0.4, Uniform(), Row())
    assert masks["conv"].any(axis=1).tolist() == [True, False, True]


def test_global_units_of_different_size_compete_by_mean_and_come_nearest_in_weights() -> None:
    shapes = {"wide": LayerShape(2, 10), "thin": LayerShape(4, 3)}
    scores = {
        "wide": np.repeat([[1.0], [5]], 10, axis=1),
        "thin": np.repeat([[2.0], [3], [4], [6]], 3, axis=1),
    }
    masks = select(scores, shapes, 0.5, Global(), Row())
    # of 32 weights 16 should go: wide row 0 (10), then thin rows 0 and 1 (16)
    assert masks["wide"].any(axis=1).tolist() == [False, True]
    assert masks["thin"].any(axis=1).tolist() == [False, False, True, True]


@pytest.mark.parametrize("pattern", UNIT_PATTERNS, ids=repr)
@given(shapes=SHAPES, sparsity=SPARSITY, seed=SEED)
def test_units_miss_the_count_by_half_a_unit_at_most(pattern: Pattern, shapes, sparsity, seed) -> None:
    scores = random_scores(shapes, seed)
    masks = select(scores, shapes, sparsity, Global(), pattern)
    largest = max(int(pattern.sizes(shape).max()) for shape in shapes.values())
    removed = size_of(shapes) - sum(kept(masks).values())
    assert abs(removed - sparsity * size_of(shapes)) <= largest / 2 + 1e-9
    for name, shape in shapes.items():
        alone = select({name: scores[name]}, {name: shape}, sparsity, Uniform(), pattern)
        gone = shape.size - kept(alone)[name]
        assert abs(gone - sparsity * shape.size) <= int(pattern.sizes(shape).max()) / 2 + 1e-9


def test_partly_dead_units_are_ranked_and_counted_by_what_is_alive() -> None:
    shapes = {"a": LayerShape(3, 4)}
    scores = {"a": np.array([[9.0, 9, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]])}
    among = {"a": np.array([[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=bool)}
    masks = select(scores, shapes, 1 / 3, Uniform(), Row(), among)
    assert masks["a"].sum(axis=1).tolist() == [0, 4, 4]
    masks = select(scores, shapes, 1 / 6, Uniform(), Row(), among)
    np.testing.assert_array_equal(masks["a"], among["a"])


def test_a_unit_lost_to_rounding_is_no_error_at_the_next_level() -> None:
    """Units of 2, 2, 2 and 1 entries: removing 6 of 7 is halfway between three and four units."""
    shapes = {"a": LayerShape(1, 7)}
    score = {"a": np.array([[2.0, 2, 2, 2, 3, 3, 1]])}
    masks = select(score, shapes, 0.861, ErdosRenyi(), Block(2, 2))
    assert not masks["a"].any()
    again = select(score, shapes, 0.875, ErdosRenyi(), Block(2, 2), masks)
    assert not again["a"].any()


# N:M


@pytest.mark.parametrize("sparsity", [None, 0.5])
@pytest.mark.parametrize("allocation", [Global(), Uniform()], ids=repr)
def test_nm_has_its_own_sparsity_in_every_layer(allocation: Allocation, sparsity) -> None:
    masks = select(distinct_scores(NET, 11), NET, sparsity, allocation, NM(2, 4))
    for name, shape in NET.items():
        assert np.all(masks[name].reshape(shape.out, -1, 4).sum(axis=2) == 2)


def test_nm_keeps_less_energy_than_single_weights_and_coarser_groups_more() -> None:
    weights = {n: np.random.default_rng(12).normal(size=s.matrix) for n, s in NET.items()}
    weights.pop("conv")
    shapes = {n: NET[n] for n in weights}
    scores = {n: np.abs(w) for n, w in weights.items()}
    patterns = [NM(1, 2), NM(2, 4), Unstructured()]
    energy = []
    for pattern in patterns:
        masks = select(scores, shapes, 0.5, Uniform(), pattern)
        energy.append(sum((weights[n][masks[n]] ** 2).sum() for n in shapes))
    assert energy == sorted(energy)
    assert energy[0] < energy[-1]


def test_nm_with_n_equal_to_m_is_the_identity() -> None:
    masks = select(random_scores(NET, 13), NET, 0.0, Uniform(), NM(4, 4))
    assert all(mask.all() for mask in masks.values())


def test_allocations_may_only_exempt_layers_from_nm() -> None:
    scores = distinct_scores(NET, 14)
    masks = select(scores, NET, 0.5, FirstDense(), NM(2, 4))
    assert {name: mask.mean() for name, mask in masks.items()} == {"conv": 1, "fc1": 0.5, "fc2": 0.5}
    with pytest.raises(SparsityError, match="layer 'conv' does not fit the pattern"):
        select(scores, NET, 0.5, ERK(), NM(2, 4))


def test_nm_respects_what_is_dead() -> None:
    shapes = {"a": LayerShape(1, 8)}
    among = {"a": np.array([[1, 1, 1, 0, 0, 0, 0, 1]], dtype=bool)}
    masks = select({"a": np.arange(8.0)[None]}, shapes, None, Global(), NM(2, 4), among)
    assert masks["a"].astype(int).tolist() == [[0, 1, 1, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("pattern", "bad", "good"), [(NM(2, 4), 0.9, 0.5), (NM(1, 3), 0.67, 0.666667), (NM(3, 4), 0.5, 0.25)]
)
def test_another_sparsity_than_that_of_nm_is_refused_with_the_right_one(pattern, bad, good) -> None:
    shapes = {"a": LayerShape(2, 12)}
    scores = random_scores(shapes, 0)
    with pytest.raises(SparsityError, match=f"Ask for sparsity {good} or leave it out"):
        select(scores, shapes, bad, Global(), pattern)
    assert select(scores, shapes, good, Global(), pattern)["a"].mean() == pytest.approx(1 - good, abs=1e-6)
    with pytest.raises(SparsityError, match="Did you mean 0.50"):
        select(scores, shapes, 50, Global(), pattern)


def test_columns_that_m_does_not_divide() -> None:
    shapes = {"a": LayerShape(2, 6)}
    scores = random_scores(shapes, 0)
    with pytest.raises(ShapeError, match="got 6 input columns"):
        select(scores, shapes, 0.5, Global(), NM(2, 4))
    masks = select(scores, shapes, 0.5, Global(), NM(2, 4, "dense"))
    assert kept(masks) == {"a": 8}


# Inputs


@pytest.mark.parametrize("pattern", [Unstructured(), *UNIT_PATTERNS, NM(2, 4)], ids=repr)
def test_inputs_are_left_alone_and_masks_are_new(pattern: Pattern) -> None:
    scores = random_scores(NET, 15)
    among = {name: np.ones(shape.matrix, dtype=bool) for name, shape in NET.items()}
    for array in (*scores.values(), *among.values()):
        array.flags.writeable = False
    for allocation in (Global(), Uniform(), FirstDense()):
        masks = select(scores, NET, 0.5, allocation, pattern, among)
        for name, mask in masks.items():
            assert mask.flags.writeable
            assert not np.shares_memory(mask, among[name])


def test_bad_scores_name_their_layer() -> None:
    scores = random_scores(NET, 16)
    scores["fc1"][3, :2] = np.nan
    with pytest.raises(NonFiniteError, match="layer 'fc1' are not finite: got 2 of 384"):
        select(scores, NET, 0.5, Global(), Unstructured())
    for bad in (scores["fc1"].astype(complex), scores["fc1"].astype(object)):
        with pytest.raises(UsageError, match="layer 'fc1' cannot be ranked"):
            select(scores | {"fc1": bad}, NET, 0.5, Global(), Unstructured())
    with pytest.raises(ShapeError, match=r"layer 'conv' have the wrong shape.*expected \(8, 36\)"):
        select(scores | {"conv": np.ones((8, 4, 3, 3))}, NET, 0.5, Global(), Unstructured())


def test_layers_must_match() -> None:
    scores = random_scores(NET, 17)
    among = {name: np.ones(shape.matrix, dtype=bool) for name, shape in NET.items()}
    missing = {name: scores[name] for name in ("conv", "fc1")}
    for bad_scores, bad_among in (
        (missing, None),
        (scores | {"fc9": scores["fc1"]}, None),
        (scores, {"conv": among["conv"]}),
    ):
        with pytest.raises(UsageError, match="do not match the layers"):
            select(bad_scores, NET, 0.5, Global(), Unstructured(), bad_among)
    with pytest.raises(UsageError, match="at least one"):
        select({}, {}, 0.5, Global(), Unstructured())
    with pytest.raises(ShapeError, match="among of layer 'conv' is not a mask"):
        wrong = among | {"conv": np.ones((8, 36))}
        select(scores, NET, 0.5, Global(), Unstructured(), wrong)


@pytest.mark.parametrize("bad", [90, 1.0, -0.1, True, "0.5", float("nan"), None])
@pytest.mark.parametrize("pattern", [Unstructured(), Row()], ids=repr)
def test_the_sparsity_is_checked(bad, pattern: Pattern) -> None:
    for allocation in (Global(), Uniform()):
        with pytest.raises(SparsityError, match="sparsity"):
            select(random_scores(NET, 18), NET, bad, allocation, pattern)
