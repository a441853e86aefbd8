"""Quadratic problems with known minima: what second-order methods claim, by other means."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.random import Generator

Array = np.ndarray


def spd(n: int, rng: Generator, ridge: float = 0.1) -> Array:
    """A random positive definite matrix (n, n) with correlated coordinates."""
    q = rng.standard_normal((n, n)) * rng.uniform(0.3, 2, n)
    return q.T @ q / n + ridge * np.eye(n)


def cost(h: Array, u: Array) -> float:
    """u^T H u / 2."""
    return float(u @ h @ u) / 2


def constrained(h: Array, w: Array, at: Array) -> Array:
    """The u of least u^T H u / 2 with u = -w at the indices `at`, from its Karush-Kuhn-Tucker system."""
    n, k = len(w), len(at)
    e = np.zeros((n, k))
    e[at, np.arange(k)] = 1
    system = np.block([[h, e], [e.T, np.zeros((k, k))]])
    return np.linalg.solve(system, np.concatenate([np.zeros(n), -w[at]]))[:n]


def best_rise(h: Array, w: Array, count: int) -> tuple[float, tuple[int, ...]]:
    """Least rise over all sets of `count` weights set to zero, by trying them all, and the set."""
    sets = combinations(range(len(w)), count)
    return min((cost(h, constrained(h, w, np.array(s, dtype=int))), s) for s in sets)


def greedy(h: Array, w: Array, count: int) -> tuple[list[int], Array]:
    """(order, values) of deleting one weight at a time, each time solving for every candidate anew."""
    gone: list[int] = []
    for _ in range(count):
        left = [q for q in range(len(w)) if q not in gone]
        gone.append(min(left, key=lambda q: cost(h, constrained(h, w, np.array([*gone, q])))))
    values = w + constrained(h, w, np.array(gone))
    values[gone] = 0
    return gone, values
