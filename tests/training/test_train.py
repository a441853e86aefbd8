"""train: what it returns, what it leaves alone, and what it refuses."""

import numpy as np
import pytest

import minisparse as ms
from minisparse.errors import MinisparseError
from minisparse.methods.dense import Dense
from minisparse.nn.optim import SGD, Adam
from minisparse.training.run import train
from tests.methods.problems import clusters, mlp

DATA = ms.data.load("digits").subset(230, 60)


def network(name: str = "mlp:64-16-10"):
    return ms.models.build(name, DATA, seed=0)


def test_history_has_a_row_per_epoch_from_before_the_first_step_to_the_last():
    run = train(network(), DATA, ms.Magnitude(sparsity=0.5), epochs=4, batch=64)
    assert [r.step for r in run.history] == [0, 4, 8, 12, 16]
    assert [r.sparsity for r in run.history][-1] == pytest.approx(run.sparsity)
    assert run.accuracy == run.history[-1].accuracy
    assert run.steps == 16


def test_training_learns_more_than_its_control_the_untrained_network():
    for seed in range(3):
        run = train(network(), DATA, ms.Dense(), epochs=10, seed=seed)
        assert run.history[-1].test_loss < 0.5 * run.history[0].test_loss
        assert run.accuracy > run.history[0].accuracy + 0.3


def test_the_network_given_is_left_as_it_was():
    given = network()
    before = given.state()
    train(given, DATA, ms.RigL(sparsity=0.5, every=2), epochs=2)
    for key, value in given.state().items():
        np.testing.assert_array_equal(value, before[key])
    assert all(layer.weight.kept == layer.weight.size for layer in given.prunable().values())


@pytest.mark.parametrize("settings", [{}, {"optimizer": SGD(0.9)}, {"optimizer": Adam()}])
def test_a_run_does_not_depend_on_those_before_it(settings):
    """Neither an optimizer that is given twice nor one that is given by default remembers anything."""
    before = [dict(getattr(o, "slots", {})) for o in settings.values()]
    first, second = (train(network(), DATA, ms.RigL(0.5, every=2), epochs=2, **settings) for _ in range(2))
    for key, value in first.network.state().items():
        np.testing.assert_array_equal(value, second.network.state()[key])
    assert [o.slots for o in settings.values()] == before and all(o.t == 0 for o in settings.values())


def test_last_partial_batch_is_used():
    seen = []
    train(network(), DATA, ms.Dense(), epochs=1, batch=100, progress=lambda s: seen.append(s.step))
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "kwargs", [{"epochs": 0}, {"epochs": 1.5}, {"epochs": True}, {"batch": 0}, {"batch": -1}]
)
def test_unusable_numbers_are_refused(kwargs):
    with pytest.raises(MinisparseError, match="expected a whole number >= 1"):
        train(network(), DATA, ms.Dense(), **kwargs)


def test_a_network_that_does_not_fit_the_data_is_refused():
    with pytest.raises(MinisparseError, match="expected .* as in"):
        train(ms.models.make("mlp:16-10", (16,), 10), DATA, ms.Dense())
    with pytest.raises(MinisparseError, match="expected 10 as in"):
        train(ms.models.make("mlp:64-9", (64,), 9), DATA, ms.Dense())


def test_float64_network_trains_in_float64():
    run = train(network().astype(np.float64), DATA, ms.Dense(), epochs=1)
    assert run.network.dtype == np.float64


def test_a_method_that_sets_the_step_goes_on_from_there_with_the_data_of_that_step():
    # the last steps of a run from its state in the middle of an epoch are the same as in the whole run
    rng = np.random.default_rng(0)
    network = mlp((6, 8, 3), rng, dtype=np.float32)
    data, states = clusters(rng, (6,)), {}
    whole = train(
        network, data, Dense(), epochs=3, batch=16, optimizer=SGD(0.0), seed=4,
        progress=lambda s: states.update({s.step: s.network.state()}),
    )  # fmt: skip

    class Later(Dense):
        def setup(self, state):
            state.step = state.clock = 5

    middle = network.copy()
    middle.restore(states[5])
    rest = train(middle, data, Later(), epochs=3, batch=16, optimizer=SGD(0.0), seed=4)
    assert rest.steps == whole.steps == 9
    for key, value in whole.network.state().items():
        np.testing.assert_array_equal(rest.network.state()[key], value)
