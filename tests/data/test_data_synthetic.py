"""Synthetic problems against their closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.data import synthetic
from minisparse.errors import SparsityError, UsageError


def rng(seed=0):
    return np.random.default_rng(seed)


MAKERS = [
    synthetic.teacher,
    synthetic.moons,
    synthetic.spirals,
    synthetic.quadratic,
    synthetic.patches,
    synthetic.label_tree,
]


@pytest.mark.parametrize("make", MAKERS)
def test_equal_generators_give_equal_data_and_others_do_not(make):
    first, again, other = make(rng(1)), make(rng(1)), make(rng(2))
    for field in ("train_x", "train_y", "test_x", "test_y"):
        a, b = getattr(first.dataset, field), getattr(again.dataset, field)
        assert np.array_equal(a, b)
    assert not np.array_equal(first.dataset.train_x, other.dataset.train_x)
    assert first.dataset.train_x.dtype == np.float32


def naive_outputs(x, weights, bias):
    values = [float(value) for value in x]
    for layer, weight in enumerate(weights):
        values = [sum(w * v for w, v in zip(row, values, strict=True)) for row in weight]
        if layer < len(weights) - 1:
            values = [max(value, 0.0) for value in values]
    return [value - b for value, b in zip(values, bias, strict=True)]


@pytest.mark.parametrize("widths", [(8, 3), (8, 6, 3)])
def test_teacher_reproduces_its_labels(widths):
    known = synthetic.teacher(rng(3), widths, sparsity=0.5, samples=(60, 40))
    data, answer = known.dataset, known.answer
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        z = [naive_outputs(row, answer["weights"], answer["bias"]) for row in x]
        assert np.argmax(z, axis=1).tolist() == y.tolist()


def test_teacher_regression_targets_are_its_outputs():
    known = synthetic.teacher(rng(), (10, 7, 2), 0.5, samples=(50, 20), regression=True)
    data, answer = known.dataset, known.answer
    assert data.classes is None and data.outputs == 2
    z = [naive_outputs(row, answer["weights"], answer["bias"]) for row in data.test_x]
    np.testing.assert_allclose(data.test_y, z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data.train_y.mean(axis=0), 0, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    widths=st.lists(st.integers(2, 12), min_size=2, max_size=3),
    sparsity=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)
def test_planted_masks_have_exact_counts_and_no_idle_unit(widths, sparsity, seed):
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    counts = [o * i - round(sparsity * o * i) for o, i in shapes]
    needed = [o if layer == 0 else max(o, i) for layer, (o, i) in enumerate(shapes)]
    if any(count < need for count, need in zip(counts, needed, strict=True)):
        with pytest.raises(SparsityError, match="every unit"):
            synthetic.teacher(rng(seed), widths, sparsity, samples=(2, 2))
        return
    answer = synthetic.teacher(rng(seed), widths, sparsity, samples=(2, 2)).answer
    for layer, (weight, mask) in enumerate(zip(answer["weights"], answer["masks"], strict=True)):
        assert mask.sum() == counts[layer]
        assert np.array_equal(weight != 0, mask)
        assert mask.any(axis=1).all()
        assert layer == 0 or mask.any(axis=0).all()
        magnitude = np.abs(weight[mask]) * np.sqrt(mask.sum() / len(mask))
        assert magnitude.min() >= 0.5 and magnitude.max() <= 1.5


def test_teacher_masks_differ_between_seeds_and_all_weights_can_be_planted():
    masks = [synthetic.teacher(rng(s), (10, 4), 0.75, (2, 2)).answer["masks"][0] for s in range(80)]
    assert np.mean(masks, axis=0).min() > 0


@pytest.mark.parametrize("sparsity", [1.0, -0.1, np.nan, True, "0.5"])
def test_teacher_refuses_bad_sparsity(sparsity):
    with pytest.raises(SparsityError, match="sparsity out of range"):
        synthetic.teacher(rng(), sparsity=sparsity)


@pytest.mark.parametrize("widths", [(3,), (3, 3, 3, 3), (3, 0), (3, 2.0)])
def test_teacher_refuses_bad_widths(widths):
    with pytest.raises(UsageError, match="teacher width"):
        synthetic.teacher(rng(), widths)


def test_moons_without_noise_lie_on_their_half_circles():
    data = synthetic.moons(rng(), (200, 101), noise=0).dataset
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        upper, lower = x[y == 0].astype(float), x[y == 1].astype(float)
        np.testing.assert_allclose(np.hypot(*upper.T), 1, rtol=1e-6)
        np.testing.assert_allclose(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), 1, rtol=1e-6)
        assert upper[:, 1].min() >= 0 and lower[:, 1].max() <= 0.5
        assert np.ptp(np.bincount(y)) <= 1


def test_spirals_without_noise_lie_on_their_arms():
    data = synthetic.spirals(rng(), classes=4, samples=(200, 100), noise=0, turns=0.6).dataset
    x = data.train_x.astype(float)
    radius = np.hypot(*x.T)
    angle = np.arctan2(x[:, 1], x[:, 0]) - 2 * np.pi * (data.train_y / 4 + 0.6 * radius)
    assert radius.max() <= 1 + 1e-6
    np.testing.assert_allclose(np.cos(angle), 1, atol=1e-6)
    assert np.bincount(data.train_y).tolist() == [50] * 4


@pytest.mark.parametrize("make", [synthetic.moons, synthetic.spirals])
def test_planar_noise_is_added_to_the_curve_in_the_answer(make):
    known = make(rng(), samples=(20_000, 10), noise=0.3)
    noise = known.dataset.train_x - known.answer["train_curve"]
    np.testing.assert_allclose(noise.std(axis=0), 0.3, rtol=0.03)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.01)
    assert known.answer["test_curve"].shape == (10, 2)


@settings(max_examples=40, deadline=None)
@given(features=st.integers(1, 40), outputs=st.integers(1, 5), seed=st.integers(0, 99))
def test_quadratic_loss_is_an_exact_bowl(features, outputs, seed):
    known = synthetic.quadratic(rng(seed), features, outputs)
    data, target = known.dataset, known.answer["weight"]
    x, y = data.train_x.astype(float), data.train_y.astype(float)
    n = len(x)
    assert n > features and n & (n - 1) == 0
    assert np.array_equal(x.T @ x, n * np.eye(features))
    assert np.array_equal(x.sum(axis=0), np.zeros(features))
    # dyadic numbers, so that both sides of the identity are free of rounding
    weight = rng(seed + 1).integers(-8, 9, target.shape) / 8
    bias = rng(seed + 2).integers(-8, 9, outputs) / 8
    residual = x @ weight.T + bias - y
    bowl = ((weight - target) ** 2).sum() / 2 + (bias**2).sum() / 2
    assert (residual**2).sum() / (2 * n) == bowl
    assert np.array_equal(residual.T @ x / n, weight - target)


def test_quadratic_gradient_is_zero_at_the_answer_in_float32():
    known = synthetic.quadratic(rng(4), 100, 3)
    data, target = known.dataset, known.answer["weight"].astype(np.float32)
    assert not (data.train_x @ target.T - data.train_y).any()
    assert not (data.test_x @ target.T - data.test_y).any()


def test_quadratic_magnitudes_are_distinct_so_the_best_mask_is_unique():
    weight = synthetic.quadratic(rng(5), 12, 4).answer["weight"]
    ranks = np.sort(np.abs(weight).ravel()) / np.abs(weight).min()
    assert np.array_equal(ranks, np.arange(1, 49))
    assert 0.5 <= np.abs(weight).max() < 1


def test_quadratic_refuses_what_float32_cannot_hold_exactly():
    with pytest.raises(UsageError, match="2\\^24"):
        synthetic.quadratic(rng(), 2048, 4)


def test_patterns_are_orthogonal_and_centred():
    patterns = synthetic.patches(rng(), samples=(4, 4)).answer["patterns"].reshape(4, 9)
    np.testing.assert_allclose(patterns @ patterns.T, 2 * np.eye(4), atol=1e-12)
    np.testing.assert_allclose(patterns.sum(axis=1), 0, atol=1e-12)


def test_patches_hold_their_pattern_at_the_stated_corner():
    known = synthetic.patches(rng(), classes=3, samples=(60, 20), noise=0, side=7)
    data, answer = known.dataset, known.answer
    corners = answer["test_corners"]
    for image, label, (row, column) in zip(data.test_x[:, 0], data.test_y, corners, strict=True):
        expected = np.zeros((7, 7))
        expected[row : row + 3, column : column + 3] = answer["patterns"][label]
        np.testing.assert_allclose(image, expected, atol=1e-7)
    assert set(answer["train_corners"].ravel()) == set(range(5))


def test_matched_filters_solve_patches_without_noise():
    known = synthetic.patches(rng(), samples=(200, 10), noise=0)
    fields = np.lib.stride_tricks.sliding_window_view(known.dataset.train_x[:, 0], (3, 3), (1, 2))
    responses = np.einsum("nrcij,kij->nkrc", fields, known.answer["patterns"])
    assert np.array_equal(responses.max(axis=(2, 3)).argmax(axis=1), known.dataset.train_y)


@pytest.mark.parametrize("make", [synthetic.moons, synthetic.spirals, synthetic.patches])
@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf, True, "0.1"])
def test_noise_is_a_finite_number(make, noise):
    with pytest.raises(UsageError, match="noise"):
        make(rng(), noise=noise)


@pytest.mark.parametrize("samples", [(0, 5), (5, 0), (5, 5, 5), (2.0, 5)])
def test_sample_counts_are_checked(samples):
    with pytest.raises(UsageError, match="samples"):
        synthetic.moons(rng(), samples)


def test_other_settings_are_checked():
    for call in (
        lambda: synthetic.patches(rng(), classes=5),
        lambda: synthetic.patches(rng(), side=2),
        lambda: synthetic.spirals(rng(), classes=1),
        lambda: synthetic.spirals(rng(), turns=-1),
        lambda: synthetic.quadratic(rng(), 0),
    ):
        with pytest.raises(UsageError, match="expected"):
            call()


def test_leaves_of_a_label_tree_are_as_far_apart_as_their_paths_say():
    s, i = 0.5, 400
    known = synthetic.label_tree(rng(1), (4, 5, 6), i, (2, 1), spread=s, noise=0.1)
    centres, groups = known.answer["centres"], known.answer["groups"]
    distance = ((centres[:, None] - centres[None]) ** 2).sum(axis=2)
    same = np.array([level[:, None] == level[None] for level in groups])
    for level, below in enumerate((2 * i * (1 + s**2 + s**4), 2 * i * (s**2 + s**4), 2 * i * s**4)):
        apart = ~same[level] & (same[level - 1] if level else True)
        assert distance[apart].mean() == pytest.approx(below, rel=0.1)
    assert [len(set(level)) for level in groups] == [4, 20, 120]
    assert all(set(np.bincount(level)) == {120 // n} for level, n in zip(groups, (4, 20, 120), strict=True))
    # a tree: who shares a node shares the node above
    assert (groups[2] // 6 == groups[1]).all() and (groups[1] // 5 == groups[0]).all()
    assert (groups[2] != np.arange(120)).any()


def test_samples_of_a_label_tree_lie_about_their_centres():
    known = synthetic.label_tree(rng(), (3, 7), 50, (9, 4), noise=0.3)
    data, centres = known.dataset, known.answer["centres"]
    assert (
        data.outputs == 21 and set(np.bincount(data.train_y)) == {9} and set(np.bincount(data.test_y)) == {4}
    )
    rest = data.train_x - centres[data.train_y]
    assert rest.std() == pytest.approx(0.3, rel=0.03) and abs(rest.mean()) < 0.02
    nearest = (-2 * data.test_x @ centres.T + (centres**2).sum(axis=1)).argmin(axis=1)
    assert (nearest == data.test_y).mean() == 1.0


@pytest.mark.parametrize(
    "settings",
    [{"branching": ()}, {"branching": (1, 1)}, {"branching": (0,)}, {"features": 0}, {"spread": -1}],
)
def test_label_tree_settings_are_checked(settings):
    with pytest.raises(UsageError):
        synthetic.label_tree(rng(), **settings)
