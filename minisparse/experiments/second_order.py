"""One-shot pruning of a trained network, nothing retrained: what curvature is worth.

Every method prunes the same trained networks to the same sparsity, the same in all layers, so that methods
differ in which weights of a layer go and in whether the others make up for them:

    random, magnitude, wanda, obd     choose only
    sparsegpt, lobs, obc              choose and adjust, by each layer's own output
    obs                               chooses and adjusts, by the loss of the whole network

Calibration samples are the same 512 for all but OBS, whose Hessian takes 64 of them.

Nothing is trained after pruning: accuracies are those of the networks as the methods leave them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.methods.random import Random
from minisparse.methods.reconstruct.lobs import LOBS
from minisparse.methods.reconstruct.obc import OBC
from minisparse.methods.reconstruct.obs import OBS
from minisparse.methods.reconstruct.sparsegpt import SparseGPT
from minisparse.methods.reconstruct.wanda import Wanda
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.methods.saliency.obd import OBD
from minisparse.nn.loss import LOSSES
from minisparse.nn.lr import Constant
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.threads import Threads
from minisparse.sparsity.allocation import Uniform
from minisparse.sparsity.schedule import OneShot
from minisparse.training.run import evaluate, train
from minisparse.training.state import TrainState

NOW, ALIKE = OneShot(0.0), Uniform()
SAMPLES = 512
MODEL = "mlp:64-48-32-10"

METHODS: dict[str, Callable[[float], Method]] = {
    "random": lambda s: Random(s, NOW, ALIKE),
    "magnitude": lambda s: Magnitude(s, NOW, ALIKE),
    "wanda, in rows": lambda s: Wanda(s, NOW, SAMPLES, allocation=ALIKE),
    "wanda, in layers": lambda s: Wanda(s, NOW, SAMPLES, "layer", allocation=ALIKE),
    "obd": lambda s: OBD(s, NOW, ALIKE, samples=SAMPLES),
    "sparsegpt": lambda s: SparseGPT(s, NOW, SAMPLES, allocation=ALIKE),
    "lobs": lambda s: LOBS(s, NOW, SAMPLES, allocation=ALIKE),
    "obc": lambda s: OBC(s, NOW, SAMPLES, allocation=ALIKE),
    "obs": lambda s: OBS(s, NOW, 64, allocation=ALIKE),
}


@dataclass(frozen=True)
class Result:
    """Test accuracies and training losses of one method at one sparsity, one number per seed."""

    method: str
    sparsity: float
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean test accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Sample standard deviation of the test accuracy; 0 for one seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def prune_now(network: Network, data: Dataset, method: Method, seed: int) -> Network:
    """A copy of `network` pruned by `method` before any step; its schedule must prune at step 0."""
    work = network.copy()
    data = data.astype(work.dtype)
    state = TrainState(
        work, SGD(), LOSSES["cross-entropy"](), Constant(0.1), seed, 1, 1,
        data.train_x, data.train_y, data.train_x, data.train_y,
    )  # fmt: skip
    method.check(work)
    method.setup(state)
    return work


def one_shot(
    data: Dataset,
    model: str = MODEL,
    sparsities: Sequence[float] = (0.5, 0.7, 0.8),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    epochs: int = 30,
    methods: Mapping[str, Callable[[float], Method]] | None = None,
) -> list[Result]:
    """Train `model` once per seed, prune copies of it by each method to each sparsity, and test them.

    The first result is the dense network, as method "dense" at sparsity 0.
    """
    plan = [(name, s, make(s)) for name, make in (methods or METHODS).items() for s in sparsities]
    plan.insert(0, ("dense", 0.0, Dense()))
    found: dict[tuple[str, float], list[tuple[float, float]]] = {(name, s): [] for name, s, _ in plan}
    loss = LOSSES["cross-entropy"]()
    for seed in seeds:
        trained = train(build(model, data, seed), data, Dense(), epochs=epochs, seed=seed).network
        with Threads(trained, SAMPLES):
            for name, sparsity, method in plan:
                pruned = prune_now(trained, data, method, seed)
                _, accuracy = evaluate(pruned, loss, data.test_x, data.test_y)
                value, _ = evaluate(pruned, loss, data.train_x, data.train_y)
                found[name, sparsity].append((accuracy, value))
    return [Result(name, s, *map(tuple, zip(*runs, strict=True))) for (name, s), runs in found.items()]


def table(results: Sequence[Result]) -> str:
    """Mean test accuracy in percent and its standard deviation over seeds, a line per method."""
    dense, pruned = results[0], results[1:]
    sparsities = sorted({r.sparsity for r in pruned})
    lines = ["".join([f"{'method':18}", *(f"{s:14.0%}" for s in sparsities)])]
    for name in dict.fromkeys(r.method for r in pruned):
        found = {r.sparsity: r for r in pruned if r.method == name}
        cells = [f"{100 * found[s].mean:7.1f} +-{100 * found[s].spread:4.1f}" for s in sparsities]
        lines.append("".join([f"{name:18}", *(f"{cell:>14}" for cell in cells)]))
    seeds = len(dense.accuracies)
    return "\n".join([*lines, f"dense: {100 * dense.mean:.1f} +-{100 * dense.spread:.1f} ({seeds} seeds)"])
