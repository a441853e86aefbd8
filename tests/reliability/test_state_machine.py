"""Pruned, trained, saved, converted, compressed, exported and resumed in any order, a network stays itself.

The model is plain matrices and masks (`dense_model`). A step of training agrees with it to rounding, and the
model then takes the network's numbers; everything else must leave or change them bit for bit as it does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minisparse.errors import CheckpointError, SparseFormatError
from minisparse.exchange import load_into, read, to_torch, write
from minisparse.methods.base import layer_shapes
from minisparse.methods.dense import Dense
from minisparse.nn.activation import Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import LinearLayer
from minisparse.nn.linear import Linear
from minisparse.nn.loss import MSE
from minisparse.nn.lr import Constant
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.pool import Flatten
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.pattern import NM, Unstructured
from minisparse.sparsity.select import select
from minisparse.training import checkpoint, snapshot
from minisparse.training.loop import fit
from minisparse.training.snapshot import Snapshot
from minisparse.training.state import TrainState
from minisparse.training.storage import move
from minisparse.weights.compress import compress
from minisparse.weights.formats import FORMATS, MASKED, accepts, convert
from minisparse.weights.stored import StoredWeight
from tests.reliability.counts import examples, profile
from tests.reliability.dense_model import DECAY, KERNEL, MOMENTUM, Layer, Model

Array = np.ndarray
LR = 0.05
TOLERANCE = {"float32": 3e-5, "float64": 1e-11}
RUN = {"seed": "0"}


def perceptron(dtype: str) -> Network:
    return make("mlp:8-12-8-4:tanh", (8,), 4, seed=1).astype(dtype)


def convolution(dtype: str) -> Network:
    """One that no model's name rebuilds."""
    rng = np.random.default_rng(1)
    conv = MaskedWeight(rng.standard_normal((4, 8)), (4, 2, KERNEL, KERNEL))
    layers = {
        "conv": Conv2d(conv, Window.of(KERNEL), np.zeros(4)),
        "act": Activation("tanh"),
        "flatten": Flatten(),
        "fc": Linear(MaskedWeight(rng.standard_normal((4, 16)) / 4), np.zeros(4)),
    }
    return Network(layers, (2, 3, 3)).astype(dtype)


NETWORKS: dict[str, Callable[[str], Network]] = {"perceptron": perceptron, "convolution": convolution}


def naive_top(scores: list[float], keep: int) -> set[int]:
    """Places of the largest, of equal ones the first."""
    return set(sorted(range(len(scores)), key=lambda k: (-scores[k], k))[:keep])


def laid(weight: MaskedWeight | StoredWeight, slot: Array) -> Array:
    """A slot of the optimiser as a matrix; what no entry has must be 0. (Slots of a format may lie flat.)"""
    places = weight.place(np.arange(1.0, weight.kept + 1))["weight"].astype(int).reshape(-1)
    slot = slot.reshape(-1)
    assert not slot[places == 0].any()
    dense = np.zeros(weight.size)
    dense[weight.flat[places[places > 0] - 1]] = slot[places > 0]
    return dense.reshape(weight.shape)


class Machine(RuleBasedStateMachine):
    """A run (network, optimiser, counts) beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.room = tempfile.TemporaryDirectory()
        self.folder = Path(self.room.name)
        self.saved: Model | None = None
        self.runs: dict[int, Model] = {}

    def teardown(self) -> None:
        self.room.cleanup()

    @initialize(kind=st.sampled_from(sorted(NETWORKS)), dtype=st.sampled_from(sorted(TOLERANCE)))
    def begin(self, kind: str, dtype: str) -> None:
        self.fresh = lambda: NETWORKS[kind](dtype)
        self.bound = TOLERANCE[dtype]
        network, rng = self.fresh(), np.random.default_rng(2)
        self.x = rng.standard_normal((6, *network.input_shape)).astype(dtype)
        self.target = rng.standard_normal((6, network.outputs)).astype(dtype)
        self.state = self.anew(network)
        self.model = Model({
            name: Layer.of(layer.weight.dense(), layer.bias.value) for name, layer in self.layers.items()
        })  # fmt: skip

    def anew(self, network: Network) -> TrainState:
        x, t = self.x, self.target
        return TrainState(
            network, SGD(MOMENTUM, weight_decay=DECAY), MSE(), Constant(LR), 0, 10**6, 10, x, t, x, t
        )

    @property
    def layers(self) -> dict[str, LinearLayer]:
        return self.state.network.prunable()

    def layer(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model.layers)))

    def put(self, name: str, weight: MaskedWeight | StoredWeight) -> None:
        """Another weight of the same entries in the place of a layer's; momentum goes with them."""
        old, self.layers[name].weight = self.layers[name].weight, weight
        move(self.state, name, old, weight)

    def rewire(self, name: str, mask: Array, by_positions: bool = False) -> None:
        """Impose a mask. A format that cannot store it must say so, change nothing, and is left."""
        weight = self.layers[name].weight
        change = {name: np.flatnonzero(mask)} if by_positions else {name: mask}
        impose = self.state.rewire_flat if by_positions else self.state.rewire
        if isinstance(weight, StoredWeight) and weight.objection(mask):
            with pytest.raises(SparseFormatError):
                impose(change)
            self.is_its_model()
            self.put(name, convert(weight, "csr"))
            impose = self.state.rewire_flat if by_positions else self.state.rewire
        impose(change)
        self.model.layers[name].rewire(mask)
        self.model.topology += 1

    # what may happen

    @rule(data=st.data(), share=st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]), positions=st.booleans())
    def prune_a_layer(self, data: st.DataObject, share: float, positions: bool) -> None:
        """Its smallest present entries."""
        name = self.layer(data)
        layer = self.model.layers[name]
        present = np.flatnonzero(layer.mask)
        keep = present.size - round(share * present.size)
        best = naive_top(np.abs(layer.w.flat[present]).tolist(), keep)
        mask = np.zeros(layer.mask.size, bool)
        mask[present[sorted(best)]] = True
        self.rewire(name, mask.reshape(layer.mask.shape), positions)

    @rule(sparsity=st.sampled_from([0.3, 0.5, 0.75, 0.9, 0.99]))
    def prune_all(self, sparsity: float) -> None:
        """The smallest of all layers together, never reviving one."""
        masks = {name: layer.mask for name, layer in self.model.layers.items()}
        total = sum(mask.size for mask in masks.values())
        keep = total - round(sparsity * total)
        if keep > sum(int(mask.sum()) for mask in masks.values()):
            return
        every = [abs(w) for layer in self.model.layers.values() for w in layer.w.flat]
        alive = [bool(m) for mask in masks.values() for m in mask.flat]
        best = naive_top([s if m else -1.0 for s, m in zip(every, alive, strict=True)], keep)
        scores = {name: np.abs(layer.weight.dense()) for name, layer in self.layers.items()}
        network = self.state.network
        found = select(scores, layer_shapes(network), sparsity, Global(), Unstructured(), masks)
        assert set(np.flatnonzero(np.concatenate([found[n].ravel() for n in masks]))) == best
        for name, mask in found.items():
            self.rewire(name, mask)

    @rule(data=st.data())
    def prune_groups(self, data: st.DataObject) -> None:
        """Two of every four inputs stay, present or not."""
        name = self.layer(data)
        score = np.abs(self.model.layers[name].w)
        shape = layer_shapes(self.state.network)[name]
        mask = select({name: score}, {name: shape}, None, Global(), NM(2, 4))[name]
        for group, kept in zip(score.reshape(-1, 4), mask.reshape(-1, 4), strict=True):
            assert set(np.flatnonzero(kept)) == naive_top(group.tolist(), 2)
        self.rewire(name, mask)

    @rule(data=st.data())
    def prune_units(self, data: st.DataObject) -> None:
        """Pairs of rows and an input, so that blocks and reduced matrices are met."""
        name = self.layer(data)
        mask = self.model.layers[name].mask.copy()
        pair = data.draw(st.integers(0, len(mask) // 2 - 1))
        mask[2 * pair : 2 * pair + 2] = False
        mask[:, data.draw(st.integers(0, mask.shape[1] - 1))] = False
        self.rewire(name, mask)

    @rule(data=st.data(), positions=st.booleans())
    def exchange(self, data: st.DataObject, positions: bool) -> None:
        """Any entries leave and any others come."""
        name = self.layer(data)
        mask = self.model.layers[name].mask.copy()
        for place in data.draw(st.lists(st.integers(0, mask.size - 1), max_size=5, unique=True)):
            mask.flat[place] = not mask.flat[place]
        self.rewire(name, mask, positions)

    @rule(steps=st.integers(1, 3))
    def train(self, steps: int) -> None:
        for _ in range(steps):
            fit(self.state, Dense(), [(self.x, self.target)])
            self.model.train(self.x.astype(float), self.target.astype(float), LR)
            for name, layer in self.model.layers.items():
                found = self.numbers(name)
                for key, array in found.items():
                    expected = getattr(layer, key)
                    scale = max(1.0, np.abs(expected).max())
                    assert np.abs(array - expected).max() <= self.bound * scale, (name, key)
                    setattr(layer, key, array)

    @rule(data=st.data())
    def convert(self, data: st.DataObject) -> None:
        """Every layer to some format that can store it."""
        for name, layer in self.layers.items():
            weight = layer.weight
            possible = [MASKED, *(kind for kind in FORMATS if accepts(kind, weight.mask))]
            self.put(name, convert(weight, data.draw(st.sampled_from(possible))))

    @rule(batch=st.sampled_from([1, 64]))
    def compress(self, batch: int) -> None:
        small = compress(self.state.network, batch, cache=False)
        for name, layer in small.prunable().items():
            self.put(name, layer.weight)

    @rule()
    def save_network(self) -> None:
        checkpoint.save(self.state.network, self.folder / "network", "dense", {})
        self.saved = self.model.copy()

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load_network(self) -> None:
        """Its optimiser starts anew."""
        self.model = self.saved.copy()
        self.model.step = self.model.topology = 0
        for layer in self.model.layers.values():
            layer.u, layer.v = np.zeros_like(layer.u), np.zeros_like(layer.v)
        self.state = self.anew(checkpoint.load(self.folder / "network"))

    @rule(ending=st.sampled_from([".npz", ".safetensors"]))
    def export(self, ending: str) -> None:
        """To a file and into a network that knows nothing; its layers take the places of ours."""
        path = self.folder / f"weights{ending}"
        write(to_torch(self.state.network, masks=True), path)
        other = self.fresh()
        load_into(other, read(path))
        for name, layer in other.prunable().items():
            np.testing.assert_array_equal(layer.bias.value, self.layers[name].bias.value)
            self.put(name, layer.weight)

    @rule()
    def save_run(self) -> None:
        snapshot.save(Snapshot.of(self.state, {}, 0.0, RUN), self.folder / "run")
        self.runs[self.state.step] = self.model.copy()
        self.runs = {step: self.runs[step] for step in sorted(self.runs)[-snapshot.KEPT :]}

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """From a snapshot that is left, in a state that knows nothing."""
        step = data.draw(st.sampled_from(sorted(self.runs)))
        assert snapshot.latest(self.folder / "run") == max(self.runs)
        there = snapshot.load(self.folder / "run", step)
        assert there.run == RUN
        self.state = self.anew(there.network)
        there.restore(self.state)
        self.model = self.runs[step].copy()

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def tear(self, data: st.DataObject) -> None:
        """Half of a file is lost: an error, and the older snapshot is as it was."""
        step = max(self.runs)
        kind = data.draw(st.sampled_from(["json", "safetensors"]))
        (path,) = (self.folder / "run").glob(f"step-{step:09d}*.{kind}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match="is older" if len(self.runs) > 1 else "damaged"):
            snapshot.load(self.folder / "run")
        for left in (self.folder / "run").glob(f"step-{step:09d}*"):
            left.unlink()
        del self.runs[step]

    # what is always true

    def numbers(self, name: str) -> dict[str, Array]:
        """Of a layer as the model has them."""
        layer, slots = self.layers[name], self.state.optimizer.slots
        momentum = slots.get(f"{name}.weight", {}).get("u")
        of_bias = slots.get(f"{name}.bias", {}).get("u")
        return {
            "w": layer.weight.dense().astype(float),
            "b": layer.bias.value.astype(float),
            "u": np.zeros(layer.weight.shape) if momentum is None else laid(layer.weight, momentum),
            "v": np.zeros(len(layer.bias.value)) if of_bias is None else of_bias.astype(float),
        }

    @invariant()
    def is_its_model(self) -> None:
        for name, layer in self.model.layers.items():
            weight = self.layers[name].weight
            np.testing.assert_array_equal(weight.mask, layer.mask, err_msg=name)
            assert weight.kept == np.count_nonzero(layer.mask)
            np.testing.assert_array_equal(weight.flat, np.flatnonzero(layer.mask), err_msg=name)
            for key, array in self.numbers(name).items():
                np.testing.assert_array_equal(array, getattr(layer, key), err_msg=f"{name} {key}")
            assert not layer.w[~layer.mask].any() and not layer.u[~layer.mask].any()
        assert (self.state.step, self.state.topology) == (self.model.step, self.model.topology)

    @invariant()
    def computes_what_its_model_does(self) -> None:
        for x in (self.x, self.x[:1]):
            expected = self.model.forward(x.astype(float))
            found = self.state.network.predict(x)
            assert np.abs(found - expected).max() <= self.bound * max(1.0, np.abs(expected).max())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISPARSE_HOME", str(tmp_path))


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=examples(20, 100, 2_000), stateful_step_count=examples(20, 30, 50), deadline=None,
    derandomize=profile() == "ci", suppress_health_check=list(HealthCheck),
)  # fmt: skip
