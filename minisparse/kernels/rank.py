"""Numbers in order by their digits: the k-th of them, and all of them, in time linear in how many there are.

The bits of an IEEE 754 number, read as an integer b of B bits with sign, order like the number itself where
b >= 0 and the other way round where b < 0:

    key = b                        b >= 0
        = b xor (2^(B-1) - 1)      b < 0                                                    (1)

Selection (most significant digit first): count the keys by their next digit, keep those whose digit is the
one that the rank falls into, take their next digit. Sorting (least significant digit first): count by a
digit, move each number to the next place of its digit, equals in the order they came; then the digit above.

Ties cost what all else costs. Selection by comparing, as `np.partition` does it, takes several times as long
where a third of the numbers are equal, and the weights of a network whose mask has just changed are.
"""

import numpy as np

from minisparse.kernels.jit import COMPILED, kernel

DIGIT = 11  # bits: 2,048 counters stay in the first-level cache
FEW = 1 << 12  # numbers: below, NumPy's own are as fast and need no compiling


@kernel
def _select(keys, rank, bits):
    """The key of this rank, 0 the least, among keys of `bits` bits without sign; `keys` is overwritten."""
    count, low = keys.size, bits
    while low > 0:
        high, low = low, max(0, low - DIGIT)
        least = (1 << (high - low)) - 1
        places = np.zeros(least + 1, np.int64)
        for i in range(count):
            places[np.int64(keys[i] >> low) & least] += 1
        digit = 0
        while rank >= places[digit]:
            rank -= places[digit]
            digit += 1
        left = 0
        for i in range(count):
            keys[left] = keys[i]
            left += (np.int64(keys[i] >> low) & least) == digit
        count = left
    return keys[0]


def smallest(values, rank):
    """The number of this rank in values (n,), 0 the least; 0 and -0 are equals, none is NaN."""
    if values.size < FEW or values.dtype not in (np.float32, np.float64) or not COMPILED:
        return np.partition(values, rank)[rank]
    bits = 8 * values.itemsize
    signed, unsigned = np.dtype(f"i{values.itemsize}"), np.dtype(f"u{values.itemsize}")
    top = np.iinfo(signed).max
    b = np.ascontiguousarray(values).view(signed)
    keys = (b ^ ((b >> (bits - 1)) & top)).view(unsigned)  # equation (1)
    keys ^= unsigned.type(top + 1)  # the order of numbers without sign
    key = np.array([_select(keys, rank, bits)], dtype=unsigned) ^ unsigned.type(top + 1)
    b = key.view(signed)
    return (b ^ ((b >> (bits - 1)) & top)).view(values.dtype)[0]


@kernel
def _by_digit(numbers, low, width, sorted_):
    """sorted_ = numbers in the order of their digit, `width` bits from bit `low` up; equals as they came."""
    least = (1 << width) - 1
    places = np.zeros(least + 2, np.int64)
    for i in range(numbers.size):
        places[((numbers[i] >> low) & least) + 1] += 1
    for k in range(least):
        places[k + 1] += places[k]
    for i in range(numbers.size):
        digit = (numbers[i] >> low) & least
        sorted_[places[digit]] = numbers[i]
        places[digit] += 1


def ascending(numbers, limit):
    """numbers (n,) int64 from 0 to limit - 1 in ascending order; may overwrite them."""
    if numbers.size < FEW or not COMPILED:
        numbers.sort()
        return numbers
    bits = max(1, int(limit - 1).bit_length())
    passes = -(-bits // DIGIT)
    width, other = -(-bits // passes), np.empty_like(numbers)
    for k in range(passes):
        _by_digit(numbers, k * width, width, other)
        numbers, other = other, numbers
    return numbers
