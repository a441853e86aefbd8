"""One weight in two hundred: a fixed cosine transform plus a sparse matrix, against the sparse matrix alone.

At extreme sparsity a plain sparse network has units without inputs and learns nothing; with the transform,
which costs no storage, every unit sees all inputs from the start. LeNet-300-100 on the digits, static
supports and supports that move. Writes dct_plus_sparse.png.

I. Price, J. Tanner. Dense for the Price of Sparse. ICML 2021. arXiv:2102.07655, figure 3.
"""

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments.plots import accuracy_against_sparsity
from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import summarise

TRAINING = {"epochs": 15, "batch": 32, "rate": "cosine:lr=0.05"}
METHODS = {
    "random": (("allocation", "erk"),),
    "rigl": (("every", "20"),),
    "dctps": (),
    "dctps, moving": (("support", "rigl"), ("every", "20")),
}

specs = []
for seed in range(2):
    specs.append(RunSpec("dense", seed=seed, **TRAINING))
    for name, settings in METHODS.items():
        for sparsity in ("0.95", "0.98", "0.99", "0.995", "0.998"):
            chosen = (*settings, ("sparsity", sparsity))
            specs.append(RunSpec(name.partition(",")[0], chosen, seed=seed, **TRAINING))

outcomes = [execute(spec) for spec in specs]
for row in summarise(outcomes):
    print(f"{row.method} {row.settings:24} {row.sparsity_asked:6.1%} sparse: {100 * row.accuracy:5.1f} +- "
          f"{100 * row.spread:4.1f} %")  # fmt: skip
accuracy_against_sparsity(outcomes).savefig("dct_plus_sparse.png", dpi=110)
