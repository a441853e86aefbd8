"""How a method is run where it is checked, and where it keeps a promise in its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minisparse.methods.base import Method
from minisparse.nn.network import Network
from minisparse.sparsity.count import kept_count
from minisparse.sparsity.groups import groups_of


@dataclass(frozen=True)
class Case:
    """What is particular about a method.

    settings    changed for the checks, which train for 12 steps: every=2, rounds=2
    counts      whether the final number of kept weights is the one the sparsity asks for
    slack       by how many weights it may differ, of this network; 0 unless whole units are removed
    zeros       whether weight, gradient and slots of absent entries are 0 after every step
    nothing     settings under which the method is dense training, bit for bit; None if there are none
    reason      why, if a promise is not the usual one
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    counts: bool = True
    slack: Callable[[Network], int] = lambda network: 0
    zeros: bool = True
    nothing: Mapping[str, Any] | None = field(default_factory=lambda: {"sparsity": 0.0})
    reason: str = ""

    @property
    def usual(self) -> bool:
        """Whether every promise is kept in the usual way, but for a slack."""
        return self.counts and self.zeros and self.nothing is not None


def largest_row(network: Network) -> int:
    """Weights of the longest row: the slack of methods that remove rows."""
    return max(layer.weight.shape[1] for layer in network.prunable().values())


def largest_unit(network: Network) -> int:
    """Weights that leave with the unit of a group that has the most, in rows and columns."""
    layers, most = network.prunable(), 0
    for group in groups_of(network):
        rows = sum(layers[name].weight.shape[1] * index.shape[1] for name, index in group.producers)
        columns = sum(layers[name].weight.shape[0] * index.shape[1] for name, index in group.consumers)
        most = max(most, rows + columns)
    return most


def kept(network: Network) -> int:
    """Prunable weights that are present."""
    return sum(layer.weight.kept for layer in network.prunable().values())


def size(network: Network) -> int:
    """Prunable weights, absent ones included."""
    return sum(layer.weight.size for layer in network.prunable().values())


def asked_count(method: Method, network: Network) -> int:
    """What the method's sparsity leaves; everything if it has none."""
    return kept_count(size(network), getattr(method, "sparsity", 0.0))
