"""Learning-rate schedules: ends, monotony, warm-up, bad settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.nn.lr import RATES, Constant, Cosine, Step
from tests.strategies import SETTINGS

every = pytest.mark.parametrize("kind", RATES.values())
horizons, rates = st.integers(1, 300), st.floats(1e-6, 10)


def path(rate, horizon):
    return [rate.at(t, horizon) for t in range(horizon + 1)]


def test_constant():
    assert path(Constant(0.3), 5) == [0.3] * 6


def test_step_drops_at_its_milestones():
    rate = Step(1.0, gamma=0.5, milestones=(0.5, 0.75))
    assert path(rate, 8) == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    # a milestone between two steps takes effect at the later one
    assert path(Step(1.0, gamma=0.1, milestones=(0.5,)), 3) == [1, 1, 0.1, 0.1]


def test_cosine_ends_and_middle():
    rate = Cosine(1.0, floor=0.2)
    assert rate.at(0, 10) == 1.0
    assert rate.at(5, 10) == pytest.approx(0.6)
    assert rate.at(10, 10) == pytest.approx(0.2)
    assert rate.at(2, 8) == pytest.approx(0.2 + 0.8 * (1 + 0.5**0.5) / 2)


@every
@SETTINGS
@given(lr=rates, horizon=horizons)
def test_without_warm_up_rates_start_at_the_top_and_never_rise(kind, lr, horizon):
    values = path(kind(lr), horizon)
    assert values[0] == pytest.approx(lr)
    assert all(0 <= b <= a * (1 + 1e-12) for a, b in zip(values, values[1:], strict=False))
    assert all(kind(lr).at(horizon + k, horizon) == values[-1] for k in (1, 50))


@every
@SETTINGS
@given(lr=rates, horizon=horizons, warmup=st.floats(0, 0.99))
def test_warm_up_rises_linearly_to_the_schedule(kind, lr, horizon, warmup):
    plain, warm = kind(lr), kind(lr, warmup)
    rising = warmup * horizon
    values = path(warm, horizon)
    for t, value in enumerate(values):
        if t < rising:
            assert value == pytest.approx(lr * (t + 1) / (rising + 1))
            assert 0 < value < lr or rising < 1
        else:
            assert value == plain.at(t, horizon)
    start = [v for t, v in enumerate(values) if t < rising]
    assert all(b > a for a, b in zip(start, start[1:], strict=False))


@pytest.mark.parametrize("bad", [0, -0.1, float("nan"), float("inf"), True, "0.1", None, 1j])
def test_bad_rates_are_refused(bad):
    for kind in RATES.values():
        with pytest.raises(UsageError, match="learning rate: got"):
            kind(bad)


@pytest.mark.parametrize("bad", [-0.1, 1, 1.5, float("nan"), True, "0.1", None])
def test_bad_warm_ups_are_refused(bad):
    with pytest.raises(UsageError, match="warmup: got"):
        Constant(0.1, bad)


def test_schedules_are_values():
    assert Cosine(0.1) == Cosine(0.1) != Cosine(0.2)
    with pytest.raises(AttributeError):
        Cosine(0.1).lr = 3
    assert set(RATES) == {"constant", "step", "cosine"}
