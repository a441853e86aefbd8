"""Any network of our layers comes back from its description: random, shrunk, with every kind of weight."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from functools import partial
from inspect import isabstract
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minisparse.nn
import minisparse.weights
from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.all_relu import AllReLU
from minisparse.nn.init import INITIALIZERS
from minisparse.nn.layer import Layer
from minisparse.nn.linear import Linear
from minisparse.nn.mode import Mode
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.pool import AvgPool2d, MaxPool2d
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.rng import generator
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.pattern import InChannel, Row, Unstructured
from minisparse.sparsity.shape import LayerShape
from minisparse.sparsity.surgery import shrink
from minisparse.testing.problems import NETWORKS, conv_net, data_for, mlp
from minisparse.training.checkpoint import load, read_manifest, save
from minisparse.training.forms import FORMS, NAMES
from minisparse.training.run import train
from minisparse.training.shelf import Shelf
from minisparse.training.structure import build, describe
from minisparse.weights.csr import CSRWeight
from minisparse.weights.dct import DCTWeight
from minisparse.weights.factored import FactoredWeight
from minisparse.weights.formats import FORMATS, accepts, convert
from minisparse.weights.hard_concrete import HardConcreteWeight
from minisparse.weights.movement import MovementWeight
from minisparse.weights.powerprop import PowerWeight
from minisparse.weights.soft_threshold import SoftThresholdWeight
from minisparse.weights.stored import StoredWeight
from minisparse.weights.straight_through import RefinedWeight
from minisparse.weights.two_mask import TwoMaskWeight
from minisparse.weights.variational import VariationalWeight
from tests.architectures import random_network

GEOMETRY = (6, 4, 1, 1)


def through(network: Network) -> Network:
    """The network that its description and arrays give, by way of JSON."""
    shelf = Shelf()
    text = json.dumps(describe(network, shelf, "x."), allow_nan=False)
    back = Shelf(shelf.arrays)
    twin = build(json.loads(text), back, "x.")
    back.check_all_taken()
    return twin


def assert_same(a: Network, b: Network) -> None:
    """Layers, weights, numbers, masks and flags; outputs and gradients of a training step."""
    assert [(n, type(x)) for n, x in a.walk()] == [(n, type(x)) for n, x in b.walk()]
    one, two = a.state(), b.state()
    assert one.keys() == two.keys()
    for key in one:
        assert (one[key].dtype, one[key].tobytes()) == (two[key].dtype, two[key].tobytes()), key
    for name, layer in a.prunable().items():
        twin = b.prunable()[name].weight
        assert type(layer.weight) is type(twin) and layer.weight.geometry == twin.geometry
        np.testing.assert_array_equal(layer.weight.mask, twin.mask)
        assert layer.weight.kept == twin.kept
    for key, p in a.params().items():
        assert (p.rate, p.decay) == (b.params()[key].rate, b.params()[key].decay), key
    assert (a.name, a.input_shape, a.outputs, a.init) == (b.name, b.input_shape, b.outputs, b.init)
    x = generator(0, "x").standard_normal((5, *a.input_shape)).astype(a.dtype)
    for mode in (lambda: Mode(), lambda: Mode(training=True, rng=generator(0, "noise"))):
        y, z = a.forward(x, mode()), b.forward(x, mode())
        assert y.tobytes() == z.tobytes()
        for network, out in ((a, y), (b, z)):
            network.backward(np.ones_like(out), need_dx=False)
        for key, p in a.params().items():
            assert p.grad.tobytes() == b.params()[key].grad.tobytes(), key
    a.release()
    b.release()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_architectures(seed: int) -> None:
    network = random_network(generator(seed, "network"))
    assert_same(network, through(network))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float32", "float64"]))
def test_random_architectures_on_disk(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("x")
    network = random_network(generator(seed, "network")).astype(dtype)
    save(network, folder, "rigl", {"sparsity": "0.5"})
    assert_same(network, load(folder))
    assert read_manifest(folder).method == "rigl"


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_shrunk_random_networks(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = generator(seed, "network")
    network = random_network(rng)
    keep = {}
    for group in groups_of(network):
        keep[group] = rng.random(len(group)) < 0.6
        keep[group][rng.integers(len(group))] = True
    small = shrink(network, keep)
    folder = tmp_path_factory.mktemp("x")
    save(small, folder)
    assert_same(small, load(folder))


@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [("lenet-5", (1, 8, 8), 10), ("resnet-20:0.25", (3, 8, 8), 5), ("mlp:6-5-4-3:all-relu=0.5", (6,), 3)],
)
def test_shrunk_models(tmp_path: Path, name: str, shape: tuple[int, ...], outputs: int) -> None:
    network = make(name, shape, outputs, seed=1)
    keep = {group: np.arange(len(group)) % 3 != 1 for group in groups_of(network)}
    small = shrink(network, keep)
    assert sum(p.value.size for p in small.params().values()) < sum(
        p.value.size for p in network.params().values()
    )
    save(small, tmp_path)
    assert read_manifest(tmp_path).format == 3
    assert_same(small, load(tmp_path))
    save(network, tmp_path)
    assert read_manifest(tmp_path).format == 1  # its name says it all


def test_a_shrunk_network_trains_on_alike(tmp_path: Path) -> None:
    network = NETWORKS["conv"]()
    keep = {group: np.arange(len(group)) % 2 == 0 for group in groups_of(network)}
    save(shrink(network, keep), tmp_path)
    runs = [
        train(start, data_for(start), minisparse.RigL(sparsity=0.5, every=2), epochs=2, batch=16)
        for start in (shrink(network, keep), load(tmp_path))
    ]
    assert_same(runs[0].network, runs[1].network)


def matrix(rng: np.random.Generator) -> MaskedWeight:
    """Half of it absent."""
    shape = GEOMETRY[0], GEOMETRY[1]
    return MaskedWeight(rng.standard_normal(shape), GEOMETRY, rng.random(shape) < 0.6)


def gates(pattern: Unstructured | Row | InChannel, rng: np.random.Generator) -> HardConcreteWeight:
    shape = LayerShape(*GEOMETRY)
    spread, total = (partial(f, shape=shape) for f in (pattern.spread, pattern.total))
    log_a = rng.uniform(-4, 4, pattern.sizes(shape).shape)
    return HardConcreteWeight(matrix(rng), log_a, spread, total, 300.0)


def bases(rng: np.random.Generator) -> FactoredWeight:
    """Bases as column selection leaves them in memory."""
    left, right = rng.standard_normal((6, 5))[:, [0, 2, 3]], rng.standard_normal((4, 4))[:, [1, 2]]
    return FactoredWeight(left, rng.standard_normal((3, 2)), right, GEOMETRY)


def two_masks(rng: np.random.Generator) -> TwoMaskWeight:
    weight = TwoMaskWeight(matrix(rng))
    weight.backward = weight.gate | (rng.random(weight.shape) < 0.4)
    return weight


def regated(weight: Weight, rng: np.random.Generator) -> Weight:
    """Values stay where gates are shut."""
    weight.rewire(rng.random(weight.shape) < 0.5)
    return weight


WEIGHTS: dict[str, Callable[[np.random.Generator], Weight]] = {
    "masked": matrix,
    "full": lambda rng: MaskedWeight(rng.standard_normal((6, 4))),
    "factored": bases,
    "dct": lambda rng: DCTWeight(matrix(rng), 0.7, 0.1),
    "dct of entries": lambda rng: DCTWeight(convert(matrix(rng), "csr"), 0.7, 0.1),
    "movement": lambda rng: regated(MovementWeight(matrix(rng), 100.0), rng),
    "refined": lambda rng: regated(RefinedWeight(matrix(rng), 2e-4), rng),
    "two-mask": two_masks,
    "power": lambda rng: PowerWeight(matrix(rng), 3.0),
    "soft-threshold": lambda rng: SoftThresholdWeight(matrix(rng), -2.0),
    "hard-concrete": lambda rng: gates(Unstructured(), rng),
    "hard-concrete of rows": lambda rng: gates(Row(), rng),
    "hard-concrete of channels": lambda rng: gates(InChannel(), rng),
    "variational": lambda rng: VariationalWeight(matrix(rng), -3.0, 1.5, 10.0),
    **{name: partial(lambda rng, name: stored(rng, name), name=name) for name in FORMATS},
}


def stored(rng: np.random.Generator, name: str) -> Weight:
    """In this format, one entry present and 0."""
    mask = np.tile(np.array([[True, False, False, True], [False, True, True, False]])[:1], (6, 1))
    mask = mask if name in ("block", "nm", "condensed", "reduced") else rng.random((6, 4)) < 0.6
    assert accepts(name, mask)
    weight = convert(MaskedWeight(rng.standard_normal((6, 4)), GEOMETRY, mask), name)
    weight.param.value.reshape(-1)[np.flatnonzero(weight.param.value)[0]] = 0
    return weight


def with_weight(weight: Weight, dtype: str = "float64") -> Network:
    other = Linear(MaskedWeight(np.ones((2, 6))), np.array([0.5, -1.0]))
    network = Network({"fc1": Linear(weight), "all": AllReLU(3, 0.25), "fc2": other}, (4,), "by hand")
    rng = generator(1, "test")
    for p in weight.params().values():  # away from where constructors put them, signs of zeros too
        p.value += 0.1 * rng.standard_normal(p.value.shape) * (p.value != 0)
    network.init = INITIALIZERS["orthogonal"]
    return network.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_every_kind_of_weight(tmp_path: Path, kind: str, dtype: str) -> None:
    network = with_weight(WEIGHTS[kind](generator(0, "weight")), dtype)
    twin = through(network)
    assert_same(network, twin)
    twin.prunable()["fc1"].weight.params()["weight" if "factored" not in kind else "core"].value[...] = 0
    assert_same(network, through(network))  # nothing is shared
    save(network, tmp_path)
    network.init = load(tmp_path).init
    assert_same(network, load(tmp_path))


def classes() -> set[type]:
    """Every layer and weight of the package that can be made."""
    for package in (minisparse.nn, minisparse.weights):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, waiting = set[type](), [Layer, Weight]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found |= {cls for cls in below if cls.__module__.startswith("minisparse.") and not isabstract(cls)}
    return found


def test_the_table_has_every_layer_and_weight() -> None:
    bases_only = {"Network", "BatchNorm", "GatedWeight", "Reparametrised"}
    missing = {
        c.__name__ for c in classes() if c not in NAMES and not issubclass(c, StoredWeight)
    } - bases_only
    assert not missing, f"give these a row in forms.FORMS: {missing}"
    assert {type(make_one(generator(0, "weight"))) for make_one in WEIGHTS.values()} == {
        c for c in classes() if issubclass(c, Weight) and c.__name__ not in bases_only
    }


def test_layers_that_random_networks_lack() -> None:
    layers = {"pool": MaxPool2d(Window.of((2, 1), (1, 2))), "avg": AvgPool2d(Window.of(2))}
    network = conv_net(generator(0, "test"), np.float32)
    network = Network({**layers, **dict(list(network.layers.items())[:3])}, (2, 6, 6))
    assert_same(network, through(network))


class Own(Linear):
    """A layer that the table does not have."""


def test_what_is_not_in_the_table_is_named() -> None:
    ones = np.ones((2, 3))
    with pytest.raises(UsageError, match="layer 'fc' cannot be saved: got Own"):
        through(Network({"fc": Own(MaskedWeight(ones))}, (3,)))
    odd = HardConcreteWeight(MaskedWeight(ones), np.ones((2, 3)), lambda z: z, lambda a: a, 1.0)
    with pytest.raises(UsageError, match="made in another way"):
        through(Network({"fc": Linear(odd)}, (3,)))
    with pytest.raises(UsageError, match="complex128"):
        through(mlp((3, 2), generator(0, "test")).astype(np.complex128))


def test_no_matrix_is_formed_of_a_stored_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    network = with_weight(stored(generator(0, "weight"), "csr"))

    def dense(self: StoredWeight) -> Array:
        raise AssertionError("a matrix was asked for")

    with monkeypatch.context() as patch:
        patch.setattr(StoredWeight, "dense", dense)
        patch.setattr(StoredWeight, "mask", property(dense))
        twin = through(network)
    assert type(twin.prunable()["fc1"].weight) is CSRWeight
    assert_same(network, twin)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**15)
    | st.floats()
    | st.sampled_from(["", "x.fc1.weight", *FORMS]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["kind", "param", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(data=st.data())
def test_any_change_of_a_description_is_refused_in_one_way_or_is_a_network(data: st.DataObject) -> None:
    """One value anywhere is replaced by another; what can be built can be used."""
    shelf = Shelf()
    kind = data.draw(st.sampled_from(sorted(WEIGHTS)))
    facts = describe(with_weight(WEIGHTS[kind](generator(0, "weight"))), shelf, "x.")
    facts = json.loads(json.dumps(facts))
    at: object = facts
    while True:
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))  # type: ignore[arg-type, type-var]
        key = data.draw(st.sampled_from(keys))
        inner = at[key]  # type: ignore[index]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 3)) == 0:
            break
        at = inner
    at[key] = data.draw(VALUES)  # type: ignore[index]
    try:
        back = Shelf(shelf.arrays)
        network = build(facts, back, "x.")
        back.check_all_taken()
    except CheckpointError:
        return
    with np.errstate(all="ignore"):
        assert network.predict(np.ones((2, *network.input_shape), network.dtype)).shape == (
            2,
            network.outputs,
        )
