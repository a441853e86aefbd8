"""Dynamic methods take the same course whether weights are stored as a masked matrix or entry by entry."""

import numpy as np
import pytest

from minisparse.methods.dynamic.deep_r import DeepR
from minisparse.methods.dynamic.dsr import DSR
from minisparse.methods.dynamic.granet import GraNet
from minisparse.methods.dynamic.importance_pruning import ImportancePruning
from minisparse.methods.dynamic.itop import ITOP
from minisparse.methods.dynamic.mest import MEST
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.dynamic.set import SET
from minisparse.methods.dynamic.snfs import SNFS
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.nn.optim import SGD, Adam
from minisparse.training.run import train
from minisparse.weights.formats import convert
from tests.methods.problems import clusters, mlp

METHODS = [
    SET(0.7),
    RigL(0.7, every=2),
    DeepR(0.7, l1=1e-2, temperature=1e-4),
    DSR(0.7, every=2, threshold=0.05),
    SNFS(0.7),
    SRigL(0.7, every=2, gamma=0.9),
    GraNet(0.7, every=2),
    ITOP(0.7, every=2),
    MEST(0.7, every=2, soft=True),
    ImportancePruning(0.7, begin=0.0, every=1),
]
CASES = [(method, "csr") for method in METHODS] + [(SRigL(0.7, every=2, gamma=0.9), "condensed")]


def course(method, optimizer, kind):
    """Masks after every step and the last matrices of a run of float64 weights stored as `kind`."""
    network = mlp((8, 12, 9, 3), np.random.default_rng(1))
    for layer in network.prunable().values():
        layer.weight = convert(layer.weight, kind)
    masks = []
    data = clusters(np.random.default_rng(2), (8,))
    run = train(
        network, data, method, epochs=4, batch=16, optimizer=optimizer,
        progress=lambda state: masks.append(state.network.masks()),
    )  # fmt: skip
    return masks, {name: layer.weight.dense() for name, layer in run.network.prunable().items()}


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.9, weight_decay=1e-2), Adam], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    ("method", "kind"), CASES, ids=lambda v: getattr(v, "lower", type(v).__name__.lower)()
)
def test_the_course_is_that_of_the_masked_matrix(method, kind, optimizer):
    masked, weights = course(method, optimizer(), "masked")
    stored, values = course(method, optimizer(), kind)
    assert len({b"".join(m.tobytes() for m in step.values()) for step in masked}) > 2
    for expected, found in zip(masked, stored, strict=True):
        for name, mask in expected.items():
            np.testing.assert_array_equal(found[name], mask)
    for name, value in values.items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-9, atol=1e-12)
