"""What is taken from a sparse network before it trains, to see which part of it the result needs.

J. Frankle, M. Carbin. The Lottery Ticket Hypothesis. ICLR 2019. arXiv:1803.03635 (new weights)
J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin. Pruning Neural Networks at Initialization: Why Are We
Missing the Mark? ICLR 2021. arXiv:2009.08576 (all three)
T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574
(augmented initialisation)

A pruning method hands a mask m and weights w to a training. Of scores S, masks and weights a control changes

    invert      S <- -S: the worst stay                                                    (1)
    shuffle     m_l <- m_l permuted at random within its layer l, its count kept           (2)
    reinit      w <- drawn anew from the network's initialiser, by another stream          (3)
    augmented   (3) with the weights of layer l over sqrt(density_l): the initialiser's variance for as many
                inputs as the layer has on average                                         (4)

If (2) does not hurt, all that mattered were the layers' counts; if (3) does not hurt, the weights that the
mask was chosen for were not needed; if (1) does not hurt, the scores say nothing.

A pattern is kept: (2) permutes whole units among those of equal size, or each group of N:M for itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from minisparse.errors import UsageError
from minisparse.nn.network import Network
from minisparse.sparsity.count import check_flag
from minisparse.sparsity.pattern import Pattern
from minisparse.sparsity.shape import Array, LayerShape, Mask

Layers = Mapping[str, LayerShape]


def shuffled(mask: Mask, shape: LayerShape, pattern: Pattern, rng: Generator) -> Mask:
    """Equation (2) for one layer: a random mask (out, in) of the same pattern and count.

    mask: made of whole units of the pattern.
    """
    if pattern.fixed_sparsity is not None:
        everywhere = np.ones(shape.matrix, dtype=bool)
        return mask.copy() if mask.all() else pattern.eligible(rng.random(shape.matrix), shape, everywhere)
    kept, sizes = pattern.total(mask.astype(np.int64), shape) > 0, pattern.sizes(shape)
    for size in np.unique(sizes):
        alike = sizes == size
        kept[alike] = rng.permutation(kept[alike])
    return pattern.spread(kept, shape)


def reinitialise(network: Network, rng: Generator, augmented: bool = False) -> None:
    """Equation (3), or (4), in place; absent entries stay 0, biases and BatchNorm are as when made."""
    network.reinitialise(rng)
    for layer in network.prunable().values():
        weight = layer.weight
        if augmented and weight.kept:
            weight.assign(weight.dense() / np.sqrt(weight.kept / weight.size).astype(weight.dense().dtype))


@dataclass(frozen=True)
class Control(ABC):
    """Changes scores whenever they are ranked, masks and weights once: before the sparse training."""

    shorthand: ClassVar[str] = ""
    moves: ClassVar[bool] = False  # whether weights can come back

    @abstractmethod
    def scores(self, scores: Mapping[str, Array]) -> dict[str, Array]:
        """Scores by layer as they are ranked; the largest stay."""

    def masks(
        self, masks: Mapping[str, Mask], shapes: Layers, pattern: Pattern, rng: Generator
    ) -> dict[str, Mask]:
        """Masks (out, in) by layer as they are trained."""
        return dict(masks)

    def weights(self, network: Network, rng: Generator) -> bool:
        """Change the weights in place; whether they are new, so that optimisers should start anew."""
        return False


@dataclass(frozen=True)
class Untouched(Control):
    """Nothing is changed: the method itself."""

    def scores(self, scores: Mapping[str, Array]) -> dict[str, Array]:
        """The scores themselves."""
        return dict(scores)


@dataclass(frozen=True)
class Reinit(Untouched):
    """New weights from the network's initialiser, the mask kept."""

    augmented: bool = False

    def __post_init__(self) -> None:
        check_flag(self.augmented, "augmented")

    def weights(self, network: Network, rng: Generator) -> bool:
        """Equation (3), or (4)."""
        reinitialise(network, rng, self.augmented)
        return True


@dataclass(frozen=True)
class Shuffle(Untouched):
    """The mask permuted within each layer, the weights kept."""

    moves: ClassVar[bool] = True

    def masks(
        self, masks: Mapping[str, Mask], shapes: Layers, pattern: Pattern, rng: Generator
    ) -> dict[str, Mask]:
        """Equation (2)."""
        return {name: shuffled(mask, shapes[name], pattern, rng) for name, mask in masks.items()}


@dataclass(frozen=True)
class Invert(Control):
    """The weights of lowest score stay."""

    def scores(self, scores: Mapping[str, Array]) -> dict[str, Array]:
        """Equation (1)."""
        return {name: -score for name, score in scores.items()}


@dataclass(frozen=True)
class Combined(Control):
    """Several controls at once; their order does not matter, each changes something else."""

    parts: tuple[Control, ...] = ()

    def __post_init__(self) -> None:
        kinds = {type(part).__name__: part for part in self.parts}
        if len(kinds) < max(2, len(self.parts)) or {"Combined", "Untouched"} & set(kinds):
            raise UsageError(
                f"controls cannot be combined: got {', '.join(type(p).__name__ for p in self.parts)!r}, "
                "expected two or more different ones."
            )
        object.__setattr__(self, "parts", tuple(kinds[name] for name in sorted(kinds)))

    @property
    def moves(self) -> bool:  # type: ignore[override]
        """Whether weights can come back under any of the parts."""
        return any(part.moves for part in self.parts)

    def scores(self, scores: Mapping[str, Array]) -> dict[str, Array]:
        """Those of all parts."""
        found = dict(scores)
        for part in self.parts:
            found = part.scores(found)
        return found

    def masks(
        self, masks: Mapping[str, Mask], shapes: Layers, pattern: Pattern, rng: Generator
    ) -> dict[str, Mask]:
        """Those of all parts."""
        found = dict(masks)
        for part in self.parts:
            found = part.masks(found, shapes, pattern, rng)
        return found

    def weights(self, network: Network, rng: Generator) -> bool:
        """Those of all parts."""
        return any([part.weights(network, rng) for part in self.parts])


def combine(*parts: Control) -> Control:
    """One control that does what all of these do; UsageError if two are of one kind."""
    acting = tuple(part for part in parts if part != Untouched())
    if len(acting) < 2:
        return acting[0] if acting else Untouched()
    return Combined(acting)
