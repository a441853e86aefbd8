"""A network whose loss is a quadratic function of its weights."""

import numpy as np

from minisparse.training.state import TrainState
from tests.methods.problems import chain, state_of

Array = np.ndarray


def quadratic_state(a: Array, b: Array, w: Array) -> TrainState:
    """One linear unit with weights w and the mse loss w'Aw/2 - b'w + constant, A positive definite.

    The inputs are a root of n A and the targets solve X't = n b, so the gradient is A w - b.
    """
    n = len(a)
    lower = np.linalg.cholesky(n * np.asarray(a, dtype=np.float64))
    target = np.linalg.solve(lower, n * np.asarray(b, dtype=np.float64))
    return state_of(chain([w]), lower.T.copy(), target[:, None], "mse")
