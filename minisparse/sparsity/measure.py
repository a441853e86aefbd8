"""What masks are worth: density, dead units, effective masks, bytes per format, MACs.

H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli. NeurIPS 2020. arXiv:2006.05467 (layer collapse);
U. Evci et al. ICML 2020. arXiv:1911.11134, appendix B (units without connections, bitmask bytes).

Zeros in a mask, bytes stored and theoretical MACs are three numbers; measured time is a fourth and
not here. Everything is counted on the mask and never on non-zero values: a weight that has just
been grown is 0 and present. Masks are (out, in), True = present; a chain is in forward order.

    reach_0 = 1,    reach_{l+1, i} = any_j m_l,ij and reach_l,j                            (1)
    coreach_L = 1,  coreach_{l, j} = any_i m_l,ij and coreach_{l+1, i}                     (2)
    effective m_l,ij = m_l,ij and reach_l,j and coreach_{l+1, i}                           (3)

(3) is the fixed point of removing, again and again, the weights of units without any input or
without any output; one sweep each way reaches it because a chain only feeds forward.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from minisparse.errors import ShapeError, UsageError
from minisparse.sparsity.shape import Array, Mask


def density(mask: Mask) -> float:
    """Share of present entries, 1 - sparsity; ShapeError for a mask without entries."""
    if mask.size == 0:
        raise ShapeError(f"mask is empty: got shape {mask.shape}, expected at least one entry.")
    return int(np.count_nonzero(mask)) / mask.size


def counts(masks: Mapping[str, Mask]) -> dict[str, tuple[int, int]]:
    """(kept, total) entries per layer."""
    return {name: (int(np.count_nonzero(mask)), mask.size) for name, mask in masks.items()}


def effective_masks(masks: Sequence[Mask]) -> list[Mask]:
    """Masks without the weights that lie on no path from an input to an output: equation (3).

    masks: (out_l, in_l) of a chain of linear layers, out_l = in_{l+1}; ShapeError if they do not
    chain. A unit without inputs still passes on its bias: with biases the removed weights may carry
    a constant, which can be folded into the next bias. All effective masks are empty if and only if
    no path is left (layer collapse).
    """
    for below, above in zip(masks, masks[1:], strict=False):
        if below.shape[0] != above.shape[1]:
            raise ShapeError(
                f"masks do not chain: got {below.shape} then {above.shape}, expected as many inputs "
                "as the layer below has outputs."
            )
    if not masks:
        return []
    reach: list[Array] = [np.ones(masks[0].shape[1], dtype=bool)]
    for mask in masks[:-1]:
        reach.append(np.any(mask[:, reach[-1]], axis=1))
    coreach: list[Array] = [np.ones(masks[-1].shape[0], dtype=bool)]
    for mask in masks[:0:-1]:
        coreach.append(np.any(mask[coreach[-1]], axis=0))
    ends = zip(masks, reach, reversed(coreach), strict=True)
    return [mask & source[None, :] & sink[:, None] for mask, source, sink in ends]


def dead_units(mask: Mask) -> tuple[Array, Array]:
    """(inputs nobody reads, outputs that read nothing): bool arrays of shapes (in,) and (out,)."""
    return np.logical_not(np.any(mask, axis=0)), np.logical_not(np.any(mask, axis=1))


def bytes_dense(shape: tuple[int, int], itemsize: int = 4) -> int:
    """Bytes of the whole matrix (out, in)."""
    return shape[0] * shape[1] * itemsize


def bytes_csr(nnz: int, rows: int, itemsize: int = 4, index_bytes: int = 4) -> int:
    """Bytes of CSR: a value and a column per entry, a pointer per row and one more."""
    return nnz * (itemsize + index_bytes) + (rows + 1) * index_bytes


def bytes_nm(shape: tuple[int, int], keep: int, of: int, itemsize: int = 4) -> int:
    """Bytes of N:M: per kept entry a value and ceil(log2 M) bits; remainder columns are dense."""
    rows, columns = shape
    groups, rest = divmod(columns, of)
    kept = rows * groups * keep
    return (kept + rows * rest) * itemsize + bits_to_bytes(kept * bits_for(of))


def bytes_bitmask(shape: tuple[int, int], nnz: int, itemsize: int = 4) -> int:
    """Bytes of one bit per entry of the matrix and the values of the present ones."""
    return nnz * itemsize + bits_to_bytes(shape[0] * shape[1])


def csr_bits(nnz: int, rows: int, columns: int) -> int:
    """Bits of the indices alone: nnz ceil(log2 columns) + rows ceil(log2 nnz)."""
    return nnz * bits_for(columns) + rows * bits_for(nnz)


def bits_for(values: int) -> int:
    """ceil(log2 values): bits that tell `values` things apart; 0 for none or one."""
    return max(0, values - 1).bit_length()


def bits_to_bytes(bits: int) -> int:
    """Whole bytes that hold `bits` bits."""
    return -(-bits // 8)


def compression(total: int, kept: int) -> float:
    """total / kept parameters, non-prunable ones to be included in both; infinite if none is kept.

    UsageError unless 0 <= kept <= total and total > 0.
    """
    if not 0 <= kept <= total or total == 0:
        raise UsageError(
            f"parameter counts do not fit: got kept={kept} of total={total}, expected "
            "0 <= kept <= total and total > 0."
        )
    return total / kept if kept else float("inf")


def macs(kept: int, positions: int = 1) -> int:
    """Multiply-accumulates of one sample: every present weight once per output position.

    FLOPs = 2 MACs. positions: 1 for a linear layer, output height times width for a convolution.
    """
    return kept * positions
