"""Hypothesis strategies: shapes, masks, tied values, windows with images, and random networks.

`SETTINGS` is for every property test of the suite: no deadline (a kernel may be compiled in the first
example) and examples that are the same in each run.
"""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from minisparse.errors import ShapeError
from minisparse.nn.window import Window
from tests.architectures import EVERYTHING, Problem, Space, random_problem

Array = np.ndarray
SETTINGS = settings(deadline=None, derandomize=True, max_examples=60, database=None)

seeds = st.integers(0, 2**32 - 1)
generators = seeds.map(np.random.default_rng)


def shapes(least: int = 1, most: int = 17) -> st.SearchStrategy[tuple[int, int]]:
    """Pairs of integers, such as the (out, in) of a weight."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int] | None = None) -> Array:
    """Boolean masks, the extremes often: nothing, everything, one entry, empty rows and columns."""
    shape = draw(shapes()) if shape is None else shape
    kind = draw(st.sampled_from(["random", "random", "none", "all", "one", "rows", "columns"]))
    rng = draw(generators)
    mask = rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    if kind in ("none", "all"):
        mask[...] = kind == "all"
    elif kind == "one":
        mask[...] = False
        mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
    elif kind == "rows":
        mask[draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=3))] = False
    elif kind == "columns":
        mask[:, draw(st.lists(st.integers(0, shape[1] - 1), min_size=1, max_size=3))] = False
    return mask


@st.composite
def tied(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """Arrays of few different values, so that equal ones are common; both zeros occur."""
    levels = draw(st.sampled_from([[0.0], [1.0, -1.0], [0.0, -0.0, 1.0], [-2.0, 0.5, 0.5, 3.0, 1e-300]]))
    rng = draw(generators)
    return rng.choice(np.array(levels), shape).astype(dtype)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Rectangular kernels of 1 to 5, strides 1 to 3, padding 0 to 2, dilation 1 to 3."""
    return Window.of(draw(shapes(1, 5)), draw(shapes(1, 3)), draw(shapes(0, 2)), draw(shapes(1, 3)))


@st.composite
def windows_and_sizes(draw: st.DrawFn) -> tuple[Window, tuple[int, int]]:
    """A window and the (h, w) of an image it fits into, most often only just."""
    window = draw(windows())
    size = []
    for k, p, d in zip(window.kernel, window.padding, window.dilation, strict=True):
        least = max(1, d * (k - 1) + 1 - 2 * p)
        size.append(draw(st.integers(least, least + 4)))
    return window, (size[0], size[1])


def fits(window: Window, size: tuple[int, int]) -> bool:
    """Whether the kernel fits into the padded image."""
    try:
        window.output_size(size)
    except ShapeError:
        return False
    return True


@st.composite
def problems(draw: st.DrawFn, space: Space = EVERYTHING) -> Problem:
    """A random network of `space` with a loss, smooth samples and targets."""
    return random_problem(draw(generators), space)
