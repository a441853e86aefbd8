"""Files as a released version writes them, and what they hold: python -m tests.reliability.released.

Run once for each release, by the code of that release; its files then stay as they are in
old_files/<version>, and test_old_files.py reads them ever after. What is trained are eighths, which text
holds exactly.

    stated.json                 what the files hold, as plain numbers
    plain, stored, described    networks in the three formats; described: every weight and layer that there is
    run                         a run in the middle of its training
    results.sqlite              results, of a spec that must not be run again
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minisparse
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import FILE, Store
from minisparse.nn.activation import Activation
from minisparse.nn.all_relu import AllReLU
from minisparse.nn.layer import Layer
from minisparse.nn.linear import Linear
from minisparse.nn.loss import MSE
from minisparse.nn.lr import Constant
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm1d
from minisparse.nn.optim import Adam
from minisparse.nn.pool import AvgPool2d, Dropout, Flatten, GlobalAvgPool
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.testing.problems import conv_net
from minisparse.training import checkpoint, snapshot
from minisparse.training.snapshot import Snapshot
from minisparse.training.state import TrainState
from minisparse.weights.formats import FORMATS, convert
from tests.training.test_structure import WEIGHTS

Array = np.ndarray
FOLDER = Path(__file__).with_name("old_files")
STATED = "stated.json"
SPEC: dict[str, Any] = {
    "method": "rigl", "settings": (("sparsity", "0.8"),), "model": "mlp:64-4-10", "epochs": 1, "seed": 7,
}  # fmt: skip
RUN = {"seed": "7", "method": "RigL"}


def eighths(shape: tuple[int, ...], start: int) -> Array:
    """Multiples of 1/8 that are not 0."""
    return (1 + (np.arange(np.prod(shape)) + start) % 15).reshape(shape) / 8


def numbered(network: Network) -> Network:
    """The network with such numbers in all that it has, signs apart; what is absent stays 0."""
    for k, (key, p) in enumerate(network.params().items()):
        signs = np.where(np.arange(p.value.size) % 3, 1, -1).reshape(p.value.shape)
        p.value[...] = eighths(p.value.shape, k) * signs * (p.value != 0 if key.endswith(".weight") else 1)
    for k, buffer in enumerate(network.buffers().values()):
        buffer[...] = eighths(buffer.shape, k)
    return network


def plain() -> Network:
    network = make("mlp:3-4-2", (3,), 2)
    network.prunable()["fc1"].weight.rewire(np.arange(12).reshape(4, 3) % 3 != 1)
    return numbered(network)


def stored() -> Network:
    """A layer in each storage format; pairs of rows are equal and have two of every four columns."""
    network = make("mlp:" + "-".join(["8"] * (len(FORMATS) + 2)), (8,), 8)
    mask = np.tile([[1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]], (2, 2)).astype(bool)
    for name, layer in zip(FORMATS, network.prunable().values(), strict=False):
        layer.weight.rewire(mask)
        layer.weight = convert(layer.weight, name)
    return numbered(network)


def described() -> Network:
    """Every weight that stands in for a matrix, between ordinary layers; behind them every other layer."""
    rng, layers = np.random.default_rng(0), dict[str, Layer]()
    images = conv_net(rng, np.float64).layers
    layers |= {name: images[name] for name in ("conv", "bn", "relu", "block", "pool")}
    layers["padded"] = Residual(Sequence({"drop": Dropout(0.25)}), Sequence({"pad": SubsamplePad(1, 4)}))
    layers |= {"avg": AvgPool2d(Window.of(2)), "mean": GlobalAvgPool(), "flatten": Flatten()}
    layers |= {"bn1": BatchNorm1d(4), "all": AllReLU(3, 0.25)}
    for kind, weight in WEIGHTS.items():
        if kind not in FORMATS:
            layers[kind.replace(" ", "-")] = Linear(weight(rng))
            layers[f"behind-{kind}".replace(" ", "-")] = Linear(MaskedWeight(np.ones((4, 6))), np.zeros(4))
            layers[f"act-{kind}".replace(" ", "-")] = Activation("tanh")
    return numbered(Network(layers, (2, 6, 6), "by hand"))


NETWORKS: dict[str, Callable[[], Network]] = {"plain": plain, "stored": stored, "described": described}


def facts_of(network: Network) -> dict[str, Any]:
    """All numbers of a network, and its matrices, masks and kinds."""

    def weight(w: Weight) -> dict[str, Any]:
        return {"kind": type(w).__name__, "mask": w.mask.astype(int).tolist(), "matrix": w.dense().tolist()}

    return {
        "layers": [[name, type(layer).__name__] for name, layer in network.walk()],
        "state": {key: array.tolist() for key, array in network.state().items()},
        "weights": {name: weight(layer.weight) for name, layer in network.prunable().items()},
        "dtype": str(network.dtype),
    }


def some_run() -> Snapshot:
    network = plain()
    x, t = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    state = TrainState(network, Adam(), MSE(), Constant(0.1), 7, 40, 10, x, t, x, t)
    state.step, state.clock, state.topology, state.value, state.optimizer.t = 12, 9, 3, 0.125, 12
    for k, (key, p) in enumerate(network.params().items()):
        slots = {"m": eighths(p.value.shape, k), "v": eighths(p.value.shape, k + 5)}
        state.optimizer.slots[key] = {s: (a * (p.value != 0)).astype("f4") for s, a in slots.items()}
    state.memory = {"masks": {"fc1": np.eye(4, 3, dtype=bool)}, "rounds": {"n": np.array(2)}}
    return Snapshot.of(state, {"losses": eighths((3,), 0)}, 1.5, RUN)


def facts_of_run(run: Snapshot) -> dict[str, Any]:
    """All of a snapshot as plain numbers."""

    def tree(parts: dict[str, dict[str, Array]]) -> dict[str, Any]:
        return {n: {k: [str(a.dtype), a.tolist()] for k, a in arrays.items()} for n, arrays in parts.items()}

    numbers = ("step", "clock", "topology", "updates", "value", "seconds")
    counts = {name: getattr(run, name) for name in numbers}
    trees = {"slots": tree(run.slots), "memory": tree(run.memory), "columns": tree({"": run.columns})}
    return {"network": facts_of(run.network), "run": run.run} | counts | trees


def some_result() -> Outcome:
    return Outcome(RunSpec(**SPEC), accuracy=0.875, kept=59, total=296, history=[{"step": 1, "loss": 0.5}])


def main() -> None:
    """Write the files of this version. FileExistsError if they are there: they are never written again."""
    place = FOLDER / minisparse.__version__
    place.mkdir(parents=True)
    stated: dict[str, Any] = {"result": some_result().to_json() | {"key": RunSpec(**SPEC).key}}
    for name, network in NETWORKS.items():
        checkpoint.save(network(), place / name, "rigl", {"sparsity": "0.8"})
        stated[name] = facts_of(network())
    snapshot.save(some_run(), place / "run")
    stated["run"] = facts_of_run(some_run())
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder) as store:
            store.put(some_result())
        shutil.copy(Path(folder) / FILE, place)
    (place / STATED).write_text(json.dumps(stated, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
