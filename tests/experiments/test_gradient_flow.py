"""Gradient flow of sparse networks: what is compared, measured and drawn."""

import numpy as np
import pytest

from minisparse.curvature import gradient
from minisparse.data.batches import probe
from minisparse.experiments.flow_traces import Trace, trace
from minisparse.experiments.gradient_flow import DENSE, KINDS, flow_figure, plan, rows, signals
from minisparse.experiments.runner import dataset
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.theme import DARK
from minisparse.nn.loss import LOSSES
from minisparse.nn.models import build
from minisparse.training.run import PROBE_PER_CLASS

TINY = {"model": "mlp:64-12-10", "epochs": 2, "batch": 512}


@pytest.fixture(scope="module")
def found():
    return [trace(kind, spec) for kind, spec in plan((0.8,), (0, 1), TINY)]


def test_every_kind_at_every_sparsity_and_seed():
    planned = plan((0.9, 0.99), (3, 4), TINY)
    assert len(planned) == 2 * (1 + 2 * len(KINDS))
    assert [kind for kind, spec in planned if not spec.sparsity] == [DENSE, DENSE]
    aware = [spec for kind, spec in planned if kind == "sparse-init"]
    plain = [spec for kind, spec in planned if kind == "dense weights"]
    for a, b in zip(aware, plain, strict=True):  # nothing but the weights differs
        assert dict(a.settings).pop("control") == "sparse-init"
        assert a.sparsity == b.sparsity and a.seed == b.seed and a.method == b.method == "random"


def test_a_trace_begins_with_the_gradient_at_initialisation_and_ends_with_the_run(found):
    data = dataset("digits", None)
    network, sample = build(TINY["model"], data, 0), probe(data, PROBE_PER_CLASS, 0)
    g = gradient(network, LOSSES["cross-entropy"](), sample.x, sample.y)
    dense = found[0]
    np.testing.assert_allclose(dense.flows[0], sum(float((a**2).sum()) for a in g.values()), rtol=1e-4)
    for one in found:
        assert one.steps == tuple(range(7)) and len(one.flows) == 7  # 2 epochs of 3 steps
        assert all(flow > 0 for flow in one.flows)


def test_weights_for_the_fan_in_have_the_larger_gradient(found):
    start = {row.kind: row.start for row in rows(found)}
    assert start["sparse-init"] > 2 * start["dense weights"]
    assert start["rigl, dense weights"] == pytest.approx(start["dense weights"])


def test_rows_are_means_over_seeds():
    specs = [RunSpec("random", (("sparsity", "0.9"),), seed=s) for s in (0, 1)]
    told = [Trace("a", specs[0], (0, 1), (1.0, 3.0), 0.5), Trace("a", specs[1], (0, 1), (2.0, 6.0), 0.7)]
    (row,) = rows(told)
    assert (row.start, row.average) == (1.5, 3.0)
    assert row.accuracy == pytest.approx(0.6) and row.spread == pytest.approx(np.std([0.5, 0.7], ddof=1))


def test_signals_fall_by_the_density_of_each_layer_or_not_at_all():
    """Mean square 2 for inputs of size 1: times the density per layer with dense weights, else as it is."""
    told = signals(0.9, (0, 1))
    layers = np.arange(1, 12)
    assert {len(values) for values in told.values()} == {11}
    np.testing.assert_allclose(np.log(told["dense weights"]), np.log(2 * 0.1**layers), atol=1.2)
    for kind in (DENSE, "sparse-init"):
        np.testing.assert_allclose(np.log(told[kind]), np.log(2), atol=1.2)


@pytest.mark.parametrize("theme", [{}, {"theme": DARK}])
def test_the_figure_has_a_column_for_each_sparsity(found, theme):
    figure = flow_figure(found, {0.8: {DENSE: [2.0, 2.0], "dense weights": [0.4, 0.08]}}, **theme)
    figure.canvas.draw()
    assert len(figure.axes) == 2 and figure.axes[0].get_title(loc="left").startswith("80 %")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [DENSE, *KINDS]
    flow_figure([], {}).canvas.draw()
