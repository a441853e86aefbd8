"""Does it help to move the connections? RigL against the very mask it starts from.

Both train sparse from the first step with the same seed, the same mask and the same number of weights;
RigL exchanges some of them now and then. Writes rigl_against_static.png.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minisparse as ms
from minisparse.nn.lr import Cosine

SPARSITIES = (0.9, 0.95, 0.98, 0.99)
SEEDS = (0, 1, 2)

data = ms.data.load("digits")


def accuracy(method: ms.Method, seed: int) -> float:
    network = ms.models.build("lenet-300-100", data, seed=seed)
    return ms.train(network, data, method, epochs=20, rate=Cosine(lr=0.2), seed=seed).accuracy


figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
methods = {
    "RigL": lambda s: ms.RigL(sparsity=s, every=20),
    "static random mask": lambda s: ms.Random(sparsity=s),
}
for label, method in methods.items():
    results = np.array([[accuracy(method(s), seed) for seed in SEEDS] for s in SPARSITIES])
    mean, spread = results.mean(axis=1), results.std(axis=1, ddof=1)
    axes.errorbar(SPARSITIES, mean, spread, marker="o", capsize=3, label=label)
    print(
        label,
        " ".join(f"{s:.2f}: {m:.3f}+-{d:.3f}" for s, m, d in zip(SPARSITIES, mean, spread, strict=True)),
    )
axes.set(xlabel="sparsity", ylabel="test accuracy, mean over 3 seeds", title="Digits, LeNet-300-100")
axes.legend()
figure.savefig("rigl_against_static.png", dpi=120)
