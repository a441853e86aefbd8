"""The small trainings that the pictures of dynamic sparse training are made from."""

from __future__ import annotations

from collections.abc import Callable

from threadpoolctl import threadpool_limits

from minisparse.data.dataset import Dataset
from minisparse.data.digits import load
from minisparse.methods.base import Method
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.dynamic.set import SET
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.methods.random import Random
from minisparse.nn.models import build
from minisparse.sparsity.allocation import ERK
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState

MODEL, BATCH, EPOCHS = "lenet-300-100", 64, 20
INTERVAL = 23  # steps of an epoch of the digits: RigL exchanges as often as SET
SALIENT = 0.9  # SRigL's gamma on perceptrons: with 0.3 hardly a unit is ablated

# label -> sparsity -> method; the same layer densities, and one static mask for all that start at random
METHODS: dict[str, Callable[[float], Method]] = {
    "static": lambda s: Random(s),
    "set": lambda s: SET(s, ERK()),
    "rigl": lambda s: RigL(s, every=INTERVAL),
    "srigl": lambda s: SRigL(s, every=INTERVAL, gamma=SALIENT),
}


def watched(
    method: Method,
    seed: int,
    watch: Callable[[TrainState], None] = lambda state: None,
    model: str = MODEL,
    data: Dataset | None = None,
    epochs: int = EPOCHS,
) -> Run:
    """Train on the digits unless told otherwise, on one thread; `watch` sees every step, and the start."""
    own = load() if data is None else data
    with threadpool_limits(1, user_api="blas"):
        return train(
            build(model, own, seed), own, method, epochs=epochs, batch=BATCH, seed=seed, progress=watch
        )
