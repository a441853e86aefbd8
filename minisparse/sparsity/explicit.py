"""Layer sparsities given one by one.

With A = sum over the named layers of rhe(s_l n_l) entries and P = rhe(s N) to remove in all:

    P >= A:  named layers lose rhe(s_l n_l), the others share P - A at one sparsity        (1)
    P <  A:  named layers lose P/A of that, the others nothing                             (2)

(2) is for the early levels of a gradual schedule; as the target of a run it is an error (`check`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

from minisparse.errors import SparsityError, UsageError, unknown_name
from minisparse.sparsity.allocation import Allocation, Shapes, budget, common_rest, sizes_of
from minisparse.sparsity.apportion import Shares
from minisparse.sparsity.count import check_sparsity, kept_count, shortest_sparsity

Pairs: TypeAlias = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explicit(Allocation):
    """Named layers at their own sparsity; the unnamed ones share what is left, at one sparsity.

    `layers`: mapping or pairs of layer name and sparsity, stored as sorted pairs. A gradual schedule
    prunes the named layers first, in proportion to what they are to lose, then the unnamed ones.
    """

    layers: Mapping[str, float] | Pairs = field(default=(), metadata={"open": True})

    def __post_init__(self) -> None:
        given: Any = self.layers.items() if isinstance(self.layers, Mapping) else self.layers
        try:
            pairs = [(name, sparsity) for name, sparsity in given]
        except (TypeError, ValueError):
            pairs = [(given, None)]
        names = [name for name, _ in pairs]
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[^,=:\s]+", name):
                raise UsageError(
                    f"explicit layer is not usable: got {name!r}, expected a name without comma, "
                    "colon, equals sign or space, and its sparsity."
                )
            if names.count(name) > 1:
                raise UsageError(f"explicit layer is repeated: got {name!r} twice, expected once.")
        checked = [(name, check_sparsity(s, f"sparsity of {name}")) for name, s in pairs]
        object.__setattr__(self, "layers", tuple(sorted(checked)))

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """Equations (1) and (2)."""
        asked, part = self._removed(shapes), self._part(shapes, sparsity)
        if part < 1:
            return {n: shape.size - part * asked.get(n, 0) for n, shape in shapes.items()}
        if part > 1 and len(asked) == len(shapes):
            raise self._mismatch(shapes, sparsity)
        kept = {name: shapes[name].size - count for name, count in asked.items()}
        return common_rest(kept, shapes, budget(shapes, sparsity), "explicit")

    def sparsities(self, shapes: Shapes, sparsity: float) -> dict[str, float] | None:
        """Named layers: what was asked, or P/A of it; the others what is left for them."""
        own, part = dict(self.layers), self._part(shapes, sparsity)
        if part < 1:
            return {name: float(part) * own.get(name, 0.0) for name in shapes}
        return (super().sparsities(shapes, sparsity) or {}) | own

    def check(self, shapes: Shapes, sparsity: float) -> None:
        """SparsityError when the final sparsity would leave named layers denser than asked."""
        self.counts(shapes, sparsity)
        if self._part(shapes, sparsity) < 1:
            raise self._mismatch(shapes, sparsity)

    def _part(self, shapes: Shapes, sparsity: float) -> Fraction:
        """P/A; with A = 0 nothing is asked, and 1 or more removes it all."""
        removed = sum(sizes_of(shapes).values()) - budget(shapes, sparsity)
        asked = sum(self._removed(shapes).values())
        return Fraction(removed, asked) if asked else Fraction(1 + removed)

    def _removed(self, shapes: Shapes) -> dict[str, int]:
        """Entries each named layer is to lose in the end."""
        removed = {}
        for name, sparsity in dict(self.layers).items():
            if name not in shapes:
                raise unknown_name("layer", name, shapes)
            removed[name] = shapes[name].size - kept_count(shapes[name].size, sparsity)
        return removed

    def _mismatch(self, shapes: Shapes, sparsity: float) -> SparsityError:
        removed, total = sum(self._removed(shapes).values()), sum(sizes_of(shapes).values())
        implied = shortest_sparsity(removed, total)
        rule = "exactly" if len(self.layers) == len(shapes) else "at least"
        return SparsityError(
            f"sparsity does not fit the explicit layers: got {sparsity}, expected {rule} {implied}, "
            f"which is what they imply. Ask for sparsity {implied} or change the layers."
        )
