"""A run stops at the very step where something stops being finite, and names it."""

import numpy as np
import pytest

import minisparse as ms
from minisparse.errors import NonFiniteError
from minisparse.methods.base import Method
from minisparse.nn.lr import Constant
from minisparse.training.run import train

DATA = ms.data.load("digits").subset(200, 50)


def network(seed: int = 0):
    return ms.models.build("mlp:64-20-12-10", DATA, seed=seed)


class Poisoned(Method):
    """Puts a value into a parameter after a given number of steps."""

    def __init__(self, key, value, step):
        self.key, self.bad, self.when = key, value, step

    def after_update(self, state):
        if state.step == self.when:
            state.network.params()[self.key].value.flat[0] = self.bad


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["fc1.weight", "fc2.bias", "fc3.weight"])
def test_a_poisoned_parameter_is_named_at_the_next_step(key, bad):
    with pytest.raises(NonFiniteError) as error, np.errstate(all="ignore"):
        train(network(), DATA, Poisoned(key, bad, 3), epochs=2, strict=True)
    assert "at step 3" in str(error.value)
    assert f"'{key}'" in str(error.value)


def test_without_strict_the_run_is_returned_as_diverged_with_what_came_before():
    with np.errstate(all="ignore"):
        run = train(network(), DATA, Poisoned("fc1.weight", np.nan, 5), epochs=3)
    assert run.status == "diverged"
    assert run.steps == 5
    assert np.isnan(run.accuracy)
    assert run.history[0].step == 0


def test_an_overflowing_rate_names_the_layer_whose_output_overflows():
    with np.errstate(all="ignore"):
        run = train(network(), DATA, ms.Dense(), epochs=2, rate=Constant(lr=1e30))
    assert run.status == "diverged"
    assert "output of layer" in run.note or "gradient of" in run.note


def test_large_but_finite_gradients_are_not_divergence():
    big = network()
    big.params()["fc1.weight"].value *= np.float32(1e-3)
    big.params()["fc3.weight"].value *= np.float32(1e22)

    class Quiet(Method):
        def update(self, state):
            grad = np.abs(state.network.params()["fc1.weight"].grad).max()
            assert np.isfinite(grad)
            assert not np.isfinite(np.float32(grad) ** 2)  # its sum of squares overflows

    with np.errstate(over="ignore"):
        run = train(big, DATA, Quiet(), epochs=1)
    assert run.status == "done"
