"""Networks that are born sparse: random topologies and initial values in memory of their own size.

D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta. Scalable training of artificial neural
networks with adaptive sparse connectivity inspired by network science. Nature Communications 9, 2018.
arXiv:1707.04780 (Erdos-Renyi topology); S. Liu, D. C. Mocanu, A. R. R. Matavalam, Y. Pei, M. Pechenizkiy.
Sparse evolutionary deep learning with over one million artificial neurons on commodity hardware. 2021.
arXiv:1901.09181 (no dense matrix anywhere); U. Evci, Y. Ioannou, C. Keskin, Y. Dauphin. Gradient Flow in
Sparse Neural Networks and How Lottery Tickets Win. AAAI 2022. arXiv:2010.03533 (variance by unit)

Which entries of the layers (n_out, n_in) are present is drawn uniformly, k_l of them in layer l as the
allocation says. Unit i of a layer with f_i present inputs gets

    w_ij = sqrt(n_in / f_i) v_ij,   v_ij as the named initialiser draws the entries of the dense layer    (1)

so that f_i var(w_ij) = n_in var(v_ij): every unit's input has the variance it would have in the dense layer.
For Kaiming initialisers (1) is the rule of arXiv:2010.03533, std gain / sqrt(f_i). A unit without inputs has
no weights. Values are drawn row by row, so at sparsity 0 the network is the one that `models.make` makes.

A layer that the allocation leaves dense (often the last one, which has few entries) is a matrix, every other
one is stored in the named format. The topology is drawn as dynamic methods draw theirs from the same seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from minisparse.errors import UsageError, unknown_name
from minisparse.methods.base import layer_shapes
from minisparse.nn.init import INITIALIZERS, RELU_GAIN, Geometry, fans
from minisparse.nn.layer import Shape
from minisparse.nn.models import Task, assemble
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.rng import generator
from minisparse.sparsity.allocation import Allocation, ErdosRenyi
from minisparse.sparsity.count import check_sparsity
from minisparse.sparsity.sample import sample_layers
from minisparse.weights.csr import CSRWeight
from minisparse.weights.formats import FORMATS
from minisparse.weights.pattern import CSRPattern

Draw = Callable[[Array, Generator], Array]


def kaiming(geometry: Geometry) -> float:
    """Standard deviation of the dense layer's entries, `nn.init` equation (1)."""
    return RELU_GAIN / float(np.sqrt(fans(geometry)[0]))


def xavier(geometry: Geometry) -> float:
    """The same of `nn.init` equation (2)."""
    return float(np.sqrt(2 / sum(fans(geometry))))


def normal(std: Array, rng: Generator) -> Array:
    """Gaussian numbers with these standard deviations."""
    return std * rng.standard_normal(std.size)


def uniform(std: Array, rng: Generator) -> Array:
    """Uniform numbers with these standard deviations."""
    bound = np.sqrt(3.0) * std
    return rng.uniform(-bound, bound)


# (standard deviation in the dense layer, distribution): those that can be drawn entry by entry
DRAWS: dict[str, tuple[Callable[[Geometry], float], Draw]] = {
    "kaiming-normal": (kaiming, normal),
    "kaiming-uniform": (kaiming, uniform),
    "xavier-normal": (xavier, normal),
    "xavier-uniform": (xavier, uniform),
}


def unit_std(fan_in: Array, inputs: int, std: float) -> Array:
    """(out,) standard deviation of each unit's weights by equation (1), from that of the dense layer."""
    return std * np.sqrt(inputs / np.maximum(fan_in, 1))


def make_sparse(
    name: str,
    input_shape: Shape,
    outputs: int,
    sparsity: float,
    seed: int = 0,
    allocation: Allocation | None = None,
    storage: str = "csr",
    init: str = "kaiming-normal",
) -> Network:
    """`models.make` for a network of which only the present weights ever exist; float32.

    allocation defaults to Erdos-Renyi. Time and memory are those of the weights that are present. Raises
    what `models.make` does, SparsityError where the allocation cannot meet the sparsity, and
    SparseFormatError where the format cannot store the topology.
    """
    check_sparsity(sparsity)
    if storage not in FORMATS:
        raise unknown_name("storage", storage, FORMATS)
    _check_init(init)
    network = assemble(name, input_shape, outputs, nothing)
    rule = ErdosRenyi() if allocation is None else allocation
    topology = sample_layers(layer_shapes(network), sparsity, rule, generator(seed, "topology"))
    rng = generator(seed, "init")
    for key, layer in network.prunable().items():
        layer.weight = born(layer.weight.geometry, topology.pop(key), storage, init, rng)
    network.init = INITIALIZERS[init]
    return network


def build_sparse(
    name: str,
    data: Task,
    sparsity: float,
    seed: int = 0,
    allocation: Allocation | None = None,
    storage: str = "csr",
    init: str = "kaiming-normal",
) -> Network:
    """`make_sparse` with the shapes of a data set."""
    return make_sparse(name, data.sample_shape, data.outputs, sparsity, seed, allocation, storage, init)


def nothing(geometry: Geometry) -> Weight:
    """A weight of this geometry without any entry."""
    out, inputs = geometry[0], fans(geometry)[0]
    pattern = CSRPattern.from_flat(np.empty(0, dtype=np.int64), (out, inputs))
    return CSRWeight(pattern, np.empty(0, dtype=np.float32), geometry)


def born(geometry: Geometry, flat: Array, storage: str, init: str, rng: Generator) -> Weight:
    """A weight with entries at these ascending flat positions; a matrix if that is all of them."""
    out, inputs = geometry[0], fans(geometry)[0]
    pattern = CSRPattern.from_flat(flat, (out, inputs))
    scale, draw = DRAWS[init]
    fan_in = np.diff(pattern.indptr)
    std = np.repeat(unit_std(fan_in, inputs, scale(geometry)), fan_in)
    values = draw(std, rng).astype(np.float32)
    if pattern.nnz == out * inputs:
        return MaskedWeight(values.reshape(out, inputs), geometry)
    return FORMATS[storage](pattern, values, geometry)


def _check_init(init: str) -> None:
    if init not in INITIALIZERS:
        raise unknown_name("initializer", init, INITIALIZERS)
    if init not in DRAWS:
        raise UsageError(
            f"initializer '{init}' needs the dense matrix: got it for a network that is born sparse, "
            f"expected one of {', '.join(DRAWS)}."
        )
