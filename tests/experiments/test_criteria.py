"""Studies of the criteria: what is counted, and that small versions of them say what is so."""

from dataclasses import replace

import numpy as np
import pytest

from minisparse.data.digits import load
from minisparse.errors import NonFiniteError
from minisparse.experiments.criteria import channels, collapse, gates, learned, movement
from minisparse.experiments.criteria.collapse import Point
from minisparse.experiments.criteria.movement import Course, grown, returned, small, turned
from minisparse.experiments.criteria.runs import Recipe, densities, trained
from minisparse.experiments.theme import png
from minisparse.methods.dense import Dense
from minisparse.methods.learned.variational_dropout import VariationalDropout
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.models import build
from minisparse.sparsity import OneShot, Uniform

MODEL = "mlp:64-16-10"
SHORT = Recipe(epochs=2)


def drawn(study, panels):
    """The figure has so many panels and can be drawn; every row has the keys of the first."""
    assert len([at for at in study.figure.axes if at.get_title(loc="left")]) == panels
    assert png(study.figure).startswith(b"\x89PNG")
    assert len({tuple(row) for row in study.rows}) == 1


def test_a_run_starts_where_it_is_told_and_says_if_it_diverges():
    network = build(MODEL, load(), 0)
    still = trained(Dense(), 0, network, replace(SHORT, lr=1e-30)).network
    np.testing.assert_array_equal(
        still.prunable()["fc1"].weight.dense(), network.prunable()["fc1"].weight.dense()
    )
    run = trained(Magnitude(0.75, OneShot(0.0), Uniform()), 0, MODEL, SHORT)
    assert densities(run.network) == {"fc1": 0.25, "fc2": 0.25}
    with pytest.raises(NonFiniteError), np.errstate(all="ignore"):
        trained(Dense(), 0, MODEL, replace(SHORT, lr=1e30))


def test_magnitude_is_asked_for_what_was_found():
    make = lambda: VariationalDropout(begin=0.0, end=0.2, initial=-3.0)  # noqa: E731
    found = learned.find(make, MODEL, 0, 3)
    sizes = {name: layer.weight.size for name, layer in build(MODEL, load(), 0).prunable().items()}
    kept = sum(sizes[name] * share for name, share in found.densities.items())
    assert 0 < found.sparsity == pytest.approx(1 - kept / sum(sizes.values()))
    for own in found.pruned.values():
        assert sum(sizes[name] * share for name, share in own.items()) == pytest.approx(kept)
    assert all(abs(share - 1 + found.sparsity) < 0.01 for share in found.pruned["uniform"].values())


def test_the_study_of_learned_sparsity_has_a_row_for_each_layer():
    made = learned.study((0,), epochs={MODEL: 2})
    assert [(r["method"], r["layer"]) for r in made.rows] == [
        (label, layer) for label in learned.FINDERS for layer in ("fc1", "fc2")
    ]
    assert len(made.words) == 2
    drawn(made, 2)


@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [
        ("L0", [-5, -2.5, -2.39, 0, 2.39, 2.5, 4, 4], {"kept": 3 / 8, "undecided": 3 / 8, "gone": 2 / 8}),
        ("variational dropout", [-8, 1.9, 3, 4.1], {"kept": 2 / 4, "undecided": 1 / 4, "gone": 1 / 4}),
    ],
)
def test_what_is_undecided(label, values, expected):
    assert gates.shares(np.array(values), gates.KINDS[label]) == pytest.approx(expected)


@pytest.mark.parametrize("label", gates.KINDS)
def test_all_weights_are_counted_at_every_moment(label):
    course = gates.follow(gates.KINDS[label], 0, MODEL, 2, bins=10)
    assert (course.counts.sum(axis=1) == 64 * 16 + 160).all()
    assert course.steps[0] == 0 and course.steps[-1] == 46 and len(course.steps) == len(course.counts)
    assert all(sum(own.values()) == pytest.approx(1) for own in course.shares)


def test_gates_make_up_their_mind_while_training():
    made = gates.study((0,), model=MODEL, epochs=8)
    by = {(row["method"], row["step"]): row["undecided"] for row in made.rows}
    steps = sorted({step for _, step in by})
    assert len(steps) == len(gates.SHOWN)
    assert by["L0", 0] == 1 > by["L0", steps[-1]]
    drawn(made, 4)


def test_the_thinnest_layer_is_named_and_rules_that_cannot_be_met_are_left_out():
    assert Point(0.5, {"a": 0.3, "b": 0.1, "c": 0.2}).least == ("b", 0.1)
    made = collapse.study((0,), levels=(0.5, 0.995), model=MODEL, before=SHORT, after=SHORT)
    found = {(row["rule"], row["density"]): row for row in made.rows}
    assert all((rule, 0.5) in found for rule in collapse.RULES)
    # of 6 weights the last layer would keep 32
    assert ("magnitude, first and last spared", 0.005) not in found
    assert found["LAMP", 0.005]["emptied"] == 0 < found["LAMP", 0.005]["least"]
    uniform = found["magnitude, uniform", 0.5]
    assert uniform["least"] == 0.5
    drawn(made, 2)


def test_turning_four_times_is_nothing_and_labels_stay():
    data = load()
    once = turned(data)
    np.testing.assert_array_equal(once.train_x[5, 0], np.rot90(data.images().train_x[5, 0]))
    np.testing.assert_array_equal(once.train_y, data.train_y)
    again = turned(turned(turned(once)))
    np.testing.assert_array_equal(again.test_x, data.images().test_x)


def test_what_is_said_of_kept_weights():
    before, after = np.array([3.0, -2, 0.1, 0.5, -1]), np.array([2.0, -2.5, 0.4, 0, 0])
    kept = np.array([True, True, True, False, False])
    course = Course(0.9, before, after, kept, gates=[np.array([True, False, True, True, False]), kept])
    assert grown(course) == pytest.approx(2 / 3)
    assert small(course) == pytest.approx(1 / 3)  # 0.1 stayed, -1 would be the third largest
    assert returned(course) == pytest.approx(1 / 3)


def test_movement_keeps_what_grows_and_magnitude_what_is_large():
    after = replace(SHORT, lr=0.02, epochs=4)
    made = movement.study((0,), levels=(0.5, 0.9), model="mlp:64-40-10", before=SHORT, after=after)
    by = {(row["method"], row["sparsity"]): row for row in made.rows}
    for s in (0.5, 0.9):
        large, growing = by["magnitude", s], by["movement", s]
        assert growing["kept_that_grew"] > large["kept_that_grew"]
        assert growing["kept_that_were_small"] > large["kept_that_were_small"]
        assert large["kept_that_returned"] == 0
    drawn(made, 4)


def test_rules_keep_as_many_channels_and_the_norm_keeps_the_largest():
    network = build("lenet-5", load(), 0)
    found, sizes = channels.choices(network, 0.5, 0)
    assert list(found) == list(channels.RULES) and list(sizes) == ["conv1", "conv2", "fc1", "fc2"]
    for kept in found.values():
        assert [int(kept[layer].sum()) for layer in sizes] == [3, 8, 60, 42]
    # the first layer's filters are whole when it is its turn
    size, chosen = sizes["conv1"], found["filters, L1"]["conv1"]
    assert size[chosen].min() >= size[~chosen].max()
    one, other = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert channels.shared(one, other) == 0.5 and channels.shared(one, one) == 1


def test_the_study_of_channels_has_a_row_for_each_layer():
    made = channels.study((0,), training=SHORT)
    assert [row["layer"] for row in made.rows] == ["conv1", "conv2", "fc1", "fc2"]
    assert all(0 <= row[name] <= 1 for row in made.rows for name in ("filters", "reading_weights"))
    assert [row["by_lot"] for row in made.rows] == [0.5] * 4
    drawn(made, 5)
