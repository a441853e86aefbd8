"""What holds for all methods that train another weight: at the end there are plain masked weights."""

import numpy as np
import pytest

from minisparse.curvature import hvp
from minisparse.methods.dense import Dense
from minisparse.methods.learned.acdc import ACDC
from minisparse.methods.learned.l0 import L0
from minisparse.methods.learned.movement import Movement
from minisparse.methods.learned.powerprop import Powerprop
from minisparse.methods.learned.soft_movement import SoftMovement
from minisparse.methods.learned.sr_ste import SRSTE
from minisparse.methods.learned.str_ import STR
from minisparse.methods.learned.variational_dropout import VariationalDropout
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.optim import SGD
from minisparse.nn.weight import MaskedWeight
from minisparse.training.run import evaluate, train
from tests.methods.problems import clusters, conv_net, mlp

METHODS = {
    "acdc": ACDC(0.6),
    "l0": L0(),
    "l0 by rows": L0(0.1, unit="row", rate=60.0),
    "movement": Movement(0.6),
    "powerprop": Powerprop(0.6),
    "soft movement": SoftMovement(rate=100.0, strength=50.0, threshold=0.45),
    "sr-ste": SRSTE(1, 3),
    "str": STR(-2.0, 0.5),
    "variational dropout": VariationalDropout(rate=100.0, initial=-3.0),
}
NETWORKS = {
    "mlp": lambda: mlp((9, 12, 9, 3), np.random.default_rng(1), dtype=np.float32),
    "conv": lambda: conv_net(np.random.default_rng(1), np.float32),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_it_leaves_masked_weights_with_nothing_where_they_are_absent(name, kind):
    network, last = NETWORKS[kind](), []
    data = clusters(np.random.default_rng(2), network.input_shape)

    def watch(state):
        layers = state.network.prunable()
        last[:] = [{n: (x.weight.dense().copy(), x.weight.mask) for n, x in layers.items()}, state]

    run = train(network, data, METHODS[name], epochs=8, batch=16, optimizer=SGD(0.9), progress=watch)
    before, state = last
    assert 0 < run.sparsity < 1
    keys = set(run.network.params())
    assert keys == set(network.params())
    assert set(state.optimizer.slots) <= keys
    for layer_name, layer in run.network.prunable().items():
        weight = layer.weight
        assert type(weight) is MaskedWeight
        assert not weight.dense()[~weight.mask].any()
        np.testing.assert_array_equal(weight.dense(), before[layer_name][0])
        np.testing.assert_array_equal(weight.mask, before[layer_name][1])
        for slot in state.optimizer.slots.get(f"{layer_name}.weight", {}).values():
            assert not slot[~weight.mask].any()
    test = evaluate(run.network, state.loss, data.test_x, data.test_y)
    assert test == (run.history[-1].test_loss, run.history[-1].accuracy)


@pytest.mark.parametrize("name", METHODS)
def test_what_it_leaves_can_be_trained_copied_and_differentiated_twice(name):
    network = NETWORKS["mlp"]()
    data = clusters(np.random.default_rng(3), network.input_shape)
    run = train(network, data, METHODS[name], epochs=2, batch=16)
    double = run.network.astype(np.float64)
    v = {key: np.ones_like(p.value) for key, p in double.params().items()}
    product = hvp(double, CrossEntropy(), data.train_x.astype(float), data.train_y, v)
    assert all(np.isfinite(p).all() for p in product.values())
    again = train(run.network, data, Dense(), epochs=1, batch=16).network
    for layer_name, mask in run.network.masks().items():
        np.testing.assert_array_equal(again.masks()[layer_name], mask)
    state, trained = run.network.state(), again.state()
    assert any((state[key] != trained[key]).any() for key in state if key.endswith("weight"))
