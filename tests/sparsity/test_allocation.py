"""Entries per layer: published tables, exact sums, capping, exceptions."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import SparsityError, UnknownNameError, UsageError
from minisparse.sparsity import (
    ERK,
    Allocation,
    EqualPerLayer,
    ErdosRenyi,
    Explicit,
    FirstDense,
    FirstLast,
    Global,
    LayerShape,
    Uniform,
    kept_count,
)
from minisparse.sparsity.allocation import budget, sizes_of
from minisparse.sparsity.apportion import apportion, water_fill

LENET = {"fc1": LayerShape(300, 784), "fc2": LayerShape(100, 300), "fc3": LayerShape(10, 100)}
CONVNET = {
    "conv1": LayerShape(16, 3, 3, 3),
    "conv2": LayerShape(32, 16, 3, 3),
    "fc": LayerShape(10, 32),
}
RESNET50 = {
    "conv1": LayerShape(64, 3, 7, 7),
    "middle": LayerShape(1, 25_502_912 - 9_408 - 2_048_000),
    "fc": LayerShape(1000, 2048),
}
SHAPE = st.builds(LayerShape, st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3))
SHAPES = st.lists(SHAPE, min_size=1, max_size=6).map(
    lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)}
)
SPARSITY = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.1, 0.5, 0.8, 0.9, 0.95, 0.99])
ALWAYS_POSSIBLE = [Uniform(), ErdosRenyi(), ERK(), ERK(power=0.5), EqualPerLayer(), ERK(power=0)]


@pytest.mark.parametrize("allocation", ALWAYS_POSSIBLE, ids=repr)
@given(shapes=SHAPES, sparsity=SPARSITY)
def test_counts_sum_exactly_and_stay_within_one_of_their_share(
    allocation: Allocation, shapes: dict[str, LayerShape], sparsity: float
) -> None:
    counts, shares = allocation.counts(shapes, sparsity), allocation.shares(shapes, sparsity)
    assert counts is not None
    assert shares is not None
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == kept_count(sum(sizes_of(shapes).values()), sparsity)
    for name, shape in shapes.items():
        assert 0 <= counts[name] <= shape.size
        assert abs(counts[name] - shares[name]) < 1


@pytest.mark.parametrize("allocation", ALWAYS_POSSIBLE, ids=repr)
@given(shape=SHAPE, sparsity=SPARSITY)
def test_a_single_layer_keeps_the_count_of_the_rule(
    allocation: Allocation, shape: LayerShape, sparsity: float
) -> None:
    assert allocation.counts({"a": shape}, sparsity) == {"a": kept_count(shape.size, sparsity)}


@pytest.mark.parametrize("allocation", [*ALWAYS_POSSIBLE, FirstLast(), FirstDense()], ids=repr)
@given(shapes=SHAPES)
def test_sparsity_zero_keeps_everything(allocation: Allocation, shapes: dict[str, LayerShape]) -> None:
    assert allocation.counts(shapes, 0.0) == sizes_of(shapes)
    assert set((allocation.sparsities(shapes, 0.0) or {}).values()) == {0.0}


@pytest.mark.parametrize("allocation", ALWAYS_POSSIBLE, ids=repr)
@given(shape=SHAPE, layers=st.integers(1, 5), sparsity=SPARSITY)
def test_equal_layers_share_equally_and_the_lower_ones_take_the_odd_entries(
    allocation: Allocation, shape: LayerShape, layers: int, sparsity: float
) -> None:
    counts = allocation.counts({f"l{i}": shape for i in range(layers)}, sparsity)
    each, odd = divmod(kept_count(layers * shape.size, sparsity), layers)
    assert counts == {f"l{i}": each + (i < odd) for i in range(layers)}


@pytest.mark.parametrize("allocation", ALWAYS_POSSIBLE, ids=repr)
@given(shapes=SHAPES, a=SPARSITY, b=SPARSITY)
def test_real_valued_densities_fall_as_sparsity_grows(
    allocation: Allocation, shapes: dict[str, LayerShape], a: float, b: float
) -> None:
    low, high = sorted((a, b))
    loose, tight = allocation.shares(shapes, low), allocation.shares(shapes, high)
    assert loose is not None
    assert tight is not None
    assert all(tight[name] <= loose[name] for name in shapes)


@pytest.mark.parametrize(
    ("sparsity", "counts", "densities"),
    [
        (0.80, (38159, 14081, 1000), (0.16224, 0.46936, 1)),
        (0.90, (18714, 6906, 1000), (0.07957, 0.23019, 1)),
        (0.95, (9051, 3340, 919), (0.03848, 0.11133, 0.91851)),
        (0.98, (3621, 1336, 367), (0.01539, 0.04453, 0.36740)),
        (0.99, (1810, 668, 184), (0.00770, 0.02227, 0.18370)),
    ],
)
def test_erk_of_lenet_300_100(sparsity: float, counts: tuple, densities: tuple) -> None:
    for allocation in (ERK(), ErdosRenyi()):  # a matrix has no kernel
        assert tuple((allocation.counts(LENET, sparsity) or {}).values()) == counts
        rates = allocation.sparsities(LENET, sparsity) or {}
        assert [1 - s for s in rates.values()] == pytest.approx(densities, abs=6e-6)


@pytest.mark.parametrize(
    ("sparsity", "densities", "counts"),
    [
        (0.5, (1, 0.418403, 1), (432, 1928, 320)),
        (0.8, (0.55087, 0.11155, 1), (238, 514, 320)),
        (0.9, (0.25635, 0.05191, 0.58140), (111, 239, 186)),
    ],
)
def test_erk_of_a_small_convolutional_network(sparsity, densities, counts) -> None:
    assert tuple((ERK().counts(CONVNET, sparsity) or {}).values()) == counts
    rates = ERK().sparsities(CONVNET, sparsity) or {}
    assert [1 - s for s in rates.values()] == pytest.approx(densities, abs=6e-6)


@given(SHAPES, SPARSITY)
def test_erk_densities_solve_the_capped_equation(shapes: dict[str, LayerShape], sparsity: float) -> None:
    """Independent solution: bisect eps in sum_l min(1, eps raw_l) n_l = b, in floats."""
    raw = {}
    for name, shape in shapes.items():
        n_in, n_out, kh, kw = shape.dims
        dims = [n_in, n_out] if kh * kw == 1 else [n_in, n_out, kh, kw]
        raw[name] = sum(dims) / shape.size
    low, high = 0.0, 1 / min(raw.values())
    for _ in range(200):
        eps = (low + high) / 2
        total = sum(min(1, eps * raw[name]) * shape.size for name, shape in shapes.items())
        low, high = (eps, high) if total < budget(shapes, sparsity) else (low, eps)
    rates = ERK().sparsities(shapes, sparsity) or {}
    for name in shapes:
        assert 1 - rates[name] == pytest.approx(min(1, eps * raw[name]), abs=1e-9)


def test_erk_power_and_the_kernel_free_form() -> None:
    conv = {"a": LayerShape(8, 4, 3, 3), "b": LayerShape(8, 8, 5, 5)}
    ratio = (ERK(power=2).shares(conv, 0.9), ERK().shares(conv, 0.9), ErdosRenyi().shares(conv, 0.9))
    power2, power1, kernel_free = [float(s["a"] / 288) / float(s["b"] / 1600) for s in ratio if s is not None]
    assert power1 == pytest.approx((18 / 288) / (26 / 1600))
    assert power2 == pytest.approx(power1**2)
    assert kernel_free == pytest.approx((12 / 32) / (16 / 64))


def test_equal_per_layer_gives_small_layers_up_and_shares_their_surplus() -> None:
    shapes = {"big": LayerShape(100, 10), "tiny": LayerShape(1, 7), "mid": LayerShape(10, 10)}
    # b = 107: tiny is dense, the other two share 100
    assert EqualPerLayer().counts(shapes, 1 - 107 / 1107) == {"big": 50, "tiny": 7, "mid": 50}


def test_uniform_splits_ties_to_the_lower_layer() -> None:
    shapes = {"a": LayerShape(1, 10), "b": LayerShape(1, 10)}
    assert Uniform().counts(shapes, 0.25) == {"a": 8, "b": 7}
    assert Uniform().sparsities(shapes, 0.25) == {"a": 0.25, "b": 0.25}


def test_global_has_no_shares() -> None:
    assert Global().shares(LENET, 0.9) is None
    assert Global().counts(LENET, 0.9) is None
    assert Global().sparsities(LENET, 0.9) is None


def test_largest_remainder_is_the_nearest_whole_vector_with_the_sum() -> None:
    for tenths in product(range(0, 25, 3), repeat=3):
        total, rest = divmod(sum(tenths), 10)
        if rest:
            continue
        shares = {name: Fraction(t, 10) for name, t in zip("abc", tenths, strict=True)}
        counts = apportion(shares, total)
        assert sum(counts.values()) == total
        error = sum((counts[n] - shares[n]) ** 2 for n in shares)
        others = [c for c in product(range(4), repeat=3) if sum(c) == total]
        assert error == min(
            sum((x - s) ** 2 for x, s in zip(c, shares.values(), strict=True)) for c in others
        )


def test_equal_remainders_go_to_the_lower_layer() -> None:
    half = Fraction(1, 2)
    assert apportion({"a": half, "b": 2 + half, "c": half, "d": half}, 4) == {
        "a": 1,
        "b": 3,
        "c": 0,
        "d": 0,
    }


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6), st.data())
def test_water_fill_is_proportional_below_the_caps(pairs, data: st.DataObject) -> None:
    weights = {str(i): Fraction(w) for i, (w, _) in enumerate(pairs)}
    caps = {str(i): c for i, (_, c) in enumerate(pairs)}
    total = data.draw(st.integers(0, sum(caps.values())))
    shares = water_fill(weights, caps, total)
    assert sum(shares.values()) == total
    assert all(0 <= shares[name] <= caps[name] for name in shares)
    free = [n for n in shares if shares[n] < caps[n] and weights[n] > 0]
    assert len({shares[n] / weights[n] for n in free}) <= 1
    for name in shares:  # a capped layer would have got at least its cap at the common rate
        if free and weights[name] > 0:
            assert shares[name] / weights[name] <= shares[free[0]] / weights[free[0]]
    counts = apportion(shares, total)
    assert all(counts[name] <= caps[name] for name in caps)


def test_caps_hand_the_surplus_to_the_other_layers() -> None:
    shapes = {n: LayerShape(1, 10) for n in "abc"}
    assert Uniform().counts(shapes, 0.5, {"a": 2, "b": 10, "c": 10}) == {"a": 2, "b": 7, "c": 6}
    with pytest.raises(SparsityError, match="got 14 live entries, expected at least 15"):
        Uniform().counts(shapes, 0.5, {"a": 2, "b": 2, "c": 10})


@given(SHAPES, st.lists(SPARSITY, min_size=2, max_size=8))
def test_gradual_counts_can_always_be_met_from_what_is_alive(
    shapes: dict[str, LayerShape], levels: list[float]
) -> None:
    """Largest remainder is not monotone in the total (Alabama paradox); caps make it so."""
    for allocation in ALWAYS_POSSIBLE:
        alive = sizes_of(shapes)
        for sparsity in sorted(levels):
            counts = allocation.counts(shapes, sparsity, alive)
            assert counts is not None
            assert sum(counts.values()) == budget(shapes, sparsity)
            assert all(counts[name] <= alive[name] for name in shapes)
            alive = counts


def test_the_alabama_paradox_is_real() -> None:
    shapes = {"a": LayerShape(1, 15), "b": LayerShape(1, 15), "c": LayerShape(1, 5)}
    counts = [Uniform().counts(shapes, pruned / 35) or {} for pruned in range(35)]
    gains = [b["c"] - a["c"] for a, b in zip(counts, counts[1:], strict=False)]
    assert max(gains) == 1  # the small layer gains an entry while the total falls


@pytest.mark.parametrize(
    ("sparsity", "mid"), [(0.90, 0.9091), (0.95, 0.9635), (0.965, 0.9798), (0.80, 0.8003)]
)
def test_first_last_gives_the_published_resnet_50_sparsities(sparsity: float, mid: float) -> None:
    rates = FirstLast().sparsities(RESNET50, sparsity) or {}
    assert rates["conv1"] == 0
    assert rates["middle"] == pytest.approx(mid, abs=5e-5)
    assert rates["fc"] == pytest.approx(min(0.8, rates["middle"]), abs=1e-6)
    counts = FirstLast().counts(RESNET50, sparsity) or {}
    assert sum(counts.values()) == kept_count(25_502_912, sparsity)


def test_first_last_keeps_a_linear_first_layer_unless_told() -> None:
    rates = FirstLast().sparsities(LENET, 0.7) or {}
    assert len({round(s, 5) for s in rates.values()}) == 1
    rates = FirstLast(dense_first="always").sparsities(LENET, 0.1) or {}
    assert rates["fc1"] == 0
    rates = FirstLast(dense_first="never", last=0.5).sparsities(CONVNET, 0.7) or {}
    assert rates["conv1"] == pytest.approx(rates["conv2"])
    assert rates["fc"] == 0.5


@given(SHAPES, SPARSITY, st.sampled_from(["conv", "always", "never"]), st.floats(0, 0.99))
def test_first_last_is_exact_or_refuses(shapes, sparsity: float, first: str, last: float) -> None:
    allocation = FirstLast(first, last)
    try:
        counts = allocation.counts(shapes, sparsity)
    except SparsityError as error:
        assert "cannot meet the sparsity" in str(error)
        return
    assert counts is not None
    names = list(shapes)
    assert sum(counts.values()) == budget(shapes, sparsity)
    if first == "always":
        assert counts[names[0]] == shapes[names[0]].size
    assert counts[names[-1]] >= kept_count(shapes[names[-1]].size, last)


def test_first_last_refuses_what_it_cannot_meet() -> None:
    with pytest.raises(SparsityError, match="allocation first-last cannot meet the sparsity"):
        FirstLast(dense_first="always").counts(LENET, 0.9)
    with pytest.raises(SparsityError):
        FirstLast().counts({"only": LayerShape(10, 10)}, 0.9)
    assert FirstLast().counts({"only": LayerShape(10, 10)}, 0.8) == {"only": 20}


def test_first_dense_is_denser_than_asked_unless_it_compensates() -> None:
    counts = FirstDense().counts(CONVNET, 0.9) or {}
    assert counts == {"conv1": 432, "conv2": kept_count(4608, 0.9), "fc": 32}
    assert FirstDense().sparsities(CONVNET, 0.9) == {"conv1": 0.0, "conv2": 0.9, "fc": 0.9}
    exact = FirstDense(compensate=True).counts(CONVNET, 0.9) or {}
    assert exact["conv1"] == 432
    assert sum(exact.values()) == 536
    rates = FirstDense(compensate=True).sparsities(CONVNET, 0.9) or {}
    assert rates["conv2"] == pytest.approx(1 - 104 / 4928)
    assert rates["fc"] == pytest.approx(1 - 104 / 4928)


def test_first_dense_refuses_what_it_cannot_meet() -> None:
    with pytest.raises(SparsityError, match="first-dense cannot meet"):
        FirstDense(compensate=True).counts(LENET, 0.9)
    with pytest.raises(SparsityError, match="nothing to prune"):
        FirstDense().counts({"only": LayerShape(4, 4)}, 0.5)


def test_explicit_layers_get_theirs_and_the_others_share_the_rest() -> None:
    counts = Explicit({"fc1": 0.95, "fc3": 0.5}).counts(LENET, 0.9) or {}
    assert counts == {"fc1": 11760, "fc2": 26620 - 11760 - 500, "fc3": 500}
    rates = Explicit({"fc1": 0.95, "fc3": 0.5}).sparsities(LENET, 0.9) or {}
    assert rates == {"fc1": 0.95, "fc2": pytest.approx(1 - 14360 / 30000), "fc3": 0.5}


def test_explicit_layers_keep_their_sparsity_where_rounding_would_change_it() -> None:
    shapes = {"a": LayerShape(5, 2), "b": LayerShape(50, 10)}
    allocation = Explicit({"a": 0.25})
    assert (allocation.counts(shapes, 0.9) or {})["a"] == 8
    assert (allocation.sparsities(shapes, 0.9) or {})["a"] == 0.25


def test_explicit_with_every_layer_named_accepts_only_what_it_implies() -> None:
    allocation = Explicit({"fc1": 0.9, "fc2": 0.8, "fc3": 0.5})
    pruned = 211680 + 24000 + 500
    assert allocation.counts(LENET, pruned / 266200) == {"fc1": 23520, "fc2": 6000, "fc3": 500}
    with pytest.raises(SparsityError, match=r"expected exactly 0\.887228") as caught:
        allocation.counts(LENET, 0.9)
    remedy = float(str(caught.value).split("Ask for sparsity ")[1].split(" ")[0])
    allocation.check(LENET, remedy)
    with pytest.raises(SparsityError, match="expected exactly"):
        allocation.check(LENET, 0.5)


def test_explicit_prunes_named_layers_first_on_the_way_to_the_target() -> None:
    shapes = {"a": LayerShape(10, 10), "b": LayerShape(10, 10), "c": LayerShape(10, 10)}
    allocation = Explicit({"a": 0.8, "b": 0.4})
    assert allocation.counts(shapes, 0.2) == {"a": 60, "b": 80, "c": 100}
    assert allocation.counts(shapes, 0.4) == {"a": 20, "b": 60, "c": 100}
    assert allocation.counts(shapes, 0.5) == {"a": 20, "b": 60, "c": 70}
    with pytest.raises(SparsityError, match="expected at least 0.4"):
        allocation.check(shapes, 0.2)
    allocation.check(shapes, 0.4)
    with pytest.raises(SparsityError, match="allocation explicit cannot meet"):
        allocation.check(shapes, 0.9)


@given(SHAPES, SPARSITY, st.floats(0, 0.99), st.integers(0, 5))
def test_explicit_sums_exactly_or_refuses(shapes, sparsity: float, own: float, layer: int) -> None:
    name = list(shapes)[layer % len(shapes)]
    try:
        counts = Explicit({name: own}).counts(shapes, sparsity)
    except SparsityError:
        return
    assert sum((counts or {}).values()) == budget(shapes, sparsity)
    assert all(0 <= (counts or {})[n] <= shape.size for n, shape in shapes.items())


def test_explicit_without_layers_is_uniform() -> None:
    assert Explicit().counts(LENET, 0.9) == Uniform().counts(LENET, 0.9)


def test_explicit_is_a_value_whatever_it_is_built_from() -> None:
    a = Explicit({"fc2": 0.5, "fc1": 0.9})
    assert a == Explicit((("fc1", 0.9), ("fc2", 0.5))) == Explicit([["fc1", 0.9], ["fc2", 0.5]])
    assert hash(a) == hash(Explicit({"fc1": 0.9, "fc2": 0.5}))
    assert a.layers == (("fc1", 0.9), ("fc2", 0.5))


@pytest.mark.parametrize(
    "layers",
    [
        {"fc1": 90},
        {"fc1": 1.0},
        {"fc1": True},
        {"fc1": "0.5"},
        {"fc1": float("nan")},
        {"": 0.5},
        {"a,b": 0.5},
        {"a=b": 0.5},
        {"a:b": 0.5},
        {"a b": 0.5},
        {"a\t": 0.5},
        {3: 0.5},
        [("fc1", 0.5), ("fc1", 0.6)],
        "fc1",
        5,
        [("fc1",)],
    ],
)
def test_unusable_explicit_layers_raise(layers) -> None:
    with pytest.raises(UsageError):
        Explicit(layers)


def test_an_unknown_explicit_layer_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'fc1'"):
        Explicit({"fc11": 0.5}).counts(LENET, 0.9)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ERK(power=-1),
        lambda: ERK(power=float("nan")),
        lambda: ERK(power=True),
        lambda: ERK(power="1"),  # type: ignore[arg-type]
        lambda: FirstDense(compensate=1),  # type: ignore[arg-type]
        lambda: FirstLast(dense_first="yes"),
        lambda: FirstLast(last=1.0),
        lambda: FirstLast(last=80),
    ],
)
def test_unusable_settings_raise_at_construction(build) -> None:
    with pytest.raises(UsageError):
        build()


@pytest.mark.parametrize("bad", [1.0, 90, -0.1, True, "0.9", float("nan")])
def test_counts_check_the_sparsity(bad) -> None:
    for allocation in (Uniform(), ERK(), FirstDense(), Explicit()):
        with pytest.raises(SparsityError):
            allocation.counts(LENET, bad)


def test_no_layers_no_counts() -> None:
    for allocation in ALWAYS_POSSIBLE:
        assert allocation.counts({}, 0.5) == {}
