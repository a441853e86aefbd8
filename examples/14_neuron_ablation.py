"""Neurons without work: RigL empties some one connection at a time, SRigL ablates them and says so.

LeNet-300-100 on the digits at rising sparsity: the share of hidden neurons that still have inputs, and the
accuracy with and without ablation. Without it every neuron is held at the same number of inputs, which at
high sparsity is one or two. Writes neuron_ablation.png.

M. Lasby et al. Dynamic Sparse Training with Structured Sparsity. ICLR 2024. arXiv:2305.02299, figures 3b and
9.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minisparse as ms
from minisparse.nn.lr import Cosine
from minisparse.sparsity.allocation import ERK
from minisparse.sparsity.measure import dead_units

SPARSITIES, SEEDS = (0.8, 0.9, 0.95, 0.98, 0.99), (0, 1, 2)
METHODS = {
    "RigL": lambda s: ms.RigL(s, every=20),
    "SRigL, no ablation": lambda s: ms.SRigL(s, every=20, gamma=0.0),
    "SRigL, gamma = 0.3": lambda s: ms.SRigL(s, every=20, gamma=0.3),
    "SRigL, gamma = 0.9": lambda s: ms.SRigL(s, every=20, gamma=0.9),
    "static": lambda s: ms.Random(s, allocation=ERK()),
}
data = ms.data.load("digits")


def alive(network: ms.nn.Network) -> float:
    """Share of hidden neurons that have an input."""
    masks = [layer.weight.mask for layer in network.prunable().values()][:-1]
    return 1 - np.concatenate([dead_units(mask)[1] for mask in masks]).mean()


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
for name, method in METHODS.items():
    found = []
    for s in SPARSITIES:
        for seed in SEEDS:
            network = ms.models.build("lenet-300-100", data, seed=seed)
            run = ms.train(network, data, method(s), epochs=15, batch=32, rate=Cosine(0.1), seed=seed)
            found.append((run.accuracy, alive(run.network)))
    accuracy, living = 100 * np.array(found).reshape(len(SPARSITIES), len(SEEDS), 2).transpose(2, 0, 1)
    density = [1 - s for s in SPARSITIES]
    left.errorbar(density, living.mean(axis=1), living.std(axis=1, ddof=1), marker="o", capsize=2, label=name)
    right.errorbar(density, accuracy.mean(axis=1), accuracy.std(axis=1, ddof=1), marker="o", capsize=2)
    for s, a, b in zip(SPARSITIES, living.mean(axis=1), accuracy.mean(axis=1), strict=True):
        print(f"{name:20} {s:4.0%} sparse: {a:5.1f} % of the neurons alive, accuracy {b:5.1f} %")
for axes in (left, right):
    axes.set(xscale="log", xlabel="sparsity", xlim=(0.25, 0.008))
    axes.set_xticks(density, [f"{s:.0%}" for s in SPARSITIES])
    axes.minorticks_off()
left.set(title="Hidden neurons with inputs (%)")
right.set(title="Test accuracy (%)")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
figure.savefig("neuron_ablation.png", dpi=110)
