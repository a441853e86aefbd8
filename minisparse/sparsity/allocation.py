"""How many entries each layer keeps: global, uniform, Erdos-Renyi and kernel, first and last.

D. C. Mocanu et al. Scalable training of artificial neural networks with adaptive sparse
connectivity inspired by network science. Nature Communications 2018. arXiv:1707.04780 (ER);
U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen. Rigging the Lottery. ICML 2020.
arXiv:1911.11134 (ERK, uniform with a dense first layer); T. Gale, E. Elsen, S. Hooker. The State of
Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574 (first and last layer);
I. Price, J. Tanner. Dense for the Price of Sparse. ICML 2021. arXiv:2102.07655 (equal per layer).

With n_l the size of layer l, N = sum n_l and the budget b = N - rhe(s N), every rule gives exact
rational shares k_l that sum to b; `apportion` turns them into whole numbers. From a layer's form:

    k_l = min(n_l, eps raw_l n_l),   eps such that sum k_l = b                             (1)
    raw_l = (n_in + n_out) / (n_in n_out)                              Erdos-Renyi         (2)
    raw_l = ((n_in + n_out + kh + kw) / (n_in n_out kh kw))^power      ERK                 (3)
    raw_l = 1 / n_l                                                    equal per layer     (4)

Departures: largest remainder instead of a floor per layer, which overshoots b by up to one entry a
layer. A 1x1 kernel counts as a matrix (no kh + kw in (3)): that is what it is at each position.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

from minisparse.errors import SparsityError
from minisparse.sparsity.apportion import Shares, apportion, water_fill
from minisparse.sparsity.count import (
    check_choice,
    check_flag,
    check_real,
    check_sparsity,
    kept_count,
)
from minisparse.sparsity.shape import LayerShape

Shapes: TypeAlias = Mapping[str, LayerShape]


def sizes_of(shapes: Shapes) -> dict[str, int]:
    """n_l of each layer."""
    return {name: shape.size for name, shape in shapes.items()}


def budget(shapes: Shapes, sparsity: float) -> int:
    """b: entries kept over all layers together."""
    return kept_count(sum(sizes_of(shapes).values()), sparsity)


@dataclass(frozen=True)
class Allocation(ABC):
    """Splits the budget over layers; subclasses are frozen dataclasses holding the settings."""

    shorthand: ClassVar[str] = ""

    @abstractmethod
    def shares(self, shapes: Shapes, sparsity: float) -> Shares | None:
        """Kept entries per layer as exact rationals with a whole sum; None = one global ranking."""

    def sparsities(self, shapes: Shapes, sparsity: float) -> dict[str, float] | None:
        """Real-valued sparsity per layer, before any rounding to entries; None as in `shares`."""
        shares = self.shares(shapes, sparsity)
        if shares is None:
            return None
        return {name: float(1 - share / shapes[name].size) for name, share in shares.items()}

    def counts(
        self, shapes: Shapes, sparsity: float, caps: Mapping[str, int] | None = None
    ) -> dict[str, int] | None:
        """Kept entries per layer, summing exactly to the budget; None = one global ranking.

        `caps`: what each layer can keep at most (entries still alive), its size if not given; what
        a capped layer cannot take goes to the others. SparsityError if all caps are too small.
        """
        shares = self.shares(shapes, check_sparsity(sparsity))
        if shares is None:
            return None
        limits = sizes_of(shapes) if caps is None else caps
        total, room = int(sum(shares.values())), sum(limits[name] for name in shapes)
        if total > room:
            raise too_few_left(sparsity, room, total)
        return apportion(water_fill(shares, limits, total), total)

    def check(self, shapes: Shapes, sparsity: float) -> None:
        """SparsityError when the final `sparsity` of a run cannot be met as the settings ask."""
        self.counts(shapes, sparsity)


def too_few_left(sparsity: float, left: int, wanted: int) -> SparsityError:
    """The error for asking to keep more entries than are still alive."""
    return SparsityError(
        f"sparsity {sparsity} keeps more than is left: got {left} live entries, expected at least "
        f"{wanted}. Pruned entries cannot return: ask for a higher sparsity; for a network that is pruned "
        "already, --schedule one-shot asks for it at once."
    )


@dataclass(frozen=True)
class Global(Allocation):
    """One ranking over all layers; the layers' sparsities follow from the scores."""

    def shares(self, shapes: Shapes, sparsity: float) -> None:
        """None: no layer has a share of its own."""


@dataclass(frozen=True)
class Uniform(Allocation):
    """The same sparsity in every layer, within one entry so that the total is exact."""

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """k_l = b n_l / N."""
        sizes = sizes_of(shapes)
        weights = {name: Fraction(size) for name, size in sizes.items()}
        return water_fill(weights, sizes, budget(shapes, sparsity))

    def sparsities(self, shapes: Shapes, sparsity: float) -> dict[str, float]:
        """The requested sparsity itself, everywhere."""
        return dict.fromkeys(shapes, sparsity)


@dataclass(frozen=True)
class ErdosRenyi(Allocation):
    """Density proportional to (n_in + n_out) / (n_in n_out), the kernel left out (SET)."""

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """Equations (1) and (2)."""
        raw = {name: erdos_renyi_density(shape) for name, shape in shapes.items()}
        return _from_form(raw, shapes, sparsity)


@dataclass(frozen=True)
class ERK(Allocation):
    """Erdos-Renyi-Kernel: density by the sum over the product of the kernel's dimensions (RigL)."""

    power: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "power", check_real(self.power, "power", 0))

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """Equations (1) and (3)."""
        raw = {name: erk_density(shape, self.power) for name, shape in shapes.items()}
        return _from_form(raw, shapes, sparsity)


@dataclass(frozen=True)
class EqualPerLayer(Allocation):
    """The same number of entries in every layer, small layers being dense (DCTpS)."""

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """Equations (1) and (4)."""
        raw = {name: Fraction(1, shape.size) for name, shape in shapes.items()}
        return _from_form(raw, shapes, sparsity)


def erdos_renyi_density(shape: LayerShape) -> Fraction:
    """raw_l of equation (2)."""
    n_in, n_out, _, _ = shape.dims
    return Fraction(n_in + n_out, n_in * n_out)


def erk_density(shape: LayerShape, power: float = 1.0) -> Fraction:
    """raw_l of equation (3); exact when the power is 1."""
    n_in, n_out, kh, kw = shape.dims
    kernel = kh + kw if shape.taps > 1 else 0
    raw = Fraction(n_in + n_out + kernel, shape.size)
    return raw if power == 1 else Fraction(float(raw) ** power)


def _from_form(raw: Shares, shapes: Shapes, sparsity: float) -> Shares:
    weights = {name: raw[name] * shape.size for name, shape in shapes.items()}
    return water_fill(weights, sizes_of(shapes), budget(shapes, sparsity))


@dataclass(frozen=True)
class FirstDense(Allocation):
    """RigL's uniform: the first layer dense, the others at the sparsity.

    Without `compensate` (the default, as in RigL) the others do not make up for the first layer: the
    total is then denser than asked, N - sum over the others of rhe(s n_l).
    """

    compensate: bool = False

    def __post_init__(self) -> None:
        check_flag(self.compensate, "compensate")

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """k_1 = n_1; the others n_l - rhe(s n_l), or n_l (b - n_1)/(N - n_1) to compensate."""
        dense = dict(list(sizes_of(shapes).items())[:1])
        if self.compensate:
            return common_rest(dense, shapes, budget(shapes, sparsity), "first-dense")
        if len(shapes) == 1 and sparsity > 0:
            raise SparsityError(
                f"allocation first-dense leaves nothing to prune: got sparsity {sparsity} and one "
                "layer, expected two layers or more. Use allocation uniform."
            )
        kept = {n: kept_count(s.size, sparsity) for n, s in shapes.items() if n not in dense}
        return {name: Fraction(count) for name, count in (dense | kept).items()}

    def sparsities(self, shapes: Shapes, sparsity: float) -> dict[str, float] | None:
        """0 for the first layer, then the requested (or the common compensating) sparsity."""
        if self.compensate:
            return super().sparsities(shapes, sparsity)
        return {name: sparsity if i else 0.0 for i, name in enumerate(shapes)}


@dataclass(frozen=True)
class FirstLast(Allocation):
    """Gale's heuristic: first layer dense if a convolution, last at most `last` sparse, rest common.

    `dense_first`: "conv" (only if it is a spatial convolution), "always" or "never". In a gradual
    schedule the exceptions clip the common ramp: the last layer follows it up to `last`.
    """

    dense_first: str = "conv"
    last: float = 0.8

    def __post_init__(self) -> None:
        check_choice(self.dense_first, "dense_first", ("conv", "always", "never"))
        object.__setattr__(self, "last", check_sparsity(self.last, "last"))

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """s_mid = (s N - s_last n_last) / (N - n_first - n_last), s_last = min(s_mid, last)."""
        kept, total = {}, budget(shapes, sparsity)
        for name, shape in list(shapes.items())[:1]:
            if self.dense_first == "always" or (self.dense_first == "conv" and shape.taps > 1):
                kept[name] = shape.size
        shares = common_rest(kept, shapes, total, "first-last")
        for name, shape in list(shapes.items())[-1:]:
            least = kept_count(shape.size, self.last)
            if shares[name] < least:
                return common_rest(kept | {name: least}, shapes, total, "first-last")
        return shares


def common_rest(kept: Mapping[str, int], shapes: Shapes, total: int, rule: str) -> Shares:
    """Shares with `kept` given and one density for all the other layers, summing to `total`."""
    rest = {name: shape.size for name, shape in shapes.items() if name not in kept}
    fixed, room = sum(kept.values()), sum(rest.values())
    left = total - fixed
    if not 0 <= left <= room or (left == 0 < min(room, fixed)):
        raise SparsityError(
            f"allocation {rule} cannot meet the sparsity: got {total} entries to keep, expected "
            f"more than the {fixed} that must stay and at most {fixed + room}. Change the sparsity "
            "or use allocation uniform or erk."
        )
    density = Fraction(left, room or 1)
    return {
        name: Fraction(kept[name]) if name in kept else density * shape.size for name, shape in shapes.items()
    }
