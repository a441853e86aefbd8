"""Training takes the same course whether weights are stored as a masked matrix or entry by entry.

float64, to 1e-12 of the largest entry: the two differ by the order in which products are added, never by who
is present. Convolutions run along the same paths as linear layers.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from minisparse.methods.base import Method
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
from minisparse.methods.initial.grasp import GraSP
from minisparse.methods.initial.snip import SNIP
from minisparse.methods.initial.synflow import SynFlow
from minisparse.methods.random import Random
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import Global, OneShot, Uniform
from minisparse.training.run import train
from minisparse.weights.formats import convert
from tests.methods.problems import clusters, conv_net, mlp

DYNAMIC = {
    "set": SET(0.7),
    "rigl": RigL(0.7, every=2),
    "rigl-global": RigL(0.7, every=2, allocation=Global()),
    "deep-r": DeepR(0.7, l1=1e-2, temperature=1e-4),
    "dsr": DSR(0.7, every=2, threshold=0.05),
    "snfs": SNFS(0.7),
    "srigl": SRigL(0.7, every=2, gamma=0.9),
    "granet": GraNet(0.7, every=2),
    "itop": ITOP(0.7, every=2),
    "itop-random": ITOP(0.7, every=2, growth="random"),
    "mest": MEST(0.7, every=2, soft=True),
    "importance-pruning": ImportancePruning(0.7, begin=0.0, every=1),
}
FIXED = {
    "random": Random(0.7),
    "snip": SNIP(0.7),
    "grasp": GraSP(0.7),
    "synflow": SynFlow(0.7),
    "magnitude": Magnitude(0.7, schedule=OneShot(0.0), allocation=Uniform()),
}
NETWORKS = {
    "mlp": lambda: mlp((8, 12, 9, 3), np.random.default_rng(1)),
    "conv": lambda: conv_net(np.random.default_rng(1)),
}
OPTIMIZERS = {"sgd": lambda: SGD(0.9, weight_decay=1e-2), "adam": Adam}


def stored(network, kind):
    for layer in network.prunable().values():
        layer.weight = convert(layer.weight, kind)
    return network


@dataclass(frozen=True)
class Stored(Method):
    """A method that prunes at initialisation, after which weights are stored as `kind`."""

    first: Method = field(default_factory=Random)
    kind: str = "csr"

    def setup(self, state):
        self.first.setup(state)
        stored(state.network, self.kind)


def course(network, method, optimizer):
    """Positions after every step and the last matrices of a run of four epochs of three steps."""
    flats = []
    data = clusters(np.random.default_rng(2), network.input_shape)
    run = train(
        network, data, method, epochs=4, batch=16, optimizer=optimizer,
        progress=lambda s: flats.append({n: x.weight.flat for n, x in s.network.prunable().items()}),
    )  # fmt: skip
    return flats, run.network


def assert_same_course(found, expected):
    """Equal positions at every step, equal parameters at the end."""
    for now, then in zip(found[0], expected[0], strict=True):
        for name, flat in then.items():
            np.testing.assert_array_equal(now[name], flat)
    ours, theirs = found[1], expected[1]
    for name, layer in theirs.prunable().items():
        dense = layer.weight.dense()
        np.testing.assert_allclose(
            ours.prunable()[name].weight.dense(), dense, rtol=0, atol=1e-12 * np.abs(dense).max()
        )
    for key, p in theirs.params().items():
        if not key.endswith(".weight"):
            scale = np.abs(p.value).max()
            np.testing.assert_allclose(ours.params()[key].value, p.value, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "csr") for name in DYNAMIC), ("srigl", "condensed"), ("rigl", "sliced")]
)
def test_dynamic_training_is_that_of_the_masked_matrix(name, kind, net, optimizer):
    masked = course(NETWORKS[net](), DYNAMIC[name], OPTIMIZERS[optimizer]())
    topologies = {b"".join(flat.tobytes() for flat in step.values()) for step in masked[0]}
    assert len(topologies) > 2
    network = stored(NETWORKS[net](), kind)
    assert_same_course(course(network, DYNAMIC[name], OPTIMIZERS[optimizer]()), masked)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("name", FIXED)
def test_training_with_a_fixed_mask_is_that_of_the_masked_matrix(name, net, optimizer):
    masked, entrywise = (
        course(NETWORKS[net](), Stored(FIXED[name], kind), OPTIMIZERS[optimizer]())
        for kind in ("masked", "csr")
    )
    assert sum(x.weight.kept for x in masked[1].prunable().values()) < 0.4 * sum(
        x.weight.size for x in masked[1].prunable().values()
    )
    assert_same_course(entrywise, masked)
