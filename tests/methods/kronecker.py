"""Kronecker-factored problems for the tests of structured methods."""

import numpy as np
from numpy.random import Generator

from minisparse.training.state import TrainState
from tests.methods.problems import chain, clusters, conv_net, state_of
from tests.methods.quadratics import spd

Array = np.ndarray


def factors(out: int, columns: int, seed: int) -> tuple[Array, Array, Array, Generator]:
    """(weight (out, in), A (in, in), S (out, out), generator)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((out, columns)), spd(columns, rng), spd(out, rng), rng


def rows_as_coordinates(leaving: Array, columns: int) -> Array:
    """Flat indices of the rows `leaving` (out,) bool in a row-major matrix."""
    return np.flatnonzero(np.repeat(leaving, columns))


def perceptron_state(seed: int, widths: tuple[int, ...] = (6, 9, 8, 3)) -> TrainState:
    """Without biases, 40 samples."""
    rng = np.random.default_rng(seed)
    network = chain(*(rng.standard_normal((o, i)) for i, o in zip(widths, widths[1:], strict=False)))
    return state_of(network, rng.standard_normal((40, widths[0])), rng.integers(0, widths[-1], 40), horizon=4)


def conv_state(seed: int) -> TrainState:
    network = conv_net(np.random.default_rng(seed))
    data = clusters(np.random.default_rng(seed + 1), network.input_shape)
    return state_of(network, data.train_x.astype(np.float64), data.train_y, horizon=4)
