"""Pictures of dynamic training: what they count, against direct counts and closed forms."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from minisparse.cli.main import main
from minisparse.cli.study import GROUPS, STUDIES
from minisparse.experiments.dynamic import ablation, exploration, flops, flow, layers, outputs, topology
from minisparse.experiments.dynamic.runs import INTERVAL, METHODS, watched
from minisparse.methods.dynamic.explored import expected_share
from minisparse.methods.dynamic.itop import ITOP
from minisparse.nn.models import make
from tests.methods.problems import chain, clusters

# topology


def test_weights_per_pixel_are_column_sums_of_the_mask():
    network = make("mlp:18-7-3", (2, 3, 3), 3)
    rng = np.random.default_rng(0)
    mask = rng.random((7, 18)) < 0.4
    network.layers["fc1"].weight.rewire(mask)
    expected = mask.sum(axis=0).reshape(2, 3, 3).sum(axis=0)
    np.testing.assert_array_equal(topology.per_pixel(network), expected)


def test_likeness_is_a_correlation():
    a = np.random.default_rng(0).random((4, 4))
    assert topology.likeness(3 * a + 1, a) == pytest.approx(1)
    assert topology.likeness(-a, a) == pytest.approx(-1)
    assert topology.likeness(np.ones((4, 4)), a) == 0


def test_gradient_growth_moves_weights_to_the_ink_and_the_animation_has_a_frame_per_exchange():
    made = topology.study((0,), epochs=6)
    rows = {row["method"]: row for row in made.rows}
    assert rows["rigl"]["ink_last"] > rows["rigl"]["ink_first"] + 0.3
    assert rows["set"]["exchanges"] == 5 and rows["rigl"]["exchanges"] == 4
    film = Image.open(BytesIO(made.files["gif"]))
    # SET changes after 23 k steps, RigL in the step after: start, 5 and 4 moments
    assert film.n_frames == 1 + 5 + 4


# explored share


def test_the_closed_form_is_the_one_of_the_method_file_for_a_constant_number():
    curve = exploration.expected_shares([(1000, 100)], range(1, 51), lambda done: 0.3, 60)
    assert curve[0] == pytest.approx(0.1) and (np.diff(curve) >= 0).all()
    assert curve[50] == curve[60] == pytest.approx(expected_share(1000, 100, 30, 50))
    assert curve[50] == pytest.approx(0.82533, abs=1e-5)
    dense = exploration.expected_shares([(1000, 100), (50, 50)], (1,), lambda done: 0.3, 1)
    assert dense[0] == pytest.approx(150 / 1050)


@pytest.mark.parametrize("label", sorted(exploration.MOVED))
def test_random_growth_follows_the_closed_form(label):
    courses = []
    for seed in range(2):
        course = exploration.Course()
        watched(exploration.COMPARED[label](0.9), seed, course, epochs=5)
        courses.append(course)
    assert courses[0].exchanges == [INTERVAL * k for k in range(1, 5)]
    expected = exploration.expected_shares(
        courses[0].layers, courses[0].exchanges, exploration.MOVED[label], INTERVAL * 5
    )
    found = np.mean([c.shares for c in courses], axis=0)
    np.testing.assert_allclose(found, expected, atol=0.006)
    assert found[-1] > 0.12


def test_growth_by_gradient_explores_less_and_a_static_mask_nothing():
    found = {}
    for label, method in {
        "static": METHODS["static"](0.95),
        "random": ITOP(0.95, growth="random", every=INTERVAL),
        "gradient": ITOP(0.95, growth="gradient", every=INTERVAL),
    }.items():
        course = exploration.Course()
        watched(method, 0, course, epochs=6)
        found[label] = course.shares
    assert set(found["static"]) == {found["static"][0]}
    assert found["static"][0] == pytest.approx(0.05, abs=1e-4)
    assert found["random"][-1] > found["gradient"][-1] + 0.01 > found["static"][-1] + 0.02


# units


def test_idle_units_by_hand():
    network = chain(np.ones((4, 3)), np.ones((3, 4)), np.ones((2, 3)))
    first = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    second = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    third = np.array([[1, 0, 0], [1, 0, 0]], dtype=bool)
    for name, mask in zip(("fc1", "fc2", "fc3"), (first, second, third), strict=True):
        network.layers[name].weight.rewire(mask)
    # fc1: unit 1 has no input; 2 and 3 have, but fc2 reads 0 and 1 only. fc2: unit 2; unit 1
    assert ablation.idle_units(network) == {"fc1": (1 / 4, 2 / 4), "fc2": (1 / 3, 1 / 3)}


def test_ablation_empties_units_that_a_constant_fan_in_keeps():
    made = ablation.study((0,), sparsities=(0.9,), epochs=4)
    share = {row["method"]: row["fc1_no_input"] for row in made.rows}
    assert share["srigl, gamma 0"] == 0 and share["srigl, gamma 0.9"] > 0.2
    assert all(row["fc1_no_input"] + row["fc1_unread"] <= 1 for row in made.rows)


# layers


def test_the_table_of_layers_has_the_known_counts():
    rows = layers.table(make("lenet-300-100", (1, 28, 28), 10), 0.9)
    kept = {(r["allocation"], r["layer"]): r["kept"] for r in rows}
    assert [kept["erk", n] for n in ("fc1", "fc2", "fc3")] == [18714, 6906, 1000]
    assert [kept["uniform", n] for n in ("fc1", "fc2", "fc3")] == [23520, 3000, 100]
    assert kept["uniform, first dense", "fc1"] == 235200
    assert all(r["work"] == pytest.approx(0.1) for r in rows if r["allocation"] in ("uniform", "er", "erk"))


def test_work_of_a_convolution_counts_its_positions():
    rows = [r for r in layers.table(make("lenet-5", (1, 28, 28), 10), 0.9) if r["allocation"] == "uniform"]
    places = {"conv1": 28 * 28, "conv2": 10 * 10}
    work = sum(r["kept"] * places.get(r["layer"], 1) for r in rows)
    dense = sum(r["weights"] * places.get(r["layer"], 1) for r in rows)
    assert {r["work"] for r in rows} == {work / dense}
    lines = layers.as_csv(rows).decode().splitlines()
    assert lines[0].startswith("network,allocation,layer") and len(lines) == 6


# FLOPs


def test_flops_of_a_step_are_the_papers():
    # arXiv:1911.11134: f_S = 0.1 f_D, an exchange every 100 steps
    assert flops.rigl_step(0.1, 1, 100) == pytest.approx(0.30891, abs=1e-5)
    assert flops.snfs_step(0.1, 1) == pytest.approx(1.2)
    assert flops.training_flops(1.0, 0.1, 101, 1) == pytest.approx(101 * flops.rigl_step(0.1, 1, 100))
    assert flops.training_flops(1.0, 1.0, 7, 0) == 21


def test_forward_flops_of_masks_and_positions():
    network = make("lenet-5", (1, 8, 8), 10)
    dense, same = flops.forward_flops(network)
    assert dense == same == 2 * (6 * 9 * 64 + 16 * 54 * 16 + 120 * 64 + 84 * 120 + 10 * 84)
    weight = network.prunable()["conv2"].weight
    mask = np.zeros(weight.shape, bool)
    mask[0, :5] = True
    weight.rewire(mask)
    assert flops.forward_flops(network) == (dense, dense - 2 * 16 * (16 * 54 - 5))


def test_rigl_costs_its_exchanges_and_set_nothing_more_than_static():
    made = flops.study((0,), sparsities=(0.95,), epochs=4)
    rows = {(r["method"], r["times"]): r for r in made.rows}
    network = watched(METHODS["static"](0.95), 0, epochs=1).network
    f_d, f_s = flops.forward_flops(network)
    steps = 4 * INTERVAL
    assert rows["dense", 1]["work"] == 1 and rows["dense", 1]["flops_a_sample"] == 3 * f_d
    assert rows["static", 1]["work"] == rows["set", 1]["work"] == pytest.approx(f_s / f_d)
    assert rows["static", 5]["work"] == pytest.approx(5 * f_s / f_d)
    assert (rows["set", 1]["exchanges"], rows["rigl", 1]["exchanges"]) == (3, 2)
    expected = (steps * 3 * f_s + 2 * (f_d - f_s)) / (steps * 3 * f_d)
    assert rows["rigl", 1]["work"] == pytest.approx(expected)


# gradient flow


def test_the_first_exchange_of_rigl_raises_the_flow_and_a_step_of_static_training_does_not():
    found = {}
    for label in ("static", "rigl"):
        trace = flow.Trace(still=label == "static")
        watched(METHODS[label](0.98), 0, trace, epochs=3)
        found[label] = trace
    assert [step for step, _, _ in found["static"].jumps] == [23, 46, 69]
    assert [step for step, _, _ in found["rigl"].jumps] == [24, 47]  # the exchange is the 24th step
    before, after = found["rigl"].jumps[0][1:]
    assert after > 2 * before
    assert found["static"].jump < 1.5
    np.testing.assert_allclose(flow.smooth(np.full((2, 9), 3.0)), 3.0)


# outputs

KINDS = ("static", "random growth", "gradient growth")


def test_methods_of_the_outputs_differ_in_the_exchange_and_the_objective():
    made = outputs.methods(0.9)
    assert made["static", False].share == 0 and made["random growth", True].share > 0
    assert all((method.auxiliary > 0) == helped for (_, helped), method in list(made.items())[1:])
    assert made["gradient growth", False].growth == "gradient"


def test_the_table_of_outputs(monkeypatch):
    data = clusters(np.random.default_rng(0), (64,), classes=20, train=100, test=40)
    monkeypatch.setattr(outputs, "MODEL", "mlp:64-16-20")
    monkeypatch.setattr(outputs, "load", lambda name: data)
    made = outputs.study((0, 1), sparsity=0.75, epochs=2)
    assert [(row["last_layer"], row["fan_in"], row["weights"]) for row in made.rows] == [
        ("dense", 16, 320), *[(label, 4, 80) for label in KINDS for _ in range(2)]
    ]  # fmt: skip
    assert len(made.words) == 3


# the command


def test_the_command_writes_figure_numbers_and_animation(capsys, tmp_path):
    argv = ["study", "dynamic-layers", "--out", str(tmp_path), "-q", "--json"]
    assert main(argv) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (tmp_path / "studies" / "dynamic-layers.csv").read_text().count("\n") == 1 + 4 * (3 + 5 + 20)
    assert shown["csv"].endswith("dynamic-layers.csv") and len(shown["rows"]) == 12
    assert GROUPS["dynamic"] == [name for name in STUDIES if name.startswith("dynamic-")]
    total = sum(row["sparsity"] for row in shown["rows"] if row["allocation"] == "erk") / 3
    assert total == pytest.approx(0.9, abs=1e-3)
