"""Dense training: the loop's own facts, on which every comparison rests."""

import numpy as np
import pytest

from minisparse.data.batches import batches
from minisparse.data.synthetic import quadratic
from minisparse.methods.dense import Dense
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.lr import Constant, Cosine
from minisparse.nn.mode import Mode
from minisparse.nn.optim import SGD
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, mlp


def test_gradient_descent_on_a_bowl_is_the_closed_form():
    known = quadratic(np.random.default_rng(0), 8, 2)
    star = known.answer["weight"]
    network = chain(np.random.default_rng(1).standard_normal(star.shape))
    start = network.prunable()["fc1"].weight.dense().copy()
    n = known.dataset.n_train
    run = train(network, known.dataset, Dense(), epochs=7, batch=n, optimizer=SGD(0.0), rate=Constant(0.25))
    expected = star + 0.75**7 * (start - star)
    np.testing.assert_allclose(run.network.prunable()["fc1"].weight.dense(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        [r.loss for r in run.history[1:]],
        [0.5 * ((0.75**t * (start - star)) ** 2).sum() for t in range(7)],
        rtol=1e-12,
    )


def test_the_loop_is_forward_backward_step_written_out():
    data = clusters(np.random.default_rng(0), (6,), train=20)
    network = mlp((6, 5, 3), np.random.default_rng(1), dtype=np.float32)
    run = train(network, data, Dense(), epochs=2, batch=8, rate=Cosine(0.2), seed=3)
    twin, loss, optimizer = network.copy(), CrossEntropy(), SGD()
    step = 0
    for epoch in range(2):
        for x, y in batches(data, 8, 3, epoch):
            loss.value(twin.forward(x, Mode(training=True)), y)
            twin.backward(loss.grad(), need_dx=False)
            optimizer.step(twin, Cosine(0.2).at(step, 6))
            step += 1
    assert step == run.steps == 6
    for key, value in twin.state().items():
        np.testing.assert_array_equal(run.network.state()[key], value)


@pytest.mark.parametrize("epochs", [1, 4])
def test_nothing_is_absent_and_every_epoch_is_recorded(epochs):
    data = clusters(np.random.default_rng(0), (6,), train=20)
    run = train(mlp((6, 5, 3), np.random.default_rng(1)), data, Dense(), epochs=epochs, batch=8)
    assert run.sparsity == 0
    assert all(layer.weight.mask.all() for layer in run.network.prunable().values())
    assert [r.step for r in run.history] == [3 * e for e in range(epochs + 1)]
