"""execute measures what it says, and Outcomes survive JSON."""

import json
from dataclasses import fields
from math import isnan

import numpy as np
import pytest

from minisparse.data import load
from minisparse.errors import MethodError, UnknownNameError
from minisparse.experiments.runner import Outcome, dataset, execute, failure
from minisparse.experiments.spec import RunSpec

MODEL = {"model": "mlp:64-16-10", "epochs": 2, "batch": 128}


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return execute(RunSpec("magnitude", (("sparsity", "0.75"),), seed=3, **MODEL))


def test_what_is_measured(outcome: Outcome) -> None:
    data = load("digits")
    net = outcome.network
    assert net is not None
    masks = net.masks()
    kept, total, biases = sum(int(m.sum()) for m in masks.values()), 64 * 16 + 16 * 10, 26
    assert (outcome.status, outcome.note, outcome.sparsity_asked) == ("done", "", 0.75)
    assert (outcome.kept, outcome.total, total - kept) == (kept, total, round(0.75 * total))
    assert outcome.sparsity == pytest.approx(1 - kept / total, abs=1e-15)
    assert outcome.compression == pytest.approx((total + biases) / (kept + biases), rel=1e-15)
    assert (outcome.macs_dense, outcome.macs) == (total, kept)
    assert outcome.bytes["dense"] == 4 * (total + biases)
    predicted = [int(np.argmax(net.forward(x[None])[0])) for x in data.test_x]
    assert outcome.accuracy == pytest.approx(np.mean(np.array(predicted) == data.test_y), abs=1e-12)
    assert outcome.chance == max(np.mean(data.test_y == k) for k in range(10))
    assert outcome.steps == 2 * 12
    assert [record["step"] for record in outcome.history] == [0, 12, 24]
    assert outcome.history[-1]["accuracy"] == outcome.accuracy
    assert [row.name for row in outcome.layers] == ["fc1", "fc2"]
    assert outcome.seconds > 0
    assert outcome.forward_seconds > 0
    assert outcome.environment["blas threads"] == "1"


def test_the_same_spec_gives_the_same_bits(outcome: Outcome) -> None:
    again = execute(outcome.spec)
    assert again.network is not None
    assert outcome.network is not None
    state = outcome.network.state()
    assert all(np.array_equal(state[key], value) for key, value in again.network.state().items())
    assert [r["accuracy"] for r in again.history] == [r["accuracy"] for r in outcome.history]


def test_the_spec_decides(outcome: Outcome) -> None:
    spec = RunSpec(
        "dense", seed=3, dtype="float64", init="orthogonal", optimizer="adam", rate="constant:1e-3", **MODEL
    )
    net = execute(spec).network
    assert net is not None
    assert net.dtype == np.float64
    assert execute(RunSpec("dense", data="moons", model="mlp:2-4-2", epochs=1)).total == 16


def test_json_keeps_everything_but_the_network(outcome: Outcome) -> None:
    text = json.dumps(outcome.to_json(), allow_nan=False)
    back = Outcome.from_json(text)
    for f in fields(Outcome):
        if f.name not in ("network", "history"):
            assert getattr(back, f.name) == getattr(outcome, f.name), f.name
    assert back.network is None
    assert back.spec.key == outcome.spec.key
    assert isnan(back.history[0]["loss"])
    assert back.history[1:] == outcome.history[1:]
    assert json.dumps(back.to_json(), allow_nan=False) == text


def test_a_failure_is_an_outcome() -> None:
    found = failure(RunSpec("rigl"), ValueError("two\nlines"))
    assert (found.status, found.note, found.sparsity_asked) == ("failed", "ValueError: two lines", 0.9)
    assert not found.finished
    assert isnan(found.accuracy)
    back = Outcome.from_json(json.dumps(found.to_json(), allow_nan=False))
    assert (back.status, back.note) == (found.status, found.note)
    assert isnan(back.accuracy)


def test_divergence_is_a_result() -> None:
    found = execute(RunSpec("dense", rate="constant:lr=1e30", **MODEL))
    assert found.status == "diverged"
    assert found.finished
    assert "diverged at step" in found.note
    assert isnan(found.accuracy)


def test_collapse_is_a_result() -> None:
    found = execute(RunSpec("random", (("sparsity", "0.999"),), **MODEL))
    assert found.status == "collapsed"
    assert found.finished
    assert "collapsed" in found.note or "silent" in found.note


def test_seeds_of_runs_do_not_change_the_problem() -> None:
    seeds = [
        execute(RunSpec("dense", data="moons", model="mlp:2-4-2", epochs=1, seed=seed)) for seed in (0, 1)
    ]
    assert seeds[0].chance == seeds[1].chance
    assert np.array_equal(dataset("moons", None).test_x, load("moons", seed=0).test_x)
    assert seeds[0].history[0]["test_loss"] != seeds[1].history[0]["test_loss"]


def test_errors_of_the_parts_come_through() -> None:
    with pytest.raises(MethodError):
        execute(RunSpec("synflow", model="mlp:64-8-10:tanh", epochs=1))
    with pytest.raises(UnknownNameError):
        execute(RunSpec("dense", data="nothing"))


def test_progress_is_passed_on() -> None:
    steps = []
    execute(RunSpec("dense", **(MODEL | {"epochs": 1})), progress=lambda state: steps.append(state.step))
    assert steps == list(range(13))
