"""Sharing out a whole number of entries: proportional shares under caps, then largest remainder.

M. L. Balinski, H. P. Young. Fair Representation. Yale University Press 1982 (apportionment).

    k_l = min(cap_l, eps weight_l),   eps such that sum k_l = total                        (1)
    whole numbers: floor(k_l), then one more where the fraction is largest (equal fractions:
    lower layer first) until the sum is total                                              (2)

Shares are exact rationals, so neither (1) nor (2) depends on rounding or on the platform. (2) is not
monotone in `total`: a layer may gain one entry while the total falls (the Alabama paradox). Pruning
that must never revive an entry passes what is still alive as caps.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import TypeAlias

Shares: TypeAlias = dict[str, Fraction]


def water_fill(weights: Mapping[str, Fraction], caps: Mapping[str, int], total: int) -> Shares:
    """Shares of equation (1), in the order of `weights`; needs total <= sum of caps.

    Layers above their cap leave the equation together and eps is solved again until none is; if all
    the weights left are zero the rest is shared equally.
    """
    filled: Shares = {}
    while len(filled) < len(weights):
        free = [name for name in weights if name not in filled]
        left = total - sum(filled.values())
        mass = sum(weights[name] for name in free)
        share = {n: left * weights[n] / mass if mass else Fraction(left, len(free)) for n in free}
        over = [name for name in free if share[name] > caps[name]]
        filled |= {name: Fraction(caps[name]) for name in over} if over else share
    return {name: filled[name] for name in weights}


def apportion(shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Whole numbers of equation (2): each the floor or the ceiling of its share."""
    counts = {name: share.numerator // share.denominator for name, share in shares.items()}
    by_fraction = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_fraction[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
