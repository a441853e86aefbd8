"""The fast Walsh-Hadamard transform, in place."""

from minisparse.kernels.jit import kernel


@kernel
def walsh_hadamard(x):
    """x <- H x for x (n) contiguous, n a power of two; H_ij = (-1)^(bits that i and j have in common).

    n log2 n additions; H is symmetric and H H = n I.
    """
    half = 1
    while half < x.size:
        for start in range(0, x.size, 2 * half):
            for i in range(start, start + half):
                a, b = x[i], x[i + half]
                x[i] = a + b
                x[i + half] = a - b
        half *= 2
