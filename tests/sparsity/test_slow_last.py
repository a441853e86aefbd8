"""SlowLast: the paper's densities at whole rounds, exact budgets, one layer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.sparsity import LayerShape, SlowLast, kept_count, parse_allocation, to_text
from tests.strategies import SETTINGS

LENET = {"fc1": LayerShape(300, 784), "fc2": LayerShape(100, 300), "fc3": LayerShape(10, 100)}


@pytest.mark.parametrize("rounds", [1, 3, 10, 15])
def test_at_whole_rounds_the_densities_are_the_papers(rounds: int) -> None:
    sizes, densities = [235_200, 30_000, 1000], [0.8**rounds, 0.8**rounds, 0.9**rounds]
    kept = np.dot(sizes, densities)
    found = SlowLast().counts(LENET, 1 - kept / sum(sizes))
    for name, size, density in zip(LENET, sizes, densities, strict=True):
        assert abs(found[name] - size * density) <= 1.5


@SETTINGS
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), st.floats(0, 0.999),
    st.floats(0.05, 0.9), st.floats(0.05, 0.9),
)  # fmt: skip
def test_counts_are_exact_and_the_last_layer_follows_its_power(layers, sparsity, others, last) -> None:
    shapes = {f"fc{k}": LayerShape(*s) for k, s in enumerate(layers)}
    size, rule = sum(s.size for s in shapes.values()), SlowLast(others, last)
    counts = rule.counts(shapes, sparsity)
    assert sum(counts.values()) == kept_count(size, sparsity)
    assert all(0 <= counts[name] <= shape.size for name, shape in shapes.items())
    shares = rule.shares(shapes, sparsity)
    *rest, final = shapes
    if rest and 1 <= shares[rest[0]] < shapes[rest[0]].size:
        d = float(shares[rest[0]] / shapes[rest[0]].size)
        power = np.log(1 - last) / np.log(1 - others)
        np.testing.assert_allclose(float(shares[final] / shapes[final].size), d**power, rtol=1e-6, atol=1e-9)


def test_equal_shares_are_the_uniform_allocation() -> None:
    found = SlowLast(0.2, 0.2).sparsities(LENET, 0.9)
    np.testing.assert_allclose(list(found.values()), 0.9, atol=1e-9)


def test_text_and_errors() -> None:
    assert parse_allocation("slow-last") == SlowLast() and to_text(SlowLast(0.3)) == "slow-last:others=0.3"
    for bad in (0, 1, 1.5, True, float("nan")):
        with pytest.raises(UsageError):
            SlowLast(last=bad)
