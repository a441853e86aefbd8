"""What a pattern costs: N:M, blocks and whole rows against single weights, at the same sparsity.

A perceptron on the digits, pruned gradually by magnitude; SR-STE trains N:M from the first step. The coarser
the pattern, the less freedom there is to keep what matters. Writes nm_against_unstructured.png.

A. Mishra et al. Accelerating Sparse Deep Neural Networks. arXiv:2104.08378; A. Zhou et al. ICLR 2021.
arXiv:2102.04010.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minisparse as ms
from minisparse.nn.lr import Cosine
from minisparse.sparsity.allocation import Uniform
from minisparse.sparsity.pattern import NM, Block
from minisparse.sparsity.schedule import Cubic

LEVELS, SEEDS = {0.5: (2, 4), 0.75: (1, 4), 0.875: (1, 8), 0.9375: (1, 16)}, range(3)
data = ms.data.load("digits")
even = Uniform()
METHODS = {
    "single weights, global": lambda s, n, m: ms.Magnitude(s),
    "single weights, uniform": lambda s, n, m: ms.Magnitude(s, allocation=even),
    "N:M": lambda s, n, m: ms.Magnitude(s, allocation=even, pattern=NM(n, m)),
    "N:M throughout (SR-STE)": lambda s, n, m: ms.SRSTE(keep=n, of=m),
    "blocks of 4 x 4": lambda s, n, m: ms.Magnitude(s, allocation=even, pattern=Block(4, 4)),
    "whole rows": lambda s, n, m: ms.FilterNorm(s, schedule=Cubic()),
}

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for place, (name, method) in enumerate(METHODS.items()):
    means, spreads, asked = [], [], []
    for s, (n, m) in LEVELS.items():
        runs = [
            ms.train(
                # widths that 16 divides, so that every column belongs to a group
                ms.models.build("mlp:64-304-112-10", data, seed=seed), data, method(s, n, m),
                epochs=15, rate=Cosine(0.1), seed=seed,
            )
            for seed in SEEDS
        ]  # fmt: skip
        accuracy = 100 * np.array([run.accuracy for run in runs])
        means.append(accuracy.mean())
        spreads.append(accuracy.std(ddof=1))
        asked.append(np.mean([run.sparsity for run in runs]))
        print(f"{name:24} {n}:{m:<2} {asked[-1]:6.2%} sparse: {means[-1]:5.1f} +- {spreads[-1]:.1f} %")
    shifted = (1 - np.array(asked)) * 1.03 ** (place - 2.5)
    axes.errorbar(shifted, means, spreads, marker="osD^vP"[place], capsize=2, label=name)
axes.set(xscale="log", xlim=(0.62, 0.05), ylabel="test accuracy (%)", xlabel="sparsity (and N:M)")
axes.set_xticks([1 - s for s in LEVELS], [f"{s:.4g}\n{n}:{m}" for s, (n, m) in LEVELS.items()])
axes.minorticks_off()
axes.set_title("Digits, 64-304-112-10, mean and spread over 3 seeds")
axes.legend(loc="lower left")
figure.savefig("nm_against_unstructured.png", dpi=110)
