"""Problems whose answer is known, so that a method can be checked and not only ranked.

Every function takes a numpy.random.Generator first and returns a `Known`: the data set together with
what generated it. Classification samples are float32; nothing here is scaled to [0, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from minisparse.data.arguments import kept_count, non_negative, whole_number
from minisparse.data.dataset import Dataset
from minisparse.errors import SparsityError, UsageError

Floats = NDArray[np.floating[Any]]
Sizes = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Known:
    """A data set and its answer; what ``answer`` holds is said by the function that made it."""

    dataset: Dataset
    answer: Mapping[str, Any]


def teacher(
    rng: Generator,
    widths: Sequence[int] = (32, 16, 4),
    sparsity: float = 0.75,
    samples: Sizes = (2000, 500),
    regression: bool = False,
) -> Known:
    """Standard normal inputs, answered by a random sparse network of known mask.

    ``widths`` (i, o) makes a linear teacher, (i, hidden, o) one with a hidden ReLU layer:

        z = W_L relu(... relu(W_1 x)) - b,   label = argmax_k z_k   or, for regression, y = z

    b centres the outputs over the training set, so that no class takes all. Each W_l (o, i) has
    exactly ``size - round_half_even(sparsity * size)`` weights, each of magnitude 0.5 to 1.5 over
    the square root of the mean fan-in: none is negligible. Every unit has at least one weight in and
    every hidden unit one out, so no part of the mask is without effect by construction.

    Answer: ``weights`` and ``masks`` (tuples of (o, i) arrays, float64 and bool), ``bias`` b (o,).
    The labels are those of `teacher_outputs` on the float32 samples. Raises SparsityError when the
    weights left are too few for every unit.
    """
    if len(widths) not in (2, 3):
        raise UsageError(
            f"teacher widths are not usable: got {tuple(widths)}, expected (i, o) or (i, hidden, o)."
        )
    sizes = [whole_number("teacher width", width, 1) for width in widths]
    masks = [
        _planted_mask(rng, o, i, kept_count(o * i, sparsity), cover_inputs=layer > 0)
        for layer, (i, o) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
    ]
    weights = tuple(_planted_weights(rng, mask) for mask in masks)
    x = [rng.standard_normal((n, sizes[0])).astype(np.float32) for n in _sample_counts(samples)]
    bias = teacher_outputs(x[0], weights, np.zeros(sizes[-1])).mean(axis=0)
    z = [teacher_outputs(part, weights, bias) for part in x]
    y = [part.astype(np.float32) if regression else part.argmax(axis=1) for part in z]
    dataset = Dataset("teacher", x[0], y[0], x[1], y[1], None if regression else sizes[-1])
    return Known(dataset, {"weights": weights, "masks": tuple(masks), "bias": bias})


def teacher_outputs(x: Floats, weights: Sequence[Floats], bias: Floats) -> NDArray[np.float64]:
    """z (n, o) of the teacher's equation for samples x (n, i), in float64."""
    activations = x.astype(np.float64)
    for weight in weights[:-1]:
        activations = np.maximum(activations @ weight.T, 0)
    return activations @ weights[-1].T - bias


def _planted_mask(rng: Generator, o: int, i: int, kept: int, cover_inputs: bool) -> NDArray[np.bool_]:
    """A mask (o, i) of exactly ``kept`` entries: first one per unit, then the rest uniformly."""
    needed = max(o, i) if cover_inputs else o
    if kept < needed:
        raise SparsityError(
            f"teacher layer ({o}, {i}) cannot give every unit a connection: got {kept} weights, "
            f"expected at least {needed}. Lower the sparsity or the widths."
        )
    turn = np.arange(needed)
    cover = rng.permutation(o)[turn % o] * i + rng.permutation(i)[turn % i]
    mask = np.zeros(o * i, dtype=np.bool_)
    mask[cover] = True
    mask[rng.permutation(np.flatnonzero(~mask))[: kept - mask.sum()]] = True
    return mask.reshape(o, i)


def _planted_weights(rng: Generator, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    magnitude = rng.uniform(0.5, 1.5, mask.shape) / np.sqrt(mask.sum() / len(mask))
    return np.where(mask, magnitude * rng.choice([-1.0, 1.0], mask.shape), 0.0)


def moons(rng: Generator, samples: Sizes = (1000, 500), noise: float = 0.1) -> Known:
    """Two interleaved half circles of radius 1 in the plane, plus normal noise per coordinate.

        class 0: (cos t, sin t),   class 1: (1 - cos t, 1/2 - sin t),   t uniform in [0, pi]

    Answer: ``train_curve``, ``test_curve`` (n, 2) float64, the points before the noise.
    """

    def curve(t: Floats, k: NDArray[np.int64]) -> Floats:
        sign = 1 - 2 * k
        return np.stack([k + sign * np.cos(np.pi * t), k / 2 + sign * np.sin(np.pi * t)], axis=1)

    return _planar(rng, "moons", curve, 2, samples, noise)


def spirals(
    rng: Generator,
    classes: int = 3,
    samples: Sizes = (1500, 750),
    noise: float = 0.02,
    turns: float = 0.75,
) -> Known:
    """Interleaved spiral arms from the origin to the unit circle, plus normal noise per coordinate.

        class k: t (cos a, sin a),   a = 2 pi (k / classes + turns t),   t uniform in [0, 1]

    Answer: ``train_curve``, ``test_curve`` (n, 2) float64, the points before the noise.
    """
    arms = whole_number("number of spiral arms", classes, 2)
    winding = non_negative("number of turns", turns)

    def curve(t: Floats, k: NDArray[np.int64]) -> Floats:
        angle = 2 * np.pi * (k / arms + winding * t)
        return np.stack([t * np.cos(angle), t * np.sin(angle)], axis=1)

    return _planar(rng, "spirals", curve, arms, samples, noise)


def _planar(rng: Generator, name: str, curve: Any, classes: int, samples: Sizes, noise: float) -> Known:
    """Points ``curve(t, label) + noise``, as many of each class as divisibility allows."""
    spread = non_negative("noise", noise)
    x, y, clean = [], [], []
    for n in _sample_counts(samples):
        labels = rng.permutation(np.arange(n) % classes)
        points = curve(rng.uniform(size=n), labels)
        x.append((points + spread * rng.standard_normal(points.shape)).astype(np.float32))
        y.append(labels)
        clean.append(points)
    dataset = Dataset(name, x[0], y[0], x[1], y[1], classes)
    return Known(dataset, {"train_curve": clean[0], "test_curve": clean[1]})


def quadratic(rng: Generator, features: int = 16, outputs: int = 1) -> Known:
    """Linear regression whose loss is a perfect bowl around known weights, without rounding.

    The columns of X (n, i) are distinct non-constant columns of a Hadamard matrix (entries +-1, n the
    smallest power of two above i), so X'X = n I and X'1 = 0, and Y = X W*' gives exactly

        L(W, b) = 1/(2n) sum_rows ||x W' + b - y||^2 = 1/2 ||W - W*||_F^2 + 1/2 ||b||^2

    with gradient W - W* and Hessian I. The magnitudes of W* (o, i) are 1, 2, ..., o*i over a power of
    two, in random places and with random signs: no two are equal, and all sums are exact in
    float32, to which everything fits. The optimal mask of any size keeps the largest |W*|, and
    removing a set S costs 1/2 sum_S W*^2. The test set is the mirror image (-X, -Y): the same law.

    Answer: ``weight`` W* (o, i) float64.
    """
    i = whole_number("number of features", features, 1)
    o = whole_number("number of outputs", outputs, 1)
    if i * i * o >= 1 << 24:
        raise UsageError(
            f"quadratic is too large to be exact in float32: got {i} features and {o} outputs, "
            "expected features^2 * outputs < 2^24."
        )
    hadamard = np.ones((1, 1))
    while len(hadamard) <= i:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    n = len(hadamard)
    columns = 1 + rng.permutation(n - 1)[:i]
    x = (hadamard[rng.permutation(n)][:, columns] * rng.choice([-1.0, 1.0], i)).astype(np.float32)
    scale = 2.0 ** -np.ceil(np.log2(o * i + 1))
    weight = rng.choice([-1.0, 1.0], (o, i)) * scale * (1 + rng.permutation(o * i).reshape(o, i))
    y = (x @ weight.T).astype(np.float32)
    return Known(Dataset("quadratic", x, y, -x, -y, None), {"weight": weight})


LINES = np.array(
    [
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    ]
)


def patches(
    rng: Generator,
    classes: int = 4,
    samples: Sizes = (2000, 500),
    noise: float = 0.2,
    side: int = 12,
) -> Known:
    """Images ``(n, 1, side, side)`` of normal noise with one of k 3x3 patterns added somewhere.

    The patterns are the horizontal, vertical, falling and rising line through the centre, each minus
    its mean 1/3. Two lines share one pixel, so the patterns are orthogonal: P_j . P_k = 2 (j = k). One
    convolution with them, a global maximum and an argmax solve the problem when there is no noise.

    Answer: ``patterns`` (k, 3, 3) float64; ``train_corners``, ``test_corners`` (n, 2), the row and
    column of the pattern's upper left pixel.
    """
    k = whole_number("number of patterns", classes, 2)
    size = whole_number("image side", side, 3)
    if k > len(LINES):
        raise UsageError(f"too many patterns: got {k}, expected at most {len(LINES)}.")
    spread = non_negative("noise", noise)
    patterns = LINES[:k] - 1 / 3
    x, y, places = [], [], []
    for n in _sample_counts(samples):
        labels = rng.permutation(np.arange(n) % k)
        corners = rng.integers(0, size - 2, (n, 2))
        images = spread * rng.standard_normal((n, 1, size, size))
        rows, columns = corners[:, :1, np.newaxis], corners[:, 1:, np.newaxis]
        field = rows + np.arange(3)[:, np.newaxis], columns + np.arange(3)
        images[np.arange(n)[:, np.newaxis, np.newaxis], 0, *field] += patterns[labels]
        x.append(images.astype(np.float32))
        y.append(labels)
        places.append(corners)
    dataset = Dataset("patches", x[0], y[0], x[1], y[1], k)
    answer = {"patterns": patterns, "train_corners": places[0], "test_corners": places[1]}
    return Known(dataset, answer)


def label_tree(
    rng: Generator,
    branching: Sequence[int] = (10, 10, 20),
    features: int = 64,
    samples: Sizes = (8, 2),
    spread: float = 0.6,
    noise: float = 0.5,
) -> Known:
    """Thousands of classes, few samples of each: a mixture whose centres are the leaves of a random tree.

    A node of level l = 1, 2, ... has ``branching[l - 1]`` siblings, itself included, and an offset
    u ~ N(0, I) of its own. With ``spread`` s, the centre of a class is the sum along its path

        c = sum_l s^(l - 1) u_l,   a sample is   x = c + noise e,   e ~ N(0, I)

    so that two classes are E |c - c'|^2 = 2 i (sum over the levels below their last common node of
    s^(2 l - 2)) apart: classes of one branch look alike, and branches are easier to tell apart than classes.
    ``samples`` are (train, test) counts of each class; numbers of classes are shuffled over the leaves. All
    classes are alike but for their centre, so no classifier beats that of the nearest centre.

    Answer: ``centres`` (classes, i) float64; ``groups`` (levels, classes), for each level the node that a
    class is below; in the last row, the leaf it is.
    """
    widths = [whole_number("branching of the label tree", width, 1) for width in branching]
    i = whole_number("number of features", features, 1)
    classes = int(np.prod(widths, dtype=np.int64))
    if classes < 2:
        raise UsageError(
            f"label tree is too small: got branching {tuple(widths)}, expected two leaves or more."
        )
    leaf = rng.permutation(classes)
    scale, sigma = non_negative("spread", spread), non_negative("noise", noise)
    centres, groups = np.zeros((classes, i)), []
    for level, nodes in enumerate(np.cumprod(widths)):
        groups.append(leaf // (classes // nodes))
        centres += scale**level * rng.standard_normal((nodes, i))[groups[-1]]
    x, y = [], []
    for n in _sample_counts(samples):
        labels = rng.permutation(np.repeat(np.arange(classes), n))
        e = rng.standard_normal((len(labels), i))
        x.append((centres[labels] + sigma * e).astype(np.float32))
        y.append(labels)
    dataset = Dataset("label-tree", x[0], y[0], x[1], y[1], classes)
    return Known(dataset, {"centres": centres, "groups": np.array(groups)})


def _sample_counts(samples: Sizes) -> Sizes:
    if len(samples) != 2:
        raise UsageError(f"samples are not usable: got {samples!r}, expected (train, test) counts.")
    return whole_number("training samples", samples[0], 1), whole_number("test samples", samples[1], 1)
