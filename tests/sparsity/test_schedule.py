"""When to prune: the published numbers, and what every schedule promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import SparsityError, UsageError
from minisparse.sparsity import Cubic, Exponential, Linear, OneShot, Rounds, Schedule, Steady, kept_count
from minisparse.sparsity.schedule import geometric_levels, ramp

SHARE = st.floats(0, 1)
EVERY = st.none() | st.integers(1, 500)
WINDOW = st.tuples(SHARE, SHARE).map(sorted)
SCHEDULES = st.one_of(
    st.builds(OneShot, at=SHARE),
    st.builds(Exponential, rounds=st.integers(1, 120), at=SHARE),
    st.builds(Rounds, rounds=st.integers(1, 60)),
    st.builds(lambda n, w: Rounds(n, *w), st.integers(1, 60), WINDOW),
    st.builds(lambda w, every: Linear(*w, every), WINDOW, EVERY),
    st.builds(lambda w, every: Cubic(*w, every), WINDOW, EVERY),
    st.builds(lambda w, every: Steady(every, *w), WINDOW, EVERY),
)


def run(schedule: Schedule, horizon: int, target: float) -> list[tuple[int, float]]:
    """What a training loop sees: step 0 before training, step `horizon` after the last update."""
    return [(t, s) for t in range(horizon + 1) for s in schedule.levels(t, horizon, target)]


@given(SCHEDULES, st.integers(0, 300), st.floats(0, 1, exclude_max=True))
def test_any_run_ends_exactly_at_the_target(schedule: Schedule, horizon: int, target: float) -> None:
    seen = run(schedule, horizon, target)
    levels = [level for _, level in seen]
    assert levels[-1] == target
    assert levels == sorted(levels)
    assert all(0 <= level < 1 for level in levels)
    assert tuple(seen) == schedule.curve(horizon, target)
    assert not schedule.levels(horizon + 1, horizon, target)
    assert not schedule.levels(-1, horizon, target)


@given(WINDOW, EVERY, st.integers(0, 300), st.floats(0, 0.999), st.floats(0, 0.999))
def test_ramps_start_exactly_at_initial(window, every, horizon, a, b) -> None:
    initial, target = sorted((a, b))
    for schedule in (Cubic(*window, every, initial), Linear(*window, every, initial)):
        curve = schedule.curve(horizon, target)
        assert curve[0][1] == (initial if len(curve) > 1 else target)
        assert curve[-1] == (round(window[1] * horizon), target)
        assert curve[0][0] == round(window[0] * horizon)


def test_cubic_numbers() -> None:
    curve = Cubic(begin=0, end=1, every=10).curve(100, 0.9)
    assert [step for step, _ in curve] == list(range(0, 101, 10))
    expected = [0, 0.2439, 0.4392, 0.5913, 0.7056, 0.7875, 0.8424, 0.8757, 0.8928, 0.8991, 0.9]
    assert [level for _, level in curve] == pytest.approx(expected, abs=1e-12)


def test_cubic_from_a_sparse_start_as_in_granet() -> None:
    curve = Cubic(begin=0, end=1, every=1, initial=0.5).curve(4, 0.9)
    densities = [1 - level for _, level in curve]
    assert densities == pytest.approx([0.5, 0.26875, 0.15, 0.10625, 0.1], abs=1e-15)


def test_cubic_reaches_seven_eighths_at_half_time_and_its_slopes() -> None:
    assert ramp(0, 0.8, 0.5, 3) == pytest.approx(0.8 * 0.875)
    step = 1e-6
    assert ramp(0.2, 0.8, step, 3) - 0.2 == pytest.approx(3 * 0.6 * step, rel=1e-5)
    assert 0.8 - ramp(0.2, 0.8, 1 - step, 3) == pytest.approx(0, abs=1e-15)


def test_cubic_and_linear_are_concave_and_straight() -> None:
    cubic = [s for _, s in Cubic(0, 1, 1).curve(50, 0.9)]
    linear = [s for _, s in Linear(0, 1, 1).curve(50, 0.9)]
    gains = [b - a for a, b in zip(cubic, cubic[1:], strict=False)]
    assert gains == sorted(gains, reverse=True)
    assert linear == pytest.approx([0.9 * t / 50 for t in range(51)])


def test_window_and_spacing_are_respected() -> None:
    steps = [step for step, _ in Cubic(begin=0.2, end=0.7, every=20).curve(1000, 0.9)]
    assert steps == [*range(200, 700, 20), 700]
    uneven = Linear(begin=0.2, end=0.7, every=30).curve(100, 0.5)
    assert uneven == ((20, 0.0), (50, pytest.approx(0.3)), (70, 0.5))


def test_default_spacing_makes_twenty_to_forty_updates_of_a_long_window() -> None:
    for horizon in (*range(80, 2000, 7), 10**6):
        updates = len(Cubic().curve(horizon, 0.9)) - 1
        assert 20 <= updates <= 40
    assert len(Cubic().curve(20, 0.9)) - 1 == 10  # a short window: every step


def test_an_empty_window_prunes_once() -> None:
    assert Cubic(0.5, 0.5).curve(100, 0.9) == ((50, 0.9),)
    assert Linear(0.2, 0.7).curve(1, 0.9) == ((0, 0.0), (1, 0.9))
    assert Cubic(0.2, 0.7).curve(0, 0.9) == ((0, 0.9),)


def test_steady_is_a_ramp_that_starts_at_its_target() -> None:
    assert Steady(4).curve(10, 0.9) == ((0, 0.9), (4, 0.9), (8, 0.9), (10, 0.9))
    for window, every in (((0.2, 0.7), 3), ((0.0, 1.0), None), ((0.5, 0.5), 1)):
        assert Steady(every, *window).curve(300, 0.8) == Linear(*window, every, 0.8).curve(300, 0.8)


def test_equal_ends_are_constant() -> None:
    assert {s for _, s in Cubic(initial=0.3).curve(100, 0.3)} == {0.3}


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [(5, [0.39811, 0.15849, 0.06310, 0.02512, 0.01]), (10, [0.630957]), (60, [0.926119])],
)
def test_exponential_densities(rounds: int, expected: list[float]) -> None:
    levels = Exponential(rounds=rounds).levels(0, 1000, 0.99)
    assert len(levels) == rounds
    assert [1 - s for s in levels[: len(expected)]] == pytest.approx(expected, abs=1e-5)


def test_exponential_of_synflow() -> None:
    levels = Exponential(rounds=100).levels(0, 1000, 0.99)
    assert 1 - levels[0] == pytest.approx(0.954993, abs=1e-6)
    assert 1 - levels[49] == pytest.approx(0.1, abs=1e-12)
    assert levels[-1] == 0.99


def test_rounds_prune_the_same_share_of_what_remains() -> None:
    target = 1 - 0.8**10
    levels = geometric_levels(target, 10)
    assert levels[0] == pytest.approx(0.2)
    assert levels[4] == pytest.approx(0.67232)
    assert levels[9] == pytest.approx(0.8926, abs=1e-4)
    densities = [1.0, *(1 - s for s in levels)]
    ratios = [b / a for a, b in zip(densities, densities[1:], strict=False)]
    assert ratios == pytest.approx([0.8] * 10)


def test_rounds_give_the_lottery_ticket_densities() -> None:
    expected = [80, 64, 51.2, 40.96, 32.77, 26.21, 20.97, 16.78, 13.42, 10.74, 8.59, 6.87, 5.50]
    levels = geometric_levels(1 - 0.8**13, 13)
    assert [100 * (1 - s) for s in levels] == pytest.approx(expected, abs=0.005)
    counts = [kept_count(266200, s) for s in levels[:5]]
    assert counts == [212960, 170368, 136294, 109036, 87228]


def test_rounds_are_evenly_spaced() -> None:
    assert [t for t, _ in Rounds(4).curve(100, 0.9)] == [20, 40, 60, 80]
    assert [t for t, _ in Rounds(3, begin=0.1, end=0.9).curve(100, 0.9)] == [10, 50, 90]
    assert [t for t, _ in Rounds(1).curve(100, 0.9)] == [50]
    assert [t for t, _ in Rounds(1, begin=0.1, end=0.9).curve(100, 0.9)] == [90]


def test_rounds_that_fall_on_one_step_are_all_imposed() -> None:
    assert len(Rounds(5).levels(1, 1, 0.9)) + len(Rounds(5).levels(0, 1, 0.9)) == 5


def test_one_shot_rounds_its_moment_half_to_even() -> None:
    assert OneShot().curve(100, 0.9) == ((0, 0.9),)
    assert OneShot(at=1).curve(100, 0.9) == ((100, 0.9),)
    assert OneShot(at=0.5).curve(5, 0.9) == ((2, 0.9),)
    assert OneShot(at=0.5).curve(7, 0.9) == ((4, 0.9),)


def test_a_target_of_zero_and_a_tiny_target() -> None:
    for schedule in (OneShot(), Exponential(5), Rounds(5), Linear(), Cubic(), Steady()):
        assert {s for _, s in schedule.curve(100, 0.0)} == {0.0}
        for tiny in (1e-300, 1e-16):  # 1 - 1e-16 rounds to 1 - 1.1e-16
            levels = [s for _, s in schedule.curve(100, tiny)]
            assert levels == sorted(levels)
            assert levels[-1] == tiny


def test_schedules_are_values() -> None:
    assert Cubic(begin=0) == Cubic(begin=0.0)
    assert hash(Cubic(0, 1)) == hash(Cubic(0.0, 1.0))
    assert isinstance(Cubic(begin=0).begin, float)


@pytest.mark.parametrize(
    "build",
    [
        lambda: OneShot(at=-0.1),
        lambda: OneShot(at=2),
        lambda: OneShot(at=True),
        lambda: OneShot(at=float("nan")),
        lambda: OneShot(at="0.5"),  # type: ignore[arg-type]
        lambda: Exponential(rounds=0),
        lambda: Exponential(rounds=2.0),  # type: ignore[arg-type]
        lambda: Exponential(at=1.01),
        lambda: Rounds(rounds=True),
        lambda: Rounds(begin=0.8, end=0.2),
        lambda: Rounds(rounds=5, begin=0.9),  # after the default end 5/6
        lambda: Rounds(end=float("inf")),
        lambda: Linear(begin=0.7, end=0.2),
        lambda: Steady(begin=0.7, end=0.2),
        lambda: Steady(0),
        lambda: Linear(every=0),
        lambda: Linear(every=1.5),  # type: ignore[arg-type]
        lambda: Linear(initial=1),
        lambda: Cubic(begin=None),  # type: ignore[arg-type]
        lambda: Cubic(every=False),
        lambda: Cubic(initial=-0.1),
        lambda: Cubic(initial=90),
    ],
)
def test_unusable_settings_raise_at_construction(build) -> None:
    with pytest.raises(UsageError) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_unusable_arguments_raise() -> None:
    with pytest.raises(SparsityError, match="initial sparsity is above the target"):
        Cubic(initial=0.5).levels(0, 10, 0.4)
    with pytest.raises(SparsityError, match="Did you mean 0.90"):
        OneShot().levels(0, 10, 90)
    with pytest.raises(SparsityError, match="not a number"):
        OneShot().levels(0, 10, True)
    with pytest.raises(UsageError, match="horizon"):
        OneShot().levels(0, -1, 0.5)
