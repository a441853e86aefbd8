"""Whole layers and networks in each format: convolutions, training steps, and the choice `compress` makes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.nn.conv import Conv2d
from minisparse.nn.linear import Linear
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.mode import Mode
from minisparse.nn.models import make
from minisparse.nn.optim import SGD, Adam
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.weights import compress as compression
from minisparse.weights import timings
from minisparse.weights.compress import _facts, candidates, compress
from minisparse.weights.formats import FORMATS, accepts, convert
from minisparse.weights.stored import StoredWeight
from tests.structures import groups

SAME = dict(rtol=1e-12, atol=1e-12)
TRAINING = Mode(training=True, rng=np.random.default_rng(0))
WINDOWS = (
    Window.of(3, padding=1),
    Window.of(3, stride=2, padding=1),
    Window.of((2, 3), stride=(2, 1), padding=(1, 0)),
    Window.of(2, dilation=2, padding=1),
    Window.of(1),
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINISPARSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def layer_pairs(rng, name):
    """(layer with this format, the same with masked dense) for Linear and Conv2d, float64."""
    for window in (None, *WINDOWS):
        kh, kw = window.kernel if window else (1, 1)
        geometry = (8, 4, kh, kw)
        shape = (8, 4 * kh * kw)
        mask = groups(rng, *shape, 2, 4) if name in ("nm", "condensed") else rng.random(shape) < 0.4
        mask = np.repeat(mask[::4], 4, axis=0) if name == "block" else mask
        dense, bias = rng.standard_normal(shape), rng.standard_normal(8)
        masked = MaskedWeight(dense, geometry, mask)
        weights = convert(masked, name), masked
        assert weights[0].geometry == geometry
        if window is None:
            yield tuple(Linear(w, bias.copy()) for w in weights), (5, 4)
        else:
            yield tuple(Conv2d(w, window, bias.copy()) for w in weights), (3, 4, 7, 6)


@pytest.mark.parametrize("name", FORMATS)
def test_layers_equal_masked_dense(name):
    rng = np.random.default_rng(1)
    for layers, shape in layer_pairs(rng, name):
        x, rx = rng.standard_normal(shape), rng.standard_normal(shape)
        ys = [layer.forward(x) for layer in layers]
        dy, rdy = (rng.standard_normal(ys[0].shape) for _ in range(2))
        v = rng.standard_normal(layers[1].weight.shape)
        results = []
        for layer, y in zip(layers, ys, strict=True):
            layer.weight.param.direction = layer.weight.entries(v)["weight"]
            dx = layer.backward(dy)
            grads = {k: p.grad.copy() for k, p in layer.params().items()}
            ry = layer.rforward(rx)
            rdx = layer.rbackward(dy, rdy)
            rgrads = {k: p.rgrad for k, p in layer.params().items()}
            laid = layer.weight.entries(layer.dense_grad())["weight"]
            np.testing.assert_allclose(laid, grads["weight"], **SAME)  # the same numbers in the same places
            results.append(
                (y, dx, grads["bias"], ry, *rdx, rgrads["bias"], layer.pull(dy), layer.pull_squares(dy**2))
            )
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, **SAME)
        reference = layers[0].weight.entries(layers[1].weight.param.grad)["weight"]
        np.testing.assert_allclose(layers[0].weight.param.grad, reference, **SAME)
        reference = layers[0].weight.entries(layers[1].weight.param.rgrad)["weight"]
        np.testing.assert_allclose(layers[0].weight.param.rgrad, reference, **SAME)
        signal = (rng.random((1, *shape[1:])) < 0.3).astype(float)
        np.testing.assert_array_equal(layers[0].reach(signal), layers[1].reach(signal))


def pruned(model, shape, sparsity, seed=0, dtype=np.float64):
    network = make(model, shape, 10, seed).astype(dtype)
    rng = np.random.default_rng(seed)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) >= sparsity)
    return network


def swapped(network, name):
    other = network.copy()
    for layer in other.prunable().values():
        if accepts(name, layer.weight.mask):
            layer.weight = convert(layer.weight, name)
    assert any(isinstance(layer.weight, StoredWeight) for layer in other.prunable().values())
    return other


@pytest.mark.parametrize(
    "model, shape", [("mlp:36-20-15-10", (36,)), ("lenet-5", (2, 9, 8)), ("resnet-20:0.25", (3, 8, 8))]
)
@pytest.mark.parametrize("name", ["csr", "panels", "sliced", "bitmask", "reduced"])
def test_training_follows_the_masked_network(model, shape, name):
    reference = pruned(model, shape, 0.7)
    rng = np.random.default_rng(2)
    networks = [reference, swapped(reference, name)]
    make_optimizer = SGD if name in ("csr", "bitmask") else Adam
    optimizers = [make_optimizer(weight_decay=1e-3) for _ in networks]
    for step in range(4):
        x, target = rng.standard_normal((6, *shape)), rng.integers(0, 10, 6)
        masks = {n: rng.random(layer.weight.shape) < 0.3 for n, layer in reference.prunable().items()}
        outputs = []
        for network, optimizer in zip(networks, optimizers, strict=True):
            loss = CrossEntropy()
            outputs.append(network.forward(x, TRAINING))
            loss.value(outputs[-1], target)
            network.backward(loss.grad(), need_dx=False)
            optimizer.step(network, 0.05)
            if step == 1:
                for n, layer in network.prunable().items():
                    for key, source in layer.weight.rewire(masks[n]).items():
                        optimizer.remap(f"{n}.{key}", source)
        np.testing.assert_allclose(*outputs, **SAME)
    for a, b in zip(*(network.prunable().values() for network in networks), strict=True):
        np.testing.assert_allclose(a.weight.dense(), b.weight.dense(), **SAME)
        np.testing.assert_array_equal(a.weight.mask, b.weight.mask)


def test_state_copy_and_type_of_a_stored_network():
    network = swapped(pruned("lenet-5", (1, 8, 8), 0.8), "csr")
    x = np.random.default_rng(3).standard_normal((4, 1, 8, 8))
    y = network.predict(x)
    other = network.copy()
    for p in other.params().values():
        p.value[...] = 0
    np.testing.assert_array_equal(network.predict(x), y)
    other.restore(network.state())
    np.testing.assert_array_equal(other.predict(x), y)
    np.testing.assert_allclose(network.astype(np.complex128).predict(x + 0j), y, **SAME)
    np.testing.assert_allclose(
        network.astype(np.float32).predict(x.astype(np.float32)), y, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("model, shape", [("mlp:300-200-100-10", (300,)), ("lenet-5", (1, 8, 8))])
@pytest.mark.parametrize("batch", [1, 32])
def test_compressed_network_gives_the_same_outputs(model, shape, batch):
    network = pruned(model, shape, 0.9, dtype=np.float32)
    before = network.state()
    small = compress(network, batch=batch)
    x = np.random.default_rng(4).standard_normal((batch, *shape)).astype(np.float32)
    layer_in = x
    for name, layer in small.layers.items():  # layer by layer, the stated bound of each product
        reference = network.layers[name]
        y, expected = layer.forward(layer_in), reference.forward(layer_in)
        if hasattr(layer, "weight"):
            terms = (np.count_nonzero(reference.weight.mask, axis=1) + 2) * np.finfo(np.float32).eps
            size = abs(layer.rows).astype(float) @ abs(reference.weight.dense().astype(float)).T
            error = abs(reference.as_rows(y).astype(float) - reference.as_rows(expected))
            # both are within the bound of the exact product, and the bias rounds once more each
            assert (error <= 2 * terms * (size + abs(reference.bias.value)) + 1e-30).all()
        layer_in = expected
    for key, value in network.state().items():
        np.testing.assert_array_equal(value, before[key])
    assert all(isinstance(layer.weight, MaskedWeight) for layer in network.prunable().values())
    for name, mask in network.masks().items():
        np.testing.assert_array_equal(small.masks()[name], mask)


def test_compress_measures_all_that_can_store_the_mask_and_takes_the_fastest(monkeypatch):
    network = pruned("mlp:64-40-10", (64,), 0.9, dtype=np.float32)
    network.layers["fc2"].weight.rewire(np.ones((10, 40), dtype=bool))
    seen = []

    def fake(works, by_blas):
        seen.append(set(works))
        for work in works.values():
            assert work().shape[1] == 40
        return {name: 1.0 if name == "sliced, rows_per_lane=3" else 2.0 for name in works}

    monkeypatch.setattr(compression, "measured", fake)
    small = compress(network, batch=8, cache=False)
    assert seen == [set(candidates(network.layers["fc1"].weight))]  # the full layer is left alone
    assert (
        type(small.layers["fc1"].weight) is FORMATS["sliced"]
        and small.layers["fc1"].weight.rows_per_lane == 3
    )
    assert isinstance(small.layers["fc2"].weight, MaskedWeight)
    monkeypatch.setattr(compression, "measured", lambda works, by_blas: {name: 1.0 for name in works})
    assert isinstance(compress(network, cache=False).layers["fc1"].weight, MaskedWeight)  # not clearly faster


def test_choices_are_remembered_and_a_damaged_file_is_not_believed(monkeypatch, home):
    network = pruned("mlp:64-40-10", (64,), 0.9, dtype=np.float32)
    calls = []

    def fake(works, by_blas):
        calls.append(len(works))
        return {name: 1.0 if name.startswith("csr") else 2.0 for name in works}

    monkeypatch.setattr(compression, "measured", fake)
    compress(network, batch=8)
    assert len(calls) == 2
    stored = json.loads((home / "formats.json").read_text())
    assert sorted(stored.values()) == [["csr", "csr"]] * 2
    assert list(home.iterdir()) == [home / "formats.json"]  # no temporary file stays
    small = compress(network, batch=8)
    assert len(calls) == 2 and type(small.layers["fc1"].weight) is FORMATS["csr"]
    compress(network, batch=9)
    assert len(calls) == 4  # another batch is other work
    for content in ("", "{", "[1]", json.dumps(dict.fromkeys(stored, "no such format"))):
        (home / "formats.json").write_text(content)
        before = len(calls)
        compress(network, batch=8)
        assert len(calls) == before + 2
    compress(network, batch=8, cache=False)
    assert len(calls) == before + 4


def test_a_folder_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINISPARSE_HOME", str(tmp_path / "file" / "below"))
    timings.remember("a", "b")
    assert timings.load() == {}
    network = pruned("mlp:64-40-10", (64,), 0.9, dtype=np.float32)
    assert compress(network, batch=4).predict(np.ones((2, 64), np.float32)).shape == (2, 10)


def test_what_is_remembered_depends_on_machine_and_work(monkeypatch):
    facts = {"layer": "Linear"}
    assert timings.key(facts) == timings.key(dict(facts)) != timings.key({"layer": "Conv2d"})
    first = timings.key(facts)
    monkeypatch.setattr(timings, "machine", lambda: {"processor": "another"})
    assert timings.key(facts) != first


def test_of_equals_the_first_is_chosen_and_dense_unless_it_is_clearly_slower():
    assert compression.chosen({"masked": 1.0, "csr": 0.98, "panels": 0.99}) == "masked"
    assert compression.chosen({"masked": 1.0, "csr": 0.51, "panels": 0.5, "nm": 0.52}) == "csr"
    assert compression.chosen({"masked": 1.0, "csr": 0.6, "panels": 0.5, "nm": 0.4}) == "nm"
    assert compression.chosen({"masked": 0.3, "csr": 0.6}) == "masked"


def test_hopeless_candidates_are_not_measured_again():
    calls = dict.fromkeys(("quick", "slow"), 0)

    def work(name, rounds):
        def run():
            calls[name] += 1
            sum(range(rounds))

        return run

    times = compression.measured({"quick": work("quick", 10), "slow": work("slow", 200_000)}, {"slow"})
    again = compression.TURNS * compression.ROUNDS
    assert times["quick"] < times["slow"] and calls == {"quick": 2 + again, "slow": 2}


@pytest.mark.parametrize(
    ("milliseconds", "wanted"),
    [
        ({"fastest": 5, "kernels": 6, "masked": 7}, "csr masked"),
        ({"fastest": 5, "kernels": 4, "masked": 7}, "csr bitmask"),
        ({"fastest": 5, "kernels": 4.9, "masked": 7}, "csr masked"),  # not clearly faster
        ({"fastest": 5, "kernels": 6, "masked": 4}, "masked masked"),
    ],
)
def test_on_two_threads_the_network_is_timed_as_a_whole(monkeypatch, milliseconds, wanted):
    """The first layer is fastest as csr, the second as a matrix; for kernels alone it is a bitmask."""
    network = pruned("mlp:64-40-10", (64,), 0.9, dtype=np.float32)
    times = {"masked": 2.0, "csr": 1.0}, {"masked": 1.0, "bitmask": 2.0}
    plans = []

    def fake(works, by_blas):
        assert by_blas == {"masked", "reduced"}
        return {name: times[len(plans)].get(name, 3.0) for name in works}

    def options(layer, x, key, real=compression._options):
        plans.append(real(layer, x, key))
        return plans[-1]

    def seconds(work):
        layers = small[0].prunable().values()
        used = next(
            p for p in compression.PLANS if all(a.weight is o[p] for a, o in zip(layers, plans, strict=True))
        )
        return 1e-3 * milliseconds[used]

    def plan(network, *rest, real=compression._plan):
        small.append(network)
        return real(network, *rest)

    small = []
    for name, value in (("measured", fake), ("_options", options), ("_seconds", seconds), ("_plan", plan)):
        monkeypatch.setattr(compression, name, value)
    monkeypatch.setattr(compression, "settle", lambda: None)
    monkeypatch.setattr(compression.numba, "get_num_threads", lambda: 2)
    kinds = {FORMATS["csr"]: "csr", FORMATS["bitmask"]: "bitmask", MaskedWeight: "masked"}
    for _ in range(2):  # the second time from what is remembered
        found = compress(network, batch=8)
        assert " ".join(kinds[type(layer.weight)] for layer in found.prunable().values()) == wanted
        plans.clear()
    assert len(small) == 2


@pytest.mark.parametrize("batch", [0, -1, True, 2.5, "8", None, float("nan")])
def test_bad_batch(batch):
    with pytest.raises(UsageError, match="compress batch"):
        compress(pruned("mlp:64-40-10", (64,), 0.9), batch=batch)


SCRIPT = """
import sys
import numpy as np
from minisparse.nn.mode import EVAL
from minisparse.weights.formats import FORMATS
from tests.structures import MASKS

found = {}
for name in ("prime", "2:4", "4:8", "1:3", "fan-in 7", "blocks 4x4", "ablated", "nnz 17"):
    mask = MASKS[name](np.random.default_rng(0))
    rng = np.random.default_rng(1)
    dense = rng.integers(-3, 4, mask.shape).astype(np.float32)
    for label, kind in FORMATS.items():
        if kind.objection(mask):
            continue
        for settings in kind.settings:
            weight = kind.from_dense(dense, mask, **settings)
            for batch in (1, 6):
                x, dy = (rng.integers(-3, 4, (batch, n)).astype(np.float32) for n in mask.shape[::-1])
                weight.pullback(x, dy)
                key = f"{name} {label} {settings} {batch}"
                found[key + " y"], found[key + " dx"] = weight.apply(x, EVAL), weight.pull(dy)
                found[key + " dw"] = weight.param.grad
np.savez(sys.argv[1], **found)
"""


def test_with_the_compiler_off_the_results_are_the_same(tmp_path):
    results = []
    for off in ("0", "1"):
        path = tmp_path / f"{off}.npz"
        environment = os.environ | {"NUMBA_DISABLE_JIT": off, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(path)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        results.append(dict(np.load(path, allow_pickle=False)))
    assert results[0].keys() == results[1].keys() and len(results[0]) > 100
    for key, value in results[0].items():  # integers: every order of summation gives the same
        np.testing.assert_array_equal(value, results[1][key], err_msg=key)


def test_what_is_remembered_of_one_structure_is_not_taken_for_another():
    spread_out, few_rows = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    spread_out[np.arange(8), np.arange(8)] = True
    few_rows[0] = True
    facts = []
    for mask in (spread_out, few_rows):
        layer = Linear(MaskedWeight(np.ones((8, 8)), None, mask))
        facts.append(_facts(layer, np.zeros((2, 8)), candidates(layer.weight)))
    assert facts[0]["sparsity"] == facts[1]["sparsity"] and facts[0]["units"] != facts[1]["units"]
