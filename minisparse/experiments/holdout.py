"""Validation samples: a part of the training data that is neither trained nor tested on."""

from __future__ import annotations

from dataclasses import replace

from minisparse.data.dataset import Dataset
from minisparse.errors import UsageError
from minisparse.nn.param import Array
from minisparse.rng import generator
from minisparse.sparsity.count import check_share


def hold_out(data: Dataset, share: float, seed: int) -> tuple[Dataset, Array, Array]:
    """(the data set without them, samples x, their targets) for a random share of the training samples.

    round-half-even(share n) samples, drawn by `seed`; UsageError unless at least one is on each side.
    """
    count = round(check_share(share, "validation share") * data.n_train)
    if not 0 < count < data.n_train:
        raise UsageError(
            f"validation share: got {share}, expected one that leaves samples to train on and to validate on."
        )
    order = generator(seed, "validation").permutation(data.n_train)
    held, rest = order[:count], order[count:]
    fit = replace(data, train_x=data.train_x[rest], train_y=data.train_y[rest])
    return fit, data.train_x[held], data.train_y[held]
