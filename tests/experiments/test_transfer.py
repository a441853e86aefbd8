"""Transfer and realigned masks: what goes to the target, what controls keep, how pictures are resized."""

import numpy as np
import pytest

from minisparse.data.dataset import Dataset
from minisparse.errors import ShapeError, UsageError
from minisparse.experiments import realigned, transfer
from minisparse.experiments.realigned import alignments
from minisparse.experiments.tickets import Continued
from minisparse.experiments.trainings import Trainings
from minisparse.experiments.transfer import fields, fitted, renewed, shuffled_body, transfers
from tests.methods.problems import conv_net, mlp

TINY = {"model": "lenet-300-100", "epochs": 1, "batch": 512}


def pictures(size, n=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((n, 1, size, size)).astype(np.float32)
    return Dataset("pictures", x, np.arange(n) % classes, x[:3], np.arange(3) % classes, classes)


def ticket_of(network, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.random(x.weight.shape) < 0.3 for name, x in network.prunable().items()}


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("outputs", [3, 5])
def test_the_body_goes_over_and_the_head_is_new_and_dense(kind, outputs) -> None:
    rng = np.random.default_rng(0)
    start = mlp((8, 9, 7, 3), rng) if kind == "mlp" else conv_net(rng)
    masks = ticket_of(start)
    moved = transfer.transfer(start, masks, outputs, rng)
    *body, head = moved.prunable()
    assert moved.outputs == outputs and moved.prunable()[head].weight.shape[0] == outputs
    assert moved.masks()[head].all()
    for name in body:
        np.testing.assert_array_equal(moved.masks()[name], masks[name])
        expected = start.prunable()[name].weight.dense() * masks[name]
        np.testing.assert_array_equal(moved.prunable()[name].weight.dense(), expected)
    for key, value in moved.state().items():
        if not key.startswith(f"{head}.") and not key.endswith("weight"):
            np.testing.assert_array_equal(value, start.state()[key])
    assert moved.forward(np.zeros((2, *start.input_shape))).shape == (2, outputs)
    assert all(x.weight.mask.all() for x in start.prunable().values())  # the original is as it was


def test_the_controls_keep_counts_or_masks_and_leave_the_head_alone() -> None:
    rng = np.random.default_rng(1)
    start = conv_net(rng)
    moved = transfer.transfer(start, ticket_of(start), 3, rng)
    mixed, fresh = shuffled_body(moved, start, rng), renewed(moved, rng)
    *body, head = moved.prunable()
    heads = [network.prunable()[head].weight.dense() for network in (mixed, moved, fresh)]
    np.testing.assert_array_equal(*heads[:2])
    for name in body:
        new = mixed.masks()[name]
        assert new.sum() == moved.masks()[name].sum()
        np.testing.assert_array_equal(
            mixed.prunable()[name].weight.dense(), start.prunable()[name].weight.dense() * new
        )
        np.testing.assert_array_equal(fresh.masks()[name], moved.masks()[name])
    assert any((mixed.masks()[name] != moved.masks()[name]).any() for name in body)
    assert (heads[2] != heads[1]).all()


def test_training_the_ticket_leaves_the_body_as_sparse(tmp_path) -> None:
    rng = np.random.default_rng(2)
    data = pictures(8)
    start = mlp((64, 9, 3), rng, dtype=np.float32)
    moved = transfer.transfer(start, ticket_of(start), 3, rng)
    spec, method = transfer.Ladder(training=TINY).chain(0), Continued(0, 0, moved.masks())
    found = Trainings(tmp_path).train("", spec, moved, method, data, 0)
    assert 0 <= found.accuracy <= 1
    for name, mask in moved.masks().items():
        np.testing.assert_array_equal(found.network.masks()[name], mask)


def test_fields_are_means_of_padded_squares() -> None:
    data = pictures(28)
    small = fields(data, 8, 32)
    assert small.sample_shape == (1, 8, 8) and small.train_x.dtype == np.float32
    padded = np.zeros((32, 32))
    padded[2:30, 2:30] = data.train_x[1, 0]
    for i, j in ((0, 0), (3, 5), (7, 7)):
        field = padded[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        np.testing.assert_allclose(small.train_x[1, 0, i, j], field.mean(), rtol=1e-6)
    # what is white stays white in all, and nothing is lost
    np.testing.assert_allclose(small.train_x.sum() * 16, data.train_x.sum(), rtol=1e-5)
    np.testing.assert_array_equal(small.train_y, data.train_y)
    np.testing.assert_allclose(fields(pictures(8), 8, 8).train_x, pictures(8).train_x)


@pytest.mark.parametrize(("size", "side"), [(8, 31), (5, 32), (8, 24), (0, 32)])
def test_fields_must_fit(size, side) -> None:
    with pytest.raises(UsageError, match="cut into fields"):
        fields(pictures(28), size, side)


def test_data_sets_of_one_size_are_left_and_others_refused() -> None:
    data = pictures(8)
    assert fitted(data, (1, 8, 8)) is data
    assert fitted(pictures(28), (1, 8, 8)).sample_shape == (1, 8, 8)
    with pytest.raises(ShapeError, match="does not fit"):
        fitted(pictures(12), (1, 8, 8))


def test_between_synthetic_problems_of_other_classes() -> None:
    rows = transfers("moons", "spirals", (0.5, 0.8), (0, 1), TINY, rounds=2)
    assert {row["arm"] for row in rows} == set(transfer.ARMS) and {row["runs"] for row in rows} == {2}
    assert len(rows) == 2 * len(transfer.ARMS)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert rows == transfers("moons", "spirals", (0.5, 0.8), (0, 1), TINY, rounds=2)


def test_from_a_data_set_to_itself_the_two_tickets_are_one() -> None:
    rows = transfers("digits", "digits", (0.7,), (0,), TINY, rounds=2)
    accuracy = {row["arm"]: row["accuracy"] for row in rows}
    assert accuracy["transferred"] == accuracy["own ticket"] != accuracy["new weights"]


def test_realigned_masks_are_trained_in_four_arms_at_every_level() -> None:
    settings = {"model": "mlp:64-16-10", "epochs": 2, "batch": 128}
    rows = alignments((0.5, 0.9), (0, 1), settings, rounds=4, rewind=0.25)
    assert [row["arm"] for row in rows] == 2 * list(realigned.ARMS) and {row["runs"] for row in rows} == {2}
    assert len({row["accuracy"] for row in rows[:4]}) > 1
    assert rows == alignments((0.5, 0.9), (0, 1), settings, rounds=4, rewind=0.25)
