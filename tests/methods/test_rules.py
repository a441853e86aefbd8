"""The shared rules of dynamic methods against their definitions: drop, grow, share out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.rules import cosine, drop_smallest, grow_largest, grow_random, share_out

SHAPE = (3, 5)
SCORES = hnp.arrays(float, SHAPE, elements=st.integers(-3, 3))
MASKS = hnp.arrays(bool, SHAPE)


def test_the_cosine_has_its_ends_and_their_mean_in_the_middle():
    np.testing.assert_allclose([cosine(0.5, 0.005, t) for t in (0, 0.5, 1)], [0.5, 0.2525, 0.005])
    np.testing.assert_allclose([cosine(0.3, 0, t) for t in (0.25, 0.75)], [0.25607, 0.04393], atol=5e-6)


@given(SCORES, MASKS, st.data())
def test_dropping_and_growing_by_score_are_sorting(score, mask, data):
    present = int(mask.sum())
    k = data.draw(st.integers(0, present))
    stay = drop_smallest(score, mask, k)
    best = sorted(np.flatnonzero(mask), key=lambda i: (-abs(score.flat[i]), i))
    assert sorted(np.flatnonzero(stay)) == sorted(best[: present - k])
    grown = grow_largest(stay, score, k)
    free = sorted(np.flatnonzero(~stay), key=lambda i: (-abs(score.flat[i]), i))
    assert sorted(np.flatnonzero(grown)) == sorted([*np.flatnonzero(stay), *free[:k]])


@given(MASKS, st.integers(0, 9), st.data())
def test_random_growth_adds_so_many_and_only_where_it_may(stay, seed, data):
    among = data.draw(MASKS)
    k = data.draw(st.integers(0, int((among & ~stay).sum())))
    grown = grow_random(stay, k, np.random.default_rng(seed), among)
    assert (grown & stay == stay).all() and not (grown & ~stay & ~among).any()
    assert grown.sum() == stay.sum() + k
    assert grow_random(stay, 0, np.random.default_rng(seed)).tolist() == stay.tolist()


def test_what_cannot_be_ranked_or_dropped_is_refused():
    with pytest.raises(NonFiniteError):
        grow_largest(np.zeros((1, 2), bool), np.array([[np.nan, 1.0]]), 1)
    with pytest.raises(NonFiniteError):
        drop_smallest(np.array([[np.inf, 1.0]]), np.ones((1, 2), bool), 1)
    with pytest.raises(UsageError):
        drop_smallest(np.ones((1, 2)), np.array([[True, False]]), 2)
    with pytest.raises(NonFiniteError):
        share_out(3, {"a": 1.0, "b": float("nan")}, {"a": 5, "b": 5})


@pytest.mark.parametrize(
    ("total", "worth", "room", "shares"),
    [
        (40, (0.3, 0.1), (99, 99), (30, 10)),
        (40, (0.3, 0.1), (20, 99), (20, 20)),
        (8, (30, 10), (99, 99), (6, 2)),
        (10, (0.0, 0.0), (99, 99), (5, 5)),
        (10, (1.0, 0.0), (4, 99), (4, 6)),
        (0, (1.0, 2.0), (0, 0), (0, 0)),
    ],
)
def test_known_shares(total, worth, room, shares):
    found = share_out(total, dict(zip("ab", worth, strict=True)), dict(zip("ab", room, strict=True)))
    assert tuple(found.values()) == shares


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 50)), min_size=1, max_size=5), st.data())
def test_shares_sum_to_the_total_under_their_caps(layers, data):
    room = {str(i): r for i, (_, r) in enumerate(layers)}
    worth = {str(i): w for i, (w, _) in enumerate(layers)}
    total = data.draw(st.integers(0, sum(room.values())))
    shares = share_out(total, worth, room)
    assert sum(shares.values()) == total
    assert all(0 <= shares[name] <= room[name] for name in room)
    scaled = share_out(total, {name: 8 * w for name, w in worth.items()}, room)
    assert scaled == shares
