"""Placing entries in slots: by a naive twin, and by what equations (1) and (2) say of small cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.kernels.slicing import LANES, REACH, arrange
from minisparse.weights.pattern import CSRPattern


def placed(mask, rows=1, share=1, order=None):
    """(windows (n, 2), steps of each slice, {(row, column): (step, lane, register, place, turn)})."""
    pattern = CSRPattern.from_mask(mask)
    order = np.arange(len(mask)) if order is None else order
    starts = np.zeros(-(-len(mask) // (LANES * rows)) + 1, np.int64)
    window = np.zeros((pattern.nnz + 4 * starts.size, 2), np.uint16)
    slot, code = np.zeros(pattern.nnz, np.int64), np.zeros(pattern.nnz, np.uint8)
    columns = mask.shape[1]
    arrange(pattern.indptr, pattern.indices, columns, order, rows, share, starts, window, slot, code)
    places = {}
    for p, (s, c) in enumerate(zip(slot.tolist(), code.tolist(), strict=True)):
        turn = {32: 0, 64: 1, 128: 2}[c & ~31]
        places[divmod(int(pattern.flat[p]), columns)] = (*divmod(s, LANES), c // LANES % 2, c % LANES, turn)
    return window[: starts[-1] // share].astype(int), np.diff(starts), places


def taken(waits, begins, share):
    """{lane: its (column, row in the slice)} that registers which begin there serve, of those that wait."""
    found = {k: [] for k in range(LANES)}
    for c, i in waits:
        if any(b <= c < b + LANES for b in begins) and len(found[i % LANES]) < share:
            found[i % LANES].append((c, i))
    return found


def naive(mask, rows, share, order):
    """The same windows and places by trying every column for the second register."""
    last = max(0, mask.shape[1] - LANES)
    windows, steps, places, step = [], [], {}, 0
    for g in range(-(-len(mask) // (LANES * rows))):
        members = order[g * LANES * rows : (g + 1) * LANES * rows]
        waits = sorted((int(c), i) for i, row in enumerate(members) for c in np.flatnonzero(mask[row]))
        first_step = step
        while waits:
            a = min(waits[0][0], last)
            ahead = [(c, i) for c, i in waits if c < a + REACH + LANES]
            beside = {min(c, last) for c, _ in ahead if a + LANES <= c < a + REACH}
            counts = {b: sum(map(len, taken(ahead, [a, b], share).values())) for b in beside}
            alone = sum(map(len, taken(ahead, [a], share).values()))
            b = next((b for b in sorted(counts) if counts[b] == max(counts.values()) > alone), a)
            for k, some in taken(ahead, [a, b], share).items():
                for t, (c, i) in enumerate(some):
                    near = c < a + LANES
                    place = (step + t, k, int(not near), c - (a if near else b), i // LANES)
                    places[int(members[i]), c] = place
                    waits.remove((c, i))
            windows.append((a, b))
            step += share
        while step % 4:  # whole words of index bytes
            windows += [(0, 0)]
            step += share
        steps.append(step - first_step)
    return windows, steps, places


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from((1, 9, 16, 17, 40, 130)),
    st.sampled_from((0.03, 0.2, 0.7)), st.integers(1, 3), st.sampled_from((1, 2, 4)),
)  # fmt: skip
def test_as_by_trying_every_column(seed, out, columns, density, rows, share):
    rng = np.random.default_rng(seed)
    mask, order = rng.random((out, columns)) < density, rng.permutation(out)
    windows, steps, places = placed(mask, rows, share, order)
    wanted_windows, wanted_steps, wanted_places = naive(mask, rows, share, order)
    assert windows.tolist() == [list(w) for w in wanted_windows]
    assert steps.tolist() == wanted_steps
    assert places == wanted_places


def test_every_entry_has_a_slot_of_its_own_and_is_in_a_register():
    rng = np.random.default_rng(1)
    mask = rng.random((50, 333)) < 0.1
    for rows in (1, 2, 3):
        for share in (1, 2, 4):
            windows, _, places = placed(mask, rows, share)
            assert set(places) == set(zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True))
            assert len({place[:2] for place in places.values()}) == len(places)
            assert windows.min() >= 0 and windows.max() + LANES <= 333
            for (row, column), (step, lane, register, k, turn) in places.items():
                assert column == windows[step // share, register] + k
                slice_, within = divmod(row, rows * LANES)
                assert within == turn * LANES + lane


def test_a_lane_with_nothing_near_goes_ahead():
    mask = np.zeros((2, 200), bool)
    mask[0, :8] = mask[1, 40:44] = True
    windows, steps, places = placed(mask, share=4)
    assert windows.tolist() == [[0, 40], [4, 4]] and steps.tolist() == [8]
    assert [places[1, 40 + k][:3] for k in range(4)] == [(k, 1, 1) for k in range(4)]
    mask[1] = 0
    mask[1, REACH + 8 : REACH + 12] = True  # too far
    assert placed(mask, share=4)[0].tolist() == [[0, 0], [4, 4], [REACH + 8] * 2]


def test_the_second_register_serves_the_most():
    """At 20 two lanes have an entry, at 50 three, and one of those already has all it can take."""
    mask = np.zeros((5, 120), bool)
    mask[0, 0] = mask[1, 20] = mask[2, 20] = mask[2, 50] = mask[3, 50] = mask[4, 50] = True
    assert placed(mask)[0][0].tolist() == [0, 50]
    mask[4, 0] = True
    assert placed(mask)[0][0].tolist() == [0, 20]  # two each: the nearer


@pytest.mark.parametrize("share", [1, 2, 4])
def test_full_rows_leave_no_slot_empty(share):
    mask = np.ones((32, 64), bool)
    assert placed(mask, 1, share)[1].tolist() == [64, 64]
    assert placed(mask, 2, share)[1].tolist() == [128]


def test_fewer_empty_slots_than_with_one_register_of_32_columns():
    rng = np.random.default_rng(2)
    mask = rng.random((320, 1000)).argsort(axis=1) < 100

    def one_register(rows, share):
        """Steps when b is a + 16 always."""
        steps = 0
        for g in range(len(mask) // (LANES * rows)):
            waits = [
                sorted(
                    np.concatenate([np.flatnonzero(mask[(g * rows + q) * LANES + k]) for q in range(rows)])
                )
                for k in range(LANES)
            ]
            while any(waits):
                begin = min(w[0] for w in waits if w)
                for w in waits:
                    del w[: min(share, sum(c < begin + 2 * LANES for c in w))]
                steps += share
        return steps

    for rows, share, ratio in ((1, 1, 1.1), (2, 2, 1.05)):
        assert one_register(rows, share) > ratio * placed(mask, rows, share)[1].sum()
