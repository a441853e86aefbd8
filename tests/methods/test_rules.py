"""The shared rules of dynamic methods against their definitions: drop, grow, share out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.kernels.merge import union
from minisparse.methods.dynamic.rules import (
    cosine,
    drop_smallest,
    grow_largest,
    grow_random,
    largest_together,
    share_out,
)
from tests.methods.dynamics import mask_of, positions

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
    stay = positions(mask)[drop_smallest(score[mask], k)]
    best = sorted(np.flatnonzero(mask), key=lambda i: (-abs(score.flat[i]), i))
    assert stay.tolist() == sorted(best[: present - k])
    free = sorted(set(range(score.size)) - set(stay), key=lambda i: (-abs(score.flat[i]), i))
    for blocks in ([score], score[:, None], [score[:2], score[2:]]):
        assert grow_largest(stay, blocks, k).tolist() == sorted([*stay, *free[:k]])


@given(MASKS, st.integers(0, 9), st.data())
def test_random_growth_adds_so_many_and_only_where_it_may(stay, seed, data):
    barred = data.draw(MASKS) | stay
    k = data.draw(st.integers(0, int((~barred).sum())))
    flat, rng = positions(stay), np.random.default_rng(seed)
    grown = mask_of(grow_random(flat, stay.size, k, rng, excluded=positions(barred)), SHAPE)
    assert (grown & stay == stay).all() and not (grown & ~stay & barred).any()
    assert grown.sum() == stay.sum() + k
    assert grow_random(flat, stay.size, 0, rng).tolist() == flat.tolist()


@given(st.lists(hnp.arrays(float, st.integers(0, 6), elements=st.integers(-2, 2)), min_size=1), st.data())
def test_the_largest_of_all_layers_together_are_sorting(layers, data):
    k = data.draw(st.integers(0, sum(a.size for a in layers)))
    chosen = largest_together({str(j): a for j, a in enumerate(layers)}, k)
    entries = [(-x, j, i) for j, a in enumerate(layers) for i, x in enumerate(a)]
    expected = {(j, i) for _, j, i in sorted(entries)[:k]}
    assert {(j, i) for j, a in enumerate(layers) for i in np.flatnonzero(chosen[str(j)])} == expected


def test_merging_is_sorting():
    assert union(np.array([2, 7]), np.array([0, 3, 9])).tolist() == [0, 2, 3, 7, 9]


def test_what_cannot_be_ranked_or_dropped_is_refused():
    with pytest.raises(NonFiniteError):
        grow_largest(np.arange(0), [np.array([[np.nan, 1.0]])], 1)
    with pytest.raises(NonFiniteError):
        drop_smallest(np.array([np.inf, 1.0]), 1)
    with pytest.raises(UsageError):
        drop_smallest(np.ones(1), 2)
    with pytest.raises(UsageError):
        grow_largest(np.arange(1), [np.ones((1, 2))], 2)
    with pytest.raises(UsageError):
        grow_random(np.arange(2), 3, 2, np.random.default_rng(0))
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
