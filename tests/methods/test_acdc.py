"""AC/DC: when phases begin and end, what a phase holds fixed, and what comes back as zero."""

import numpy as np
import pytest

from minisparse.errors import SparsityError, UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.learned.acdc import ACDC, sparse_phases
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import OneShot, Uniform, kept_count
from minisparse.training.run import train
from tests.methods.problems import clusters, mlp

SIZE = 6 * 12 + 12 * 3


def follow(method, epochs=20, optimizer=None):
    """The run and, after every step, (masks, weights, slots)."""
    network, seen = mlp((6, 12, 3), np.random.default_rng(0), dtype=np.float32), []
    data = clusters(np.random.default_rng(1), (6,))

    def watch(state):
        layers = state.network.prunable()
        slots = {k: {n: a.copy() for n, a in v.items()} for k, v in state.optimizer.slots.items()}
        weights = {n: x.weight.dense().copy() for n, x in layers.items()}
        seen.append((state.network.masks(), weights, slots))

    settings = {"optimizer": optimizer or SGD(0.9, weight_decay=1e-2)}
    return train(network, data, method, epochs=epochs, batch=16, progress=watch, **settings), seen


def test_the_phases_of_the_paper():
    imagenet = ((10, 15), (20, 25), (30, 35), (40, 45), (50, 55), (60, 65), (70, 75), (85, 100))
    assert sparse_phases(100, 0.1, 0.05, 0.85) == imagenet
    cifar = ((10, 30), (50, 70), (90, 110), (130, 150), (170, 200))
    assert sparse_phases(200, 0.05, 0.1, 0.85) == cifar


@pytest.mark.parametrize("horizon", [1, 2, 7, 12, 33, 100, 1000])
@pytest.mark.parametrize("shares", [(0.1, 0.05, 0.85), (0.0, 0.2, 1.0), (0.5, 0.0, 0.5), (0.3, 0.4, 0.9)])
def test_phases_are_apart_and_the_run_ends_sparse(horizon, shares):
    phases = sparse_phases(horizon, *shares)
    for (start, stop), (after, _) in zip(phases, phases[1:], strict=False):
        assert start < stop < after
        assert after - stop >= stop - start
    assert phases[-1] == (round(shares[2] * horizon), horizon)


def test_masks_change_only_where_a_phase_begins_or_ends():
    run, seen = follow(ACDC(0.8))
    phases = sparse_phases(60, 0.1, 0.05, 0.85)
    sparse = [any(a <= t < b for a, b in phases[:-1]) or t >= phases[-1][0] for t in range(61)]
    for t, (masks, *_) in enumerate(seen):
        kept = sum(int(m.sum()) for m in masks.values())
        assert kept == (kept_count(SIZE, 0.8) if sparse[t] else SIZE)
        if t and sparse[t] and sparse[t - 1]:
            assert all((masks[n] == seen[t - 1][0][n]).all() for n in masks)
    assert 5 < sum(sparse) < 55
    assert run.sparsity == 1 - kept_count(SIZE, 0.8) / SIZE


def test_a_phase_begins_with_global_magnitude():
    _, seen = follow(ACDC(0.8))
    dense = follow(Dense())[1][6][1]
    size = np.concatenate([np.abs(w).ravel() for w in dense.values()])
    mask = np.concatenate([m.ravel() for m in seen[6][0].values()])
    assert size[mask].min() >= size[~mask].max()
    weights = np.concatenate([w.ravel() for w in seen[6][1].values()])
    np.testing.assert_array_equal(weights != 0, mask)


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.9, weight_decay=1e-2), Adam])
def test_what_comes_back_starts_from_zero_without_momentum(optimizer):
    _, seen = follow(ACDC(0.8, begin=0.2, phase=0.2, last=0.8), optimizer=optimizer())
    start, stop = sparse_phases(60, 0.2, 0.2, 0.8)[0]
    held, back = seen[stop - 1], seen[stop]
    assert start == 12 and stop == 24
    for name, mask in held[0].items():
        assert back[0][name].all()
        assert not back[1][name][~mask].any()
        for slot in back[2][f"{name}.weight"].values():
            assert not slot[~mask].any() and slot[mask].any()
        assert seen[stop + 1][1][name][~mask].any(), "absent weights do not train"


def test_no_sparsity_and_no_early_phase():
    runs = [follow(m)[0].network.state() for m in (Dense(), ACDC(0.0))]
    for key, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][key])
    # with no phase before the last it prunes once, by magnitude
    late = follow(ACDC(0.7, begin=0.6, phase=0.3, last=0.6))[0].network.state()
    once = follow(Magnitude(0.7, OneShot(0.6)))[0].network.state()
    for key, value in late.items():
        np.testing.assert_array_equal(value, once[key])


def test_layers_can_be_pruned_each_by_the_same_share():
    run, _ = follow(ACDC(0.75, allocation=Uniform()), epochs=4)
    assert [x.weight.kept for x in run.network.prunable().values()] == [18, 9]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"sparsity": 1.0}, SparsityError),
        ({"begin": 0.9, "last": 0.5}, UsageError),
        ({"phase": 1.5}, UsageError),
        ({"phase": True}, UsageError),
    ],
)
def test_settings_are_checked(settings, error):
    with pytest.raises(error):
        ACDC(**settings)
