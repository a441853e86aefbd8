"""Early bird: the distance of masks, the window, and the epoch at which the ticket is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import SparsityError, UsageError
from minisparse.methods.lottery.early_bird import EarlyBird, mask_distance, stable
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.sparsity import Reinit, Row, Shuffle, kept_count
from minisparse.training.run import train
from tests.methods.problems import clusters, mlp
from tests.strategies import SETTINGS


def bits(*values):
    return {"fc": np.array(values, dtype=bool)}


MASKS = st.lists(st.booleans(), min_size=6, max_size=6).map(lambda v: bits(*v))


def test_the_distance_is_hammings_over_the_number_of_units():
    assert mask_distance(bits(1, 1, 0, 0), bits(1, 0, 1, 0)) == 0.5
    a, b = (
        {"x": np.zeros((2, 3), bool), "y": np.ones(4, bool)},
        {"x": np.ones((2, 3), bool), "y": np.ones(4, bool)},
    )
    assert mask_distance(a, b) == 0.6


@SETTINGS
@given(MASKS, MASKS, MASKS)
def test_the_distance_is_a_metric(a, b, c):
    assert mask_distance(a, b) == mask_distance(b, a) == np.mean(a["fc"] != b["fc"])
    assert mask_distance(a, a) == 0 and (mask_distance(a, b) > 0 or (a["fc"] == b["fc"]).all())
    assert mask_distance(a, c) <= mask_distance(a, b) + mask_distance(b, c) + 1e-15


@given(st.integers(0, 10), st.integers(0, 5), st.integers(0, 99))
def test_equal_counts_differ_in_twice_the_units_exchanged(kept, swapped, seed):
    swapped = min(swapped, kept, 10)
    order = np.random.default_rng(seed).permutation(20)
    a, b = np.zeros(20, bool), np.zeros(20, bool)
    a[order[:kept]] = True
    b[order[swapped:kept]] = True
    b[order[kept : kept + swapped]] = True
    assert mask_distance({"m": a}, {"m": b}) == pytest.approx(2 * swapped / 20)


def test_the_newest_mask_is_compared_with_all_earlier_ones_of_the_window():
    a, b = bits(1, 1, 0, 0), bits(0, 0, 1, 1)
    assert not stable([a] * 4, 5, 0.1)  # not full
    assert stable([a] * 5, 5, 0.1)
    assert not stable([b, a, a, a, a], 5, 0.1) and stable([b, a, a, a, a, a], 5, 0.1)
    assert not stable([a, a, a, a, b], 5, 0.1)
    # among the earlier ones there may be any distance: only the newest counts
    close = bits(1, 1, 0, 1)
    assert stable([close, bits(1, 0, 0, 0), a], 3, 0.3) and not stable([a] * 5, 5, 0.0)


def drawn_at(method, rate=0.1, epochs=12, watch=None, network=None):
    """(epoch of the ticket, run)."""
    rng = np.random.default_rng(0)
    network = network or mlp((6, 8, 3), rng, dtype=np.float32)
    first = []

    def look(state):
        if state.topology and not first:
            first.append(state.step / 3)
        if watch:
            watch(state)

    run = train(
        network, clusters(rng, (6,)), method, epochs=epochs, batch=16, optimizer=SGD(0.0),
        rate=Constant(rate), progress=look,
    )  # fmt: skip
    return first[0], run


def test_weights_that_stand_still_are_settled_when_the_window_is_full():
    for window in (2, 5):
        assert drawn_at(EarlyBird(0.5, window=window, latest=1.0), rate=1e-9)[0] == window - 1


def test_masks_that_never_settle_wait_for_the_latest_moment():
    for latest in (0.25, 0.5, 1.0):
        epoch, run = drawn_at(EarlyBird(0.5, threshold=0.0, latest=latest))
        assert epoch == 12 * latest
        kept = sum(layer.weight.kept for layer in run.network.prunable().values())
        assert kept == kept_count(72, 0.5)


def test_the_ticket_is_the_mask_of_its_epoch_and_stays():
    seen = {}
    epoch, _ = drawn_at(EarlyBird(0.5, window=3), watch=lambda s: seen.update({s.step: s.network.copy()}))
    step = int(3 * epoch)
    before = np.concatenate([np.abs(x.weight.dense()).ravel() for x in seen[step].prunable().values()])
    masks = seen[step].masks()
    kept = np.concatenate([m.ravel() for m in masks.values()])
    assert (before[kept] > 0).all() and not before[~kept].any()
    for later in range(step, 37):
        for name, mask in masks.items():
            np.testing.assert_array_equal(seen[later].masks()[name], mask)
    assert all(m.all() for m in seen[step - 1].masks().values())


def test_above_95_percent_any_masks_count_as_settled():
    assert drawn_at(EarlyBird(0.96, latest=1.0), rate=1.0)[0] == 4


def test_channels_leave_whole_and_controls_act():
    epoch, run = drawn_at(EarlyBird(0.5, pattern=Row(), window=2, threshold=0.5))
    assert all((m == m[:, :1]).all() for m in run.network.masks().values())
    for control in (Reinit(), Shuffle()):
        plain, moved = {}, {}
        for found, method in (
            (plain, EarlyBird(0.5, window=2)),
            (moved, EarlyBird(0.5, window=2, control=control)),
        ):
            drawn_at(method, watch=lambda s, found=found: found.update({s.step: s.network.copy()}))
        step = next(t for t, n in plain.items() if not all(m.all() for m in n.masks().values()))
        counts = [[int(m.sum()) for m in n[step].masks().values()] for n in (plain, moved)]
        assert counts[0] == counts[1]
        assert any((plain[step].state()[k] != v).any() for k, v in moved[step].state().items())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"sparsity": 1.0}, SparsityError),
        ({"window": 1}, UsageError),
        ({"threshold": -0.1}, UsageError),
        ({"latest": 1.5}, UsageError),
    ],
)
def test_settings_are_checked(settings, error):
    with pytest.raises(error):
        EarlyBird(**settings)
