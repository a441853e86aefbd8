"""The small trainings that the pictures of criteria are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from minisparse.data.dataset import Dataset
from minisparse.data.digits import load
from minisparse.errors import NonFiniteError
from minisparse.methods.base import Method
from minisparse.nn.lr import Cosine
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Adam, Optimizer
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: optimiser, largest learning rate of a cosine and its warm-up, epochs."""

    optimizer: Callable[[], Optimizer] = lambda: SGD(0.9)
    lr: float = 0.1
    epochs: int = 20
    warmup: float = 0.0


NOISY = Recipe(Adam, 0.004)  # random gates and weights: their parameters want steps of one size


def trained(
    method: Method,
    seed: int,
    model: str | Network,
    recipe: Recipe = Recipe(),  # noqa: B008
    data: Dataset | None = None,
    watch: Callable[[TrainState], None] = lambda state: None,
) -> Run:
    """Train on the digits unless told otherwise, on one thread; `watch` sees every step, and the start.

    model: a network to start from, or the name of one. NonFiniteError for a run that diverges.
    """
    own = load() if data is None else data
    network = build(model, own, seed) if isinstance(model, str) else model
    with threadpool_limits(1, user_api="blas"):
        run = train(
            network, own, method, epochs=recipe.epochs, batch=BATCH, seed=seed, progress=watch,
            optimizer=recipe.optimizer(), rate=Cosine(recipe.lr, warmup=recipe.warmup),
        )  # fmt: skip
    if run.status == "diverged":
        raise NonFiniteError(run.note)
    return run


def densities(network: Network) -> dict[str, float]:
    """Share of weights each prunable layer keeps."""
    return {name: layer.weight.kept / layer.weight.size for name, layer in network.prunable().items()}
