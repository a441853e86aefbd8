"""The one rounding rule, and the checks of numeric settings."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import SparsityError, UsageError
from minisparse.sparsity import check_sparsity, kept_count
from minisparse.sparsity.count import (
    check_choice,
    check_flag,
    check_real,
    check_share,
    check_whole,
    shortest_sparsity,
)

GRID = sorted({i / 100 for i in range(101)} | {1 / 3, 2 / 3, 0.999, 0.9999, 1e-300, 1 - 2**-53})


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [
        (5, 0.5, 3),
        (3, 0.5, 1),
        (1, 0.5, 1),
        (10, 0.9, 1),  # 10 * (1 - 0.9) = 0.9999999999999998
        (120, 0.5, 60),
        (8, 0.8, 2),
        (30, 0.1, 27),
        (266200, 0.9, 26620),
        (0, 0.3, 0),
        (7, 0, 7),
        (7, 1, 0),
    ],
)
def test_worked_counts(size: int, sparsity: float, kept: int) -> None:
    assert kept_count(size, sparsity) == kept


def test_iterative_pruning_of_a_fifth_gives_the_lottery_ticket_counts() -> None:
    counts = [kept_count(266200, 1 - 0.8**r) for r in range(1, 6)]
    assert counts == [212960, 170368, 136294, 109036, 87228]


def test_every_small_size_and_sparsity_prunes_the_nearest_whole_number_ties_to_even() -> None:
    for size in range(1, 65):
        shares = GRID + [i / size for i in range(size + 1)] + [i / 128 for i in range(129)]
        for sparsity in shares:
            pruned = size - kept_count(size, sparsity)
            # the float64 product is the number that is rounded; compare with it exactly
            distance = abs(Fraction(sparsity * size) - pruned)
            assert distance <= Fraction(1, 2)
            assert distance < Fraction(1, 2) or pruned % 2 == 0


@given(st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1))
def test_more_sparsity_never_keeps_more(size: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= kept_count(size, high) <= kept_count(size, low) <= size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_scalars_count_like_floats(dtype: type) -> None:
    assert kept_count(np.int64(1000), dtype(0.25)) == 750
    assert type(kept_count(np.int64(1000), dtype(0.25))) is int


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True, 0.5j])
def test_kept_count_refuses_what_is_not_a_share(bad: object) -> None:
    with pytest.raises(SparsityError, match="out of range"):
        kept_count(10, bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1, 2.0, True, "3", None])
def test_kept_count_refuses_what_is_not_a_size(bad: object) -> None:
    with pytest.raises(UsageError, match="size"):
        kept_count(bad, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("good", [0, 0.0, -0.0, 0.5, np.float32(0.5), Fraction(1, 3), 1 - 2**-53])
def test_sparsities_become_plain_floats(good: object) -> None:
    value = check_sparsity(good)
    assert type(value) is float
    assert value == float(good)  # type: ignore[arg-type]
    assert not str(value).startswith("-")


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (90, "sparsity out of range: got 90, expected 0 <= sparsity < 1. Did you mean 0.90?"),
        (90.0, "got 90.0, expected 0 <= sparsity < 1. Did you mean 0.90?"),
        (np.float64(97.5), "got 97.5, expected 0 <= sparsity < 1. Did you mean 0.975?"),
        (1, "A sparsity of 1 removes every weight."),
        (-0.1, "got -0.1, expected 0 <= sparsity < 1."),
        (100, "got 100, expected 0 <= sparsity < 1."),
        (float("nan"), "got nan"),
        (float("inf"), "got inf"),
        (True, "sparsity is not a number: got True"),
        (np.bool_(True), "is not a number"),
        ("0.9", "sparsity is not a number: got '0.9'"),
        (None, "got None"),
        (0.5 + 0j, "is not a number"),
        (np.array([0.5]), "is not a number"),
    ],
)
def test_unusable_sparsities_are_named_in_one_line(bad: object, text: str) -> None:
    with pytest.raises(SparsityError) as caught:
        check_sparsity(bad)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_hint_where_the_hint_would_be_wrong() -> None:
    for bad in (100, 1, -5, 250):
        with pytest.raises(SparsityError) as caught:
            check_sparsity(bad)
        assert "Did you mean" not in str(caught.value)


def test_the_setting_is_named() -> None:
    with pytest.raises(SparsityError, match="initial out of range"):
        check_sparsity(2, "initial")


def test_other_settings_are_checked_and_made_plain() -> None:
    assert check_share(np.float32(1), "at") == 1.0
    assert type(check_whole(np.int8(3), "rounds")) is int
    assert type(check_real(2, "power", 0)) is float
    assert check_choice("a", "x", ("a", "b")) == "a"
    assert check_flag(False, "x") is False


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (lambda v: check_share(v, "at"), [-0.1, 1.5, float("nan"), True, "0.5", None]),
        (lambda v: check_whole(v, "n"), [0, 1.0, True, "1", None, float("nan")]),
        (lambda v: check_real(v, "x", 0), [-1, float("nan"), float("inf"), True, "1", None]),
        (lambda v: check_choice(v, "x", ("a",)), ["b", "", None, 1]),
        (lambda v: check_flag(v, "x"), [0, 1, "true", None]),
    ],
)
def test_unusable_settings_raise(check, bad) -> None:
    for value in bad:
        with pytest.raises(UsageError):
            check(value)


@given(st.integers(1, 10**7), st.data())
def test_shortest_sparsity_prunes_exactly_that_many(size: int, data: st.DataObject) -> None:
    pruned = data.draw(st.integers(0, size))
    assert size - kept_count(size, shortest_sparsity(pruned, size)) == pruned


def test_shortest_sparsity_is_short() -> None:
    assert shortest_sparsity(239580, 266200) == 0.9
    assert shortest_sparsity(2, 3) == 0.7  # 2.1 rounds to 2
