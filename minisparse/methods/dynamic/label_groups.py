"""Meta-classes: classes of like samples put together, in groups of equal size.

Y. Prabhu, A. Kag, S. Harsola, R. Agrawal, M. Varma. Parabel: Partitioned Label Trees for Extreme
Classification with Application to Dynamic Search Advertising. WWW 2018.

A class is represented by the mean of its training samples. A set of classes that is to become g groups is
split in two, for floor(g / 2) groups and for the others, by 2-means with parts of given sizes:

    a_c = |f_c - m_2|^2 - |f_c - m_1|^2,   part 1 = the n_1 classes of largest a_c         (1)
    m_1, m_2 = the means of the parts                                                      (2)

repeated until nothing changes, and so on within the parts. Sizes of groups differ by one at most.

Departure: Parabel compares directions (spherical 2-means of sparse text features); here distances count.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from minisparse.nn.param import Array

ROUNDS = 50


def class_means(x: Array, labels: Array, classes: int) -> Array:
    """(classes, i) float64 mean of the samples of each class, 0 where there is none; x (n, ...)."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    total = np.zeros((classes, flat.shape[1]))
    np.add.at(total, labels, flat)
    return total / np.maximum(np.bincount(labels, minlength=classes), 1)[:, None]


def halves(features: Array, first: int, rng: Generator) -> Array:
    """Who is in part 1 (classes,) bool, `first` of them, by (1) and (2) from two classes drawn at random."""
    means = features[rng.permutation(len(features))[:2]]
    part = np.zeros(len(features), dtype=bool)
    for _ in range(ROUNDS):
        a = 2 * features @ (means[0] - means[1])  # (1) but for a term that all classes have in common
        now = np.zeros(len(features), dtype=bool)
        now[np.argsort(-a, kind="stable")[:first]] = True
        if (now == part).all():
            break
        part, means = now, np.stack([features[now].mean(axis=0), features[~now].mean(axis=0)])
    return part


def label_groups(features: Array, groups: int, rng: Generator) -> Array:
    """(classes,) number of each class's group, 0 <= g < groups, for 1 <= groups <= classes."""
    found = np.zeros(len(features), dtype=np.int64)
    waiting = [(np.arange(len(features)), 0, groups)]
    while waiting:
        members, number, count = waiting.pop()
        if count == 1:
            found[members] = number
            continue
        low = count // 2
        part = halves(features[members], len(members) * low // count, rng)
        waiting += [(members[part], number, low), (members[~part], number + low, count - low)]
    return found
