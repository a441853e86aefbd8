"""Method: a frozen set of hyperparameters with hooks, and the two families most methods belong to.

    fit:  setup, then per step
          before_forward -> forward, loss, backward -> penalty -> update -> step += 1 -> after_update
          and at last finish

Everything that changes lives in TrainState, so a method hashes, prints, serialises and becomes flags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from minisparse.errors import MethodError, UsageError
from minisparse.nn.layer import LinearLayer
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.sparsity.allocation import ERK, Allocation, Global, budget
from minisparse.sparsity.control import Control, Untouched
from minisparse.sparsity.count import check_whole
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.parse import to_text
from minisparse.sparsity.pattern import Pattern, Unstructured
from minisparse.sparsity.sample import sample_layers
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.sparsity.select import check_sparsity, select
from minisparse.sparsity.shape import LayerShape
from minisparse.training.state import TrainState

ORIGIN = "control: weights before pruning"
# Settings that are values of their own; text for them is read by `sparsity.parse_...`.
AXES = {"schedule": Schedule, "allocation": Allocation, "pattern": Pattern, "control": Control}


def setting(default: Any, help: str) -> Any:
    """A field of a method with its explanation; the command line turns it into a flag."""
    return field(default=default, metadata={"help": help})


def layer_shapes(network: Network) -> dict[str, LayerShape]:
    """Geometry of each prunable layer, as selection and allocation need it."""
    return {name: LayerShape(*layer.weight.geometry) for name, layer in network.prunable().items()}


def dense_weights(network: Network) -> dict[str, Array]:
    """Copies of the effective matrices (out, in) of all prunable layers."""
    return {name: layer.weight.dense().copy() for name, layer in network.prunable().items()}


def take_away(state: TrainState, control: Control, pattern: Pattern, origin: Mapping[str, Array]) -> None:
    """Let a control act on the masks and weights of a network, before the training that follows.

    origin: the value (out, in) that a weight takes on coming back, by layer.
    """
    network, before = state.network, state.network.masks()
    after = control.masks(before, layer_shapes(network), pattern, state.rng("control: masks"))
    if any((after[name] != mask).any() for name, mask in before.items()):
        values = dense_weights(network)
        state.rewire(after)
        for name, layer in network.prunable().items():
            layer.weight.assign(np.where(before[name], values[name], origin[name]))
    if control.weights(network, state.rng("control: weights")):
        state.optimizer.reset()


@dataclass(frozen=True)
class Method:
    """Base of all methods. Hooks do nothing unless a method says otherwise."""

    needs: ClassVar[frozenset[str]] = frozenset()
    demo: ClassVar[Mapping[str, Any]] = {}  # settings under which a dozen steps on a tiny network show it

    def length(self, horizon: int) -> int:
        """Steps of the whole run when one training has `horizon` steps."""
        return horizon

    def setup(self, state: TrainState) -> None:
        """Before the first step: prune at initialisation, swap Weights, take snapshots."""

    def before_forward(self, state: TrainState) -> None:
        """Refresh a mask or threshold."""

    def penalty(self, state: TrainState) -> float:
        """Value of a regulariser; adds its gradient to the parameters'."""
        return 0.0

    def update(self, state: TrainState) -> None:
        """One optimiser step."""
        state.optimizer.step(state.network, state.lr)

    def after_update(self, state: TrainState) -> None:
        """Prune, project, rewind."""

    def finish(self, state: TrainState) -> None:
        """Turn what was learned into masked weights."""

    def check_axes(self) -> None:
        """Raise UsageError if a schedule, allocation, pattern or control is something else, such as text."""
        for name in (f.name for f in fields(self) if f.name in AXES):
            value = getattr(self, name)
            if not isinstance(value, AXES[name]):
                got = repr(value) if isinstance(value, str) else type(value).__name__
                raise UsageError(
                    f"{name} of {type(self).__name__}: got {got}, expected a value of minisparse.sparsity. "
                    f"Text is read by parse_{name}."
                )

    def check(self, network: Network) -> None:
        """Raise UsageError or MethodError before step 0 for unusable settings or a need that is not met."""
        self.check_axes()
        for need in sorted(self.needs):
            if not NEEDS[need](network):
                raise MethodError(
                    f"method {type(self).__name__}: got network '{network.name}', expected one with "
                    f"{need}. Choose another --model."
                )


def _homogeneous(network: Network) -> bool:
    curved = [layer for _, layer in network.walk() if not getattr(layer, "homogeneous", True)]
    return not curved


NEEDS = {
    "prunable layers": lambda network: bool(network.prunable()),
    "homogeneous activations": _homogeneous,
    "hidden units": lambda network: bool(groups_of(network)),
    "normalised hidden units": lambda network: any(group.norms for group in groups_of(network)),
}


@dataclass(frozen=True)
class Scored(Method, ABC):
    """Keep the weights of largest score, when and where schedule, allocation and pattern say.

    A subclass defines `score` only; another schedule, allocation or pattern is a keyword.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})
    regrows: ClassVar[bool] = False
    settles: ClassVar[bool] = True  # whether masks stay once the schedule's last level is imposed

    sparsity: float = setting(0.9, "share of prunable weights that are zero at the end")
    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")
    allocation: Allocation = setting(Global(), "how the kept weights are shared among layers")
    pattern: Pattern = setting(Unstructured(), "which sets of weights stay or leave together")
    control: Control = setting(Untouched(), "what is taken from the sparse network before it trains on")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        self.check_axes()
        if not self.settles and self.control != Untouched():
            raise UsageError(
                f"control of {type(self).__name__}: got {to_text(self.control)}, expected none, because "
                "masks are chosen anew at every step."
            )

    @abstractmethod
    def score(self, state: TrainState) -> dict[str, Array]:
        """Score (out, in) of every weight of every prunable layer; the largest stay."""

    def setup(self, state: TrainState) -> None:
        self.allocation.check(layer_shapes(state.network), self.sparsity)
        if self.control.moves:
            state.memory[ORIGIN] = dense_weights(state.network)
        self.impose(state)

    def after_update(self, state: TrainState) -> None:
        self.impose(state)

    def impose(self, state: TrainState) -> None:
        """Prune to each level the schedule names for this step, scoring anew for each; then settle."""
        levels = self.schedule.levels(state.step, state.horizon, self.sparsity)
        for level in levels:
            if self.pattern.fixed_sparsity is None or level == self.sparsity:
                self.prune_to(state, level)
        if levels and state.step == self.schedule.curve(state.horizon, self.sparsity)[-1][0]:
            self.settle(state)

    def settle(self, state: TrainState) -> None:
        """What happens once the last level is imposed: the control acts."""
        take_away(state, self.control, self.pattern, state.memory.get(ORIGIN, {}))

    def ranked(self, state: TrainState) -> dict[str, Array]:
        """The scores as the control lets them be ranked."""
        return self.control.scores(self.score(state))

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        """Score, select and rewire once. Masks only shrink unless the method `regrows`."""
        network = state.network
        among = None if self.regrows else network.masks()
        masks = select(
            self.ranked(state), layer_shapes(network), sparsity, self.allocation, self.pattern, among
        )
        state.rewire(masks)


@dataclass(frozen=True)
class Reconstructed(Method, ABC):
    """Prune a trained network and set what stays to make up for what leaves.

    A subclass defines `solve` only: masks and values proposed from calibration data.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    sparsity: float = setting(0.9, "share of prunable weights that are zero at the end")
    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")
    samples: int = setting(512, "training samples the reconstruction is computed from")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_whole(self.samples, "samples")
        self.check_axes()

    @abstractmethod
    def solve(self, state: TrainState, sparsity: float) -> dict[str, tuple[Array, Array]]:
        """Layer name -> (mask, values), both (out, in); values of absent entries are ignored."""

    def setup(self, state: TrainState) -> None:
        self.impose(state)

    def after_update(self, state: TrainState) -> None:
        self.impose(state)

    def impose(self, state: TrainState) -> None:
        """Solve and rewire for each level the schedule names for this step."""
        for level in self.schedule.levels(state.step, state.horizon, self.sparsity):
            solution = self.solve(state, level)
            state.rewire({name: mask for name, (mask, _) in solution.items()})
            for name, layer in state.network.prunable().items():
                if name in solution:
                    layer.weight.assign(solution[name][1])


def swap(state: TrainState, make: Callable[[str, Weight], Weight]) -> None:
    """Put make(name, weight) in the place of every prunable layer's weight."""
    for name, layer in state.network.prunable().items():
        layer.weight = make(name, layer.weight)


def harden(state: TrainState) -> None:
    """Leave a masked weight of the same matrix and mask in every prunable layer.

    What the optimiser remembers of the parameters that go is forgotten.
    """
    for name, layer in state.network.prunable().items():
        old = layer.weight
        layer.weight = MaskedWeight(old.dense().copy(), old.geometry, old.mask)
        for key in old.params():
            state.optimizer.slots.pop(f"{name}.{key}", None)


@dataclass(frozen=True)
class Learned(Method, ABC):
    """Train a reparametrised weight in the place of every prunable layer's.

    A subclass defines `substitute` only, and `penalty` if it has one; at the end the weights are masked.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    @abstractmethod
    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        """What layer `name` trains instead of `weight`."""

    def setup(self, state: TrainState) -> None:
        swap(state, lambda name, weight: self.substitute(name, weight, state))

    def finish(self, state: TrainState) -> None:
        harden(state)


@dataclass(frozen=True)
class DynamicSparse(Method, ABC):
    """Sparse from start to finish: random masks, then weights change places now and then.

    A subclass defines `due` and `rewired`, and says by `replaces_step` whether an exchange takes the
    place of the optimiser's step (before the step count rises) or follows it. Topology is a list of flat
    positions throughout, so that a network whose weights store present entries only never needs more.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})
    replaces_step: ClassVar[bool] = False

    sparsity: float = setting(0.9, "share of prunable weights that are zero, from first to last step")
    allocation: Allocation = setting(ERK(), "how the kept weights are shared among layers")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        self.check_axes()

    @abstractmethod
    def due(self, state: TrainState) -> bool:
        """Whether topology changes now."""

    @abstractmethod
    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        """Ascending flat positions of the entries that are present after an exchange in this layer."""

    def setup(self, state: TrainState) -> None:
        network = state.network
        if not self.as_sparse_as_asked(network):
            shapes, rng = layer_shapes(network), state.rng("topology")
            state.rewire_flat(sample_layers(shapes, self.sparsity, self.allocation, rng))

    def as_sparse_as_asked(self, network: Network) -> bool:
        """Whether layers have the counts asked for already: a network made sparse keeps its topology."""
        shapes = layer_shapes(network)
        kept = {name: layer.weight.kept for name, layer in network.prunable().items()}
        counts = self.allocation.counts(shapes, self.sparsity)
        return sum(kept.values()) == budget(shapes, self.sparsity) if counts is None else kept == counts

    def update(self, state: TrainState) -> None:
        if not (self.replaces_step and self.due(state) and self.exchange_all(state)):
            super().update(state)

    def after_update(self, state: TrainState) -> None:
        if not self.replaces_step and self.due(state):
            self.exchange_all(state)

    def exchange_all(self, state: TrainState) -> bool:
        """Rewire every prunable layer that is not dense; False if there is none."""
        layers = state.network.prunable()
        sparse = {n: x for n, x in layers.items() if x.weight.kept < x.weight.size}
        if sparse:
            state.rewire_flat({name: self.rewired(name, layer, state) for name, layer in sparse.items()})
        return bool(sparse)


def rounded(share: float, count: int) -> int:
    """round-half-even(share * count), the rule for 'drop a share of the live weights'."""
    return int(np.rint(share * count))
