"""Which entries live or die together: single weights, N:M, blocks, rows, columns, input channels.

A. Mishra et al. Accelerating Sparse Deep Neural Networks. 2021. arXiv:2104.08378 (2:4);
A. Zhou et al. Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch. ICLR 2021.
arXiv:2102.04010; H. Li et al. Pruning Filters for Efficient ConvNets. ICLR 2017. arXiv:1608.08710.

A pattern cuts the matrix (out, in) of a layer into units; an edge block is a smaller unit.

    unit score = sum of the entries' scores / number of the entries                        (1)
    N:M: of every M consecutive columns of a row the N of highest score may stay           (2)

so that units of different size are ranked by what one entry of them is worth. N:M is not a matter
of ranking units: it fixes the sparsity to 1 - N/M in every row. Columns are ordered with the input
channel fastest, so a group of M runs along input channels (it spans two taps of a kernel only if M
does not divide their number).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.errors import ShapeError, UsageError
from minisparse.sparsity.count import check_choice, check_whole
from minisparse.sparsity.shape import Array, LayerShape, Mask


@dataclass(frozen=True)
class Pattern(ABC):
    """Units of a layer; subclasses are frozen dataclasses holding the settings."""

    shorthand: ClassVar[str] = ""

    @property
    def fixed_sparsity(self) -> float | None:
        """The one sparsity this pattern has, or None when it can have any."""
        return None

    @abstractmethod
    def total(self, values: Array, shape: LayerShape) -> Array:
        """Sum of `values` (out, in) over each unit, in the shape of the unit grid."""

    @abstractmethod
    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """Mask (out, in) of the entries of the kept units; inverse of `total` on masks."""

    def sizes(self, shape: LayerShape) -> Array:
        """Number of entries of each unit."""
        return self.total(np.ones(shape.matrix, dtype=np.int64), shape)

    def pool(self, score: Array, shape: LayerShape, among: Mask | None = None) -> Array:
        """Unit scores, equation (1), over the entries of `among` only if given (0 if none)."""
        values = score.astype(np.float64)
        if among is None:
            return self.total(values, shape) / self.sizes(shape)
        live = self.total(among.astype(np.int64), shape)
        return self.total(np.where(among, values, 0.0), shape) / np.maximum(live, 1)

    def eligible(self, score: Array, shape: LayerShape, among: Mask) -> Mask:
        """The entries of `among` that the pattern lets stay, whatever their units' ranks."""
        return among


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Every weight for itself."""

    def total(self, values: Array, shape: LayerShape) -> Array:
        """The values themselves."""
        return values

    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """The units themselves."""
        return kept_units.copy()

    def pool(self, score: Array, shape: LayerShape, among: Mask | None = None) -> Array:
        """The scores themselves, in their own precision."""
        return score


@dataclass(frozen=True)
class NM(Pattern):
    """Keep `keep` of every `of` consecutive columns (N:M); 2:4 is NM(keep=2, of=4).

    Where `of` does not divide the columns, remainder="error" raises ShapeError and "dense" keeps
    the last columns whole (the layer is then less sparse than 1 - keep/of).
    """

    shorthand: ClassVar[str] = "{keep}:{of}"
    keep: int = 2
    of: int = 4
    remainder: str = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", check_whole(self.keep, "keep"))
        object.__setattr__(self, "of", check_whole(self.of, "of"))
        check_choice(self.remainder, "remainder", ("error", "dense"))
        if self.keep > self.of:
            raise UsageError(
                f"N:M keeps more than a group has: got {self.keep}:{self.of}, expected N <= M. "
                "N is the number kept."
            )

    @property
    def fixed_sparsity(self) -> float:
        """1 - N/M."""
        return (self.of - self.keep) / self.of

    def total(self, values: Array, shape: LayerShape) -> Array:
        """The values themselves: each entry is chosen by its rank in its group."""
        return values

    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """The units themselves."""
        return kept_units.copy()

    def eligible(self, score: Array, shape: LayerShape, among: Mask) -> Mask:
        """Equation (2) and the remainder columns; fewer than N where fewer are in `among`."""
        out, columns = shape.matrix
        groups = columns // self.of
        if groups * self.of != columns and self.remainder == "error":
            raise ShapeError(
                f"{self.keep}:{self.of} does not divide the layer: got {columns} input columns, "
                f'expected a multiple of {self.of}. Use remainder="dense" to keep the last '
                f"{columns % self.of} whole."
            )
        mask, grouped = among.copy(), (out, groups, self.of)
        head = slice(0, groups * self.of)
        best = top_of_groups(score[:, head].reshape(grouped), self.keep, among[:, head].reshape(grouped))
        mask[:, head] = best.reshape(out, -1) if groups else mask[:, head]
        return mask


def top_of_groups(scores: Array, keep: int, among: Mask) -> Mask:
    """The `keep` largest of each last-axis group, ties to the lower index: (2). Shapes (..., M)."""
    # A stable ascending sort of the reversed group, read backwards: descending, lower index first.
    last = scores.shape[-1] - 1
    order = last - np.argsort(scores[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    absent = ~np.take_along_axis(among, order, axis=-1)
    live_first = np.argsort(absent, axis=-1, kind="stable")
    best = np.take_along_axis(order, live_first[..., :keep], axis=-1)
    mask = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(mask, best, True, axis=-1)
    return mask & among


@dataclass(frozen=True)
class Block(Pattern):
    """Rectangles of rows x cols entries; those at the lower and right edge may be smaller."""

    rows: int = 4
    cols: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", check_whole(self.rows, "rows"))
        object.__setattr__(self, "cols", check_whole(self.cols, "cols"))

    def total(self, values: Array, shape: LayerShape) -> Array:
        """(ceil(out/rows), ceil(in/cols))."""
        out, columns = shape.matrix
        by_rows = np.add.reduceat(values, np.arange(0, out, self.rows), axis=0)
        return np.add.reduceat(by_rows, np.arange(0, columns, self.cols), axis=1)

    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """Each unit repeated rows x cols times, cropped to the matrix."""
        out, columns = shape.matrix
        tall = np.repeat(kept_units, self.rows, axis=0)[:out]
        return np.repeat(tall, self.cols, axis=1)[:, :columns]


@dataclass(frozen=True)
class Row(Pattern):
    """Output units: a neuron's incoming weights, or a whole filter of a convolution."""

    def total(self, values: Array, shape: LayerShape) -> Array:
        """(out,)."""
        return values.sum(axis=1)

    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """Whole rows."""
        return np.broadcast_to(kept_units[:, None], shape.matrix).copy()


@dataclass(frozen=True)
class Column(Pattern):
    """Input columns: an input unit's outgoing weights; in a convolution one tap of one channel."""

    def total(self, values: Array, shape: LayerShape) -> Array:
        """(in,)."""
        return values.sum(axis=0)

    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """Whole columns."""
        return np.broadcast_to(kept_units[None, :], shape.matrix).copy()


@dataclass(frozen=True)
class InChannel(Pattern):
    """Input channels with all their taps; for a linear layer the same as columns."""

    def total(self, values: Array, shape: LayerShape) -> Array:
        """(channels,)."""
        return values.reshape(shape.out, shape.taps, shape.channels).sum(axis=(0, 1))

    def spread(self, kept_units: Mask, shape: LayerShape) -> Mask:
        """The channel's column in every tap, in every row."""
        return np.broadcast_to(np.tile(kept_units, shape.taps)[None, :], shape.matrix).copy()
