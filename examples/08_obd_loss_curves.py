"""Optimal Brain Damage's figure: the loss as ever more weights are deleted, forecast and true.

A trained ReLU perceptron loses 5 to 95 % of its weights in the order of three criteria; nothing is
retrained. The forecast, the sum of h w^2 / 2, stands beside the true loss of OBD: it holds while little is
gone, and errs where deletions meet. (With one hidden layer of tanh units magnitude is nearly as good.)
Writes obd_loss_curves.png.

Y. LeCun, J. S. Denker, S. A. Solla. Optimal Brain Damage. NIPS 1989, figure 2.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minisparse as ms
from minisparse.experiments.second_order import prune_now
from minisparse.methods.saliency.obd import obd_saliency
from minisparse.nn import CrossEntropy
from minisparse.nn.lr import Cosine
from minisparse.sparsity.schedule import OneShot
from minisparse.training.run import evaluate

SPARSITIES = np.round(np.arange(0.05, 0.96, 0.05), 2)

data = ms.data.load("digits").astype(np.float64)
x, target, loss = data.train_x, data.train_y, CrossEntropy()
network = ms.models.build("mlp:64-48-32-10", data, seed=0).astype(np.float64)
network = ms.train(network, data, ms.Dense(), epochs=30, rate=Cosine(0.1)).network
network = ms.train(network, data, ms.Dense(), epochs=400, batch=len(x), rate=Cosine(0.5)).network

now = OneShot(0.0)
methods = {
    "magnitude": lambda s: ms.Magnitude(s, now),
    "OBD": lambda s: ms.OBD(s, now, diagonal="exact", samples=len(x)),
    "random": lambda s: ms.Random(s, now),
}
diagonal = ms.curvature.hessian_diagonal(network, loss, x, target, mode="exact")
before = evaluate(network, loss, x, target)[0]
found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
for name, method in methods.items():
    for s in SPARSITIES:
        pruned = prune_now(network, data, method(float(s)), seed=0)
        forecast = before
        for layer, old in network.prunable().items():
            absent = ~pruned.prunable()[layer].weight.mask
            forecast += obd_saliency(old.weight.dense(), diagonal[f"{layer}.weight"])[absent].sum()
        true = evaluate(pruned, loss, x, target)[0]
        found[name].append((true, forecast, evaluate(pruned, loss, data.test_x, data.test_y)[1]))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
for color, (name, rows) in zip(("tab:blue", "tab:red", "tab:gray"), found.items(), strict=True):
    true, forecast, accuracy = np.array(rows).T
    left.semilogy(100 * SPARSITIES, true, color=color, label=name)
    if name == "OBD":
        left.semilogy(100 * SPARSITIES, forecast, "--", color=color, label="OBD, forecast")
    right.plot(100 * SPARSITIES, 100 * accuracy, color=color, label=name)
    print(f"{name:10} loss with half of the weights gone {true[9]:.4f} (forecast of OBD: {forecast[9]:.4f})")
left.axhline(before, color="black", linewidth=0.8)
left.set(xlabel="weights deleted (%)", ylabel="training loss", title="No retraining: forecast and truth")
right.set(xlabel="weights deleted (%)", ylabel="test accuracy (%)", title="The same networks on the test set")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
figure.savefig("obd_loss_curves.png", dpi=120)
