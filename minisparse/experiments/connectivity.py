"""How far training goes, and whether two trainings from one point end in one valley of the loss.

J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin. Linear Mode Connectivity and the Lottery Ticket
Hypothesis. ICML 2020. arXiv:1912.05671

Two copies of the network of step k are trained with different orders of the data, to theta^1 and theta^2.
With E the error (or loss) along the line between them,

    e(a)    = E((1 - a) theta^1 + a theta^2),   0 <= a <= 1                                (1)
    barrier = max_a e(a) - (e(0) + e(1)) / 2                                               (2)
    chord   = max_a [e(a) - (1 - a) e(0) - a e(1)]                                         (3)

A network is stable at k when the barrier is near 0; a sparse network is a ticket that matches the dense one
just when it is stable. The ends belong to the maximum: (2) is at least |e(0) - e(1)| / 2, and is just that
for a convex E, for which (3) is 0.

Buffers (BatchNorm's statistics) lie on the line like parameters; they are not measured anew between the ends.

Trainings are kept and found again, see `experiments.trainings`; what is measured on them is measured anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.errors import NonFiniteError, ShapeError
from minisparse.experiments.runner import dataset
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import mean
from minisparse.experiments.tickets import ROUND, Continued, Ladder, continued, stations
from minisparse.experiments.trainings import Trainings, horizon, planned
from minisparse.nn.loss import LOSSES
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training.run import evaluate

State = Mapping[str, Array]
POINTS = 11
OTHER = 1000  # what is added to a seed for another order of the data


def distance(a: State, b: State, keys: Sequence[str] | None = None) -> float:
    """Euclidean distance of two states (of `Network.state`) over these arrays, or over all."""
    chosen = a.keys() if keys is None else keys
    squares = (float(((a[key].astype(np.float64) - b[key]) ** 2).sum()) for key in chosen)
    return float(np.sqrt(sum(squares)))


def between(a: Network, b: Network, share: float) -> Network:
    """The network at `share` of the way from a to b; a weight is present if it is in a or in b.

    ShapeError if the networks do not have the same arrays.
    """
    other, first, second = a.copy(), a.state(), b.state()
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise ShapeError(
            f"networks '{a.name}' and '{b.name}' are not of one shape: got other arrays, expected the same."
        )
    masks = b.masks()
    for name, layer in other.prunable().items():
        layer.weight.rewire(layer.weight.mask | masks[name])
    other.restore({k: ((1 - share) * v + share * second[k]).astype(v.dtype) for k, v in first.items()})
    return other


def profile(
    a: Network, b: Network, error: Callable[[Network], float], points: int = POINTS
) -> tuple[Array, Array]:
    """(shares, errors) (points,) along the line from a to b, both ends included: equation (1)."""
    shares = np.linspace(0, 1, points)
    return shares, np.array([error(between(a, b, float(share))) for share in shares])


def barrier(errors: Array) -> float:
    """Equation (2) for errors along a line, both ends included."""
    return float(errors.max() - (errors[0] + errors[-1]) / 2)


def chord_barrier(shares: Array, errors: Array) -> float:
    """Equation (3) for errors at these shares, of which the first is 0 and the last 1."""
    return float((errors - ((1 - shares) * errors[0] + shares * errors[-1])).max())


def errors_on(data: Dataset) -> Callable[[Network], float]:
    """Test error, 1 - accuracy, of a network."""
    loss = LOSSES["cross-entropy"]()
    return lambda network: 1 - evaluate(network, loss, data.test_x, data.test_y)[1]


def ticket(made: Trainings, spec: RunSpec, data: Dataset) -> tuple[Network, list[dict[str, Array]]]:
    """(network of step k, dense, and the masks of all rounds, or of fewer if it diverged) from `imp`."""
    start = build(spec.model, data, spec.seed, spec.init)
    label = f"tickets on {data.name}, seed {spec.seed}"
    steps = stations(spec, data.n_train)
    found = made.train(label, spec, start, spec.build(), data, spec.seed, steps)
    start.restore(found.at(ROUND.format(0)).state())
    return start, [found.waypoints[ROUND.format(rung)].masks() for rung in range(1, len(found.waypoints))]


def stability(
    sparsity: float,
    rewinds: Sequence[float],
    seeds: Sequence[int],
    training: Mapping[str, Any],
    data_dir: str | None = None,
    rounds: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
    kept: Trainings | None = None,
) -> list[dict[str, Any]]:
    """Barriers of the dense network and of its ticket at each rewind point: a row each, mean over seeds.

    distance: between the two ends; path: from step k to an end; both over the prunable weights.
    tell(text) is told what is complete; kept: where trainings are kept, if they are.
    """
    ladders = [
        Ladder((sparsity,), tuple(seeds), rounds=rounds, rewind=rewind, training=training)
        for rewind in rewinds
    ]
    rows = []
    steps = len(seeds) * sum(_steps(ladder, data_dir) for ladder in ladders)
    with planned(kept, steps) as made:
        for ladder in ladders:
            found: dict[float, list[dict[str, float]]] = {0.0: [], sparsity: []}
            for seed in seeds:
                for level, numbers in _pairs(made, ladder, seed, data_dir):
                    found[level].append(numbers)
                tell(f"two trainings from {ladder.rewind:.0%} of a training, seed {seed}")
            for level, group in found.items():
                facts = {key: mean(numbers[key] for numbers in group) for key in group[0]}
                rows.append({"level": level, "rewind": ladder.rewind, **facts, "runs": len(group)})
    return rows


def _steps(ladder: Ladder, data_dir: str | None) -> int:
    """Steps of the trainings of one seed: the ladder's, and twice two from step k on."""
    spec = ladder.chain(ladder.seeds[0])
    data = dataset(spec.data, data_dir)
    whole = horizon(spec, data)
    return spec.build().length(whole) + 4 * (whole - min(stations(spec, data.n_train)))


def _pairs(
    made: Trainings, ladder: Ladder, seed: int, data_dir: str | None
) -> list[tuple[float, dict[str, float]]]:
    """(level, numbers) for the dense network and the ticket of one seed."""
    spec = ladder.chain(seed)
    data = dataset(spec.data, data_dir)
    start, masks = ticket(made, spec, data)
    if len(masks) < ladder.height:
        raise NonFiniteError(
            f"ticket of seed {seed}: training diverged in round {len(masks) + 1}, expected finite numbers. "
            "Try a smaller --lr."
        )
    sparse = continued(spec, masks[-1], ladder.height, data.n_train, ladder.arms[0])
    full = {name: np.ones_like(mask) for name, mask in masks[0].items()}
    dense = Continued(sparse.clock, sparse.clock, full)
    keys = [f"{name}.weight" for name in start.prunable()]
    pairs = []
    for level, method in ((0.0, dense), (max(ladder.sparsities), sparse)):
        label = f"{level:g} sparse from {ladder.rewind:.0%}, seed {seed}"
        one, two = (
            made.train(label, spec, start, method, data, other * OTHER + seed, begin=method.step).network
            for other in (1, 2)
        )
        shares, errors = profile(one, two, errors_on(data))
        begin = start.copy()
        for name, layer in begin.prunable().items():
            layer.weight.rewire(method.masks[name])
        numbers = {
            "error": float(errors[0] + errors[-1]) / 2,
            "barrier": barrier(errors),
            "chord": chord_barrier(shares, errors),
            "distance": distance(one.state(), two.state(), keys),
            "path": distance(begin.state(), one.state(), keys),
        }
        pairs.append((level, numbers))
    return pairs
