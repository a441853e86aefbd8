"""Dynamic sparse training compared: who moves connections by lot, by gradient, by layer, and who by none.

LeNet-300-100 on the digits, sparse from the first step to the last. `minisparse compare dynamic --data-dir
DIR` is a comparison on MNIST. Writes dynamic_sparse_training.png.

U. Evci et al. Rigging the Lottery. ICML 2020. arXiv:1911.11134, figure 2; M. Lasby et al. ICLR 2024.
arXiv:2305.02299, figure 3.
"""

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments.plots import accuracy_against_sparsity
from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import summarise

TRAINING = {"epochs": 15, "batch": 32, "rate": "cosine:lr=0.1"}
OFTEN = (("every", "20"),)
METHODS = {
    "random": (("allocation", "erk"),),
    "set": (("allocation", "erk"),),
    "deep-r": (),
    "rigl": OFTEN,
    "srigl": OFTEN,
    "granet": OFTEN,
    "magnitude": (),
}

specs = []
for seed in range(3):
    specs.append(RunSpec("dense", seed=seed, **TRAINING))
    for method, settings in METHODS.items():
        for sparsity in ("0.9", "0.95", "0.98", "0.99"):
            specs.append(RunSpec(method, (*settings, ("sparsity", sparsity)), seed=seed, **TRAINING))

outcomes = [execute(spec) for spec in specs]
for row in summarise(outcomes):
    print(
        f"{row.method:10} {row.sparsity:6.1%} sparse: {100 * row.accuracy:5.1f} +- {100 * row.spread:4.1f} %"
    )
accuracy_against_sparsity(outcomes).savefig("dynamic_sparse_training.png", dpi=110)
